//! Access records: one JSON line per event, numbered per connector (ARCHITECTURE.md, "Access records").
//!
//! [`Spool`] is the connector's buffer on disk, [`Journal`] the exchange's log; [`Batch`] is what travels between the two.

mod format;
mod journal;
mod spool;

use bytes::Bytes;

use crate::code::Code;
use crate::frame::LinkFrame;
use crate::host::Protocol;
use crate::ids::Id;
use crate::ticket::Ticket;

pub use journal::{Journal, Written};
pub use spool::{Spool, SpoolStatus};

/// Most payload of one batch on a link, bytes (one longer line travels alone).
pub const MAX_BATCH_BYTES: usize = 256 << 10;
/// Longest line, bytes; bounded by the bounds of tickets and names.
pub const MAX_LINE_BYTES: usize = 128 << 10;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Open,
    Close,
    Refused,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Open => "open",
            Kind::Close => "close",
            Kind::Refused => "refused",
        }
    }
}

/// Time that each stage of a flow's opening took, µs; 0 = not reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    pub ticket_us: u64,
    pub resolve_us: u64,
    pub dial_us: u64,
    pub first_byte_us: u64,
}

/// One record, borrowed from whoever counts the flow. Number and connector are the spool's to add.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Unix milliseconds.
    pub at: u64,
    pub kind: Kind,
    pub flow: Id,
    /// The session's newest ticket: session, principal, segment and rules come from it. None when none was accepted.
    pub ticket: Option<&'a Ticket>,
    /// The client that the tunnel proved.
    pub device: Id,
    pub protocol: Protocol,
    /// The name asked for, never what it resolved to.
    pub host: &'a str,
    pub port: u16,
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
    pub stages: Stages,
    pub duration_us: u64,
    pub code: Code,
    /// SHA-256 of the client's leaf, hex.
    pub leaf: &'a str,
}

/// Consecutive records `first ..= last`, each one line ended by `\n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    first: u64,
    count: u32,
    lines: Bytes,
}

impl Batch {
    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// 0 for an empty batch at the very beginning.
    pub fn last(&self) -> u64 {
        (self.first + u64::from(self.count)).saturating_sub(1)
    }

    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// As it came off a link. Numbers are checked line by line, so that what is deduplicated by number is numbered so.
    ///
    /// Errors: `protocol_error`.
    pub fn new(first: u64, count: u32, lines: Bytes) -> Result<Batch, Code> {
        Batch::of_lines(first, count, lines).ok_or(Code::ProtocolError)
    }

    /// The frame that carries it.
    pub fn into_frame(self) -> LinkFrame {
        LinkFrame::Records { first: self.first, count: self.count, lines: self.lines }
    }

    fn of_lines(first: u64, count: u32, lines: Bytes) -> Option<Batch> {
        let mut number = first;
        let mut seen = 0u32;
        std::str::from_utf8(&lines).ok()?;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if line.len() > MAX_LINE_BYTES || !line.ends_with(b"}\n") || format::number_of(line) != Some(number) {
                return None;
            }
            seen = seen.checked_add(1)?;
            number = number.checked_add(1)?;
        }
        ((1..1 << 53).contains(&first) && seen == count && count >= 1).then_some(Batch { first, count, lines })
    }

    /// Without the records up to `last`, which are known already.
    fn after(mut self, last: u64) -> Batch {
        while self.count > 0 && self.first <= last {
            let end = self.lines.iter().position(|byte| *byte == b'\n').map_or(self.lines.len(), |at| at + 1);
            self.lines = self.lines.slice(end..);
            self.first += 1;
            self.count -= 1;
        }
        self
    }
}

#[cfg(test)]
mod tests;
