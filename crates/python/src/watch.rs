//! How the process's own link stands, for everything that judges by it (ARCHITECTURE.md, "Tickets").

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloister_core::link::{Outbox, Rider};
use cloister_core::relay::Relay;
use cloister_core::ticket::{LinkState, MAX_CONTINUITY};
use cloister_core::tls::Trust;

/// Rides on every dialled link of the process. Control dials none: its link is never down.
pub struct Watch {
    trust: Arc<Trust>,
    state: Mutex<State>,
}

struct State {
    link: LinkState,
    relays: Vec<Arc<Relay>>,
}

impl Watch {
    pub fn new(trust: Arc<Trust>) -> Watch {
        Watch { trust, state: Mutex::new(State { link: LinkState::Up { since: 0 }, relays: Vec::new() }) }
    }

    pub fn add(&self, relay: Arc<Relay>) {
        let mut state = self.lock();
        relay.set_link(state.link);
        state.relays.push(relay);
    }

    pub fn relays(&self) -> Vec<Arc<Relay>> {
        self.lock().relays.clone()
    }

    pub fn set(&self, link: LinkState) {
        let leeway = if link == LinkState::Down { MAX_CONTINUITY } else { 0 };
        self.trust.set_link_down_leeway(Duration::from_secs(leeway));
        let mut state = self.lock();
        state.link = link;
        state.relays.iter().for_each(|relay| relay.set_link(link));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rider for Watch {
    fn up(&self, _outbox: &Arc<Outbox>) {
        self.set(LinkState::Up { since: self.trust.now() });
    }

    fn down(&self) {
        self.set(LinkState::Down);
    }
}
