//! The inner TLS 1.3 of a tunnel over a carrier, raw or wrapped.
//!
//! Reads are large and opened where they lie; writes are sealed straight into the output buffer. Buffers are borrowed from the pool
//! only while bytes are in flight, so an idle tunnel holds none.

mod handshake;
mod record;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::carrier::Carried;
use crate::code::Code;
use crate::pool::{Buffer, LARGE};
use crate::tls::{PeerAlpn, PeerIdentity};
pub use handshake::HANDSHAKE_DEADLINE;
use record::{BadRecord, Direction, HEADER, Kind, record_length};
pub use record::{MAX_PLAINTEXT, OVERHEAD};

/// Records without application data that a peer may send in a row: key updates and empty records cost work and carry nothing.
const MAX_IDLE_RECORDS: u32 = 32;
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Keys {
    fn update_tx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Keys::Client(kernel) => kernel.update_tx_secret(),
            Keys::Server(kernel) => kernel.update_tx_secret(),
        }
    }

    fn update_rx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Keys::Client(kernel) => kernel.update_rx_secret(),
            Keys::Server(kernel) => kernel.update_rx_secret(),
        }
    }
}

/// Bytes read: `plain` is opened and not yet consumed, `next..filled` is still sealed.
struct Inbox {
    buffer: Option<Buffer>,
    plain: Range<usize>,
    next: usize,
    filled: usize,
}

/// Sealed bytes `start..end` wait for the socket.
struct Outbox {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    No,
    /// close_notify was seen.
    Cleanly,
}

/// An established inner TLS connection.
pub struct Secure {
    io: Carried,
    keys: Keys,
    rx: Direction,
    tx: Direction,
    inbox: Inbox,
    outbox: Outbox,
    ended: Ended,
    said_goodbye: bool,
    idle_records: u32,
    answer_key_update: bool,
    peer: PeerIdentity,
    alpn: PeerAlpn,
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("peer", &self.peer.id).finish_non_exhaustive()
    }
}

fn broken(error: BadRecord) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Secure {
    fn new(
        io: Carried,
        secrets: ExtractedSecrets,
        keys: Keys,
        peer: PeerIdentity,
        alpn: PeerAlpn,
        (buffer, next, filled): (Buffer, usize, usize),
    ) -> Result<Self, Code> {
        let rx = Direction::new(secrets.rx.0, &secrets.rx.1).map_err(|_| Code::Internal)?;
        let tx = Direction::new(secrets.tx.0, &secrets.tx.1).map_err(|_| Code::Internal)?;
        let mut inbox = Inbox { buffer: None, plain: 0..0, next: 0, filled: 0 };
        if next < filled {
            let mut large = Buffer::large();
            let early = buffer.get(next..filled).unwrap_or_default();
            if let Some(front) = large.get_mut(..early.len()) {
                front.copy_from_slice(early);
            }
            inbox.filled = early.len();
            inbox.buffer = Some(large);
        }
        let outbox = Outbox { buffer: None, start: 0, end: 0 };
        Ok(Self {
            io,
            keys,
            rx,
            tx,
            inbox,
            outbox,
            ended: Ended::No,
            said_goodbye: false,
            idle_records: 0,
            answer_key_update: false,
            peer,
            alpn,
        })
    }

    /// Who the peer proved to be.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    pub fn alpn(&self) -> PeerAlpn {
        self.alpn
    }

    pub fn carrier(&self) -> &Carried {
        &self.io
    }

    /// Opened bytes not yet consumed; empty only at the end of the stream (after close_notify). An end without it is an error.
    pub fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        while self.inbox.plain.is_empty() && self.ended == Ended::No {
            if !self.open_next().map_err(broken)? && self.ended == Ended::No {
                ready!(self.poll_fill(cx))?;
            }
        }
        let plain = self.inbox.plain.clone();
        Poll::Ready(Ok(self.inbox.buffer.as_ref().and_then(|buffer| buffer.get(plain)).unwrap_or_default()))
    }

    /// Whether `poll_plaintext` has more without reading from the carrier.
    pub fn has_more(&self) -> bool {
        let waiting =
            self.inbox.buffer.as_ref().and_then(|buffer| buffer.get(self.inbox.next..self.inbox.filled)).unwrap_or_default();
        !self.inbox.plain.is_empty() || matches!(record_length(waiting), Ok(Some(length)) if length <= waiting.len())
    }

    /// `count` bytes of the last `poll_plaintext` were taken.
    pub fn consume(&mut self, count: usize) {
        self.inbox.plain.start = (self.inbox.plain.start + count).min(self.inbox.plain.end);
    }

    /// Open the next whole record; false if more bytes are needed first.
    fn open_next(&mut self) -> Result<bool, BadRecord> {
        let inbox = &mut self.inbox;
        let Some(buffer) = &mut inbox.buffer else { return Ok(false) };
        let waiting = buffer.get_mut(inbox.next..inbox.filled).unwrap_or_default();
        let Some(length) = record_length(waiting)? else { return Ok(false) };
        let Some(record) = waiting.get_mut(..length) else { return Ok(false) };
        let (kind, plain) = self.rx.open(record)?;
        let at = inbox.next;
        inbox.next += length;
        let content = record.get(plain.clone()).unwrap_or_default();
        match kind {
            Kind::Data if !content.is_empty() => {
                self.idle_records = 0;
                inbox.plain = at + plain.start..at + plain.end;
                return Ok(true);
            }
            Kind::Data => {}
            Kind::Alert if content == CLOSE_NOTIFY => self.ended = Ended::Cleanly,
            Kind::Alert => return Err(BadRecord("alert")),
            Kind::Handshake => match content.split_first_chunk() {
                Some((&KEY_UPDATE, &[wanted @ (0 | 1)])) => {
                    let (sequence, secrets) = self.keys.update_rx().map_err(|_| BadRecord("key update failed"))?;
                    self.rx = Direction::new(sequence, &secrets)?;
                    self.answer_key_update |= wanted == 1;
                }
                _ => return Err(BadRecord("handshake message out of place")),
            },
        }
        self.idle_records += 1;
        if self.idle_records > MAX_IDLE_RECORDS {
            return Err(BadRecord("too many records without data"));
        }
        Ok(true)
    }

    /// Read once from the carrier. Holds a buffer afterwards only if it holds bytes.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inbox = &mut self.inbox;
        let left = inbox.filled - inbox.next;
        let mut buffer = inbox.buffer.take().unwrap_or_else(Buffer::large);
        if inbox.next > 0 {
            buffer.copy_within(inbox.next..inbox.filled, 0);
        }
        (inbox.next, inbox.filled, inbox.plain) = (0, left, 0..0);
        let mut space = ReadBuf::new(buffer.get_mut(left..).unwrap_or_default());
        let result = Pin::new(&mut self.io).poll_read(cx, &mut space);
        let count = space.filled().len();
        inbox.filled += count;
        if inbox.filled > 0 {
            inbox.buffer = Some(buffer);
        }
        ready!(result)?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes `seal` takes at once now.
    pub fn room(&self) -> usize {
        let free = LARGE - self.outbox.end;
        free.saturating_sub(free.div_ceil(MAX_PLAINTEXT + OVERHEAD) * OVERHEAD)
    }

    /// Seal as much as there is room for; how much that was. `poll_flush` sends it.
    pub fn seal(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        if self.answer_key_update || self.tx.wants_update() {
            self.update_key().map_err(broken)?;
        }
        let take = plaintext.len().min(self.room());
        for part in plaintext.get(..take).unwrap_or_default().chunks(MAX_PLAINTEXT) {
            self.seal_record(Kind::Data, part).map_err(broken)?;
        }
        Ok(take)
    }

    fn update_key(&mut self) -> Result<(), BadRecord> {
        if LARGE - self.outbox.end < KEY_UPDATE.len() + 1 + OVERHEAD {
            return Ok(()); // after the next flush
        }
        let [a, b, c, d] = KEY_UPDATE;
        self.seal_record(Kind::Handshake, &[a, b, c, d, 0])?;
        let (sequence, secrets) = self.keys.update_tx().map_err(|_| BadRecord("key update failed"))?;
        self.tx = Direction::new(sequence, &secrets)?;
        self.answer_key_update = false;
        Ok(())
    }

    fn seal_record(&mut self, kind: Kind, plaintext: &[u8]) -> Result<(), BadRecord> {
        let outbox = &mut self.outbox;
        let buffer = outbox.buffer.get_or_insert_with(Buffer::large);
        outbox.end += self.tx.seal(kind, plaintext, buffer.get_mut(outbox.end..).unwrap_or_default())?;
        Ok(())
    }

    pub fn has_unsent(&self) -> bool {
        self.outbox.start < self.outbox.end
    }

    /// Send what is sealed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outbox = &mut self.outbox;
        while let Some(buffer) = &outbox.buffer {
            let waiting = buffer.get(outbox.start..outbox.end).unwrap_or_default();
            if waiting.is_empty() {
                *outbox = Outbox { buffer: None, start: 0, end: 0 };
                break;
            }
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, waiting))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            outbox.start += count;
        }
        match &mut self.io {
            Carried::Raw(_) => Poll::Ready(Ok(())),
            wrapped => Pin::new(wrapped).poll_flush(cx),
        }
    }

    /// close_notify, then the end of the carrier's sending side.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.room() > 0 && !self.said_goodbye {
            self.seal_record(Kind::Alert, &CLOSE_NOTIFY).map_err(broken)?;
            self.said_goodbye = true;
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// For plain HTTP/2, without resumption.
impl AsyncRead for Secure {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let plain = ready!(self.poll_plaintext(cx))?;
        let count = plain.len().min(buf.remaining());
        buf.put_slice(plain.get(..count).unwrap_or_default());
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Secure {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.room() == 0 {
            ready!(Secure::poll_flush(&mut self, cx))?;
        }
        Poll::Ready(self.seal(data))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Secure::poll_flush(&mut self, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx)
    }
}

// A record's header and tag must fit beside its plaintext.
const _: () = assert!(LARGE > 2 * (MAX_PLAINTEXT + OVERHEAD) && HEADER < OVERHEAD);
