//! Unfinished handshakes: bounded in all and per source, the oldest makes room for the newest.
//!
//! Refusing the newest instead would let whoever holds the places open keep everybody else out; an honest handshake takes
//! milliseconds and is gone long before it is the oldest.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

#[derive(Debug)]
pub(super) struct Unfinished {
    places: Arc<Mutex<Places>>,
    total: usize,
    per_source: usize,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// In the order of arrival.
    taken: BTreeMap<u64, (IpAddr, AbortHandle)>,
    by_source: HashMap<IpAddr, VecDeque<u64>>,
}

/// One place; given back by `finish` or by dropping it.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    places: Arc<Mutex<Places>>,
}

impl Unfinished {
    pub(super) fn new(total: usize, per_source: usize) -> Unfinished {
        Unfinished { places: Arc::default(), total: total.max(1), per_source: per_source.max(1) }
    }

    /// Runs a handshake as a task of the current runtime, pushing out the oldest where a bound is reached.
    pub(super) fn spawn<F>(&self, source: IpAddr, serve: impl FnOnce(Ticket) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let source = group(source);
        let mut places = lock(&self.places);
        if places.by_source.get(&source).is_some_and(|held| held.len() >= self.per_source) {
            let oldest = places.by_source.get(&source).and_then(|held| held.front().copied());
            oldest.and_then(|number| places.remove(number)).inspect(AbortHandle::abort);
        }
        if places.taken.len() >= self.total {
            let oldest = places.taken.first_key_value().map(|(number, _)| *number);
            oldest.and_then(|number| places.remove(number)).inspect(AbortHandle::abort);
        }
        places.next += 1;
        let number = places.next;
        // The task cannot finish before its handle is noted: it needs this lock for that.
        let task = tokio::spawn(serve(Ticket { number, places: Arc::clone(&self.places) }));
        places.taken.insert(number, (source, task.abort_handle()));
        places.by_source.entry(source).or_default().push_back(number);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        lock(&self.places).taken.len()
    }

    pub(super) fn abort_all(&self) {
        let mut places = lock(&self.places);
        let numbers: Vec<u64> = places.taken.keys().copied().collect();
        for number in numbers {
            places.remove(number).inspect(AbortHandle::abort);
        }
    }
}

impl Ticket {
    /// Gives the place back; false if it was taken away before.
    pub(super) fn finish(self) -> bool {
        lock(&self.places).remove(self.number).is_some()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.places).remove(self.number);
    }
}

impl Places {
    fn remove(&mut self, number: u64) -> Option<AbortHandle> {
        let (source, task) = self.taken.remove(&number)?;
        if let Some(held) = self.by_source.get_mut(&source) {
            held.retain(|other| *other != number);
            if held.is_empty() {
                self.by_source.remove(&source);
            }
        }
        Some(task)
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One source: an IPv4 address, or the /64 that one IPv6 host is usually given.
pub(crate) fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(four) => IpAddr::V4(four),
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX))),
    }
}
