//! The connector's authority: which sessions may carry flows now, and which flows must end.
//!
//! A machine without I/O (ARCHITECTURE.md, "The connector's authority"). Times are Unix seconds. Whatever removes a session from
//! it returns the session as [`Ended`]: the caller resets its flows before it says that the change is in force.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::code::Code;
use crate::ids::{Id, TrustDomain};
use crate::ticket::{LEEWAY, LinkState, MAX_CONTINUITY, MAX_LIFE, Thumbprint, Ticket, TicketKeys};

/// Most sessions held; one more is refused with `limit_reached`.
pub const MAX_SESSIONS: usize = 65_536;
/// Most revocations remembered one by one; older ones become the generation floor.
pub const MAX_REVOKED: usize = 65_536;
/// How long a revoked session's last ticket could still be presented, seconds.
const REVOCATION_LIFE: u64 = MAX_LIFE + MAX_CONTINUITY + 2 * LEEWAY;

/// A session whose flows must end now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ended {
    pub session: Id,
    pub code: EndCode,
}

/// Why the authority ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndCode {
    Revoked,
    Expired,
    /// Its segment is no longer assigned here.
    SegmentChanged,
    /// Its device is no longer trusted.
    DeviceRevoked,
}

impl EndCode {
    pub const fn code(self) -> Code {
        match self {
            EndCode::Revoked => Code::SessionRevoked,
            EndCode::Expired => Code::SessionExpired,
            EndCode::SegmentChanged => Code::SegmentChanged,
            EndCode::DeviceRevoked => Code::DeviceRevoked,
        }
    }
}

#[derive(Debug)]
struct Snapshot {
    generation: u64,
    sessions: HashSet<Id>,
}

#[derive(Debug)]
pub struct Grants {
    me: Id,
    issuer: TrustDomain,
    link: LinkState,
    segments: HashSet<Id>,
    /// None until the first one since start: no ticket is accepted before.
    snapshot: Option<Snapshot>,
    /// Sessions admitted, with their newest ticket.
    held: HashMap<Id, Ticket>,
    /// (last valid second, session) of everything in `held`.
    deadlines: BTreeSet<(u64, Id)>,
    revoked: HashSet<Id>,
    /// The same in the order of arrival, with generation and the second after which no ticket can be left.
    revocations: VecDeque<(Id, u64, u64)>,
    /// Tickets of sessions not held that are not newer than this are refused: revocations up to here were forgotten.
    floor: Option<u64>,
}

impl Grants {
    pub fn new(me: Id, issuer: TrustDomain) -> Grants {
        Grants {
            me,
            issuer,
            link: LinkState::Down,
            segments: HashSet::new(),
            snapshot: None,
            held: HashMap::new(),
            deadlines: BTreeSet::new(),
            revoked: HashSet::new(),
            revocations: VecDeque::new(),
            floor: None,
        }
    }

    /// Admit a session by its ticket, or renew it. `client` and `key` are what this tunnel proved.
    ///
    /// Errors: `ticket_audience`, `ticket_not_yours`, `ticket_expired`, `ticket_revoked`, `snapshot_missing`, `exchange_unreachable`
    /// (newer than the snapshot while the link is down), `not_in_segment` (not assigned here), `limit_reached`.
    pub fn admit(&mut self, ticket: &Ticket, client: Id, key: Thumbprint, now: u64) -> Result<(), Code> {
        self.judge(ticket, client, key, now)?;
        match self.held.get(&ticket.session) {
            Some(held) if (held.segment, held.jkt) != (ticket.segment, ticket.jkt) => return Err(Code::TicketNotYours),
            Some(held) if age(held) >= age(ticket) => return Ok(()),
            None if self.held.len() >= MAX_SESSIONS => return Err(Code::LimitReached),
            _ => {}
        }
        if let Some(older) = self.held.insert(ticket.session, ticket.clone()) {
            self.deadlines.remove(&(older.valid_until(self.link), older.session));
        }
        self.deadlines.insert((ticket.valid_until(self.link), ticket.session));
        Ok(())
    }

    fn judge(&self, ticket: &Ticket, client: Id, key: Thumbprint, now: u64) -> Result<(), Code> {
        if ticket.issuer != self.issuer || !ticket.connectors.contains(&self.me) {
            return Err(Code::TicketAudience);
        }
        ticket.check_holder(client, key)?;
        ticket.check_time(now, self.link)?;
        let snapshot = self.snapshot.as_ref().ok_or(Code::SnapshotMissing)?;
        if self.revoked.contains(&ticket.session) {
            return Err(Code::TicketRevoked);
        }
        if ticket.generation <= snapshot.generation {
            if !snapshot.sessions.contains(&ticket.session) {
                return Err(Code::TicketRevoked);
            }
        } else if self.link == LinkState::Down {
            return Err(Code::ExchangeUnreachable);
        }
        if self.floor.is_some_and(|floor| ticket.generation <= floor) && !self.held.contains_key(&ticket.session) {
            return Err(Code::TicketRevoked);
        }
        if !self.segments.contains(&ticket.segment) {
            return Err(Code::NotInSegment);
        }
        Ok(())
    }

    /// The newest ticket of an admitted session, for a further flow of the same client in the same or another tunnel.
    ///
    /// Errors: `ticket_missing`, `ticket_not_yours`, `ticket_expired`.
    pub fn check(&self, session: Id, client: Id, key: Thumbprint, now: u64) -> Result<&Ticket, Code> {
        let ticket = self.held.get(&session).ok_or(Code::TicketMissing)?;
        ticket.check_holder(client, key)?;
        ticket.check_time(now, self.link)?;
        Ok(ticket)
    }

    /// Whether a ticket of this session was admitted and the session is not over.
    pub fn holds(&self, session: Id) -> bool {
        self.held.contains_key(&session)
    }

    /// The whole set of live sessions at `generation`; older generations than the one held are ignored.
    pub fn snapshot(&mut self, generation: u64, sessions: impl IntoIterator<Item = Id>) -> Vec<Ended> {
        if self.snapshot.as_ref().is_some_and(|held| held.generation > generation) {
            return Vec::new();
        }
        let sessions: HashSet<Id> = sessions.into_iter().collect();
        let gone = self.select(|ticket| ticket.generation <= generation && !sessions.contains(&ticket.session));
        self.snapshot = Some(Snapshot { generation, sessions });
        self.end(gone, EndCode::Revoked)
    }

    /// These sessions are over, for good: their ids are never used again.
    pub fn revoke(&mut self, generation: u64, sessions: impl IntoIterator<Item = Id>, now: u64) -> Vec<Ended> {
        let mut gone = Vec::new();
        for session in sessions {
            if self.revoked.insert(session) {
                self.revocations.push_back((session, generation, now.saturating_add(REVOCATION_LIFE)));
            }
            gone.push(session);
        }
        self.forget_revocations(now);
        self.end(gone, EndCode::Revoked)
    }

    /// Replace the segments served here.
    pub fn assign(&mut self, segments: impl IntoIterator<Item = Id>) -> Vec<Ended> {
        self.segments = segments.into_iter().collect();
        let gone = self.select(|ticket| !self.segments.contains(&ticket.segment));
        self.end(gone, EndCode::SegmentChanged)
    }

    /// Ends what was vouched for by a ticket key no longer in force. A planned rotation keeps the old key until its last ticket
    /// has expired, so this cuts only after a compromise.
    pub fn retain_keys(&mut self, keys: &TicketKeys) -> Vec<Ended> {
        let gone = self.select(|ticket| !keys.contains(ticket.kid()));
        self.end(gone, EndCode::Revoked)
    }

    /// Ends every session of these devices.
    pub fn drop_devices(&mut self, devices: &HashSet<Id>) -> Vec<Ended> {
        let gone = self.select(|ticket| devices.contains(&ticket.device));
        self.end(gone, EndCode::DeviceRevoked)
    }

    /// The link to the exchange came up at `now`.
    pub fn link_up(&mut self, now: u64) {
        if self.link == LinkState::Down {
            self.set_link(LinkState::Up { since: now });
        }
    }

    pub fn link_down(&mut self) {
        self.set_link(LinkState::Down);
    }

    /// Ends what `now` has left behind. Call at or after [`Grants::next_deadline`].
    pub fn tick(&mut self, now: u64) -> Vec<Ended> {
        self.forget_revocations(now);
        let gone = self.deadlines.iter().take_while(|(until, _)| *until < now).map(|(_, session)| *session).collect();
        self.end(gone, EndCode::Expired)
    }

    /// The first second at which `tick` ends something, if nothing else happens.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(until, _)| until.saturating_add(1))
    }

    pub fn link(&self) -> LinkState {
        self.link
    }

    /// Sessions held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn set_link(&mut self, link: LinkState) {
        self.link = link;
        self.deadlines = self.held.values().map(|ticket| (ticket.valid_until(link), ticket.session)).collect();
    }

    fn select(&self, over: impl Fn(&Ticket) -> bool) -> Vec<Id> {
        self.held.values().filter(|ticket| over(ticket)).map(|ticket| ticket.session).collect()
    }

    fn end(&mut self, sessions: Vec<Id>, code: EndCode) -> Vec<Ended> {
        let mut ended = Vec::new();
        for session in sessions {
            if let Some(ticket) = self.held.remove(&session) {
                self.deadlines.remove(&(ticket.valid_until(self.link), session));
                ended.push(Ended { session, code });
            }
        }
        ended
    }

    fn forget_revocations(&mut self, now: u64) {
        while let Some((session, generation, until)) = self.revocations.front().copied() {
            let crowded = self.revocations.len() > MAX_REVOKED;
            if until >= now && !crowded {
                return;
            }
            if until >= now {
                self.floor = self.floor.max(Some(generation));
            }
            self.revoked.remove(&session);
            self.revocations.pop_front();
        }
    }
}

/// Which of two tickets of a session is the newer one.
fn age(ticket: &Ticket) -> (u64, u64, u64) {
    (ticket.generation, ticket.iat, ticket.exp)
}

#[cfg(test)]
mod tests;
