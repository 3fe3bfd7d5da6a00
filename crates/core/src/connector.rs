//! The connector's data plane: carriers parked at relays, tunnels, the authority over sessions, the last hop, access records.
//!
//! Owns every socket of a connector but its link. Never decides who may do what: it holds what control granted, and nothing else.

pub mod authority;
#[cfg(test)]
mod hostile_tests;
pub mod parking;
pub mod serve;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle as Tokio;
use tokio::sync::watch;

use crate::carrier::RelayPlace;
use crate::code::Code;
use crate::dial::Dialer;
use crate::flow::live::Endable;
use crate::grants::Grants;
use crate::host::{Destination, Host, Protocol};
use crate::ids::{Id, Role};
use crate::lasthop::LastHop;
use crate::record::Spool;
use crate::runtime::{Event, Events, Stats};
use crate::segment::{Assignment, Pattern, Segments};
use crate::tls::Trust;
use crate::tunnel::connector::Tunnels;
use authority::Authority;
use parking::Parking;

/// How often tickets are looked at for their end, and idle sessions are reported.
const TICK: Duration = Duration::from_secs(1);

/// What the plane is made of.
pub struct Parts {
    pub trust: Arc<Trust>,
    pub dialer: Arc<Dialer>,
    pub events: Arc<Events>,
    pub stats: Arc<Stats>,
    pub last_hop: LastHop,
    /// None keeps no records: for tests.
    pub spool: Option<Arc<Spool>>,
    /// Where everything runs.
    pub runtime: Tokio,
}

/// The plane itself; `Connector` is its owner.
pub struct Plane {
    pub(crate) trust: Arc<Trust>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) last_hop: LastHop,
    pub(crate) spool: Option<Arc<Spool>>,
    pub(crate) runtime: Tokio,
    pub(crate) parking: Mutex<Parking>,
    /// Counts the identities: parked carriers follow.
    pub(crate) renewed: watch::Sender<u64>,
    events: Arc<Events>,
    authority: Mutex<Authority>,
    tunnels: Mutex<Tunnels>,
    flow_ids: AtomicU64,
}

impl Plane {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tunnels(&self) -> MutexGuard<'_, Tunnels> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never given twice by this process, and not likely by another.
    pub(crate) fn next_flow_id(&self) -> Id {
        Id::from_bytes(self.flow_ids.fetch_add(1, Ordering::Relaxed).to_be_bytes())
    }

    fn tick(&self) {
        let (flows, idle) = {
            let mut authority = self.lock();
            let ended = authority.grants.tick(self.trust.now());
            (authority.flows_of(&ended), authority.newly_idle())
        };
        end_all(flows);
        if !idle.is_empty() {
            self.events.post(Event::SessionsIdle { sessions: idle });
        }
    }
}

/// All are reset when this returns; how many were not over yet.
fn end_all(flows: Vec<(Arc<dyn Endable>, Code)>) -> usize {
    flows.into_iter().filter(|(flow, code)| flow.end(*code)).count()
}

/// The connector's data plane. Dropping it ends everything.
pub struct Connector {
    plane: Arc<Plane>,
    ticking: tokio::task::AbortHandle,
}

impl Connector {
    /// Errors: `argument_invalid` without an identity of role connector.
    pub fn new(parts: Parts) -> Result<Connector, Code> {
        let own = parts.trust.own(Role::Connector).ok_or(Code::ArgumentInvalid)?;
        let mut seed = [0; 8];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| Code::Internal)?;
        let plane = Arc::new(Plane {
            trust: parts.trust,
            dialer: parts.dialer,
            stats: parts.stats,
            last_hop: parts.last_hop,
            spool: parts.spool,
            runtime: parts.runtime,
            parking: Mutex::default(),
            renewed: watch::channel(0).0,
            events: parts.events,
            authority: Mutex::new(Authority::new(Grants::new(own.id, own.trust_domain))),
            tunnels: Mutex::default(),
            flow_ids: AtomicU64::new(u64::from_be_bytes(seed)),
        });
        let ticking = Arc::clone(&plane);
        let ticking = plane.runtime.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                ticking.tick();
            }
        });
        Ok(Connector { ticking: ticking.abort_handle(), plane })
    }

    pub fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    /// Park `spare` carriers at each of these relays.
    pub fn set_relays(&self, places: Vec<(Id, RelayPlace)>, spare: usize) -> Result<(), Code> {
        self.plane.set_relays(places, spare)
    }

    pub fn open_carrier(&self, relay: Id) -> Result<(), Code> {
        self.plane.open_carrier(relay)
    }

    /// Never dial what these hosts are now: the exchange, the relays.
    pub fn forbid_hosts(&self, hosts: Vec<Host>) {
        let plane = Arc::clone(&self.plane);
        self.plane.runtime.spawn(async move { plane.last_hop.forbid_hosts(hosts).await });
    }

    /// The identity was renewed: parked carriers are replaced by ones that show it.
    pub fn identity_changed(&self) {
        self.plane.renewed.send_modify(|count| *count += 1);
    }

    /// Replace the segments served. Returns how many flows were reset.
    pub fn assign(&self, segments_json: &[u8]) -> Result<usize, Code> {
        let segments = Segments::parse(segments_json).map_err(|error| error.code())?;
        Ok(end_all(self.plane.lock().assign(segments)))
    }

    /// The whole set of live sessions. Returns how many flows were reset; all are when it returns.
    pub fn snapshot(&self, generation: u64, sessions: impl IntoIterator<Item = Id>) -> usize {
        self.end_by(|grants| grants.snapshot(generation, sessions))
    }

    /// Returns how many flows were reset; all are when it returns.
    pub fn revoke(&self, generation: u64, sessions: impl IntoIterator<Item = Id>) -> usize {
        let now = self.plane.trust.now();
        self.end_by(|grants| grants.revoke(generation, sessions, now))
    }

    /// Devices that are no longer trusted: their tunnels end, and the flows in them.
    pub fn drop_devices(&self, devices: &HashSet<Id>) -> usize {
        let flows = self.end_by(|grants| grants.drop_devices(devices));
        self.plane.tunnels().end_clients(|client| devices.contains(&client), Code::DeviceRevoked);
        flows
    }

    /// The ticket keys were replaced: what rests on one that is gone ends.
    pub fn keys_changed(&self) -> usize {
        let keys = self.plane.trust.ticket_keys();
        self.end_by(|grants| grants.retain_keys(&keys))
    }

    pub fn link_up(&self) {
        let now = self.plane.trust.now();
        self.plane.lock().grants.link_up(now);
    }

    pub fn link_down(&self) {
        self.plane.lock().grants.link_down();
    }

    fn end_by(&self, change: impl FnOnce(&mut Grants) -> Vec<crate::grants::Ended>) -> usize {
        let flows = {
            let mut authority = self.plane.lock();
            let ended = change(&mut authority.grants);
            authority.flows_of(&ended)
        };
        end_all(flows)
    }

    /// Check a segment's health; the answer comes as `ProbeDone`. Errors: `not_found` if it is not assigned here.
    pub fn probe(&self, segment: Id) -> Result<(), Code> {
        let assignment = self.plane.lock().segment(segment).cloned().ok_or(Code::NotFound)?;
        let plane = Arc::clone(&self.plane);
        self.plane.runtime.spawn(async move {
            let begun = Instant::now();
            let code = match probe(&plane.last_hop, &assignment).await {
                Ok(()) => Code::Ok,
                Err(code) => code,
            };
            let rtt_us = begun.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
            plane.events.post(Event::ProbeDone { segment, healthy: code == Code::Ok, rtt_us, code });
        });
        Ok(())
    }

    /// JSON: tunnels, flows, sessions with flows and bytes, fill of the spool.
    pub fn status(&self) -> String {
        let (sessions, flows) = {
            let authority = self.plane.lock();
            (authority.status(), authority.flow_count())
        };
        let sessions: Vec<_> = sessions
            .into_iter()
            .map(|entry| {
                serde_json::json!({
                    "session": entry.session.to_string(), "flows": entry.flows, "in": entry.bytes_in, "out": entry.bytes_out,
                })
            })
            .collect();
        let spool = self.plane.spool.as_ref().map(|spool| {
            let status = spool.status();
            serde_json::json!({
                "bytes": status.bytes, "max_bytes": status.max_bytes, "last": status.last,
                "acknowledged": status.acknowledged, "lost": status.lost,
            })
        });
        let tunnels = self.plane.tunnels().len();
        serde_json::json!({"tunnels": tunnels, "flows": flows, "sessions": sessions, "spool": spool}).to_string()
    }

    /// Leave the relays' parking; tunnels and flows go on.
    pub fn drain(&self) {
        self.plane.leave_relays();
    }

    /// End every flow and tunnel.
    pub fn close(&self) {
        self.drain();
        self.ticking.abort();
        self.plane.tunnels().end_clients(|_| true, Code::Stopped);
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.close();
    }
}

/// A TCP connection to what the segment says, or to its first host and port. UDP cannot be asked.
async fn probe(last_hop: &LastHop, segment: &Assignment) -> Result<(), Code> {
    let health = segment.health.as_ref();
    let host = match (health.and_then(|health| health.host.as_deref()), segment.hosts.first()) {
        (Some(host), _) => crate::host::parse_host(host.as_bytes()).map_err(|malformed| malformed.code())?,
        (None, Some(Pattern::Exact(host))) => host.clone(),
        // Below a wildcard nothing in particular has to exist.
        (None, _) => return Ok(()),
    };
    if segment.protocol == Protocol::Udp {
        return Ok(());
    }
    let port = health.and_then(|health| health.port).or(segment.ports.first().map(|range| range.first()));
    let destination = Destination::new(Host::clone(&host), port.ok_or(Code::ArgumentInvalid)?, Protocol::Tcp)
        .map_err(|malformed| malformed.code())?;
    let patience = Duration::from_secs(health.map_or(3, |health| u64::from(health.timeout)));
    let attempt = tokio::time::timeout(patience, last_hop.dial_tcp(&destination, &segment.allow));
    attempt.await.map_err(|_| Code::DialTimeout)?.result.map(drop)
}
