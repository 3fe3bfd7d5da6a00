//! A flow that can be ended from any thread, at once.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use h2::Reason;

use super::pump::{Moved, Pump};
use crate::code::Code;
use crate::tunnel::windows::Load;

enum Phase {
    /// Being opened.
    Opening,
    Running(Box<Pump>),
    Ended(Code, Moved),
}

/// One flow between its admission and its end.
///
/// `end` takes effect before it returns: whoever polls the flow holds the same lock, so not one further byte moves.
pub struct Live {
    inner: Mutex<(Phase, Option<Waker>)>,
}

/// What a session can end, whatever the protocol.
pub trait Endable: Send + Sync {
    /// End the flow with this code; false if it has ended before. In force when it returns.
    fn end(&self, code: Code) -> bool;

    fn moved(&self) -> Moved;
}

impl Endable for Live {
    fn end(&self, code: Code) -> bool {
        Live::end(self, code)
    }

    fn moved(&self) -> Moved {
        Live::moved(self)
    }
}

impl Live {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new((Phase::Opening, None)) })
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, Option<Waker>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// End the flow with this code; false if it has ended before.
    pub fn end(&self, code: Code) -> bool {
        let mut inner = self.lock();
        let moved = match &mut inner.0 {
            Phase::Ended(..) => return false,
            Phase::Opening => Moved::default(),
            Phase::Running(pump) => {
                pump.reset(Reason::CANCEL);
                pump.moved()
            }
        };
        inner.0 = Phase::Ended(code, moved);
        if let Some(waker) = inner.1.take() {
            waker.wake();
        }
        true
    }

    /// Begin to move bytes; the pump is dropped (and so reset) if the flow was ended meanwhile.
    pub fn start(&self, pump: Pump) -> Result<(), Code> {
        let mut inner = self.lock();
        match inner.0 {
            Phase::Ended(code, _) => Err(code),
            _ => {
                inner.0 = Phase::Running(Box::new(pump));
                Ok(())
            }
        }
    }

    /// Wait until somebody ends the flow: for whatever is awaited while it is opened.
    pub async fn ended(&self) -> Code {
        poll_fn(|cx| {
            let mut inner = self.lock();
            if let Phase::Ended(code, _) = inner.0 {
                return Poll::Ready(code);
            }
            remember(&mut inner.1, cx);
            Poll::Pending
        })
        .await
    }

    /// Move bytes to the end; how the flow ended. `load` is that of its tunnel.
    pub async fn run(&self, load: &Load) -> (Code, Moved) {
        load.follow(|cx| {
            let mut inner = self.lock();
            let (phase, waker) = &mut *inner;
            let (code, moved) = match phase {
                Phase::Ended(code, moved) => return Poll::Ready((*code, *moved)),
                Phase::Opening => (Code::Internal, Moved::default()),
                Phase::Running(pump) => match pump.poll(cx, load.shrinks()) {
                    Poll::Ready(code) => (code, pump.moved()),
                    Poll::Pending => {
                        remember(waker, cx);
                        return Poll::Pending;
                    }
                },
            };
            *phase = Phase::Ended(code, moved);
            Poll::Ready((code, moved))
        })
        .await
    }

    pub fn moved(&self) -> Moved {
        match &self.lock().0 {
            Phase::Opening => Moved::default(),
            Phase::Running(pump) => pump.moved(),
            Phase::Ended(_, moved) => *moved,
        }
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}
