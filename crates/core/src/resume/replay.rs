//! What was written and not yet acknowledged, kept as ready-made DATA frames.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::MAX_REPLAY;
use super::frame::{HEADER, data_header, data_length};
use crate::pool::{Buffer, SMALL};

const MAX_CHUNKS: usize = MAX_REPLAY / SMALL;
/// A chunk with less room than this is not worth another frame.
const LEAST_ROOM: usize = HEADER + 64;

#[derive(Debug)]
struct Chunk {
    buffer: Buffer,
    /// Frames lie in `begin..end` of the buffer.
    begin: usize,
    end: usize,
    /// Stream offsets of the first payload byte and of the byte after the last.
    first: u64,
    next: u64,
}

/// Frames back to back in chunks; a cursor divides what the present carrier has seen from what it has not.
#[derive(Debug)]
pub(super) struct Replay {
    chunks: VecDeque<Chunk>,
    acknowledged: u64,
    written: u64,
    /// Cursor: index of the chunk, position in it, bytes left of the frame it stands in, stream offset.
    chunk: usize,
    position: usize,
    head_left: usize,
    payload_left: usize,
    offset: u64,
    /// The largest offset that any carrier has seen.
    highest: u64,
}

impl Replay {
    pub(super) const fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            acknowledged: 0,
            written: 0,
            chunk: 0,
            position: 0,
            head_left: 0,
            payload_left: 0,
            offset: 0,
            highest: 0,
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.chunks.len() * SMALL
    }

    pub(super) fn has_room(&self) -> bool {
        self.chunks.len() < MAX_CHUNKS || self.chunks.back().is_some_and(|chunk| chunk.end + LEAST_ROOM <= SMALL)
    }

    /// Whether a peer that has received up to `offset` can be served.
    pub(super) fn holds(&self, offset: u64) -> bool {
        self.acknowledged <= offset && offset <= self.highest
    }

    pub(super) fn is_sent(&self) -> bool {
        self.offset == self.written
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.offset
    }

    pub(super) fn at_frame_start(&self) -> bool {
        self.head_left == 0 && self.payload_left == 0
    }

    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        let mut total = 0;
        let mut wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut source = slices.iter().flat_map(|slice| Some(&**slice).filter(|slice| !slice.is_empty()));
        let mut rest: &[u8] = &[];
        while wanted > 0 {
            if self.chunks.back().is_none_or(|chunk| chunk.end + LEAST_ROOM > SMALL) {
                if self.chunks.len() >= MAX_CHUNKS {
                    break;
                }
                let first = self.written;
                self.chunks.push_back(Chunk { buffer: Buffer::small(), begin: 0, end: 0, first, next: first });
            }
            let Some(chunk) = self.chunks.back_mut() else { break };
            let length = wanted.min(SMALL - chunk.end - HEADER);
            let Some(frame) = chunk.buffer.get_mut(chunk.end..chunk.end + HEADER + length) else { break };
            let (head, mut payload) = frame.split_at_mut(HEADER);
            head.copy_from_slice(&data_header(length));
            while !payload.is_empty() {
                if rest.is_empty() {
                    rest = source.next().unwrap_or_default();
                }
                let part = rest.len().min(payload.len());
                let (from, left) = rest.split_at(part);
                let (to, more) = payload.split_at_mut(part);
                to.copy_from_slice(from);
                rest = left;
                payload = more;
            }
            chunk.end += HEADER + length;
            chunk.next += length as u64;
            self.written += length as u64;
            total += length;
            wanted -= length;
        }
        total
    }

    /// Bytes from the cursor on; only to the end of the present frame unless `further`.
    pub(super) fn output(&mut self, further: bool) -> &[u8] {
        while self.chunks.get(self.chunk).is_some_and(|chunk| self.position >= chunk.end) && self.chunk + 1 < self.chunks.len() {
            self.chunk += 1;
            self.position = self.chunks.get(self.chunk).map_or(0, |chunk| chunk.begin);
        }
        let Some(chunk) = self.chunks.get(self.chunk) else { return &[] };
        let end = if further { chunk.end } else { self.position + self.head_left + self.payload_left };
        chunk.buffer.get(self.position..end).unwrap_or_default()
    }

    pub(super) fn sent(&mut self, count: usize) {
        let Some(chunk) = self.chunks.get(self.chunk) else { return };
        let mut left = count.min(chunk.end - self.position);
        while left > 0 {
            if self.at_frame_start() {
                self.head_left = HEADER;
                self.payload_left = chunk.buffer.get(self.position..).and_then(data_length).unwrap_or(0);
            }
            let head = self.head_left.min(left);
            let payload = self.payload_left.min(left - head);
            self.head_left -= head;
            self.payload_left -= payload;
            self.offset += payload as u64;
            self.position += head + payload;
            left -= head + payload;
        }
        self.highest = self.highest.max(self.offset);
    }

    /// The peer has received everything before `offset`; false if that was never sent on this carrier.
    pub(super) fn acknowledge(&mut self, offset: u64) -> bool {
        if offset > self.offset {
            return false;
        }
        self.acknowledged = self.acknowledged.max(offset);
        while self.chunks.front().is_some_and(|chunk| chunk.next <= self.acknowledged) {
            self.chunks.pop_front();
            if self.chunk > 0 {
                self.chunk -= 1;
            } else {
                self.position = self.chunks.front().map_or(0, |chunk| chunk.begin);
            }
        }
        true
    }

    /// The carrier is gone in the middle of whatever was being sent; `rewind` will say where the next begins.
    pub(super) fn abandon(&mut self) {
        self.head_left = 0;
        self.payload_left = 0;
    }

    /// Go back to `offset`, which `holds` approved: a new carrier begins there.
    pub(super) fn rewind(&mut self, offset: u64) {
        self.offset = offset;
        self.chunk = 0;
        self.abandon();
        self.acknowledge(offset);
        let Some(chunk) = self.chunks.front_mut() else {
            self.position = 0;
            return;
        };
        let (mut at, mut first) = (chunk.begin, chunk.first);
        while at < chunk.end {
            let length = chunk.buffer.get(at..).and_then(data_length).unwrap_or(0);
            let gone = offset.saturating_sub(first);
            if gone < length as u64 {
                // The peer has the front of this frame: a header for the rest is written over bytes it has.
                let gone = gone as usize;
                at += gone;
                if let Some(head) = chunk.buffer.get_mut(at..at + HEADER) {
                    head.copy_from_slice(&data_header(length - gone));
                }
                break;
            }
            at += HEADER + length;
            first += length as u64;
        }
        chunk.begin = at;
        chunk.first = offset;
        self.position = at;
    }
}
