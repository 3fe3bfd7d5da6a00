//! The connector's records on disk until the exchange has them.
//!
//! `push` formats into memory and returns; one thread writes (about every 100 ms or 256 KiB, `fdatasync` per batch), ships what is
//! on disk over the link in order, and deletes files once acknowledged. Only what is durable is shipped, so a number that the
//! exchange has seen is never given to another record.

pub mod files;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Batch, MAX_BATCH_BYTES, Record, format};
use crate::ids::Id;
use files::Files;

const BATCH_BYTES: usize = MAX_BATCH_BYTES;
const BATCH_TIME: Duration = Duration::from_millis(100);
/// Most bytes formatted and not yet on disk.
const MAX_PENDING_BYTES: usize = 32 << 20;
/// Most bytes shipped and not yet acknowledged.
const WINDOW_BYTES: usize = 1 << 20;
/// Pause after a failed write.
const RETRY: Duration = Duration::from_secs(1);
/// Smallest bound that can be set, bytes.
pub const MIN_SPOOL_BYTES: u64 = 64 << 10;

/// Queues one batch on the link; false if the link will not carry it (it is going down).
pub type Ship = Box<dyn Fn(Batch) -> bool + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolStatus {
    /// On disk or about to be.
    pub bytes: u64,
    pub max_bytes: u64,
    /// Number of the newest record; the exchange has those up to `acknowledged`.
    pub last: u64,
    pub acknowledged: u64,
    /// Records lost since the last gap that was written.
    pub lost: u64,
}

/// The buffer of one connector. Dropping it writes what is pending.
pub struct Spool {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    connector: Id,
    max_bytes: u64,
    full: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    pending: Vec<u8>,
    /// When the oldest pending line was pushed.
    pending_since: Option<Instant>,
    next: u64,
    disk_bytes: u64,
    /// Records not kept since the last gap record.
    lost: u64,
    /// The beginning of the present gap is on record.
    in_gap: bool,
    failing: bool,
    ship: Option<Ship>,
    ack: Option<u64>,
    acknowledged: u64,
    /// The link changed: what was shipped and not acknowledged is shipped again.
    relinked: bool,
    /// No batch is waited for any more.
    hurried: bool,
    closed: bool,
}

impl State {
    /// Nothing is left to be done before the end: without a link it stays on disk.
    fn is_delivered(&self) -> bool {
        self.pending.is_empty() && self.pending_since.is_none() && (self.ship.is_none() || self.acknowledged + 1 >= self.next)
    }
}

impl Spool {
    /// Open or make the spool in `directory`; a torn last line is cut off.
    ///
    /// A new spool starts at the Unix time in µs, so an agent that lost its spool does not use a number twice.
    pub fn open(directory: &Path, connector: Id, max_bytes: u64) -> io::Result<Spool> {
        let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros() as u64);
        Spool::open_from(directory, connector, max_bytes, fresh)
    }

    fn open_from(directory: &Path, connector: Id, max_bytes: u64, fresh: u64) -> io::Result<Spool> {
        let max_bytes = max_bytes.max(MIN_SPOOL_BYTES);
        let files = Files::open(directory, fresh, max_bytes)?;
        let shared = Arc::new(Shared {
            connector,
            max_bytes,
            full: AtomicBool::new(false),
            state: Mutex::new(State {
                pending: Vec::new(),
                pending_since: None,
                next: files.next(),
                disk_bytes: files.bytes(),
                lost: 0,
                in_gap: false,
                failing: false,
                ship: None,
                ack: None,
                acknowledged: files.first().saturating_sub(1),
                relinked: false,
                hurried: false,
                closed: false,
            }),
            wake: Condvar::new(),
        });
        shared.mark(&shared.lock());
        let writer = std::thread::Builder::new().name("cloister-spool".into()).spawn({
            let shared = shared.clone();
            move || Writer { shared, files, cursor: 0, in_flight: Vec::new(), shipping: false }.run()
        })?;
        Ok(Spool { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Number and keep one record. Never waits for the disk; at the bound the record is lost and a gap recorded.
    pub fn push(&self, record: &Record<'_>) {
        let mut state = self.shared.lock();
        if !self.shared.has_room(&state) {
            if !state.in_gap {
                state.in_gap = true;
                self.shared.append_gap(&mut state, record.at);
            }
            state.lost += 1;
            return;
        }
        if state.in_gap {
            state.in_gap = false;
            self.shared.append_gap(&mut state, record.at);
        }
        let n = state.next;
        format::write_record(&mut state.pending, n, self.shared.connector, record);
        self.shared.appended(&mut state);
    }

    /// At the bound: strict segments take no new flow until the exchange has acknowledged. Rises early enough that what
    /// is open then can still be closed on record.
    pub fn full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// The link is up. Nothing is shipped before the exchange has said what it has (`acknowledge`).
    pub fn attach(&self, ship: Ship) {
        let mut state = self.shared.lock();
        (state.ship, state.ack, state.relinked) = (Some(ship), None, true);
        self.shared.wake.notify_one();
    }

    pub fn detach(&self) {
        let mut state = self.shared.lock();
        (state.ship, state.ack, state.relinked) = (None, None, true);
        self.shared.wake.notify_one();
    }

    /// The exchange has written everything up to `last`.
    pub fn acknowledge(&self, last: u64) {
        let mut state = self.shared.lock();
        state.ack = Some(state.ack.map_or(last, |ack| ack.max(last)));
        self.shared.wake.notify_one();
    }

    /// The end: write what is pending now, wait up to `patience` for the exchange to acknowledge it if the link is up, and stop.
    /// Nothing may be pushed afterwards.
    pub fn finish(&self, patience: Duration) {
        let end = Instant::now() + patience;
        self.shared.lock().hurried = true;
        self.shared.wake.notify_one();
        while Instant::now() < end && !self.shared.lock().is_delivered() {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.stop();
    }

    fn stop(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }

    pub fn status(&self) -> SpoolStatus {
        let state = self.shared.lock();
        SpoolStatus {
            bytes: state.disk_bytes + state.pending.len() as u64,
            max_bytes: self.shared.max_bytes,
            last: state.next - 1,
            acknowledged: state.acknowledged,
            lost: state.lost,
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until there is something for the writer to do; pending lines wait for a batch.
    fn wait(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        loop {
            if state.closed || state.ack.is_some() || state.relinked || state.pending.len() >= BATCH_BYTES && !state.failing {
                return state;
            }
            let patience = match (state.failing, state.hurried) {
                (true, _) => RETRY,
                (false, true) => Duration::ZERO,
                (false, false) => BATCH_TIME,
            };
            match state.pending_since.map(|since| patience.saturating_sub(since.elapsed())) {
                Some(Duration::ZERO) => return state,
                Some(left) => state = self.wake.wait_timeout(state, left).map_or_else(|e| e.into_inner().0, |pair| pair.0),
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn has_room(&self, state: &State) -> bool {
        state.pending.len() < MAX_PENDING_BYTES && state.disk_bytes + (state.pending.len() as u64) < self.max_bytes
    }

    fn append_gap(&self, state: &mut State, at: u64) {
        let (n, lost) = (state.next, std::mem::take(&mut state.lost));
        format::write_gap(&mut state.pending, n, at, self.connector, lost);
        self.appended(state);
    }

    fn appended(&self, state: &mut State) {
        state.next += 1;
        if state.pending_since.is_none() {
            state.pending_since = Some(Instant::now());
            self.wake.notify_one();
        } else if state.pending.len() >= BATCH_BYTES {
            self.wake.notify_one();
        }
        self.mark(state);
    }

    fn mark(&self, state: &State) {
        let used = state.disk_bytes + state.pending.len() as u64;
        let full = state.failing || used >= self.max_bytes - self.max_bytes / 16 || state.pending.len() >= MAX_PENDING_BYTES / 2;
        self.full.store(full, Ordering::Relaxed);
    }
}

/// The thread that owns the files.
struct Writer {
    shared: Arc<Shared>,
    files: Files,
    /// Number of the next record to ship.
    cursor: u64,
    /// (last number, bytes) of batches shipped and not acknowledged, oldest first.
    in_flight: Vec<(u64, usize)>,
    /// The exchange has said what it has on this link.
    shipping: bool,
}

impl Writer {
    fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let mut state = shared.wait();
            let closed = state.closed;
            let lines = std::mem::take(&mut state.pending);
            state.disk_bytes += lines.len() as u64; // they count while they are on their way
            state.pending_since = None;
            let next = state.next;
            if std::mem::take(&mut state.relinked) {
                self.in_flight.clear();
                self.shipping = false;
            }
            let ack = state.ack.take();
            drop(state);
            let written = self.files.append(&lines, next);
            if let Some(last) = ack {
                self.acknowledged(last);
            }
            self.settle(lines, written.is_ok());
            if closed {
                return;
            }
            self.ship();
        }
    }

    /// After a write: give the memory back, or the lines if they are not on disk.
    fn settle(&self, mut lines: Vec<u8>, written: bool) {
        let mut state = self.shared.lock();
        if written {
            if state.pending.is_empty() && lines.capacity() <= 2 * BATCH_BYTES {
                lines.clear();
                state.pending = lines;
            }
        } else {
            lines.extend_from_slice(&state.pending);
            state.pending = lines;
            state.pending_since = Some(Instant::now());
        }
        state.failing = !written;
        state.disk_bytes = self.files.bytes();
        state.acknowledged = self.files.first().saturating_sub(1).max(state.acknowledged);
        self.shared.mark(&state);
    }

    fn acknowledged(&mut self, last: u64) {
        if last >= self.files.next() {
            self.renumber(last);
        }
        self.files.acknowledge(last);
        self.in_flight.retain(|(number, _)| *number > last);
        if !self.shipping {
            self.shipping = true;
            self.cursor = (last + 1).max(self.files.first());
        }
        let mut state = self.shared.lock();
        state.acknowledged = state.acknowledged.max(last);
    }

    /// The exchange knows numbers that this spool has not given: another spool of this agent was lost and the clock went back.
    /// What follows is numbered above; what it would take for duplicates is a gap.
    fn renumber(&mut self, last: u64) {
        let mut state = self.shared.lock();
        if state.next <= last {
            state.lost += state.next.saturating_sub(self.files.first());
            state.in_gap = true;
            state.pending.clear();
            state.pending_since = None;
            state.next = last + 1;
        }
        drop(state);
        // If it fails, nothing is appended either, and the spool says that it is full.
        let _ = self.files.restart(last + 1);
    }

    fn ship(&mut self) {
        while self.shipping && self.in_flight.iter().map(|(_, bytes)| bytes).sum::<usize>() < WINDOW_BYTES {
            let Ok(Some(batch)) = self.files.read(self.cursor) else { return };
            let (last, bytes) = (batch.last(), batch.lines.len());
            let sent = self.shared.lock().ship.as_ref().is_some_and(|ship| ship(batch));
            if !sent {
                self.shipping = false;
                return;
            }
            self.cursor = last + 1;
            self.in_flight.push((last, bytes));
        }
    }
}
