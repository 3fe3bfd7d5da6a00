//! The exchange's log of access records: `<connector>/<first n>.jsonl`, each number once.
//!
//! The connector is the one whose link proved it, never what a line says. One thread writes; a batch is acknowledged after
//! it is on disk (`fdatasync`). Beyond the stated size the oldest file of the connector that holds most goes first.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering};
use std::thread::JoinHandle;

use super::Batch;
use super::spool::files::{list, open_piece, piece_path, recover};
use crate::ids::Id;

const FILE_BYTES: u64 = 16 << 20;
/// Most bytes waiting for the disk, of all connectors.
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// Most files kept open.
const MAX_OPEN: usize = 256;

/// The journal holds this connector's records up to `last`; `count` of them are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub last: u64,
    pub count: u64,
}

type Done = Box<dyn FnOnce(Option<Written>) + Send>;

struct Job {
    connector: Id,
    batch: Option<Batch>,
    done: Done,
}

pub struct Journal {
    jobs: Option<Sender<Job>>,
    queued: Arc<AtomicUsize>,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    pub fn open(directory: &Path, max_bytes: u64) -> io::Result<Journal> {
        fs::create_dir_all(directory)?;
        let mut logs = Logs { directory: directory.to_owned(), max_bytes, logs: HashMap::new(), open: 0, bytes: 0 };
        logs.scan()?;
        let (jobs, queue) = channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let writer = std::thread::Builder::new().name("cloister-journal".into()).spawn({
            let queued = queued.clone();
            move || logs.run(&queue, &queued)
        })?;
        Ok(Journal { jobs: Some(jobs), queued, writer: Some(writer) })
    }

    /// Queue one batch; `done` is called on the journal's thread, with None if it could not be written.
    /// False when too much is waiting: the connector sends it again.
    pub fn write(&self, connector: Id, batch: Batch, done: impl FnOnce(Option<Written>) + Send + 'static) -> bool {
        let bytes = batch.lines().len();
        if self.queued.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_QUEUED_BYTES {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.send(Job { connector, batch: Some(batch), done: Box::new(done) })
    }

    /// Ask what is held of this connector.
    pub fn ask(&self, connector: Id, done: impl FnOnce(Option<Written>) + Send + 'static) -> bool {
        self.send(Job { connector, batch: None, done: Box::new(done) })
    }

    fn send(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

struct Logs {
    directory: PathBuf,
    max_bytes: u64,
    logs: HashMap<Id, Log>,
    open: usize,
    bytes: u64,
}

#[derive(Default)]
struct Log {
    /// (first number, bytes), oldest first.
    pieces: VecDeque<(u64, u64)>,
    current: Option<File>,
    /// None until the newest file was looked at.
    last: Option<u64>,
}

impl Logs {
    fn scan(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(connector) = entry.file_name().to_str().and_then(Id::parse) else { continue };
            let pieces: VecDeque<_> = list(&entry.path())?.into();
            self.bytes += pieces.iter().map(|(_, bytes)| bytes).sum::<u64>();
            self.logs.insert(connector, Log { pieces, ..Log::default() });
        }
        Ok(())
    }

    fn run(mut self, queue: &Receiver<Job>, queued: &AtomicUsize) {
        while let Ok(job) = queue.recv() {
            // Everything that waits is written before one sync per connector.
            let mut answers: Vec<(Id, Written, Done)> = Vec::new();
            for job in std::iter::once(job).chain(queue.try_iter()) {
                let bytes = job.batch.as_ref().map_or(0, |batch| batch.lines().len());
                let written = self.write(job.connector, job.batch);
                queued.fetch_sub(bytes, Ordering::Relaxed);
                match written {
                    Ok(written) => answers.push((job.connector, written, job.done)),
                    Err(_) => (job.done)(None),
                }
            }
            let mut synced: HashMap<Id, bool> = HashMap::new();
            for (connector, written, done) in answers {
                let durable = written.count == 0 || *synced.entry(connector).or_insert_with(|| self.sync(connector));
                done(durable.then_some(written));
            }
            self.retain();
        }
    }

    fn write(&mut self, connector: Id, batch: Option<Batch>) -> io::Result<Written> {
        self.open(connector)?;
        let directory = self.directory_of(connector);
        let Some(log) = self.logs.get_mut(&connector) else { return Err(io::ErrorKind::NotFound.into()) };
        let last = log.last.unwrap_or(0);
        let Some(batch) = batch.map(|batch| batch.after(last)).filter(|batch| batch.count() > 0) else {
            return Ok(Written { last, count: 0 });
        };
        if log.current.is_none() || log.pieces.back().is_none_or(|(_, bytes)| *bytes >= FILE_BYTES) {
            sync_and_close(&mut log.current, &mut self.open)?;
            log.current = Some(open_piece(&directory, batch.first())?);
            self.open += 1;
            log.pieces.push_back((batch.first(), 0));
        }
        let (Some(file), Some((_, bytes))) = (log.current.as_mut(), log.pieces.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Err(error) = file.write_all(batch.lines()) {
            file.set_len(*bytes)?;
            return Err(error);
        }
        *bytes += batch.lines().len() as u64;
        self.bytes += batch.lines().len() as u64;
        log.last = Some(batch.last());
        Ok(Written { last: batch.last(), count: u64::from(batch.count()) })
    }

    /// Look at a connector's newest file, once, and hold it open.
    fn open(&mut self, connector: Id) -> io::Result<()> {
        if self.open >= MAX_OPEN {
            for log in self.logs.values_mut() {
                sync_and_close(&mut log.current, &mut self.open)?;
            }
        }
        let directory = self.directory_of(connector);
        if !self.logs.contains_key(&connector) {
            fs::create_dir_all(&directory)?;
        }
        let log = self.logs.entry(connector).or_default();
        let Some((first, bytes)) = log.pieces.back_mut() else {
            log.last.get_or_insert(0);
            return Ok(());
        };
        if log.current.is_none() {
            let file = open_piece(&directory, *first)?;
            if log.last.is_none() {
                let (length, last) = recover(&file)?;
                self.bytes = self.bytes.saturating_sub(bytes.saturating_sub(length));
                *bytes = length;
                log.last = Some(last.unwrap_or(first.saturating_sub(1)));
            }
            log.current = Some(file);
            self.open += 1;
        }
        Ok(())
    }

    fn sync(&self, connector: Id) -> bool {
        let file = self.logs.get(&connector).and_then(|log| log.current.as_ref());
        file.is_none_or(|file| file.sync_data().is_ok())
    }

    fn retain(&mut self) {
        while self.bytes > self.max_bytes {
            let largest = self.logs.iter().filter(|(_, log)| log.pieces.len() > 1).max_by_key(|(_, log)| log.bytes());
            let Some(connector) = largest.map(|(connector, _)| *connector) else { return };
            let directory = self.directory_of(connector);
            if let Some((first, bytes)) = self.logs.get_mut(&connector).and_then(|log| log.pieces.pop_front()) {
                let _ = fs::remove_file(piece_path(&directory, first));
                self.bytes = self.bytes.saturating_sub(bytes);
            }
        }
    }

    fn directory_of(&self, connector: Id) -> PathBuf {
        self.directory.join(connector.to_string())
    }
}

impl Log {
    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| bytes).sum()
    }
}

fn sync_and_close(file: &mut Option<File>, open: &mut usize) -> io::Result<()> {
    if let Some(file) = file.take() {
        *open = open.saturating_sub(1);
        file.sync_data()?;
    }
    Ok(())
}
