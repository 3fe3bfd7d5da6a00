//! What the client may reach: the catalogue, its sessions, and who waits for one. No I/O.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use http::HeaderValue;
use tokio::sync::watch;

use crate::code::Code;
use crate::flow::live::Endable;
use crate::flow::pump::Moved;
use crate::host::Destination;
use crate::ids::Id;
use crate::segment::{Segments, Visible};
use crate::ticket::LEEWAY;

/// Sessions of one client.
pub const MAX_SESSIONS: usize = 4096;
/// Seconds after which a question that nobody answered is asked again.
const QUESTION_LIFE: u64 = 10;
/// Seconds that a question stays open while a person has to act.
pub const PENDING_LIFE: u64 = 120;
/// Sessions asked for and not answered.
pub const MAX_WANTED: usize = 1024;
/// A session without a flow for so many seconds is told as idle: control need not renew it any more.
pub const IDLE_AFTER: u64 = 60;

/// Where a session's flows go, and what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub session: Id,
    pub segment: Id,
    pub ticket: HeaderValue,
    /// Preferred first.
    pub connectors: Vec<Id>,
    pub relays: Vec<Id>,
    /// Of the ticket, Unix seconds.
    pub expires: u64,
}

struct Session {
    grant: Arc<Grant>,
    flows: HashMap<u64, Arc<dyn Endable>>,
    moved: Moved,
    idle_since: Option<u64>,
    idle_told: bool,
    /// The next flow asks control again: it was told that nobody uses this session, or its connectors cannot be reached.
    stale: bool,
    /// Told of each new ticket.
    renewed: watch::Sender<()>,
}

/// What has been said to a question so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Open,
    /// Not now, for this reason: a person has to act.
    Pending(Code),
    Given(Result<Id, Code>),
}

struct Wanted {
    segment: Id,
    /// Unix seconds; afterwards it is asked again.
    until: u64,
    answer: watch::Sender<Answer>,
}

/// What a flow has to do to have a session.
pub enum Found {
    Session(Arc<Grant>),
    /// Somebody asked already.
    Wait(watch::Receiver<Answer>),
    /// Ask now, under this number.
    Ask(u64, watch::Receiver<Answer>),
}

#[derive(Default)]
pub struct Sessions {
    pub catalogue: Arc<Segments<Visible>>,
    sessions: HashMap<Id, Session>,
    by_segment: HashMap<Id, Id>,
    wanted: HashMap<u64, Wanted>,
    next: u64,
}

impl Sessions {
    /// The session for a destination. Errors: `not_found` for what is not visible, `limit_reached`.
    pub fn find(&mut self, destination: &Destination, now: u64) -> Result<(Id, Found), Code> {
        let segment = self.catalogue.find(destination).and_then(|segment| Id::parse(&segment.id)).ok_or(Code::NotFound)?;
        let held = self.by_segment.get(&segment).and_then(|session| self.sessions.get(session));
        if let Some(held) = held.filter(|held| !held.stale && now <= held.grant.expires.saturating_add(LEEWAY)) {
            return Ok((segment, Found::Session(Arc::clone(&held.grant))));
        }
        // Whoever asked may be gone, and the answer with it: an old question is no reason not to ask.
        self.wanted.retain(|_, wanted| wanted.until >= now);
        if let Some(wanted) = self.wanted.values().find(|wanted| wanted.segment == segment) {
            return Ok((segment, Found::Wait(wanted.answer.subscribe())));
        }
        if self.wanted.len() >= MAX_WANTED {
            return Err(Code::LimitReached);
        }
        self.next += 1;
        let (answer, receiver) = watch::channel(Answer::Open);
        self.wanted.insert(self.next, Wanted { segment, until: now.saturating_add(QUESTION_LIFE), answer });
        Ok((segment, Found::Ask(self.next, receiver)))
    }

    /// The question found no ear, or nobody answered in time.
    pub fn give_up(&mut self, request: u64, code: Code) {
        if let Some(wanted) = self.wanted.remove(&request) {
            wanted.answer.send_replace(Answer::Given(Err(code)));
        }
    }

    /// A person has to act first: whoever waits goes on waiting.
    pub fn hold(&mut self, request: u64, code: Code, now: u64) {
        if let Some(wanted) = self.wanted.get_mut(&request) {
            wanted.until = now.saturating_add(PENDING_LIFE);
            wanted.answer.send_replace(Answer::Pending(code));
        }
    }

    pub fn get(&self, session: Id) -> Option<Arc<Grant>> {
        self.sessions.get(&session).map(|session| Arc::clone(&session.grant))
    }

    /// The session of a segment, however old its ticket is: the connector judges.
    pub fn of_segment(&self, segment: Id) -> Option<Arc<Grant>> {
        self.by_segment.get(&segment).and_then(|session| self.get(*session))
    }

    /// Changes with each new ticket of this session, and ends with it.
    pub fn renewals(&self, session: Id) -> Option<watch::Receiver<()>> {
        self.sessions.get(&session).map(|session| session.renewed.subscribe())
    }

    /// The freshest session whose flows may go through this connector.
    pub fn by_connector(&self, connector: Id) -> Option<Arc<Grant>> {
        let grants = self.sessions.values().map(|session| &session.grant);
        grants.filter(|grant| grant.connectors.contains(&connector)).max_by_key(|grant| grant.expires).map(Arc::clone)
    }

    /// A new session or a renewed ticket. True if the ticket of a known session changed.
    pub fn grant(&mut self, request: Option<u64>, grant: Grant) -> Result<bool, Code> {
        if grant.connectors.is_empty() || self.sessions.len() >= MAX_SESSIONS && !self.sessions.contains_key(&grant.session) {
            return Err(if grant.connectors.is_empty() { Code::ArgumentInvalid } else { Code::LimitReached });
        }
        let (session, segment) = (grant.session, grant.segment);
        let grant = Arc::new(grant);
        let renewed = match self.sessions.get_mut(&session) {
            Some(held) if held.grant.segment != segment => return Err(Code::ArgumentInvalid),
            Some(held) => {
                let changed = held.grant.ticket != grant.ticket;
                held.grant = grant;
                (held.idle_since, held.idle_told, held.stale) = (None, false, false);
                held.renewed.send_replace(());
                changed
            }
            None => {
                let fresh = Session {
                    grant,
                    flows: HashMap::new(),
                    moved: Moved::default(),
                    idle_since: None,
                    idle_told: false,
                    stale: false,
                    renewed: watch::Sender::new(()),
                };
                self.sessions.insert(session, fresh);
                false
            }
        };
        self.by_segment.insert(segment, session);
        // Whoever waits for this segment has what it waited for, whichever request is answered.
        let answered: BTreeSet<u64> = self.wanted.iter().filter(|(_, wanted)| wanted.segment == segment).map(|(&n, _)| n).collect();
        for number in answered.into_iter().chain(request) {
            if let Some(wanted) = self.wanted.remove(&number) {
                wanted.answer.send_replace(Answer::Given(if wanted.segment == segment {
                    Ok(session)
                } else {
                    Err(Code::Internal)
                }));
            }
        }
        Ok(renewed)
    }

    /// The session is over: its flows, to be ended.
    pub fn end(&mut self, session: Id) -> Vec<Arc<dyn Endable>> {
        let Some(held) = self.sessions.remove(&session) else { return Vec::new() };
        if self.by_segment.get(&held.grant.segment) == Some(&session) {
            self.by_segment.remove(&held.grant.segment);
        }
        held.flows.into_values().collect()
    }

    /// Enter a flow among those its session ends; none if the session is over by now.
    pub fn enter(&mut self, session: Id, flow: Arc<dyn Endable>) -> Option<u64> {
        let held = self.sessions.get_mut(&session)?;
        self.next += 1;
        held.flows.insert(self.next, flow);
        (held.idle_since, held.idle_told) = (None, false);
        Some(self.next)
    }

    pub fn leave(&mut self, session: Id, flow: u64) -> Moved {
        let Some(held) = self.sessions.get_mut(&session) else { return Moved::default() };
        let moved = held.flows.remove(&flow).map_or(Moved::default(), |flow| flow.moved());
        held.moved.sent += moved.sent;
        held.moved.received += moved.received;
        moved
    }

    /// Sessions that have been idle long enough to be told, once. What is idle and past its ticket is forgotten.
    pub fn newly_idle(&mut self, now: u64) -> Vec<Id> {
        let mut idle = Vec::new();
        let mut over = Vec::new();
        for (&session, held) in self.sessions.iter_mut().filter(|(_, held)| held.flows.is_empty()) {
            let since = *held.idle_since.get_or_insert(now);
            if !held.idle_told && now >= since.saturating_add(IDLE_AFTER) {
                (held.idle_told, held.stale) = (true, true);
                idle.push(session);
            }
            if held.idle_told && now > held.grant.expires.saturating_add(LEEWAY) {
                over.push(session);
            }
        }
        for session in over {
            self.end(session);
        }
        idle
    }

    /// None of the grant's connectors can be reached: the next flow asks control again, unless the grant was renewed meanwhile.
    pub fn distrust(&mut self, grant: &Grant) {
        if let Some(held) = self.sessions.get_mut(&grant.session).filter(|held| held.grant.ticket == grant.ticket) {
            held.stale = true;
        }
    }

    /// Sessions with flows and bytes sent and received, for `status`.
    pub fn status(&self) -> Vec<serde_json::Value> {
        let entry = |held: &Session| {
            let mut moved = held.moved;
            for flow in held.flows.values().map(|flow| flow.moved()) {
                moved.sent += flow.sent;
                moved.received += flow.received;
            }
            serde_json::json!({
                "session": held.grant.session.to_string(), "segment": held.grant.segment.to_string(), "expires": held.grant.expires,
                "flows": held.flows.len(), "sent": moved.sent, "received": moved.received,
                "connectors": held.grant.connectors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        };
        self.sessions.values().map(entry).collect()
    }

    pub fn all_flows(&mut self) -> Vec<Arc<dyn Endable>> {
        self.sessions.values_mut().flat_map(|held| held.flows.drain().map(|(_, flow)| flow)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Found, Grant, IDLE_AFTER, Sessions};
    use crate::code::Code;
    use crate::flow::live::Endable;
    use crate::flow::pump::Moved;
    use crate::host::{Destination, Protocol};
    use crate::ids::Id;
    use crate::segment::Segments;
    use crate::ticket::LEEWAY;

    const SEGMENT: &str = "00000000000000aa";
    const NOW: u64 = 1_000_000;

    struct Flow;

    impl Endable for Flow {
        fn end(&self, _: Code) -> bool {
            true
        }

        fn moved(&self) -> Moved {
            Moved::default()
        }
    }

    fn sessions() -> Sessions {
        let catalogue = format!(
            r#"[{{"id":"{SEGMENT}","name":"a","hosts":["a.internal"],"ports":[{{"first":1,"last":9}}],"protocol":"tcp","healthy":true,"labels":{{}}}}]"#
        );
        Sessions { catalogue: Arc::new(Segments::parse(catalogue.as_bytes()).expect("catalogue")), ..Sessions::default() }
    }

    fn grant(connector: &str) -> Grant {
        Grant {
            session: Id::parse("00000000000000cc").expect("id"),
            segment: Id::parse(SEGMENT).expect("id"),
            ticket: http::HeaderValue::from_str(connector).expect("ticket"),
            connectors: vec![Id::parse(connector).expect("id")],
            relays: vec![],
            expires: NOW + 300,
        }
    }

    fn is_ready(sessions: &mut Sessions, now: u64) -> bool {
        let destination = Destination::parse("a.internal", 5, Protocol::Tcp).expect("destination");
        matches!(sessions.find(&destination, now), Ok((_, Found::Session(_))))
    }

    #[test]
    fn session_is_told_idle_once_and_only_after_its_time() {
        let mut sessions = sessions();
        sessions.grant(None, grant("0000000000000001")).expect("grant");
        assert!(sessions.newly_idle(NOW).is_empty());
        assert!(sessions.newly_idle(NOW + IDLE_AFTER - 1).is_empty());
        assert_eq!(sessions.newly_idle(NOW + IDLE_AFTER).len(), 1);
        assert!(sessions.newly_idle(NOW + IDLE_AFTER + 1).is_empty());
    }

    #[test]
    fn session_in_use_is_not_idle() {
        let mut sessions = sessions();
        let id = grant("0000000000000001").session;
        sessions.grant(None, grant("0000000000000001")).expect("grant");
        let flow = sessions.enter(id, Arc::new(Flow)).expect("entered");
        assert!(sessions.newly_idle(NOW + 10 * IDLE_AFTER).is_empty());
        sessions.leave(id, flow);
        assert!(sessions.newly_idle(NOW + 10 * IDLE_AFTER).is_empty());
        assert_eq!(sessions.newly_idle(NOW + 11 * IDLE_AFTER).len(), 1);
    }

    #[test]
    fn flow_after_idleness_asks_control_again_and_the_answer_counts() {
        let mut sessions = sessions();
        sessions.grant(None, grant("0000000000000001")).expect("grant");
        sessions.newly_idle(NOW);
        sessions.newly_idle(NOW + IDLE_AFTER);
        assert!(!is_ready(&mut sessions, NOW + IDLE_AFTER));
        sessions.grant(None, grant("0000000000000001")).expect("grant");
        assert!(is_ready(&mut sessions, NOW + IDLE_AFTER));
    }

    #[test]
    fn idle_session_past_its_ticket_is_forgotten() {
        let mut sessions = sessions();
        let id = grant("0000000000000001").session;
        sessions.grant(None, grant("0000000000000001")).expect("grant");
        sessions.newly_idle(NOW);
        sessions.newly_idle(NOW + 300);
        assert!(sessions.get(id).is_some());
        sessions.newly_idle(NOW + 300 + LEEWAY + 1);
        assert!(sessions.get(id).is_none());
    }

    #[test]
    fn unreachable_connectors_are_asked_about_unless_renewed_meanwhile() {
        let mut sessions = sessions();
        let old = grant("0000000000000001");
        sessions.grant(None, old.clone()).expect("grant");
        sessions.distrust(&old);
        assert!(!is_ready(&mut sessions, NOW));
        sessions.grant(None, grant("0000000000000002")).expect("grant");
        sessions.distrust(&old);
        assert!(is_ready(&mut sessions, NOW));
    }

    #[test]
    fn question_that_nobody_answered_is_asked_again() {
        let mut sessions = sessions();
        let destination = Destination::parse("a.internal", 5, Protocol::Tcp).expect("destination");
        let ask = |sessions: &mut Sessions, now| matches!(sessions.find(&destination, now), Ok((_, Found::Ask(..))));
        assert!(ask(&mut sessions, NOW));
        assert!(!ask(&mut sessions, NOW + super::QUESTION_LIFE));
        assert!(ask(&mut sessions, NOW + super::QUESTION_LIFE + 1));
        assert_eq!(sessions.wanted.len(), 1);
    }
}
