//! Who is parked, who waits, who is joined: a machine without I/O or clock.
//!
//! Every verb returns what must be done; the service does it. A carrier is parked, then picked for one join, then joined, and never
//! goes back: what a connector was told once it is not asked to forget.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::ids::Id;

/// A picked connector's time to answer `ready`.
pub const READY_DEADLINE: Duration = Duration::from_secs(1);
/// How long a join waits for a connector to park.
pub const PARK_DEADLINE: Duration = Duration::from_secs(3);
/// Pairs of client and connector kept apart at once; beyond, every join is refused.
pub const MAX_BLOCKS: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub parked_per_connector: usize,
    /// Unfinished joins of one client.
    pub joins_per_client: usize,
    /// Joins of one client, finished or not: one for each connector that it talks to, and no client takes every place.
    pub carriers_per_client: usize,
    /// Parked carriers, unfinished joins and joined carriers together.
    pub carriers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { parked_per_connector: 16, joins_per_client: 8, carriers_per_client: 1024, carriers: 65_536 }
    }
}

/// A connector's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CarrierId(u64);

/// A client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JoinId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say `go` to this carrier; `ready` or `gone` must follow, by [`READY_DEADLINE`].
    Go { carrier: CarrierId, wrapped: bool },
    /// Ask control for a carrier of this connector.
    Want { connector: Id },
    /// The join is over before it began.
    Refuse { join: JoinId, code: Code },
    /// End this carrier at once, and what is joined to it.
    Drop { carrier: CarrierId },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Parked,
    Picked { join: JoinId },
    Joined { join: JoinId },
}

#[derive(Debug)]
struct Carrier {
    connector: Id,
    place: Place,
}

#[derive(Debug)]
enum Phase {
    /// The ticket has not been shown yet.
    Asking,
    Waiting,
    Picking(CarrierId),
    Joined(CarrierId),
}

#[derive(Debug)]
struct Join {
    client: Id,
    phase: Phase,
    /// Connectors that the ticket allows and the client accepts, preferred first.
    candidates: Vec<Id>,
    wrapped: bool,
    until: Option<Instant>,
}

/// The table of one relay.
#[derive(Debug)]
pub struct Table {
    limits: Limits,
    draining: bool,
    next: u64,
    carriers: HashMap<CarrierId, Carrier>,
    joins: HashMap<JoinId, Join>,
    parked: HashMap<Id, VecDeque<CarrierId>>,
    waiting: HashMap<Id, BTreeSet<JoinId>>,
    by_client: HashMap<Id, BTreeSet<JoinId>>,
    joined: usize,
    blocks: HashSet<(Id, Id)>,
}

impl Table {
    pub fn new(limits: Limits) -> Table {
        Table {
            limits,
            draining: false,
            next: 0,
            carriers: HashMap::new(),
            joins: HashMap::new(),
            parked: HashMap::new(),
            waiting: HashMap::new(),
            by_client: HashMap::new(),
            joined: 0,
            blocks: HashSet::new(),
        }
    }

    /// A connector's connection parks. The join that waits longest for this connector takes it at once.
    pub fn park(&mut self, connector: Id, now: Instant) -> Result<(CarrierId, Vec<Action>), Code> {
        self.admit()?;
        if self.parked.get(&connector).is_some_and(|parked| parked.len() >= self.limits.parked_per_connector) {
            return Err(Code::LimitReached);
        }
        let carrier = CarrierId(self.number());
        self.carriers.insert(carrier, Carrier { connector, place: Place::Parked });
        self.parked.entry(connector).or_default().push_back(carrier);
        let mut actions = Vec::new();
        // Each round takes the carrier or ends a join whose wait was over.
        while self.parked.contains_key(&connector) {
            let Some(first) = self.waiting.get(&connector).and_then(|waiting| waiting.first().copied()) else { break };
            actions.extend(self.advance(first, now));
        }
        Ok((carrier, actions))
    }

    /// A client's connection begins, before it has shown a ticket.
    pub fn begin(&mut self, client: Id) -> Result<JoinId, Code> {
        self.admit()?;
        if let Some(joins) = self.by_client.get(&client) {
            let unfinished = joins.iter().filter(|join| self.is_unfinished(**join)).count();
            if unfinished >= self.limits.joins_per_client || joins.len() >= self.limits.carriers_per_client {
                return Err(Code::TooManyJoins);
            }
        }
        let join = JoinId(self.number());
        self.joins.insert(join, Join { client, phase: Phase::Asking, candidates: Vec::new(), wrapped: false, until: None });
        self.by_client.entry(client).or_default().insert(join);
        Ok(join)
    }

    /// The client's ticket held: connect it to the first of `candidates` that has a carrier parked.
    pub fn ask(&mut self, join: JoinId, candidates: &[Id], wrapped: bool, now: Instant) -> Vec<Action> {
        let full = self.blocks.len() > MAX_BLOCKS;
        let Some(entry) = self.joins.get_mut(&join).filter(|entry| matches!(entry.phase, Phase::Asking)) else { return Vec::new() };
        entry.candidates =
            candidates.iter().copied().filter(|connector| !full && !self.blocks.contains(&(entry.client, *connector))).collect();
        entry.wrapped = wrapped;
        entry.until = Some(now + PARK_DEADLINE);
        if entry.candidates.is_empty() {
            return self.refuse(join, Code::JoinBlocked);
        }
        self.advance(join, now)
    }

    /// When `expire` is worth calling for a join that waits.
    pub fn waits_until(&self, join: JoinId) -> Option<Instant> {
        self.joins.get(&join)?.until
    }

    /// A join's wait is over; one that was picked meanwhile goes on.
    pub fn expire(&mut self, join: JoinId, now: Instant) -> Vec<Action> {
        match self.joins.get(&join) {
            Some(entry) if matches!(entry.phase, Phase::Waiting) && entry.until.is_some_and(|until| now >= until) => {
                self.refuse(join, Code::NoCarrier)
            }
            _ => Vec::new(),
        }
    }

    /// A picked connector answered: the pair is joined. None if it is too late for that; the carrier must be dropped.
    pub fn ready(&mut self, carrier: CarrierId) -> Option<(JoinId, Id)> {
        let entry = self.carriers.get_mut(&carrier)?;
        let Place::Picked { join } = entry.place else { return None };
        self.joins.get_mut(&join)?.phase = Phase::Joined(carrier);
        entry.place = Place::Joined { join };
        self.joined += 1;
        Some((join, entry.connector))
    }

    /// A connector's connection ended, or it was picked and has not answered in time: its join takes the next carrier.
    pub fn gone(&mut self, carrier: CarrierId, now: Instant) -> Vec<Action> {
        match self.remove_carrier(carrier) {
            Some(Place::Picked { join }) => {
                if let Some(entry) = self.joins.get_mut(&join) {
                    entry.phase = Phase::Waiting;
                }
                self.advance(join, now)
            }
            Some(Place::Joined { join }) => {
                self.joined = self.joined.saturating_sub(1);
                self.remove_join(join);
                Vec::new()
            }
            Some(Place::Parked) | None => Vec::new(),
        }
    }

    /// A client's connection ended. A connector that was told `go` for it is of no use to another.
    pub fn leave(&mut self, join: JoinId) -> Vec<Action> {
        match self.remove_join(join) {
            Some(Phase::Picking(carrier)) => {
                self.remove_carrier(carrier);
                vec![Action::Drop { carrier }]
            }
            Some(Phase::Joined(carrier)) => {
                self.joined = self.joined.saturating_sub(1);
                self.remove_carrier(carrier);
                vec![Action::Drop { carrier }]
            }
            Some(Phase::Asking | Phase::Waiting) | None => Vec::new(),
        }
    }

    /// Ends what this client has open here (towards this connector). The number counts joined carriers.
    pub fn cut(&mut self, client: Id, connector: Option<Id>) -> (usize, Vec<Action>) {
        let joins: Vec<JoinId> = self.by_client.get(&client).into_iter().flatten().copied().collect();
        let mut actions = Vec::new();
        let before = self.joined;
        for join in joins {
            if connector.is_none_or(|connector| self.concerns(join, connector)) {
                actions.extend(self.end(join, Code::JoinBlocked));
            }
        }
        (before - self.joined, actions)
    }

    /// Cuts the pair and refuses its joins until `unblock`.
    pub fn block(&mut self, client: Id, connector: Id) -> (usize, Vec<Action>) {
        if self.blocks.len() <= MAX_BLOCKS {
            self.blocks.insert((client, connector));
        }
        self.cut(client, Some(connector))
    }

    pub fn unblock(&mut self, client: Id, connector: Id) {
        self.blocks.remove(&(client, connector));
    }

    /// Ends whatever this agent has here, as client or as connector. The number counts its connections.
    pub fn drop_agent(&mut self, agent: Id, now: Instant) -> (usize, Vec<Action>) {
        let mut actions = Vec::new();
        let joins: Vec<JoinId> = self.by_client.get(&agent).into_iter().flatten().copied().collect();
        let carriers: Vec<CarrierId> =
            self.carriers.iter().filter(|(_, carrier)| carrier.connector == agent).map(|(carrier, _)| *carrier).collect();
        let count = joins.len() + carriers.len();
        for join in joins {
            actions.extend(self.end(join, Code::AgentRevoked));
        }
        // The parked go first, so that no join moves on to another carrier of the same agent.
        self.parked.remove(&agent);
        for carrier in carriers {
            actions.push(Action::Drop { carrier });
            actions.extend(self.gone(carrier, now));
        }
        (count, actions)
    }

    /// Takes nothing new; the parked are sent away, what is joined or being joined goes on.
    pub fn drain(&mut self) -> Vec<Action> {
        self.draining = true;
        let parked: Vec<CarrierId> = self.parked.drain().flat_map(|(_, parked)| parked).collect();
        for carrier in &parked {
            self.carriers.remove(carrier);
        }
        let waiting: Vec<JoinId> =
            self.joins.iter().filter(|(_, join)| matches!(join.phase, Phase::Asking | Phase::Waiting)).map(|(id, _)| *id).collect();
        let mut actions: Vec<Action> = parked.into_iter().map(|carrier| Action::Drop { carrier }).collect();
        for join in waiting {
            actions.extend(self.refuse(join, Code::Draining));
        }
        actions
    }

    /// Ends everything.
    pub fn close(&mut self) -> Vec<Action> {
        let mut actions = self.drain();
        actions.extend(self.carriers.drain().map(|(carrier, _)| Action::Drop { carrier }));
        self.joins.clear();
        self.by_client.clear();
        self.joined = 0;
        actions
    }

    /// Connector → carriers parked.
    pub fn parked(&self) -> HashMap<Id, usize> {
        self.parked.iter().map(|(connector, parked)| (*connector, parked.len())).collect()
    }

    pub fn parked_count(&self) -> usize {
        self.parked.values().map(VecDeque::len).sum()
    }

    pub fn joined_count(&self) -> usize {
        self.joined
    }

    /// Whether a joined carrier is still to live; asked by the service once it holds both connections.
    pub fn is_joined(&self, carrier: CarrierId) -> bool {
        matches!(self.carriers.get(&carrier), Some(Carrier { place: Place::Joined { .. }, .. }))
    }

    fn admit(&self) -> Result<(), Code> {
        if self.draining {
            return Err(Code::Draining);
        }
        if self.carriers.len() + self.joins.len() - self.joined >= self.limits.carriers {
            return Err(Code::LimitReached);
        }
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn is_unfinished(&self, join: JoinId) -> bool {
        self.joins.get(&join).is_some_and(|entry| !matches!(entry.phase, Phase::Joined(_)))
    }

    /// Gives a join the next parked carrier, or lets it wait for one, or refuses it.
    fn advance(&mut self, join: JoinId, now: Instant) -> Vec<Action> {
        let Some(entry) = self.joins.get_mut(&join) else { return Vec::new() };
        if entry.until.is_none_or(|until| now >= until) {
            return self.refuse(join, Code::NoCarrier);
        }
        for connector in &entry.candidates {
            let Some(parked) = self.parked.get_mut(connector) else { continue };
            let carrier = parked.pop_front();
            if parked.is_empty() {
                self.parked.remove(connector);
            }
            let Some((carrier, slot)) = carrier.and_then(|id| Some((id, self.carriers.get_mut(&id)?))) else { continue };
            slot.place = Place::Picked { join };
            entry.phase = Phase::Picking(carrier);
            let action = Action::Go { carrier, wrapped: entry.wrapped };
            self.forget_waiting(join);
            return vec![action];
        }
        if self.draining {
            return self.refuse(join, Code::Draining);
        }
        entry.phase = Phase::Waiting;
        for connector in &entry.candidates {
            self.waiting.entry(*connector).or_default().insert(join);
        }
        entry.candidates.iter().map(|connector| Action::Want { connector: *connector }).collect()
    }

    fn concerns(&self, join: JoinId, connector: Id) -> bool {
        let Some(entry) = self.joins.get(&join) else { return false };
        match entry.phase {
            Phase::Asking => false,
            Phase::Waiting => entry.candidates.contains(&connector),
            Phase::Picking(carrier) | Phase::Joined(carrier) => {
                entry.candidates.contains(&connector) && matches!(entry.phase, Phase::Picking(_))
                    || self.carriers.get(&carrier).is_some_and(|carrier| carrier.connector == connector)
            }
        }
    }

    fn end(&mut self, join: JoinId, code: Code) -> Vec<Action> {
        if self.is_unfinished(join) {
            return self.refuse(join, code);
        }
        self.leave(join)
    }

    fn refuse(&mut self, join: JoinId, code: Code) -> Vec<Action> {
        let mut actions = self.leave(join);
        actions.push(Action::Refuse { join, code });
        actions
    }

    fn remove_carrier(&mut self, carrier: CarrierId) -> Option<Place> {
        let entry = self.carriers.remove(&carrier)?;
        if let Some(parked) = self.parked.get_mut(&entry.connector) {
            parked.retain(|other| *other != carrier);
            if parked.is_empty() {
                self.parked.remove(&entry.connector);
            }
        }
        Some(entry.place)
    }

    fn remove_join(&mut self, join: JoinId) -> Option<Phase> {
        self.forget_waiting(join);
        let entry = self.joins.remove(&join)?;
        if let Some(joins) = self.by_client.get_mut(&entry.client) {
            joins.remove(&join);
            if joins.is_empty() {
                self.by_client.remove(&entry.client);
            }
        }
        Some(entry.phase)
    }

    fn forget_waiting(&mut self, join: JoinId) {
        let Some(entry) = self.joins.get(&join) else { return };
        for connector in &entry.candidates {
            if let Some(waiting) = self.waiting.get_mut(connector) {
                waiting.remove(&join);
                if waiting.is_empty() {
                    self.waiting.remove(connector);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
