//! What happens inside a resumable stream, turn by turn.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::{AHEAD_OF_CARRIER, Arrival, Handle, Shared, State};
use crate::code::Code;
use crate::resume::{Input, MAX_REPLAY, Machine, Refusal};
use crate::secure::Secure;

/// A tunnel without a carrier for longer than this is lost, and its flows with it.
pub const SUSPENSION: Duration = Duration::from_secs(60);
/// From a new carrier's HELLO to the answer.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// In-band end without a fault.
const CLOSE_NORMAL: u8 = 0;

pub(super) struct Engine {
    machine: Machine,
    pub(super) secure: Option<Secure>,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    /// Read while a write had to wait (see `read_ahead`), not yet taken by HTTP/2.
    pub(super) ahead: BytesMut,
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    suspended_since: Option<Instant>,
    greeting_until: Option<Instant>,
    end: Option<Code>,
    /// Bytes of DATA frames written and not yet sealed.
    pub(super) unsealed: usize,
    /// Somebody holds a `Flusher`.
    pub(super) lazy: bool,
}

impl Engine {
    pub(super) fn new(machine: Machine) -> (Self, Handle) {
        let shared = Arc::new(Shared { news: AtomicBool::new(false), inner: Mutex::new((None, None)) });
        let (state, receiver) = watch::channel(State::Up);
        let handle = Handle { shared: Arc::clone(&shared), state: receiver };
        let stream = Self {
            machine,
            secure: None,
            shared,
            state,
            ahead: BytesMut::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            suspended_since: None,
            greeting_until: None,
            end: None,
            unsealed: 0,
            lazy: false,
        };
        (stream, handle)
    }

    fn set_state(&self, state: State) {
        self.state.send_if_modified(|now| {
            let changed = *now != state && !matches!(now, State::Ended(_));
            if changed {
                *now = state;
            }
            changed
        });
    }

    pub(super) fn attach(&mut self, secure: Secure, now: Instant) {
        match self.machine.attach() {
            Some(epoch) => {
                self.secure = Some(secure);
                self.greeting_until = Some(now + GREETING_DEADLINE);
                // The state is `Up` once the connector has answered a resumption.
                if epoch == 1 {
                    self.set_state(State::Up);
                }
            }
            None => self.finish(Code::TunnelLost),
        }
    }

    /// The carrier is gone, the tunnel not yet.
    fn lose_carrier(&mut self, now: Instant) {
        self.secure = None;
        self.greeting_until = None;
        self.machine.detach();
        self.suspended_since.get_or_insert(now);
        self.set_state(State::Suspended);
    }

    fn finish(&mut self, code: Code) {
        self.end.get_or_insert(code);
        self.secure = None;
        self.set_state(State::Ended(code));
    }

    fn take_news(&mut self, cx: &mut Context<'_>, now: Instant) {
        if !self.shared.news.load(Ordering::Relaxed) || !self.shared.news.swap(false, Ordering::Acquire) {
            return;
        }
        let arrival = self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner).0.take();
        match arrival {
            Some(_) if self.end.is_some() => {}
            None => {}
            Some(Arrival::End(code)) => {
                // Tell the peer, as far as the carrier takes it without waiting.
                self.machine.close(CLOSE_NORMAL);
                if self.poll_pump(cx).is_ready()
                    && let Some(secure) = &mut self.secure
                {
                    let _ = secure.poll_close(cx);
                }
                self.finish(code);
            }
            #[cfg(test)]
            Some(Arrival::Vanish) => self.finish(Code::Stopped),
            Some(Arrival::Client(secure)) => self.attach(*secure, now),
            Some(Arrival::Connector(secure, hello)) => match self.machine.resume(&hello) {
                Ok(()) => {
                    self.secure = Some(*secure);
                    self.greeting_until = None;
                    self.suspended_since = None;
                    self.set_state(State::Up);
                }
                Err(refusal) => refuse(*secure, refusal, cx),
            },
        }
    }

    fn register(&self, cx: &Context<'_>) {
        let mut inner = self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut inner.1 {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        if self.shared.news.load(Ordering::Acquire) {
            cx.waker().wake_by_ref();
        }
    }

    /// Act on what time brought, and see to it that the next moment wakes the task.
    fn poll_timers(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = Instant::now();
            if !self.machine.tick(now) || self.greeting_until.is_some_and(|until| until <= now) {
                self.lose_carrier(now);
            }
            let given_up = self.suspended_since.map(|since| since + SUSPENSION);
            if given_up.is_some_and(|until| until <= now) {
                self.finish(Code::TunnelLost);
                cx.waker().wake_by_ref();
                return;
            }
            let next = [self.machine.deadline(), self.greeting_until, given_up].into_iter().flatten().min();
            let Some(next) = next else { return };
            // A timer that fires too early costs less than one that is moved with every byte.
            if self.armed.is_none_or(|armed| next < armed || armed <= now) {
                self.armed = Some(next);
                self.timer.as_mut().reset(next.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.armed = None;
        }
    }

    /// Seal what is written and send it. Ready when nothing is left to send, or no carrier to send it on.
    pub(super) fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(secure) = &mut self.secure else { return Poll::Ready(()) };
            let result = (|| {
                while secure.room() > 0 {
                    let output = self.machine.output();
                    if output.is_empty() {
                        break;
                    }
                    let count = secure.seal(output)?;
                    self.unsealed = self.unsealed.saturating_sub(count);
                    self.machine.sent(count, Instant::now());
                }
                if secure.has_unsent() { secure.poll_flush(cx).map_ok(|()| true) } else { Poll::Ready(Ok(false)) }
            })();
            match ready!(result) {
                Ok(true) => {}
                Ok(false) => {
                    self.unsealed = 0;
                    return Poll::Ready(());
                }
                Err(_) => {
                    self.lose_carrier(Instant::now());
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Take the next payload from the carrier into `sink`, which says how much it took. Ready(false): nothing more will come now.
    fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        mut sink: impl FnMut(&[u8], &mut BytesMut) -> usize,
    ) -> Poll<bool> {
        loop {
            let Some(secure) = &mut self.secure else { return Poll::Ready(false) };
            let Ok(bytes) = ready!(secure.poll_plaintext(cx)) else {
                self.lose_carrier(now);
                return Poll::Ready(false);
            };
            if bytes.is_empty() {
                // TLS ended in order, but not the stream: that is loss all the same.
                self.lose_carrier(now);
                return Poll::Ready(false);
            }
            match self.machine.input(bytes, now) {
                Ok((used, Input::More)) => secure.consume(used),
                Ok((_, Input::Data { skip, len })) => {
                    let count = sink(bytes.get(skip..skip + len).unwrap_or_default(), &mut self.ahead);
                    secure.consume(skip + count);
                    self.machine.delivered(count, now);
                    self.greeted();
                    return Poll::Ready(true);
                }
                Ok((_, Input::Close(_))) => {
                    self.finish(Code::Ok);
                    return Poll::Ready(false);
                }
                Ok((_, Input::Refused(Refusal::UnknownTunnel))) => self.finish(Code::TunnelUnknown),
                Ok((_, Input::Refused(Refusal::StaleEpoch))) => self.finish(Code::TunnelFenced),
                Err(violation) => {
                    tracing::warn!(%violation, "tunnel ended");
                    self.finish(Code::ProtocolError);
                }
            }
            self.greeted();
        }
    }

    /// After any input: has the answer to HELLO come?
    fn greeted(&mut self) {
        if self.greeting_until.is_some() && self.machine.is_open() {
            self.greeting_until = None;
            self.suspended_since = None;
            self.set_state(State::Up);
        }
    }

    /// While a write waits, HTTP/2 may not read at all (it first wants to send a pending control frame); but what it waits for is an
    /// acknowledgement, and that has to be read. So read here, and keep payload for later.
    fn read_ahead(&mut self, cx: &mut Context<'_>, now: Instant) {
        while self.ahead.len() < MAX_REPLAY {
            let take = |bytes: &[u8], ahead: &mut BytesMut| {
                ahead.extend_from_slice(bytes);
                bytes.len()
            };
            match self.poll_payload(cx, now, take) {
                Poll::Ready(true) => {}
                Poll::Ready(false) | Poll::Pending => return,
            }
        }
    }

    fn ended(&self) -> Option<io::Error> {
        self.end.map(|code| io::Error::new(io::ErrorKind::ConnectionReset, code.as_str()))
    }
}

/// Say so on the carrier, as far as it takes that without waiting.
fn refuse(mut secure: Secure, refusal: Refusal, cx: &mut Context<'_>) {
    let mut frame = Vec::new();
    refusal.encode(&mut frame);
    let _ = secure.seal(&frame);
    let _ = secure.poll_close(cx);
}

impl Engine {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self;
        let now = Instant::now();
        this.take_news(cx, now);
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(buf.remaining());
            buf.put_slice(this.ahead.get(..count).unwrap_or_default());
            this.ahead.advance(count);
            if this.ahead.is_empty() {
                this.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let mut filled = false;
        loop {
            let take = |bytes: &[u8], _: &mut BytesMut| {
                let count = bytes.len().min(buf.remaining());
                buf.put_slice(bytes.get(..count).unwrap_or_default());
                count
            };
            match this.poll_payload(cx, now, take) {
                Poll::Ready(true) => {
                    filled = true;
                    if buf.remaining() == 0 || !this.secure.as_ref().is_some_and(Secure::has_more) {
                        break;
                    }
                }
                Poll::Ready(false) | Poll::Pending => break,
            }
        }
        if filled {
            return Poll::Ready(Ok(()));
        }
        match this.end {
            Some(Code::Ok) => return Poll::Ready(Ok(())),
            Some(code) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, code.as_str()))),
            None => {}
        }
        this.poll_timers(cx);
        let _ = this.poll_pump(cx);
        this.register(cx);
        Poll::Pending
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self;
        let now = Instant::now();
        this.take_news(cx, now);
        loop {
            if let Some(error) = this.ended() {
                return Poll::Ready(Err(error));
            }
            let had_room = this.machine.has_room();
            let pumped = (this.unsealed < AHEAD_OF_CARRIER && had_room) || this.poll_pump(cx).is_ready();
            if pumped {
                let count = this.machine.write(data);
                if count > 0 {
                    this.unsealed += count;
                    if !this.ahead.is_empty() {
                        // HTTP/2 may have read for this turn already, and nothing more may come.
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Ready(Ok(count));
                }
            }
            this.read_ahead(cx, now);
            let has_room = this.machine.has_room();
            // Either an acknowledgement made room, or there is no carrier to wait for.
            if this.end.is_none() && !(has_room && (this.secure.is_none() || pumped && !had_room)) {
                this.poll_timers(cx);
                this.register(cx);
                return Poll::Pending;
            }
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.machine.close(CLOSE_NORMAL);
        ready!(self.poll_pump(cx));
        if let Some(secure) = &mut self.secure {
            let _ = ready!(secure.poll_close(cx));
        }
        self.finish(Code::Ok);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.set_state(State::Ended(self.end.unwrap_or(Code::TunnelLost)));
    }
}
