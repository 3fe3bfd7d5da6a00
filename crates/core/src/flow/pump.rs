//! Moves the bytes of one TCP flow between a local socket and an HTTP/2 stream, the same way in client and connector.
//!
//! Nothing is read before there is both something to read and room to send it, so an idle or stalled flow holds no buffer and no window.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Local;
use crate::code::Code;
use crate::dial::UNSENT;
use crate::pool::{Buffer, SMALL};

/// Reads up to this size are copied out of the borrowed buffer, so that it goes back at once.
const COPIED: usize = 4 << 10;
/// DATA frames written to the socket together.
const GATHERED: usize = 8;
/// Rounds per poll in one direction, so that one bulk flow does not hold up the others of its thread.
const ROUNDS: usize = 3;

/// Bytes moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the local socket into the tunnel.
    pub sent: u64,
    /// From the tunnel into the local socket.
    pub received: u64,
    /// From the flow's start to the first byte from the local socket; 0 if there was none.
    pub first_byte_us: u64,
}

/// Which end of the tunnel a flow is seen from: it names who has reset it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Connector,
}

impl End {
    /// The local socket failed.
    const fn local_reset(self) -> Code {
        match self {
            End::Client => Code::ClientReset,
            End::Connector => Code::ServiceReset,
        }
    }

    /// What an error of the HTTP/2 stream means.
    pub fn code_of(self, error: &h2::Error) -> Code {
        match error.reason() {
            Some(reason) if error.is_reset() => self.code_of_reason(reason),
            _ => Code::TunnelLost,
        }
    }

    const fn code_of_reason(self, reason: Reason) -> Code {
        match (self, reason) {
            (End::Connector, Reason::CONNECT_ERROR | Reason::CANCEL) => Code::ClientReset,
            (End::Client, Reason::CONNECT_ERROR) => Code::ServiceReset,
            (End::Client, Reason::CANCEL) => Code::SessionRevoked,
            _ => Code::TunnelLost,
        }
    }
}

/// One running TCP flow. Dropped unfinished, it resets both sides.
pub struct Pump {
    end: End,
    local: Local,
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Payload taken from the tunnel that the local socket has not accepted yet.
    waiting: VecDeque<Bytes>,
    sending: Half,
    receiving: Half,
    moved: Moved,
    started: Instant,
    /// The kernel takes no more than `UNSENT` ahead: since the local peer was slower than the tunnel for the first time.
    narrowed: bool,
    /// The smaller windows that this flow has seen.
    shrinks: usize,
}

/// Where the window is smaller than when this flow last looked, what it has taken may be all of it by now.
pub fn say_what_was_taken(receive: &mut RecvStream, seen: &mut usize, shrinks: usize) {
    if std::mem::replace(seen, shrinks) != shrinks {
        let _ = receive.flow_control().release_capacity(0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Open,
    /// The end was seen; what is waiting goes first.
    Ending,
    Done,
}

/// How a flow failed.
enum Fault {
    Local,
    Tunnel(Code),
}

impl Pump {
    pub fn new(end: End, local: Local, send: SendStream<Bytes>, receive: RecvStream, early: Bytes) -> Self {
        let mut pump = Self {
            end,
            local,
            send,
            receive,
            waiting: VecDeque::new(),
            sending: Half::Open,
            receiving: Half::Open,
            moved: Moved::default(),
            started: Instant::now(),
            narrowed: false,
            shrinks: 0,
        };
        if !early.is_empty() {
            pump.moved.sent += early.len() as u64;
            // Small and bounded by what an entrance reads; HTTP/2 keeps it until there is window.
            let _ = pump.send.send_data(early, false);
        }
        pump
    }

    pub fn moved(&self) -> Moved {
        self.moved
    }

    /// Move what can be moved. Ready when both directions ended (`Ok`), or why the flow failed. `shrinks`: of the tunnel (`Load::shrinks`).
    pub fn poll(&mut self, cx: &mut Context<'_>, shrinks: usize) -> Poll<Code> {
        if self.receiving == Half::Open {
            say_what_was_taken(&mut self.receive, &mut self.shrinks, shrinks);
        }
        let result = match self.poll_receive(cx) {
            Ok(()) => self.poll_send(cx),
            fault => fault,
        };
        match result {
            Ok(()) if self.sending == Half::Done && self.receiving == Half::Done => Poll::Ready(Code::Ok),
            Ok(()) => self.poll_peer_reset(cx),
            Err(Fault::Local) => {
                // RFC 9113 §8.5: a TCP error is a CONNECT_ERROR.
                self.reset(Reason::CONNECT_ERROR);
                Poll::Ready(self.end.local_reset())
            }
            Err(Fault::Tunnel(code)) => {
                self.abort_local();
                Poll::Ready(code)
            }
        }
    }

    /// End both sides at once.
    pub fn reset(&mut self, reason: Reason) {
        if (self.sending, self.receiving) != (Half::Done, Half::Done) {
            self.send.send_reset(reason);
            self.abort_local();
        }
        (self.sending, self.receiving) = (Half::Done, Half::Done);
        self.waiting = VecDeque::new();
    }

    /// The local peer shall see a reset, not an orderly end.
    fn abort_local(&mut self) {
        if let Local::Tcp(tcp) = &self.local {
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
        (self.sending, self.receiving) = (Half::Done, Half::Done);
    }

    /// With nothing left to receive only this tells that the far side has reset the stream.
    fn poll_peer_reset(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        if self.receiving != Half::Done || self.sending == Half::Done {
            return Poll::Pending;
        }
        match self.send.poll_reset(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(reason) => {
                self.abort_local();
                Poll::Ready(reason.map_or_else(|error| self.end.code_of(&error), |reason| self.end.code_of_reason(reason)))
            }
        }
    }

    /// Tunnel → local.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let mut dry = false;
        for _ in 0..ROUNDS {
            while !dry && self.receiving == Half::Open && self.waiting.len() < GATHERED {
                match self.receive.poll_data(cx) {
                    Poll::Pending => dry = true,
                    Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                    Poll::Ready(Some(Ok(data))) => self.waiting.push_back(data),
                    Poll::Ready(Some(Err(error))) => return Err(Fault::Tunnel(self.end.code_of(&error))),
                    Poll::Ready(None) => self.receiving = Half::Ending,
                }
            }
            if self.waiting.is_empty() {
                break;
            }
            match self.write_waiting(cx).map_err(|_| Fault::Local)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(count) => {
                    self.moved.received += count as u64;
                    let _ = self.receive.flow_control().release_capacity(count);
                }
            }
            if self.waiting.is_empty() && self.waiting.capacity() > 0 {
                self.waiting = VecDeque::new();
            }
        }
        if !self.waiting.is_empty() || (self.receiving == Half::Open && !dry) {
            cx.waker().wake_by_ref();
            return Ok(());
        }
        match (self.receiving, self.local.poll_flush(cx)) {
            (_, Poll::Ready(Err(_))) => return Err(Fault::Local),
            // With the other direction through, the close that follows at once says so too.
            (Half::Ending, Poll::Ready(Ok(()))) if self.sending == Half::Done && matches!(self.local, Local::Tcp(_)) => {
                self.receiving = Half::Done;
            }
            (Half::Ending, Poll::Ready(Ok(()))) => match self.local.poll_shutdown(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.receiving = Half::Done,
                // The peer is gone already, having sent its own end.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => self.receiving = Half::Done,
                Poll::Ready(Err(_)) => return Err(Fault::Local),
            },
            _ => {}
        }
        Ok(())
    }

    fn write_waiting(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<usize>> {
        let mut slices = [IoSlice::new(&[]); GATHERED];
        for (slice, data) in slices.iter_mut().zip(&self.waiting) {
            *slice = IoSlice::new(data);
        }
        let count = self.waiting.len().min(GATHERED);
        let written = match self.local.poll_write(cx, slices.get(..count).unwrap_or_default()) {
            Poll::Pending => {
                self.narrow();
                return Ok(Poll::Pending);
            }
            Poll::Ready(written) => written?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut left = written;
        while let Some(front) = self.waiting.front_mut() {
            if front.len() > left {
                front.advance(left);
                break;
            }
            left -= front.len();
            self.waiting.pop_front();
        }
        Ok(Poll::Ready(written))
    }

    fn narrow(&mut self) {
        if let (Local::Tcp(tcp), false) = (&self.local, self.narrowed) {
            // Refused, a peer that does not read costs more memory and nothing else.
            let _ = SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT);
            self.narrowed = true;
        }
    }

    /// Local → tunnel.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.sending != Half::Open {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            match self.local.poll_readable(cx) {
                Poll::Pending => {
                    self.send.reserve_capacity(0);
                    return Ok(());
                }
                Poll::Ready(result) => result.map_err(|_| Fault::Local)?,
            }
            let Poll::Ready(room) = self.poll_room(cx)? else { return Ok(()) };
            let mut buffer = Buffer::small();
            let mut space = ReadBuf::new(buffer.get_mut(..room.min(SMALL)).unwrap_or_default());
            match self.local.poll_read(cx, &mut space) {
                Poll::Pending => {
                    self.send.reserve_capacity(0);
                    return Ok(());
                }
                Poll::Ready(result) => result.map_err(|_| Fault::Local)?,
            }
            let count = space.filled().len();
            let data = match count {
                0 => Bytes::new(),
                1..=COPIED => Bytes::copy_from_slice(space.filled()),
                _ => Bytes::from_owner(buffer).slice(..count),
            };
            if count > 0 && self.moved.first_byte_us == 0 {
                self.moved.first_byte_us = self.started.elapsed().as_micros().max(1) as u64;
            }
            self.moved.sent += count as u64;
            if let Err(error) = self.send.send_data(data, count == 0) {
                return Err(Fault::Tunnel(self.end.code_of(&error)));
            }
            if count == 0 {
                self.sending = Half::Done;
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// How many bytes the stream takes now.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Result<Poll<usize>, Fault> {
        self.send.reserve_capacity(SMALL);
        loop {
            let room = self.send.capacity();
            if room > 0 {
                return Ok(Poll::Ready(room));
            }
            match self.send.poll_capacity(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Err(Fault::Tunnel(self.end.code_of(&error))),
                Poll::Ready(None) => return Err(Fault::Tunnel(Code::TunnelLost)),
            }
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.reset(Reason::CANCEL);
    }
}

impl Local {
    /// A pair can only be asked by reading.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Local::Tcp(tcp) => tcp.poll_read_ready(cx),
            Local::Pair(..) => Poll::Ready(Ok(())),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Local::Tcp(tcp) => Pin::new(tcp).poll_read(cx, space),
            Local::Pair(read, _) => Pin::new(read).poll_read(cx, space),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Local::Tcp(tcp) => match slices {
                // `send` is cheaper than `writev`, and most messages are one frame.
                [slice] => Pin::new(tcp).poll_write(cx, slice),
                _ => Pin::new(tcp).poll_write_vectored(cx, slices),
            },
            Local::Pair(_, write) => Pin::new(write).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Local::Tcp(_) => Poll::Ready(Ok(())),
            Local::Pair(_, write) => Pin::new(write).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Local::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Local::Pair(_, write) => Pin::new(write).poll_shutdown(cx),
        }
    }
}
