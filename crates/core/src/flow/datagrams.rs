//! The tunnel's side of one UDP flow: datagrams over an extended CONNECT stream, dropped when there is no window.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::live::Endable;
use super::pump::{End, Moved, say_what_was_taken};
use crate::capsule::{Decoder, encode};
use crate::code::Code;
use crate::tunnel::windows::Load;

struct Open {
    send: SendStream<Bytes>,
    receive: RecvStream,
    decoder: Decoder,
}

struct State {
    side: End,
    open: Option<Open>,
    end: Code,
    moved: Moved,
    dropped: u64,
    waker: Option<Waker>,
    /// The smaller windows that this flow has seen (`Load::shrinks`).
    shrinks: usize,
}

/// One UDP association inside a tunnel. Dropping it ends it.
pub struct Datagrams {
    state: Mutex<State>,
    load: Arc<Load>,
}

impl Datagrams {
    /// `load` is that of the tunnel.
    pub fn new(side: End, send: SendStream<Bytes>, receive: RecvStream, load: Arc<Load>) -> Self {
        let open = Some(Open { send, receive, decoder: Decoder::default() });
        let state = State { side, open, end: Code::Ok, moved: Moved::default(), dropped: 0, waker: None, shrinks: 0 };
        Self { state: Mutex::new(state), load }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Into the tunnel; false if it was dropped.
    pub fn send(&self, datagram: &[u8]) -> bool {
        let mut state = self.lock();
        let sent = state.open.as_mut().is_some_and(|open| {
            let Some(capsule) = encode(datagram) else { return false };
            open.send.reserve_capacity(capsule.len());
            let fits = open.send.capacity() >= capsule.len();
            let sent = fits && open.send.send_data(capsule, false).is_ok();
            open.send.reserve_capacity(0);
            sent
        });
        if sent {
            state.moved.sent += datagram.len() as u64;
        } else {
            state.dropped += 1;
        }
        sent
    }

    /// Datagrams that found no window, or no open flow.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// From the tunnel; or how the flow ended.
    pub async fn receive(&self) -> Result<Bytes, Code> {
        self.load.follow(|cx| self.lock().poll_receive(cx, self.load.shrinks())).await
    }
}

impl State {
    fn poll_receive(&mut self, cx: &mut Context<'_>, shrinks: usize) -> Poll<Result<Bytes, Code>> {
        if let Some(open) = &mut self.open {
            say_what_was_taken(&mut open.receive, &mut self.shrinks, shrinks);
        }
        loop {
            let Some(open) = &mut self.open else { return Poll::Ready(Err(self.end)) };
            match open.decoder.take() {
                Ok(Some(datagram)) => {
                    self.moved.received += datagram.len() as u64;
                    return Poll::Ready(Ok(datagram));
                }
                Ok(None) => {}
                Err(_) => {
                    open.send.send_reset(Reason::PROTOCOL_ERROR);
                    self.finish(Code::ProtocolError);
                    continue;
                }
            }
            self.waker = Some(cx.waker().clone());
            match ready!(open.receive.poll_data(cx)) {
                Some(Ok(data)) => {
                    open.decoder.push(&data);
                    let _ = open.receive.flow_control().release_capacity(data.len());
                }
                Some(Err(error)) => {
                    let code = self.side.code_of(&error);
                    self.finish(code);
                }
                None => {
                    let _ = open.send.send_data(Bytes::new(), true);
                    self.finish(Code::Ok);
                }
            }
        }
    }

    fn finish(&mut self, code: Code) {
        self.open = None;
        self.end = code;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Endable for Datagrams {
    fn end(&self, code: Code) -> bool {
        let mut state = self.lock();
        let Some(open) = &mut state.open else { return false };
        open.send.send_reset(Reason::CANCEL);
        state.finish(code);
        true
    }

    fn moved(&self) -> Moved {
        self.lock().moved
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        if let Some(open) = &mut self.lock().open {
            let _ = open.send.send_data(Bytes::new(), true);
        }
    }
}
