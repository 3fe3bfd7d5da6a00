//! What the operating system offers beyond tokio: pipes and splice(2) by their safe wrappers; below it, the only `unsafe`.

pub mod adopt;
pub mod origdst;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process open as many descriptors as the system allows it: flows and carriers are bounded by their own settings.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused or unlimited: whatever is in force stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// A pipe through which bytes move between two sockets without being copied.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// Room for `size` bytes if the system grants it, else for what it does grant.
    pub fn new(size: usize) -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = fcntl_setpipe_size(&write, size);
        Ok(Pipe { read, write })
    }

    /// Moves up to `most` bytes from `source` in; 0 is the end of `source`.
    pub fn fill(&self, source: impl AsFd, most: usize) -> io::Result<usize> {
        Ok(splice(source, None, &self.write, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
    }

    /// Moves up to `most` bytes out to `sink`.
    pub fn empty(&self, sink: impl AsFd, most: usize) -> io::Result<usize> {
        Ok(splice(&self.read, None, sink, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
    }
}

/// Empty pipes kept for the next use; more are made when none is left.
#[derive(Debug)]
pub struct PipePool {
    idle: Mutex<Vec<Pipe>>,
    keep: usize,
    size: usize,
}

impl PipePool {
    pub fn new(keep: usize, size: usize) -> PipePool {
        PipePool { idle: Mutex::new(Vec::new()), keep, size }
    }

    pub fn take(&self) -> io::Result<Pipe> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(|| Pipe::new(self.size), Ok)
    }

    /// Only an empty pipe may come back: the next user would send what is left in it.
    pub fn give_back(&self, pipe: Pipe) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.keep {
            idle.push(pipe);
        }
    }
}
