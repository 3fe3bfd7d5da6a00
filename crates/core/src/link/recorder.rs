//! Access records on links: from the connector's spool to the exchange's journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::connection::{End, Outbox};
use super::{Links, Rider};
use crate::code::Code;
use crate::frame::LinkFrame;
use crate::ids::Id;
use crate::record::{Batch, Journal, Spool};
use crate::runtime::Event;

/// Most record bytes of one connector that wait for the disk.
const MAX_UNWRITTEN: usize = 4 << 20;

/// Takes a connector's records from its link to the journal.
pub(super) struct Recorder {
    links: Arc<Links>,
    journal: Arc<Journal>,
    connector: Id,
    outbox: Arc<Outbox>,
    unwritten: Arc<AtomicUsize>,
}

impl Recorder {
    pub(super) fn new(links: &Arc<Links>, journal: Arc<Journal>, connector: Id, outbox: &Arc<Outbox>) -> Recorder {
        Recorder { links: links.clone(), journal, connector, outbox: outbox.clone(), unwritten: Arc::default() }
    }

    /// Say what is held already; the connector ships from there.
    pub(super) fn greet(&self) {
        let outbox = self.outbox.clone();
        self.journal.ask(self.connector, move |held| match held {
            Some(held) => drop(outbox.send(&LinkFrame::RecordsAck { last: held.last })),
            None => outbox.close(End::new(Code::Internal, "the journal cannot be read")),
        });
    }

    pub(super) fn record(&self, first: u64, count: u32, lines: Bytes) -> Result<(), End> {
        let bytes = lines.len();
        let batch = Batch::new(first, count, lines).map_err(|code| End::new(code, "records not numbered as they say"))?;
        let full = || End::new(Code::QueueFull, "more records than are being written");
        if self.unwritten.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_UNWRITTEN {
            return Err(full());
        }
        let (links, outbox, unwritten, connector) =
            (self.links.clone(), self.outbox.clone(), self.unwritten.clone(), self.connector);
        let queued = self.journal.write(connector, batch, move |written| {
            unwritten.fetch_sub(bytes, Ordering::Relaxed);
            let Some(written) = written else {
                return outbox.close(End::new(Code::Internal, "the journal cannot be written"));
            };
            outbox.send(&LinkFrame::RecordsAck { last: written.last });
            links.stats.records_in.add(written.count);
            if written.count > 0 {
                links.events.post(Event::RecordsWritten { connector, last: written.last, count: written.count });
            }
        });
        if queued { Ok(()) } else { Err(full()) }
    }
}

/// The spool of a connector rides on its link.
impl Rider for Spool {
    fn up(&self, outbox: &Arc<Outbox>) {
        let outbox = outbox.clone();
        self.attach(Box::new(move |batch| outbox.send(&batch.into_frame())));
    }

    fn down(&self) {
        self.detach();
    }

    fn records_written(&self, last: u64) {
        self.acknowledge(last);
    }
}
