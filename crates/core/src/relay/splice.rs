//! Moves bytes between two joined connections inside the kernel, both ways, until both are done or one breaks.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::{RecvFlags, Shutdown, connect_unspec, shutdown};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::sys::PipePool;

/// Room of one pipe: what is in flight per direction.
pub const PIPE_BYTES: usize = 1 << 20;
/// Up to so much at a time is copied rather than spliced.
const COPIED: usize = 16 << 10;
/// Empty pipes kept for the next use.
pub const PIPES_KEPT: usize = 64;

/// Two connections that are one carrier.
#[derive(Debug)]
pub struct Pair {
    pub client: TcpStream,
    pub connector: TcpStream,
}

impl Pair {
    /// Resets both connections at once; what they had queued is not sent any more.
    pub fn cut(&self) {
        for side in [&self.client, &self.connector] {
            reset(side);
        }
    }

    /// Returns when both directions have ended in order, else the first error; then both connections are reset.
    pub async fn run(&self, pipes: &PipePool, moved: &AtomicU64) -> io::Result<()> {
        let up = pump(&self.client, &self.connector, pipes, moved);
        let down = pump(&self.connector, &self.client, pipes, moved);
        let ended = tokio::try_join!(up, down).map(|_| ());
        if ended.is_err() {
            self.cut();
        }
        ended
    }
}

/// Resets a connection now: RFC 9293 ABORT.
pub fn reset(socket: impl std::os::fd::AsFd) {
    if connect_unspec(&socket).is_err() {
        let _ = shutdown(&socket, Shutdown::Both);
    }
}

/// What one turn of a direction left to do.
enum Turn {
    /// Everything that was there has moved.
    Dry,
    /// There is more than a buffer holds: a pipe moves it cheaper.
    Bulk,
    /// The sink takes no more: these bytes wait for it.
    Blocked(Vec<u8>),
    End,
}

thread_local! {
    static SMALL: RefCell<Vec<u8>> = RefCell::new(vec![0; COPIED]);
}

/// Moves one direction until its end, then ends the other side's writing.
///
/// What arrives while the last batch is on its way makes the next one, so batches grow with the load. Holding bytes back on purpose
/// (`SO_RCVLOWAT` in long transfers) made batches no larger and nothing cheaper (`examples/splice_cost.rs`).
async fn pump(source: &TcpStream, sink: &TcpStream, pipes: &PipePool, moved: &AtomicU64) -> io::Result<()> {
    let mut bulk = false;
    loop {
        source.readable().await?;
        if !bulk {
            match copy(source, sink, moved)? {
                Turn::Dry => continue,
                Turn::Bulk => {}
                Turn::Blocked(rest) => {
                    send_all(sink, &rest).await?;
                    continue;
                }
                Turn::End => return Ok(shutdown(sink, Shutdown::Write)?),
            }
        }
        let pipe = pipes.take()?;
        let mut left = match source.try_io(Interest::READABLE, || pipe.fill(source, PIPE_BYTES)) {
            Ok(0) => {
                pipes.give_back(pipe);
                return Ok(shutdown(sink, Shutdown::Write)?);
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pipes.give_back(pipe);
                continue;
            }
            Err(error) => return Err(error),
        };
        bulk = left > COPIED;
        moved.fetch_add(left as u64, Ordering::Relaxed);
        while left > 0 {
            match sink.try_io(Interest::WRITABLE, || pipe.empty(sink, left)) {
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sink.writable().await?,
                Err(error) => return Err(error),
            }
        }
        pipes.give_back(pipe);
    }
}

/// Small messages take one read and one write. A read that does not fill the buffer has emptied the socket, so it is not asked again
/// before the kernel says that there is more.
fn copy(source: &TcpStream, sink: &TcpStream, moved: &AtomicU64) -> io::Result<Turn> {
    SMALL.with_borrow_mut(|buffer| {
        let mut count = None;
        let read = source.try_io(Interest::READABLE, || {
            let got = rustix::net::recv(source, buffer.as_mut_slice(), RecvFlags::DONTWAIT)?.0;
            count = Some(got);
            // Said of an emptied socket, this only takes back that it is readable.
            if (1..COPIED).contains(&got) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        let Some(count) = count else {
            return match read {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(Turn::Dry),
            };
        };
        moved.fetch_add(count as u64, Ordering::Relaxed);
        let bytes = buffer.get(..count).unwrap_or_default();
        let sent = match bytes.len() {
            0 => return Ok(Turn::End),
            _ => match sink.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                sent => sent?,
            },
        };
        match bytes.get(sent..) {
            Some(rest) if !rest.is_empty() => Ok(Turn::Blocked(rest.to_vec())),
            _ if count == COPIED => Ok(Turn::Bulk),
            _ => Ok(Turn::Dry),
        }
    })
}

async fn send_all(sink: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        sink.writable().await?;
        match sink.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
