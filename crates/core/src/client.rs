//! The client's data plane: what is visible, sessions, tunnels to connectors, and the flows of the local entrances.
//!
//! Never decides who may do what: it asks Python once per session and is answered by `grant` or `refuse`.

mod entrance;
pub mod sessions;
pub mod tunnels;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle as Tokio;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::carrier::RelayPlace;
use crate::code::Code;
use crate::dial::Dialer;
use crate::flow::{Flows, Local};
use crate::host::Destination;
use crate::ids::Id;
use crate::runtime::{Event, Events, Stats};
use crate::segment::{Segments, Visible};
use crate::tls::Trust;
use crate::tunnel::client::{FlowGuard, MAX_STREAMS, Opened};
use crate::tunnel::stream::State;
use entrance::Entrance;
use sessions::{Answer, Found, Grant, PENDING_LIFE, Sessions};
use tunnels::{LONG_PATIENCE, SHORT_PATIENCE, Tunnels};

/// How long a flow waits for its session.
const SESSION_PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for a fresh ticket where an old one is at hand, which a connector may still take.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(2);
/// Placements by control that one flow tries.
const MAX_PLACEMENTS: usize = 3;
/// How long a flow waits for the connector's answer. Longer than its deadlines for resolving and dialling, and than control takes to notice
/// that it is silent (10 s): the ticket for another connector that comes then ends the wait.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Streams after which a tunnel is replaced.
    pub tunnel_streams: u64,
    /// Always keep the inner TLS inside the outer.
    pub always_wrapped: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tunnel_streams: MAX_STREAMS, always_wrapped: false }
    }
}

/// What the plane is made of.
pub struct Parts {
    pub trust: Arc<Trust>,
    pub dialer: Arc<Dialer>,
    pub events: Arc<Events>,
    pub stats: Arc<Stats>,
    /// Where everything runs.
    pub runtime: Tokio,
    pub settings: Settings,
}

/// The plane itself; `Client` is its owner.
pub struct Plane {
    pub(crate) trust: Arc<Trust>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) events: Arc<Events>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) runtime: Tokio,
    pub(crate) settings: Settings,
    pub(crate) relays: Mutex<Vec<(Id, RelayPlace)>>,
    pub(crate) tunnels: Mutex<Tunnels>,
    sessions: Mutex<Sessions>,
    connected: AtomicU64,
}

impl Plane {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session for a destination; waits for Python's answer if there is none.
    async fn session(&self, destination: &Destination) -> Result<Arc<Grant>, Code> {
        let found = self.lock().find(destination, self.trust.now());
        let (segment, found) = found?;
        let (mut answer, asked) = match found {
            Found::Session(grant) => return Ok(grant),
            Found::Wait(answer) => (answer, None),
            Found::Ask(request, answer) => {
                let wanted = Event::SessionWanted {
                    request,
                    host: destination.host().to_string(),
                    port: destination.port(),
                    protocol: destination.protocol(),
                };
                if !self.events.offer(wanted) {
                    self.lock().give_up(request, Code::LimitReached);
                }
                (answer, Some(request))
            }
        };
        let old = self.lock().of_segment(segment);
        let patience = if old.is_some() { RENEWAL_PATIENCE } else { SESSION_PATIENCE };
        let answered =
            match timeout(patience, answer.wait_for(|answer| *answer != Answer::Open)).await.map(|answer| answer.map(|now| *now)) {
                Ok(Ok(Answer::Given(result))) => result,
                Ok(Ok(Answer::Pending(code))) => pending(answer, code).await,
                Ok(Ok(Answer::Open) | Err(_)) => Err(Code::Stopped),
                Err(_) => Err(Code::ExchangeUnreachable),
            };
        match (answered, old) {
            (Ok(session), _) => self.lock().get(session).ok_or(Code::SessionRevoked),
            (Err(Code::ExchangeUnreachable), Some(old)) => Ok(old),
            (Err(code), _) => {
                if let (Code::ExchangeUnreachable, Some(request)) = (code, asked) {
                    self.lock().give_up(request, code);
                }
                Err(code)
            }
        }
    }

    /// Open a stream; where no connector of the session can be reached, control is asked whether there are others by now.
    async fn open(self: &Arc<Self>, destination: &Destination) -> Result<(Arc<Grant>, Opened, FlowGuard), Code> {
        let mut grant = self.session(destination).await?;
        for _ in 0..MAX_PLACEMENTS {
            match self.open_at_first(destination, Arc::clone(&grant)).await {
                Err(code @ (Code::NoConnector | Code::NoCarrier | Code::TunnelLost | Code::Draining | Code::PeerSilent)) => {
                    self.lock().distrust(&grant);
                    let fresh = self.session(destination).await?;
                    if fresh.connectors == grant.connectors {
                        return Err(code);
                    }
                    grant = fresh;
                }
                result => return result,
            }
        }
        Err(Code::NoConnector)
    }

    /// Open a stream at the first connector of the session that can. One whose tunnel has no carrier is the last to be tried.
    async fn open_at_first(
        self: &Arc<Self>,
        destination: &Destination,
        grant: Arc<Grant>,
    ) -> Result<(Arc<Grant>, Opened, FlowGuard), Code> {
        let mut last = Code::NoConnector;
        for (at, &connector) in self.reachable_first(&grant.connectors).iter().enumerate() {
            let patience = if at + 1 < grant.connectors.len() { SHORT_PATIENCE } else { LONG_PATIENCE };
            let opened = tokio::select! {
                opened = self.open_at(connector, patience, destination, &grant) => opened,
                // Control knows better: nobody waits for a connector that the newest ticket does not name.
                () = self.unnamed(grant.session, connector) => Err(Code::NoConnector),
            };
            match opened {
                Ok((opened, guard)) => return Ok((grant, opened, guard)),
                // This connector cannot be reached or takes nothing: the next one may.
                Err(
                    code @ (Code::NoConnector
                    | Code::NoCarrier
                    | Code::TunnelLost
                    | Code::Draining
                    | Code::PeerSilent
                    | Code::TooManyFlows),
                ) => last = code,
                Err(code) if code.as_str().starts_with("dial_") && at + 1 < grant.connectors.len() => last = code,
                Err(code) => {
                    if code.as_str().starts_with("ticket_") {
                        self.events.post(Event::TicketRefused { session: grant.session, code });
                    }
                    return Err(code);
                }
            }
        }
        Err(last)
    }

    async fn open_at(
        self: &Arc<Self>,
        connector: Id,
        patience: Duration,
        destination: &Destination,
        grant: &Grant,
    ) -> Result<(Opened, FlowGuard), Code> {
        let tunnel = self.tunnel(connector, patience).await?;
        let guard = tunnel.enter();
        let opened = tokio::select! {
            opened = tunnel.flow(destination, grant.session, &grant.ticket) => opened?,
            () = without_carrier(tunnel.handle(), patience) => return Err(Code::TunnelLost),
            () = tokio::time::sleep(ANSWER_PATIENCE) => return Err(Code::PeerSilent),
        };
        Ok((opened, guard))
    }

    /// Until the session's newest ticket does not name this connector, or the session is over.
    async fn unnamed(&self, session: Id, connector: Id) {
        let Some(mut renewals) = self.lock().renewals(session) else { return };
        while self.lock().get(session).is_some_and(|grant| grant.connectors.contains(&connector)) {
            if renewals.changed().await.is_err() {
                return;
            }
        }
    }

    fn tick(&self) {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).sweep(Instant::now());
        let idle = self.lock().newly_idle(self.trust.now());
        if !idle.is_empty() {
            self.events.post(Event::SessionsIdle { sessions: idle });
        }
    }
}

/// The final answer, or `code` if no person has acted in time.
async fn pending(mut answer: watch::Receiver<Answer>, code: Code) -> Result<Id, Code> {
    let given = answer.wait_for(|answer| matches!(answer, Answer::Given(_)));
    match timeout(Duration::from_secs(PENDING_LIFE), given).await.map(|answer| answer.map(|now| *now)) {
        Ok(Ok(Answer::Given(result))) => result,
        _ => Err(code),
    }
}

/// Until the tunnel has ended or been suspended for as long as `patience`.
async fn without_carrier(mut tunnel: crate::tunnel::stream::Handle, patience: Duration) {
    while tunnel.changed_from(State::Up).await == State::Suspended {
        if timeout(patience, tunnel.changed_from(State::Suspended)).await.is_err() {
            return;
        }
    }
}

/// The client's data plane. Dropping it ends everything.
pub struct Client {
    plane: Arc<Plane>,
    ticking: tokio::task::AbortHandle,
}

impl Client {
    pub fn new(parts: Parts) -> Client {
        let plane = Arc::new(Plane {
            trust: parts.trust,
            dialer: parts.dialer,
            events: parts.events,
            stats: parts.stats,
            runtime: parts.runtime,
            settings: parts.settings,
            relays: Mutex::default(),
            tunnels: Mutex::default(),
            sessions: Mutex::default(),
            connected: AtomicU64::new(0),
        });
        let ticking = Arc::clone(&plane);
        let ticking = plane.runtime.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                ticking.tick();
            }
        });
        Client { ticking: ticking.abort_handle(), plane }
    }

    /// For the local entrances.
    pub fn flows(&self) -> Arc<dyn Flows> {
        Arc::new(Entrance(Arc::clone(&self.plane)))
    }

    /// Replace what is visible.
    pub fn set_catalogue(&self, catalogue: Arc<Segments<Visible>>) {
        self.plane.lock().catalogue = catalogue;
    }

    pub fn set_relays(&self, relays: Vec<(Id, RelayPlace)>) {
        *self.plane.relays.lock().unwrap_or_else(PoisonError::into_inner) = relays;
    }

    /// A session, asked for or not, or the renewal of its ticket, which is brought to every connector that knows the session.
    ///
    /// Errors: `argument_invalid` (no connector, or another segment than before), `limit_reached`.
    pub fn grant(&self, request: Option<u64>, grant: Grant) -> Result<(), Code> {
        let (session, ticket) = (grant.session, grant.ticket.clone());
        if !self.plane.lock().grant(request, grant)? {
            return Ok(());
        }
        let tunnels: Vec<_> = {
            let tunnels = self.plane.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
            tunnels.all().filter(|tunnel| tunnel.knows(session)).cloned().collect()
        };
        for tunnel in tunnels {
            let (plane, ticket) = (Arc::clone(&self.plane), ticket.clone());
            self.plane.runtime.spawn(async move {
                match tunnel.renew(session, &ticket).await {
                    Ok(()) | Err(Code::TunnelLost) => {}
                    Err(code) => plane.events.post(Event::TicketRefused { session, code }),
                }
            });
        }
        Ok(())
    }

    pub fn refuse(&self, request: u64, code: Code) {
        self.plane.lock().give_up(request, code);
    }

    /// A person has to act first: the request's flows wait up to 120 s for `grant` or `refuse`, and end with this code.
    pub fn hold(&self, request: u64, code: Code) {
        let now = self.plane.trust.now();
        self.plane.lock().hold(request, code, now);
    }

    /// Reset the session's flows here; how many. All are reset when it returns.
    pub fn end_session(&self, session: Id, code: Code) -> usize {
        let flows = self.plane.lock().end(session);
        for tunnel in self.plane.tunnels.lock().unwrap_or_else(PoisonError::into_inner).all() {
            tunnel.forget(session);
        }
        flows.into_iter().filter(|flow| flow.end(code)).count()
    }

    /// One TCP flow for a local end of any kind; its number. Ends as `FlowEnded`.
    pub fn connect(&self, destination: Destination, local: Local) -> u64 {
        let number = self.plane.connected.fetch_add(1, Ordering::Relaxed) + 1;
        let (plane, flows) = (Arc::clone(&self.plane), self.flows());
        self.plane.runtime.spawn(async move {
            let code = match flows.open_tcp(destination).await {
                Ok(flow) => flow.run(local, Bytes::new()).await,
                Err(code) => code,
            };
            plane.events.post(Event::FlowEnded { flow: number, code });
        });
        number
    }

    /// JSON: sessions and tunnels with their flows.
    pub fn status(&self) -> String {
        let sessions = self.plane.lock().status();
        let tunnels = self.plane.tunnels.lock().unwrap_or_else(PoisonError::into_inner).status();
        let flows = self.plane.stats.flows.get();
        serde_json::json!({"sessions": sessions, "tunnels": tunnels, "flows": flows}).to_string()
    }

    /// End every flow and tunnel.
    pub fn close(&self) {
        self.ticking.abort();
        let flows = self.plane.lock().all_flows();
        for flow in flows {
            flow.end(Code::Stopped);
        }
        self.plane.tunnels.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}
