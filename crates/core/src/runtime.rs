//! The core's threads, its event queue and its counters.
//!
//! Each thread runs one single-threaded tokio runtime; thread 0 does everything unless work is spread on purpose. A panic ends the
//! task that it happened in (its sockets close with it) and is counted; the thread lives on.

mod events;
mod stats;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

pub use events::{Event, Events};
pub use stats::{Gauge, Stats};

use crate::code::Code;

/// Most threads of one core.
pub const MAX_THREADS: usize = 64;

pub struct Runtime {
    handles: Vec<Handle>,
    stats: Arc<Stats>,
    running: Mutex<Vec<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Runtime {
    /// Errors: `argument_invalid` (0 or more than [`MAX_THREADS`] threads), `internal` (no thread to be had).
    pub fn start(threads: usize, stats: Arc<Stats>) -> Result<Runtime, Code> {
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Code::ArgumentInvalid);
        }
        crate::sys::raise_descriptor_limit();
        let mut handles = Vec::new();
        let mut running = Vec::new();
        for n in 0..threads {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(|_| Code::Internal)?;
            handles.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel();
            let thread = std::thread::Builder::new().name(format!("cloister-{n}")).spawn(move || {
                // Either end of the channel going away means stop.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            });
            running.push((stop, thread.map_err(|_| Code::Internal)?));
        }
        Ok(Runtime { handles, stats, running: Mutex::new(running) })
    }

    /// Run on thread 0.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        let guard = PanicGuard(self.stats.clone());
        let task = async move {
            let _guard = guard;
            task.await;
        };
        match self.handle() {
            Some(handle) => handle.spawn(task),
            // There is at least one thread.
            None => tokio::spawn(task),
        }
    }

    /// Thread 0, for what must register its sockets there.
    pub fn handle(&self) -> Option<&Handle> {
        self.handles.first()
    }

    /// Every thread: connections that share nothing, such as a relay's, are spread over them as they are accepted.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Ends every task where it stands and joins the threads.
    pub fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for (stop, thread) in running {
            drop(stop);
            // The last owner may be a task: its thread ends by itself once the task is dropped.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Counts the panic that unwinds through its task.
struct PanicGuard(Arc<Stats>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panics.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_panic_ends_its_task_and_nothing_else() {
        let stats = Arc::new(Stats::default());
        let runtime = Runtime::start(1, stats.clone()).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel::<u8>();
        let kept = sender.clone();
        runtime.spawn(async move {
            let _kept = kept;
            panic!("expected by this test");
        });
        runtime.spawn(async move { sender.send(1).unwrap() });
        assert_eq!(receiver.recv(), Ok(1));
        assert!(receiver.recv().is_err(), "what the task held is dropped");
        runtime.stop();
        assert_eq!(stats.panics.get(), 1);
    }

    #[test]
    fn stopping_drops_tasks_that_wait_forever() {
        let runtime = Runtime::start(2, Arc::default()).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel::<u8>();
        for handle in runtime.handles() {
            let sender = sender.clone();
            handle.spawn(async move {
                std::future::pending::<()>().await;
                drop(sender);
            });
        }
        drop(sender);
        runtime.stop();
        assert!(receiver.recv().is_err());
        assert_eq!(Runtime::start(0, Arc::default()).err(), Some(Code::ArgumentInvalid));
        assert_eq!(Runtime::start(MAX_THREADS + 1, Arc::default()).err(), Some(Code::ArgumentInvalid));
    }
}
