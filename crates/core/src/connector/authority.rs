//! Which flows run under which session: grants, assignments and the live flows, changed together under one lock.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::code::Code;
use crate::flow::live::Endable;
use crate::flow::pump::Moved;
use crate::grants::{Ended, Grants};
use crate::host::Destination;
use crate::ids::Id;
use crate::segment::{Assignment, Segments};
use crate::ticket::{Thumbprint, Ticket};
use crate::tunnel::request::Proof;

/// What a tunnel proved about its client.
#[derive(Clone, Debug)]
pub struct Peer {
    pub client: Id,
    pub key: Thumbprint,
    /// SHA-256 of the client's leaf, hex.
    pub leaf: Arc<str>,
}

/// A request for a flow.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub destination: &'a Destination,
    pub proof: Proof<'a>,
    /// The ticket in `proof`, its signature verified.
    pub verified: Option<&'a Ticket>,
}

/// A flow that may be opened.
#[derive(Debug)]
pub struct Admission {
    pub ticket: Ticket,
    pub allow: Vec<IpNet>,
}

#[derive(Default)]
struct SessionFlows {
    flows: HashMap<u64, Arc<dyn Endable>>,
    /// Of flows that have ended.
    moved: Moved,
    /// Python was told that no flow is left, and none has come since.
    idle_told: bool,
}

/// One session for `status`.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionStatus {
    pub session: Id,
    pub flows: usize,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

pub struct Authority {
    pub grants: Grants,
    segments: Segments<Assignment>,
    sessions: HashMap<Id, SessionFlows>,
    next_flow: u64,
}

impl Authority {
    pub fn new(grants: Grants) -> Self {
        Self { grants, segments: Segments::default(), sessions: HashMap::new(), next_flow: 0 }
    }

    /// Judge a request for a flow and enter it, in one step: a session that is ended later ends this flow too.
    pub fn admit(
        &mut self,
        peer: &Peer,
        asked: &Asking<'_>,
        records_full: bool,
        flow: Arc<dyn Endable>,
        now: u64,
    ) -> Result<(Admission, u64), (Code, Option<Ticket>)> {
        let session = self.prove(peer, asked.proof, asked.verified, now).map_err(|code| (code, None))?;
        let ticket = self.grants.check(session, peer.client, peer.key, now).map_err(|code| (code, None))?.clone();
        let segment = self.segments.find(asked.destination).filter(|segment| Id::parse(&segment.id) == Some(ticket.segment));
        let Some(segment) = segment else { return Err((Code::NotInSegment, Some(ticket))) };
        if segment.elsewhere {
            return Err((Code::NotInSegment, Some(ticket)));
        }
        if segment.strict && records_full {
            return Err((Code::RecordsFull, Some(ticket)));
        }
        let allow = segment.allow.clone();
        self.next_flow += 1;
        let flows = self.sessions.entry(session).or_default();
        flows.flows.insert(self.next_flow, flow);
        flows.idle_told = false;
        Ok((Admission { ticket, allow }, self.next_flow))
    }

    /// The session that a request proves: by a ticket, or by its id once a ticket was accepted.
    fn prove(&mut self, peer: &Peer, proof: Proof<'_>, verified: Option<&Ticket>, now: u64) -> Result<Id, Code> {
        match (proof.session, verified) {
            (Some(session), Some(ticket)) if session != ticket.session => Err(Code::TicketNotYours),
            (_, Some(ticket)) => self.grants.admit(ticket, peer.client, peer.key, now).map(|()| ticket.session),
            (Some(session), None) => Ok(session),
            (None, None) => Err(Code::TicketMissing),
        }
    }

    /// Take a renewed ticket.
    pub fn renew(&mut self, peer: &Peer, session: Id, ticket: &Ticket, now: u64) -> Result<(), Code> {
        if ticket.session != session {
            return Err(Code::TicketNotYours);
        }
        self.grants.admit(ticket, peer.client, peer.key, now)
    }

    /// Put what the flow has become in the place of what it was while it was opened; false if its session is over.
    pub fn replace(&mut self, session: Id, number: u64, flow: Arc<dyn Endable>) -> bool {
        let slot = self.sessions.get_mut(&session).and_then(|entry| entry.flows.get_mut(&number));
        slot.map(|slot| *slot = flow).is_some()
    }

    /// The flow is over.
    pub fn leave(&mut self, session: Id, flow: u64) {
        if let Some(entry) = self.sessions.get_mut(&session)
            && let Some(ended) = entry.flows.remove(&flow)
        {
            let moved = ended.moved();
            entry.moved.sent += moved.sent;
            entry.moved.received += moved.received;
        }
    }

    pub fn assign(&mut self, segments: Segments<Assignment>) -> Vec<(Arc<dyn Endable>, Code)> {
        self.segments = segments;
        let ids: Vec<Id> = self.segments.iter().filter(|segment| !segment.elsewhere).filter_map(|s| Id::parse(&s.id)).collect();
        let ended = self.grants.assign(ids);
        self.flows_of(&ended)
    }

    pub fn segment(&self, id: Id) -> Option<&Assignment> {
        self.segments.iter().find(|segment| Id::parse(&segment.id) == Some(id))
    }

    /// The flows of sessions that the grants have ended.
    pub fn flows_of(&mut self, ended: &[Ended]) -> Vec<(Arc<dyn Endable>, Code)> {
        let mut flows = Vec::new();
        for ended in ended {
            if let Some(entry) = self.sessions.remove(&ended.session) {
                flows.extend(entry.flows.into_values().map(|flow| (flow, ended.code.code())));
            }
        }
        flows
    }

    /// Sessions without a flow that have not been reported since their last one.
    pub fn newly_idle(&mut self) -> Vec<Id> {
        let mut idle = Vec::new();
        for (&session, entry) in &mut self.sessions {
            if entry.flows.is_empty() && !entry.idle_told {
                entry.idle_told = true;
                idle.push(session);
            }
        }
        idle
    }

    pub fn status(&self) -> Vec<SessionStatus> {
        let status = |(&session, entry): (&Id, &SessionFlows)| {
            let mut moved = entry.moved;
            for flow in entry.flows.values().map(|flow| flow.moved()) {
                moved.sent += flow.sent;
                moved.received += flow.received;
            }
            // The pump counts from its local socket: what it sends into the tunnel comes out of the service.
            SessionStatus { session, flows: entry.flows.len(), bytes_in: moved.received, bytes_out: moved.sent }
        };
        self.sessions.iter().map(status).collect()
    }

    pub fn flow_count(&self) -> usize {
        self.sessions.values().map(|entry| entry.flows.len()).sum()
    }
}
