//! What happened, in order, for the one reader in Python: a bounded queue with an eventfd that is readable while something waits.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};

use crate::code::Code;
use crate::host::Protocol;
use crate::ids::Id;
use crate::tls::PeerIdentity;

/// See the classes of the same names in `_core.pyi`.
#[derive(Clone, Debug)]
pub enum Event {
    LinkUp { link: u64, peer: Option<PeerIdentity>, address: String },
    LinkMessage { link: u64, body: Bytes },
    LinkDown { link: u64, reason: Code, detail: String, retry_in: Option<f64> },
    CarrierWanted { connector: Id },
    SessionWanted { request: u64, host: String, port: u16, protocol: Protocol },
    TunnelChanged { connector: Id, relay: Option<Id>, state: &'static str, detail: String },
    TicketRefused { session: Id, code: Code },
    RecordsWritten { connector: Id, last: u64, count: u64 },
    ProbeDone { segment: Id, healthy: bool, rtt_us: u64, code: Code },
    SessionsIdle { sessions: Vec<Id> },
    FlowEnded { flow: u64, code: Code },
}

/// Most bytes of one link's messages that wait; a message counts with what it costs to keep.
pub const MAX_LINK_BYTES: usize = 8 << 20;
/// The same of all links.
pub const MAX_BYTES: usize = 256 << 20;
const MESSAGE_COST: usize = 256;

pub struct Events {
    capacity: usize,
    wake: OwnedFd,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Bytes of messages that wait: in all, and of each link that has any.
    bytes: usize,
    by_link: HashMap<u64, usize>,
}

impl Queue {
    fn has_room(&self, event: &Event, capacity: usize) -> bool {
        let of_link = match event {
            Event::LinkMessage { link, .. } => self.by_link.get(link).copied().unwrap_or(0),
            _ => 0,
        };
        let cost = cost(event);
        self.events.len() < capacity && self.bytes + cost <= MAX_BYTES && of_link + cost <= MAX_LINK_BYTES
    }

    fn push(&mut self, event: Event) {
        if let Event::LinkMessage { link, .. } = event {
            *self.by_link.entry(link).or_default() += cost(&event);
        }
        self.bytes += cost(&event);
        self.events.push_back(event);
    }

    fn take(&mut self, limit: usize) -> Vec<Event> {
        let count = self.events.len().min(limit);
        let taken: Vec<Event> = self.events.drain(..count).collect();
        for event in &taken {
            self.bytes -= cost(event);
            if let Event::LinkMessage { link, .. } = event
                && let Entry::Occupied(mut of_link) = self.by_link.entry(*link)
            {
                *of_link.get_mut() -= cost(event);
                if *of_link.get() == 0 {
                    of_link.remove();
                }
            }
        }
        taken
    }
}

fn cost(event: &Event) -> usize {
    match event {
        Event::LinkMessage { body, .. } => body.len() + MESSAGE_COST,
        _ => 0,
    }
}

impl Events {
    pub fn new(capacity: usize) -> Result<Events, Code> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|_| Code::Internal)?;
        Ok(Events { capacity, wake, queue: Mutex::default() })
    }

    /// Queue an event that a peer or an application can cause at will. False at the bound: whoever caused it is turned away.
    #[must_use]
    pub fn offer(&self, event: Event) -> bool {
        let mut queue = self.lock();
        if !queue.has_room(&event, self.capacity) {
            return false;
        }
        self.push(&mut queue, event);
        true
    }

    /// Queue an event that the reader must not miss. There are never more of these than things they are about.
    pub fn post(&self, event: Event) {
        self.push(&mut self.lock(), event);
    }

    /// The oldest events, at most `limit`.
    pub fn take(&self, limit: usize) -> Vec<Event> {
        let mut queue = self.lock();
        let taken = queue.take(limit);
        if queue.events.is_empty() {
            // Empty already (EAGAIN) is as good.
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
        taken
    }

    /// Readable while events wait.
    pub fn fileno(&self) -> RawFd {
        self.wake.as_fd().as_raw_fd()
    }

    fn push(&self, queue: &mut Queue, event: Event) {
        queue.push(event);
        if queue.events.len() == 1 {
            // Cannot fail short of 2^64 wake-ups not read.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(events: &Events) -> bool {
        let mut fds = [PollFd::new(&events.wake, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    fn event(flow: u64) -> Event {
        Event::FlowEnded { flow, code: Code::Ok }
    }

    #[test]
    fn readable_exactly_while_events_wait() {
        let events = Events::new(10).unwrap();
        assert!(!readable(&events));
        for flow in 0..3 {
            events.post(event(flow));
        }
        assert!(readable(&events));
        assert_eq!(events.take(2).len(), 2);
        assert!(readable(&events));
        assert_eq!(events.take(2).len(), 1);
        assert!(!readable(&events));
        assert_eq!(events.take(2).len(), 0);
        events.post(event(3));
        assert!(readable(&events));
    }

    #[test]
    fn offers_stop_at_the_bound_and_posts_do_not() {
        let events = Events::new(2).unwrap();
        assert!(events.offer(event(0)) && events.offer(event(1)));
        assert!(!events.offer(event(2)));
        events.post(event(3));
        assert_eq!(events.take(10).len(), 3);
    }

    #[test]
    fn one_link_fills_its_own_share_only() {
        let events = Events::new(1000).unwrap();
        let message = |link| Event::LinkMessage { link, body: Bytes::from(vec![0; (1 << 20) - MESSAGE_COST]) };
        for _ in 0..8 {
            assert!(events.offer(message(1)));
        }
        assert!(!events.offer(message(1)));
        for link in 2..=249 {
            assert!(events.offer(message(link)));
        }
        assert!(!events.offer(message(250)), "all links together have a bound too");
        assert_eq!(events.take(1).len(), 1);
        assert!(events.offer(message(1)));
        assert_eq!(events.take(1000).len(), 256);
        let queue = events.lock();
        assert_eq!((queue.bytes, queue.by_link.len()), (0, 0));
    }
}
