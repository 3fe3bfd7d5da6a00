//! The resumable byte stream of a tunnel: a machine without I/O.
//!
//! Bytes written are numbered and kept until the peer has acknowledged them, so that a new carrier goes on exactly where the old one was
//! lost. The machine turns `write` into frames to be sent (`output`, `sent`) and received plaintext into payload (`input`, `delivered`).
//! Frames are those of ARCHITECTURE.md, "Tunnel".

mod frame;
mod replay;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::time::{Duration, Instant};

use frame::{Decoder, Item};
pub use frame::{HELLO_BYTES, Hello, Refusal, TunnelId};
use replay::Replay;

/// Memory for bytes that the peer has not acknowledged, per direction.
pub const MAX_REPLAY: usize = 4 << 20;
/// Received bytes after which an acknowledgement is sent at once.
pub const ACK_EVERY: u64 = (MAX_REPLAY / 4) as u64;
/// Received bytes after which one goes along with data: alone it costs a message on every leg.
pub const ACK_ALONG: u64 = ACK_EVERY / 4;
/// Longest time that received bytes stay unacknowledged, so that an idle peer keeps no replay memory.
pub const ACK_DELAY: Duration = Duration::from_millis(75);
/// A carrier that acknowledges nothing for this long, though bytes are under way, is lost.
pub const ACK_PATIENCE: Duration = Duration::from_secs(10);

/// The peer broke the protocol: the carrier ends, and so does the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tunnel frame violates the protocol: {0}")]
pub struct Violation(pub &'static str);

/// What the front of the received plaintext holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Everything was consumed; more bytes are needed.
    More,
    /// `len` payload bytes start at `skip`; take some of them and say so with `delivered`.
    Data { skip: usize, len: usize },
    /// In-band end.
    Close(u8),
    /// The connector does not resume this tunnel.
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Detached,
    /// HELLO is sent; nothing but the answer may come, and on a resumption nothing may be sent before it.
    Greeting,
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    Wanted(u8),
    Sent(u8),
}

/// One end of a resumable stream.
#[derive(Debug)]
pub struct Machine {
    tunnel: TunnelId,
    epoch: u32,
    carrier: Carrier,
    closing: Closing,
    closed: bool,
    decoder: Decoder,
    received: u64,
    acknowledged: u64,
    ack_at: Option<Instant>,
    replay: Replay,
    waiting_since: Option<Instant>,
    control: Vec<u8>,
}

impl Machine {
    /// The client's end; `attach` starts its first carrier.
    pub fn client(tunnel: TunnelId) -> Self {
        Self {
            tunnel,
            epoch: 0,
            carrier: Carrier::Detached,
            closing: Closing::No,
            closed: false,
            decoder: Decoder::new(),
            received: 0,
            acknowledged: 0,
            ack_at: None,
            replay: Replay::new(),
            waiting_since: None,
            control: Vec::new(),
        }
    }

    /// The connector's end, made by the first HELLO of a tunnel it does not know. A HELLO that resumes is refused: nothing is left to resume.
    pub fn accept(hello: &Hello) -> Result<Self, Refusal> {
        if hello.epoch != 1 || hello.received != 0 {
            return Err(Refusal::UnknownTunnel);
        }
        let mut machine = Self::client(hello.tunnel);
        machine.epoch = 1;
        machine.greet(Carrier::Open);
        Ok(machine)
    }

    /// Client: begin the next epoch on a fresh carrier. `None` when there are no epochs left.
    pub fn attach(&mut self) -> Option<u32> {
        self.detach();
        self.epoch = self.epoch.checked_add(1)?;
        self.greet(Carrier::Greeting);
        Some(self.epoch)
    }

    /// Connector: a newer carrier of this tunnel; the older one is fenced by this call.
    pub fn resume(&mut self, hello: &Hello) -> Result<(), Refusal> {
        if hello.tunnel != self.tunnel || !self.replay.holds(hello.received) {
            return Err(Refusal::UnknownTunnel);
        }
        if hello.epoch <= self.epoch {
            return Err(Refusal::StaleEpoch);
        }
        self.detach();
        self.epoch = hello.epoch;
        self.replay.rewind(hello.received);
        self.greet(Carrier::Open);
        Ok(())
    }

    fn greet(&mut self, carrier: Carrier) {
        let hello = Hello { tunnel: self.tunnel, epoch: self.epoch, received: self.received };
        hello.encode(&mut self.control);
        // HELLO says what was received: it is an acknowledgement.
        self.acknowledged = self.received;
        self.ack_at = None;
        self.carrier = carrier;
    }

    /// The carrier is gone. What was not acknowledged will be sent again on the next one.
    pub fn detach(&mut self) {
        self.carrier = Carrier::Detached;
        self.decoder = Decoder::new();
        self.control.clear();
        self.replay.abandon();
        self.ack_at = None;
        self.waiting_since = None;
        if let Closing::Sent(code) = self.closing {
            self.closing = Closing::Wanted(code);
        }
    }

    pub fn tunnel(&self) -> TunnelId {
        self.tunnel
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn is_attached(&self) -> bool {
        self.carrier != Carrier::Detached
    }

    /// The peer's HELLO has come.
    pub fn is_open(&self) -> bool {
        self.carrier == Carrier::Open
    }

    /// Take as many bytes as the replay buffer has room for; 0 when it is full or the stream is closing.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        if self.closing != Closing::No || self.closed {
            return 0;
        }
        self.replay.write(slices)
    }

    /// End in band, after everything written before. The first code counts.
    pub fn close(&mut self, code: u8) {
        if self.closing == Closing::No {
            self.closing = Closing::Wanted(code);
        }
    }

    /// CLOSE went out on the present carrier, and all before it.
    pub fn close_is_sent(&self) -> bool {
        matches!(self.closing, Closing::Sent(_)) && self.control.is_empty()
    }

    /// The next plaintext bytes to encrypt; empty when there are none. Call `sent` with how many were taken.
    pub fn output(&mut self) -> &[u8] {
        if self.carrier == Carrier::Detached {
            return &[];
        }
        // Before the answer to a resumption the peer's offset is unknown; on the first carrier it is zero.
        let may_send = self.carrier == Carrier::Open || self.epoch == 1;
        if self.carrier == Carrier::Open
            && self.received - self.acknowledged >= ACK_ALONG
            && self.replay.at_frame_start()
            && !self.replay.is_sent()
        {
            self.send_ack();
        }
        if may_send
            && self.control.is_empty()
            && self.replay.is_sent()
            && let Closing::Wanted(code) = self.closing
        {
            frame::encode_close(code, &mut self.control);
            self.closing = Closing::Sent(code);
        }
        if !self.control.is_empty() && self.replay.at_frame_start() {
            return &self.control;
        }
        if !may_send {
            return &[];
        }
        self.replay.output(self.control.is_empty())
    }

    /// `count` bytes of the last `output` were encrypted for the present carrier.
    pub fn sent(&mut self, count: usize, now: Instant) {
        if !self.control.is_empty() && self.replay.at_frame_start() {
            self.control.drain(..count.min(self.control.len()));
            return;
        }
        self.replay.sent(count);
        self.waiting_since.get_or_insert(now);
    }

    /// Look at the front of the received plaintext: how many bytes were consumed, and what comes next.
    ///
    /// For `Data` the payload begins at `skip` (= consumed) and stays the caller's until `delivered`.
    pub fn input(&mut self, bytes: &[u8], now: Instant) -> Result<(usize, Input), Violation> {
        let mut at = 0;
        loop {
            if self.closed {
                return Err(Violation("bytes after CLOSE"));
            }
            let (used, item) = self.decoder.next(bytes.get(at..).unwrap_or_default())?;
            at += used;
            match item {
                None => return Ok((at, Input::More)),
                Some(Item::Hello(hello)) => self.greeted(&hello)?,
                Some(_) if self.carrier != Carrier::Open && !matches!(item, Some(Item::Refuse(_))) => {
                    return Err(Violation("HELLO must come first"));
                }
                Some(Item::Data(len)) => return Ok((at, Input::Data { skip: at, len })),
                Some(Item::Ack(offset)) => self.acknowledge(offset, now)?,
                Some(Item::Close(code)) => {
                    self.closed = true;
                    return Ok((at, Input::Close(code)));
                }
                Some(Item::Refuse(refusal)) if self.carrier == Carrier::Greeting => return Ok((at, Input::Refused(refusal))),
                Some(Item::Refuse(_)) => return Err(Violation("REFUSE out of place")),
            }
        }
    }

    fn greeted(&mut self, hello: &Hello) -> Result<(), Violation> {
        if self.carrier != Carrier::Greeting {
            return Err(Violation("HELLO out of place"));
        }
        if hello.tunnel != self.tunnel || hello.epoch != self.epoch {
            return Err(Violation("HELLO answers another tunnel or epoch"));
        }
        if self.epoch == 1 {
            // The first flight is already under way.
            if hello.received != 0 {
                return Err(Violation("HELLO acknowledges bytes that were never sent"));
            }
        } else {
            if !self.replay.holds(hello.received) {
                return Err(Violation("HELLO acknowledges bytes that were never sent or already gone"));
            }
            self.replay.rewind(hello.received);
        }
        self.carrier = Carrier::Open;
        Ok(())
    }

    fn acknowledge(&mut self, offset: u64, now: Instant) -> Result<(), Violation> {
        if !self.replay.acknowledge(offset) {
            return Err(Violation("ACK of bytes that were never sent"));
        }
        self.waiting_since = (!self.replay.is_acknowledged()).then_some(now);
        Ok(())
    }

    /// `count` payload bytes of the last `Data` were handed on; only these are ever acknowledged.
    pub fn delivered(&mut self, count: usize, now: Instant) {
        self.decoder.delivered(count);
        self.received += count as u64;
        if self.carrier != Carrier::Open {
            return;
        }
        if self.received - self.acknowledged >= ACK_EVERY {
            self.send_ack();
        } else {
            self.ack_at.get_or_insert(now + ACK_DELAY);
        }
    }

    fn send_ack(&mut self) {
        frame::encode_ack(self.received, &mut self.control);
        self.acknowledged = self.received;
        self.ack_at = None;
    }

    /// When `tick` wants to be called, if at all.
    pub fn deadline(&self) -> Option<Instant> {
        let patience = self.waiting_since.map(|since| since + ACK_PATIENCE);
        match (self.ack_at, patience) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Time has passed. False: the carrier is silent and must be given up.
    #[must_use]
    pub fn tick(&mut self, now: Instant) -> bool {
        if self.ack_at.is_some_and(|at| at <= now) {
            self.send_ack();
        }
        self.waiting_since.is_none_or(|since| now < since + ACK_PATIENCE)
    }

    /// Payload bytes handed on so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of memory held for replay.
    pub fn replay_memory(&self) -> usize {
        self.replay.memory()
    }

    pub fn has_room(&self) -> bool {
        self.replay.has_room()
    }
}
