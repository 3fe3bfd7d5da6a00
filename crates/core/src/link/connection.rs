//! The bytes of one link: frames in, frames out, and the keeper's beats, in one task.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::machine::{Beat, Keeper};
use crate::code::Code;
use crate::frame::LinkFrame;
use crate::tls::code_of_io;

/// Most bytes queued towards a peer.
pub const MAX_QUEUE_BYTES: usize = 4 << 20;
/// Room made for a read; a frame longer than this makes its own.
const READ_BYTES: usize = 4 << 10;
/// Time to say goodbye.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Why a link ended, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub code: Code,
    pub detail: String,
}

impl End {
    pub fn new(code: Code, detail: impl Into<String>) -> End {
        End { code, detail: detail.into() }
    }

    /// A refused certificate shows only now to who dialled (RFC 8446 §4.4.2.4); anything else is a lost connection.
    fn of_io(error: &std::io::Error) -> End {
        let by_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        let code = if by_tls { code_of_io(error) } else { Code::Stopped };
        End::new(code, error.to_string())
    }
}

/// The way into a running link, from any thread.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<OutState>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct OutState {
    queue: BytesMut,
    /// Taken by the task and not yet written.
    taken: usize,
    end: Option<End>,
}

impl Outbox {
    /// Queue one frame. False if the link is ending, or ends now because the peer does not read fast enough.
    pub fn send(&self, frame: &LinkFrame) -> bool {
        let mut state = self.lock();
        if state.end.is_some() {
            return false;
        }
        let before = state.queue.len();
        if frame.encode(&mut state.queue).is_err() {
            return false;
        }
        if state.taken + state.queue.len() > MAX_QUEUE_BYTES {
            state.queue.truncate(before);
            state.end = Some(End::new(Code::QueueFull, "the peer reads too slowly"));
        }
        let sent = state.end.is_none();
        drop(state);
        self.wake.notify_one();
        sent
    }

    /// End the link once what is queued has been written, or a second has passed.
    pub fn close(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, OutState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, out: &mut BytesMut) -> Option<End> {
        let mut state = self.lock();
        std::mem::swap(&mut state.queue, out);
        state.taken = out.len();
        state.end.clone()
    }
}

/// Limits of what the peer may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest frame taken from the peer, with its kind.
    pub frame: usize,
    /// Longest life of the link.
    pub life: Option<Duration>,
}

/// Carry a link until it ends; `receive` gets every message and record frame and ends the link by an error.
pub async fn carry<S>(stream: S, outbox: &Outbox, bounds: Bounds, mut receive: impl FnMut(LinkFrame) -> Result<(), End>) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut keeper = Keeper::new(Instant::now().into_std());
    let over = bounds.life.map(|life| Instant::now() + life);
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    let mut unflushed = false;
    let end = loop {
        if out.is_empty()
            && let Some(end) = outbox.take(&mut out)
        {
            break end;
        }
        let deadline = Instant::from_std(keeper.next_deadline());
        input.reserve(READ_BYTES.saturating_sub(input.len()).max(1));
        tokio::select! {
            read = reader.read_buf(&mut input) => match read {
                Ok(0) => break End::new(Code::Stopped, "the peer closed the connection"),
                Ok(_) => {
                    keeper.heard(Instant::now().into_std());
                    if let Err(end) = frames(&mut input, outbox, bounds, &mut receive) {
                        break end;
                    }
                }
                Err(error) => break End::of_io(&error),
            },
            written = write_some(&mut writer, &out), if !out.is_empty() || unflushed => match written {
                Ok(count) => {
                    unflushed = !out.is_empty();
                    out.advance(count);
                }
                Err(error) => break End::of_io(&error),
            },
            () = outbox.wake.notified(), if out.is_empty() => {}
            () = sleep_until(over.map_or(deadline, |over| over.min(deadline))) => {
                if over.is_some_and(|over| Instant::now() >= over) {
                    break End::new(Code::Stopped, "the link has lived as long as it may");
                }
                match keeper.beat(Instant::now().into_std()) {
                    Beat::Wait => {}
                    Beat::Ping(opaque) => {
                        outbox.send(&LinkFrame::Ping(opaque));
                    }
                    Beat::Silent => break End::new(Code::PeerSilent, "no answer to a ping"),
                }
            }
        }
    };
    outbox.close(end.clone());
    if end.code != Code::PeerSilent {
        let _ = timeout(CLOSE_WITHIN, farewell(&mut writer, out, outbox, &end)).await;
    }
    end
}

async fn farewell(writer: &mut (impl AsyncWrite + Unpin), mut out: BytesMut, outbox: &Outbox, end: &End) -> std::io::Result<()> {
    writer.write_all(&out).await?;
    outbox.take(&mut out);
    let mut last = BytesMut::new();
    let _ = LinkFrame::Close(end.code).encode(&mut last);
    if end.code != Code::QueueFull {
        writer.write_all(&out).await?;
    }
    writer.write_all(&last).await?;
    writer.shutdown().await
}

/// The frames that are whole in `input`.
fn frames(
    input: &mut BytesMut,
    outbox: &Outbox,
    bounds: Bounds,
    receive: &mut impl FnMut(LinkFrame) -> Result<(), End>,
) -> Result<(), End> {
    loop {
        if input.first_chunk::<4>().is_some_and(|head| u32::from_be_bytes(*head) as usize > bounds.frame) {
            return Err(End::new(Code::TooLarge, "the peer sent a frame beyond the bound"));
        }
        match LinkFrame::decode(input).map_err(|code| End::new(code, "the peer sent a malformed frame"))? {
            None => return Ok(()),
            Some(LinkFrame::Ping(opaque)) => {
                outbox.send(&LinkFrame::Pong(opaque));
            }
            Some(LinkFrame::Pong(_)) => {}
            Some(LinkFrame::Close(code)) => return Err(End::new(code, "closed by the peer")),
            Some(frame) => receive(frame)?,
        }
    }
}

/// Writes some of `out`, or flushes when there is nothing to write. Cancelled, nothing is lost.
async fn write_some(writer: &mut (impl AsyncWrite + Unpin), out: &BytesMut) -> std::io::Result<usize> {
    if out.is_empty() { writer.flush().await.map(|()| 0) } else { writer.write(out).await }
}
