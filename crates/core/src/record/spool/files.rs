//! The files of a spool: `<first n>.jsonl`, each holding consecutive numbers, the last one being written.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::record::{Batch, MAX_BATCH_BYTES, format};

const MAX_FILE_BYTES: u64 = 4 << 20;
const MIN_FILE_BYTES: u64 = 4 << 10;

struct Piece {
    first: u64,
    bytes: u64,
}

/// Where the next batch is read.
struct Cursor {
    first: u64,
    file: File,
    offset: u64,
    number: u64,
}

pub struct Files {
    directory: PathBuf,
    /// Oldest first, never empty.
    pieces: VecDeque<Piece>,
    current: File,
    next: u64,
    file_bytes: u64,
    cursor: Option<Cursor>,
}

impl Files {
    /// `fresh` is the first number of an empty spool.
    pub fn open(directory: &Path, fresh: u64, max_bytes: u64) -> io::Result<Files> {
        fs::create_dir_all(directory)?;
        let mut pieces: VecDeque<Piece> = VecDeque::new();
        for (first, bytes) in list(directory)? {
            pieces.push_back(Piece { first, bytes });
        }
        let (next, current) = match pieces.back_mut() {
            Some(newest) => {
                let current = open_piece(directory, newest.first)?;
                let (bytes, last) = recover(&current)?;
                newest.bytes = bytes;
                (last.map_or(newest.first, |last| last + 1), current)
            }
            None => {
                pieces.push_back(Piece { first: fresh, bytes: 0 });
                (fresh, open_piece(directory, fresh)?)
            }
        };
        let file_bytes = (max_bytes / 16).clamp(MIN_FILE_BYTES, MAX_FILE_BYTES);
        Ok(Files { directory: directory.to_owned(), pieces, current, next, file_bytes, cursor: None })
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// The oldest number that may still be here.
    pub fn first(&self) -> u64 {
        self.pieces.front().map_or(self.next, |piece| piece.first)
    }

    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }

    /// Write whole lines durably; they hold the numbers up to `next`, that one excluded. On failure nothing of them stays.
    pub fn append(&mut self, lines: &[u8], next: u64) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.newest_bytes() >= self.file_bytes {
            self.rotate()?;
        }
        let before = self.newest_bytes();
        let written = self.current.write_all(lines).and_then(|()| self.current.sync_data());
        if let Err(error) = written {
            self.current.set_len(before)?;
            self.current.seek(SeekFrom::End(0))?;
            return Err(error);
        }
        if let Some(newest) = self.pieces.back_mut() {
            newest.bytes += lines.len() as u64;
        }
        self.next = next;
        Ok(())
    }

    /// Delete files that hold nothing above `last`.
    pub fn acknowledge(&mut self, last: u64) {
        if last + 1 >= self.next && self.newest_bytes() >= self.file_bytes {
            // Kept for later if there is no room for a new file now.
            let _ = self.rotate();
        }
        while self.pieces.get(1).is_some_and(|second| second.first <= last.saturating_add(1)) {
            if let Some(oldest) = self.pieces.pop_front() {
                let _ = fs::remove_file(piece_path(&self.directory, oldest.first));
            }
        }
    }

    /// Forget everything; the next record is number `next`.
    pub fn restart(&mut self, next: u64) -> io::Result<()> {
        let current = open_piece(&self.directory, next)?;
        for piece in self.pieces.drain(..) {
            let _ = fs::remove_file(piece_path(&self.directory, piece.first));
        }
        self.pieces.push_back(Piece { first: next, bytes: 0 });
        (self.current, self.next, self.cursor) = (current, next, None);
        Ok(())
    }

    /// The records from `number` on, as many as make a batch; None if there are none yet.
    pub fn read(&mut self, number: u64) -> io::Result<Option<Batch>> {
        let mut number = number.max(self.first());
        while number < self.next {
            let at = self.pieces.partition_point(|piece| piece.first <= number).saturating_sub(1);
            let Some(piece) = self.pieces.get(at) else { return Ok(None) };
            let (first, bytes) = (piece.first, piece.bytes);
            let following = self.pieces.get(at + 1).map(|piece| piece.first);
            if let Some(batch) = self.read_piece(first, bytes, number)? {
                return Ok(Some(batch));
            }
            // The rest of that file is unreadable: what can be had is behind it.
            self.cursor = None;
            match following {
                Some(following) => number = following,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    fn read_piece(&mut self, first: u64, bytes: u64, number: u64) -> io::Result<Option<Batch>> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.first == first && cursor.number == number => cursor,
            _ => {
                let file = File::open(piece_path(&self.directory, first))?;
                let offset = offset_of(&file, bytes, number)?;
                Cursor { first, file, offset, number }
            }
        };
        let mut chunk = vec![0; (bytes.saturating_sub(cursor.offset)).min(MAX_BATCH_BYTES as u64) as usize];
        cursor.file.read_exact_at(&mut chunk, cursor.offset)?;
        let whole = chunk.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        chunk.truncate(whole);
        let count = chunk.iter().filter(|byte| **byte == b'\n').count() as u32;
        let Some(batch) = Batch::of_lines(number, count, Bytes::from(chunk)) else { return Ok(None) };
        cursor.offset += whole as u64;
        cursor.number = batch.last() + 1;
        self.cursor = Some(cursor);
        Ok(Some(batch))
    }

    fn newest_bytes(&self) -> u64 {
        self.pieces.back().map_or(0, |piece| piece.bytes)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.current = open_piece(&self.directory, self.next)?;
        self.pieces.push_back(Piece { first: self.next, bytes: 0 });
        Ok(())
    }
}

pub fn piece_path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.jsonl"))
}

/// (first number, bytes) of the files there, oldest first; other names are not ours and are left alone.
pub fn list(directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(".jsonl")).filter(|digits| digits.len() == 20);
        if let Some(first) = first.and_then(|digits| digits.parse().ok()) {
            pieces.push((first, entry.metadata()?.len()));
        }
    }
    pieces.sort_unstable();
    Ok(pieces)
}

pub fn open_piece(directory: &Path, first: u64) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(piece_path(directory, first))
}

/// Cut a torn last line off; the length that stays and the number of the last line.
pub fn recover(file: &File) -> io::Result<(u64, Option<u64>)> {
    let mut bytes = file.metadata()?.len();
    loop {
        let (start, line) = last_line(file, bytes)?;
        if line.is_empty() {
            file.set_len(0)?;
            return Ok((0, None));
        }
        let number = line.strip_suffix(b"}\n").and(format::number_of(&line));
        if number.is_some() {
            file.set_len(bytes)?;
            return Ok((bytes, number));
        }
        bytes = start;
    }
}

/// The last line (or torn piece of one) before `end`, and where it starts.
fn last_line(file: &File, end: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut start = end;
    let mut line = Vec::new();
    while start > 0 {
        let step = start.min(64 << 10);
        let mut chunk = vec![0; step as usize];
        file.read_exact_at(&mut chunk, start - step)?;
        // The line's own end does not count as the end of the one before.
        let ours = if start == end { chunk.len().saturating_sub(1) } else { chunk.len() };
        let newline = chunk.get(..ours).and_then(|chunk| chunk.iter().rposition(|byte| *byte == b'\n'));
        let from = newline.map_or(0, |at| at + 1);
        line.splice(0..0, chunk.drain(from..));
        start = start - step + from as u64;
        if newline.is_some() {
            break;
        }
    }
    Ok((start, line))
}

/// Where the line `number` starts, or the end.
fn offset_of(mut file: &File, bytes: u64, number: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = io::BufReader::with_capacity(64 << 10, file.take(bytes));
    let (mut offset, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = io::BufRead::read_until(&mut reader, b'\n', &mut line)?;
        if read == 0 || format::number_of(&line).is_some_and(|n| n >= number) {
            return Ok(offset);
        }
        offset += read as u64;
    }
}
