//! The resumable stream of one tunnel as `AsyncRead + AsyncWrite` for HTTP/2; carriers come and go underneath.
//!
//! All of it runs inside the one task that polls the HTTP/2 connection. The owner of the tunnel brings carriers through the `Handle`
//! and hears from it when one is lost.

mod engine;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::code::Code;
use crate::resume::{Hello, Machine, TunnelId};
use crate::secure::Secure;
use engine::Engine;

/// Bytes taken from HTTP/2 ahead of the carrier. More would only queue in front of other flows.
const AHEAD_OF_CARRIER: usize = 192 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    /// No carrier at the moment.
    Suspended,
    Ended(Code),
}

enum Arrival {
    Client(Box<Secure>),
    Connector(Box<Secure>, Hello),
    End(Code),
    #[cfg(test)]
    Vanish,
}

struct Shared {
    news: AtomicBool,
    inner: Mutex<(Option<Arrival>, Option<Waker>)>,
}

/// The owner's side of a tunnel's stream.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
}

impl Handle {
    /// Client: go on over this carrier.
    pub fn attach(&self, secure: Secure) {
        self.arrive(Arrival::Client(Box::new(secure)));
    }

    /// Connector: the client asks to go on over this carrier; a newer epoch fences the older carrier at once.
    pub fn resume(&self, secure: Secure, hello: Hello) {
        self.arrive(Arrival::Connector(Box::new(secure), hello));
    }

    /// Give the tunnel up: its flows are reset.
    pub fn end(&self, code: Code) {
        self.arrive(Arrival::End(code));
    }

    #[cfg(test)]
    pub(crate) fn vanish(&self) {
        self.arrive(Arrival::Vanish);
    }

    fn arrive(&self, arrival: Arrival) {
        let mut inner = self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(inner.0, Some(Arrival::End(_))) {
            inner.0 = Some(arrival);
        }
        self.shared.news.store(true, Ordering::Release);
        if let Some(waker) = inner.1.take() {
            waker.wake();
        }
    }

    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Wait until the state is another one than `state`.
    pub async fn changed_from(&mut self, state: State) -> State {
        match self.state.wait_for(|now| *now != state).await {
            Ok(now) => *now,
            Err(_) => State::Ended(Code::TunnelLost),
        }
    }
}

/// What ended a flow whose tunnel is gone: one that was closed in-band (a frame CLOSE) was stopped, not lost.
pub fn code_of_end(code: Code, tunnel: Option<&Handle>) -> Code {
    match (code, tunnel.map(Handle::state)) {
        (Code::TunnelLost, Some(State::Ended(Code::Ok | Code::Stopped))) => Code::Stopped,
        _ => code,
    }
}

/// What HTTP/2 reads and writes.
pub struct Stream(Arc<Mutex<Engine>>);

/// Sends what HTTP/2 wrote in one turn. HTTP/2 flushes after every frame; sending that often would cost a system call, a TLS record and
/// a wake-up of the relay each time, so a flush waits until whoever polls the connection says that the turn is over.
pub struct Flusher(Arc<Mutex<Engine>>);

impl Flusher {
    pub fn flush(&self, cx: &mut Context<'_>) {
        let _ = lock(&self.0).poll_pump(cx);
    }
}

fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    /// Client: the first carrier of a new tunnel.
    pub fn dial(secure: Secure, tunnel: TunnelId) -> (Self, Handle) {
        let (mut engine, handle) = Engine::new(Machine::client(tunnel));
        engine.attach(secure, Instant::now());
        (Self(Arc::new(Mutex::new(engine))), handle)
    }

    /// Connector: the first carrier of a tunnel it does not know; given back if it wants to resume one.
    pub fn accept(secure: Secure, hello: &Hello) -> Result<(Self, Handle), Box<Secure>> {
        match Machine::accept(hello) {
            Ok(machine) => {
                let (mut engine, handle) = Engine::new(machine);
                engine.secure = Some(secure);
                Ok((Self(Arc::new(Mutex::new(engine))), handle))
            }
            Err(_) => Err(Box::new(secure)),
        }
    }

    /// From now on whoever polls the connection flushes at the end of each turn.
    pub fn flusher(&self) -> Flusher {
        lock(&self.0).lazy = true;
        Flusher(Arc::clone(&self.0))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut engine = lock(&self.0);
        if engine.lazy && engine.unsealed < AHEAD_OF_CARRIER {
            return Poll::Ready(Ok(()));
        }
        // Without a carrier the bytes are in safe keeping: nothing to wait for.
        engine.poll_pump(cx).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod test;
