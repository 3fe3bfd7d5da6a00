//! Links: the long-lived control connections between agents and the exchange, either side.
//!
//! A dialled link keeps its number over reconnects; a served one ends with its connection. What arrives becomes events; records
//! go to the journal, acknowledgements to the spool, without passing Python.

mod connection;
mod dialled;
mod machine;
mod recorder;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

pub use connection::{End, MAX_QUEUE_BYTES, Outbox};

use crate::code::Code;
use crate::dial::{Address, Dialer};
use crate::frame::{LinkFrame, MAX_LINK_PAYLOAD};
use crate::front::group;
use crate::ids::{Id, Role};
use crate::record::Journal;
use crate::runtime::{Event, Events, Stats};
use crate::tls::{PeerIdentity, Trust};
use connection::{Bounds, carry};
use recorder::Recorder;

/// Longest message on an enrolment link, whose peer has proved nothing yet.
pub const MAX_ENROL_FRAME: usize = 128 << 10;
/// Longest life of an enrolment link: a sign-in in the browser is offered for ten minutes over it; links that say nothing end long before.
pub const ENROL_LIFE: Duration = Duration::from_secs(660);
/// Most enrolment links at once, in all and from one source as the front counts them: their peers have proved nothing.
pub const MAX_ENROLMENTS: usize = 1024;
pub const MAX_ENROLMENTS_PER_SOURCE: usize = 32;

/// What rides on a dialled link beside messages: told when it comes and goes, and what the exchange acknowledges.
pub trait Rider: Send + Sync {
    /// The link is up; `outbox` leads into it.
    fn up(&self, outbox: &Arc<Outbox>);
    fn down(&self);
    /// Records up to `last` are written at the exchange.
    fn records_written(&self, _last: u64) {}
}

/// All links of one process.
pub struct Links {
    pub events: Arc<Events>,
    pub stats: Arc<Stats>,
    pub trust: Arc<Trust>,
    pub dialer: Arc<Dialer>,
    journal: Mutex<Option<Arc<Journal>>>,
    next: AtomicU64,
    table: Mutex<HashMap<u64, Arc<Link>>>,
    enrolments: Mutex<HashMap<IpAddr, usize>>,
}

/// One link, dialled or served.
struct Link {
    number: u64,
    /// Dialled: where to.
    dialled: Option<Address>,
    state: Mutex<LinkState>,
    /// Dialled: wakes the dialler from its pause.
    hurry: Notify,
}

#[derive(Default)]
struct LinkState {
    peer: Option<Id>,
    /// None while down.
    outbox: Option<Arc<Outbox>>,
    /// The last acknowledgement of records on this connection.
    written: Option<u64>,
    riders: Vec<Arc<dyn Rider>>,
    /// Dialled: closed for good.
    over: Option<End>,
    /// Dialled: the next attempt waits for nothing.
    redial: bool,
}

impl Links {
    pub fn new(events: Arc<Events>, stats: Arc<Stats>, trust: Arc<Trust>, dialer: Arc<Dialer>) -> Links {
        Links {
            events,
            stats,
            trust,
            dialer,
            journal: Mutex::default(),
            next: AtomicU64::new(1),
            table: Mutex::default(),
            enrolments: Mutex::default(),
        }
    }

    /// Where records that arrive on served links are kept.
    pub fn set_journal(&self, journal: Option<Journal>) {
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = journal.map(Arc::new);
    }

    /// Carry a link that a front has accepted, until it ends. `peer` is the proved agent, None on the enrolment ALPN.
    pub async fn serve<S>(self: &Arc<Self>, stream: S, peer: Option<PeerIdentity>, address: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _enrolment = match peer {
            Some(_) => None,
            None => match self.enter_enrolment(group(address.ip())) {
                Some(enrolment) => Some(enrolment),
                None => return self.stats.links_refused.add(1),
            },
        };
        let link = self.register(None);
        let _entry = Entry { links: self, number: link.number };
        let mut report = Report::new(self, &link);
        let (_up, outbox) = self.raise(&link, peer.clone(), address.to_string());
        let recorder = self.recorder(peer.as_ref(), &outbox);
        let bounds = match peer {
            Some(_) => Bounds { frame: MAX_LINK_PAYLOAD + 1, life: None },
            None => Bounds { frame: MAX_ENROL_FRAME, life: Some(ENROL_LIFE) },
        };
        report.end = carry(stream, &outbox, bounds, |frame| match (frame, &recorder) {
            (LinkFrame::Message(body), _) => self.offer(&link, body),
            (LinkFrame::Records { first, count, lines }, Some(recorder)) => recorder.record(first, count, lines),
            _ => Err(End::new(Code::ProtocolError, "a frame that has no place on this link")),
        })
        .await;
    }

    /// Queue one message. False if the link is down, or ends because its queue is full.
    pub fn send(&self, number: u64, body: Bytes) -> bool {
        let outbox = self.get(number).and_then(|link| link.lock().outbox.clone());
        let sent = outbox.is_some_and(|outbox| outbox.send(&LinkFrame::Message(body)));
        self.stats.link_messages_out.add(u64::from(sent));
        sent
    }

    /// End a link; a dialled one for good.
    pub fn close(&self, number: u64, reason: Code) {
        if let Some(link) = self.get(number) {
            link.close(End::new(reason, "closed here"), Closing::ForGood);
        }
    }

    /// End a dialled link's connection and dial again at once.
    pub fn redial(&self, number: u64, reason: Code) {
        if let Some(link) = self.get(number) {
            link.close(End::new(reason, "dialled anew"), Closing::Redial);
        }
    }

    /// End the served links of these agents; how many there were.
    pub fn drop_agents(&self, agents: &HashSet<Id>, reason: Code) -> usize {
        let links: Vec<_> = self.lock().values().cloned().collect();
        let theirs = links.iter().filter(|link| link.lock().peer.is_some_and(|peer| agents.contains(&peer)));
        theirs.map(|link| link.close(End::new(reason, "closed here"), Closing::ForGood)).count()
    }

    /// End every link, served and dialled, for good.
    pub fn close_all(&self, reason: Code) {
        let links: Vec<_> = self.lock().values().cloned().collect();
        links.iter().for_each(|link| link.close(End::new(reason, "closed here"), Closing::ForGood));
    }

    /// Where a dialled link is dialled to.
    pub fn exchange_of(&self, number: u64) -> Option<Address> {
        self.get(number)?.dialled.clone()
    }

    /// Let `rider` ride on a dialled link. Errors: `argument_invalid` if there is no such link.
    pub fn ride(&self, number: u64, rider: Arc<dyn Rider>) -> Result<(), Code> {
        let link = self.get(number).ok_or(Code::ArgumentInvalid)?;
        let mut state = link.lock();
        state.riders.push(rider.clone());
        let outbox = state.outbox.clone();
        drop(state);
        if let Some(outbox) = outbox {
            rider.up(&outbox);
            // What the exchange said before this rider was up counts for it too; hearing it twice does no harm.
            let written = link.lock().written;
            if let Some(last) = written {
                rider.records_written(last);
            }
        }
        Ok(())
    }

    /// The link is up from here until the guard goes.
    fn raise<'a>(&'a self, link: &'a Link, peer: Option<PeerIdentity>, address: String) -> (Up<'a>, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::default());
        let riders = {
            let mut state = link.lock();
            state.peer = peer.as_ref().map(|peer| peer.id);
            state.outbox = Some(outbox.clone());
            state.written = None;
            if let Some(over) = &state.over {
                outbox.close(over.clone());
            }
            state.riders.clone()
        };
        self.stats.links.add(1);
        self.stats.links_opened.add(1);
        self.events.post(Event::LinkUp { link: link.number, peer, address });
        riders.iter().for_each(|rider| rider.up(&outbox));
        (Up { links: self, link }, outbox)
    }

    /// None at the bound.
    fn enter_enrolment(&self, source: IpAddr) -> Option<Enrolment<'_>> {
        let mut enrolments = self.enrolments.lock().unwrap_or_else(PoisonError::into_inner);
        if enrolments.values().sum::<usize>() >= MAX_ENROLMENTS {
            return None;
        }
        let ours = enrolments.entry(source).or_default();
        if *ours >= MAX_ENROLMENTS_PER_SOURCE {
            return None;
        }
        *ours += 1;
        Some(Enrolment { links: self, source })
    }

    fn recorder(self: &Arc<Self>, peer: Option<&PeerIdentity>, outbox: &Arc<Outbox>) -> Option<Recorder> {
        let peer = peer.filter(|peer| peer.role == Role::Connector)?;
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let recorder = Recorder::new(self, journal, peer.id, outbox);
        recorder.greet();
        Some(recorder)
    }

    fn register(&self, dialled: Option<Address>) -> Arc<Link> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link { number, dialled, state: Mutex::default(), hurry: Notify::new() });
        self.lock().insert(number, link.clone());
        link
    }

    fn offer(&self, link: &Link, body: Bytes) -> Result<(), End> {
        self.stats.link_messages_in.add(1);
        if self.events.offer(Event::LinkMessage { link: link.number, body }) {
            Ok(())
        } else {
            Err(End::new(Code::QueueFull, "more messages than are being handled"))
        }
    }

    fn get(&self, number: u64) -> Option<Arc<Link>> {
        self.lock().get(&number).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records_written(&self, last: u64) {
        let riders = {
            let mut state = self.lock();
            state.written = Some(last);
            state.riders.clone()
        };
        riders.iter().for_each(|rider| rider.records_written(last));
    }

    fn close(&self, end: End, closing: Closing) {
        let mut state = self.lock();
        match closing {
            Closing::ForGood => {
                state.over.get_or_insert_with(|| end.clone());
            }
            Closing::Redial => state.redial = true,
        }
        if let Some(outbox) = &state.outbox {
            outbox.close(end);
        }
        drop(state);
        self.hurry.notify_one();
    }

    /// Until the link is closed or to be dialled anew.
    async fn interrupted(&self) {
        loop {
            self.hurry.notified().await;
            let state = self.lock();
            if state.over.is_some() || state.redial {
                return;
            }
        }
    }

    /// Whether the link was closed for good, and whether it is to be dialled at once (asked once).
    fn verdict(&self) -> (Option<End>, bool) {
        let mut state = self.lock();
        (state.over.clone(), std::mem::take(&mut state.redial))
    }
}

#[derive(Clone, Copy)]
enum Closing {
    ForGood,
    Redial,
}

/// A link in the table.
struct Entry<'a> {
    links: &'a Links,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.links.lock().remove(&self.number);
    }
}

/// An enrolment link among those of its source.
struct Enrolment<'a> {
    links: &'a Links,
    source: IpAddr,
}

impl Drop for Enrolment<'_> {
    fn drop(&mut self) {
        let mut enrolments = self.links.enrolments.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = enrolments.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                enrolments.remove(&self.source);
            }
        }
    }
}

/// A link that is up.
struct Up<'a> {
    links: &'a Links,
    link: &'a Link,
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let riders = {
            let mut state = self.link.lock();
            state.outbox = None;
            state.riders.clone()
        };
        self.links.stats.links.sub(1);
        riders.iter().for_each(|rider| rider.down());
    }
}

/// Says at its end why a link is down; by a bug if nobody has told it.
struct Report<'a> {
    links: &'a Links,
    link: &'a Link,
    end: End,
    retry_in: Option<f64>,
}

impl<'a> Report<'a> {
    fn new(links: &'a Links, link: &'a Link) -> Report<'a> {
        Report { links, link, end: End::new(Code::Internal, "the link's task failed"), retry_in: None }
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        let end = self.end.clone();
        let event = Event::LinkDown { link: self.link.number, reason: end.code, detail: end.detail, retry_in: self.retry_in };
        self.links.events.post(event);
    }
}

#[cfg(test)]
mod tests;
