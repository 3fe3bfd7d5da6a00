//! One tunnel per connector, dialled when a flow needs it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Plane;
use super::sessions::Grant;
use crate::carrier::{JoinRequest, RelayPlace, join};
use crate::code::Code;
use crate::flow::Waiting;
use crate::ids::{Id, Role};
use crate::runtime::Event;
use crate::secure::Secure;
use crate::tls::Leg;
use crate::tunnel::client::{Route, Tunnel};
use crate::tunnel::stream::State;

/// How long a flow waits for a tunnel while another connector could serve it too.
pub const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// How long it waits for the last one.
pub const LONG_PATIENCE: Duration = Duration::from_secs(10);
/// A failed dial is not repeated within this time.
const COOL_DOWN: Duration = Duration::from_millis(500);
/// A tunnel without flows is kept for the next one this long.
const IDLE_LIFE: Duration = Duration::from_secs(300);

type Relays = Vec<(Id, RelayPlace)>;
type Dialled = watch::Receiver<Option<Result<Arc<Tunnel>, Code>>>;

enum Slot {
    Dialling(Dialled),
    Up { tunnel: Arc<Tunnel>, idle_since: Option<Instant> },
    Failed(Code, Instant),
}

#[derive(Default)]
pub struct Tunnels {
    slots: HashMap<Id, Slot>,
    /// Tunnels that take no new flows but still carry some.
    retired: Vec<Arc<Tunnel>>,
}

impl Tunnels {
    pub fn all(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        let up = self.slots.values().filter_map(|slot| match slot {
            Slot::Up { tunnel, .. } => Some(tunnel),
            _ => None,
        });
        up.chain(&self.retired)
    }

    /// Drop what is over or has been idle for long.
    pub fn sweep(&mut self, now: Instant) {
        self.retired.retain(|tunnel| tunnel.flows() > 0 && !matches!(tunnel.state(), State::Ended(_)));
        self.slots.retain(|_, slot| match slot {
            Slot::Up { tunnel, .. } if matches!(tunnel.state(), State::Ended(_)) => false,
            Slot::Up { tunnel, idle_since } if tunnel.flows() == 0 => {
                now.duration_since(*idle_since.get_or_insert(now)) < IDLE_LIFE
            }
            Slot::Up { idle_since, .. } => {
                *idle_since = None;
                true
            }
            Slot::Dialling(_) => true,
            Slot::Failed(_, at) => now.duration_since(*at) < COOL_DOWN,
        });
    }

    /// Let go of every tunnel.
    pub fn clear(&mut self) {
        for tunnel in self.all() {
            tunnel.handle().end(Code::Stopped);
        }
        *self = Self::default();
    }

    pub fn status(&self) -> Vec<serde_json::Value> {
        let state = |state| match state {
            State::Up => "up",
            State::Suspended => "suspended",
            State::Ended(_) => "down",
        };
        let entry = |(connector, slot): (&Id, &Slot)| {
            let (state, flows) = match slot {
                Slot::Dialling(_) => ("connecting", 0),
                Slot::Up { tunnel, .. } => (state(tunnel.state()), tunnel.flows()),
                Slot::Failed(..) => ("down", 0),
            };
            serde_json::json!({"connector": connector.to_string(), "state": state, "flows": flows})
        };
        self.slots.iter().map(entry).collect()
    }
}

impl Plane {
    /// A tunnel to this connector that is up, within `patience`.
    pub async fn tunnel(self: &Arc<Self>, connector: Id, patience: Duration) -> Result<Arc<Tunnel>, Code> {
        let up = async {
            let tunnel = match self.slot(connector)? {
                Ok(tunnel) => tunnel,
                Err(mut dialled) => match dialled.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(result)) => result.clone()?,
                    _ => return Err(Code::TunnelLost),
                },
            };
            match tunnel.handle().changed_from(State::Suspended).await {
                State::Ended(_) => Err(Code::TunnelLost),
                State::Up | State::Suspended => Ok(tunnel),
            }
        };
        timeout(patience, up).await.map_err(|_| Code::NoConnector)?
    }

    /// The same connectors, those last whose tunnel is there but has no carrier.
    pub fn reachable_first(&self, connectors: &[Id]) -> Vec<Id> {
        let tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        let is_suspended = |connector: &Id| matches!(tunnels.slots.get(connector), Some(Slot::Up { tunnel, .. }) if tunnel.state() == State::Suspended);
        let (last, mut ordered): (Vec<Id>, Vec<Id>) = connectors.iter().partition(|connector| is_suspended(connector));
        ordered.extend(last);
        ordered
    }

    /// The tunnel there is, or the dial under way, begun now if need be.
    fn slot(self: &Arc<Self>, connector: Id) -> Result<Result<Arc<Tunnel>, Dialled>, Code> {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        match tunnels.slots.get(&connector) {
            Some(Slot::Up { tunnel, .. }) if tunnel.is_usable() => return Ok(Ok(Arc::clone(tunnel))),
            // A dial that ended without a result is no dial.
            Some(Slot::Dialling(dialled)) if dialled.has_changed().is_ok() => return Ok(Err(dialled.clone())),
            Some(Slot::Failed(code, at)) if at.elapsed() < COOL_DOWN => return Err(*code),
            _ => {}
        }
        let (sender, receiver) = watch::channel(None);
        if let Some(Slot::Up { tunnel, .. }) = tunnels.slots.insert(connector, Slot::Dialling(receiver.clone())) {
            tunnels.retired.push(tunnel);
        }
        drop(tunnels);
        let plane = Arc::clone(self);
        self.runtime.spawn(async move {
            let route = Arc::new(ToConnector { plane: Arc::downgrade(&plane), connector });
            route.report(None, "connecting", "");
            let result = Tunnel::open(route.clone(), plane.settings.tunnel_streams).await;
            let slot = match &result {
                Ok(tunnel) => Slot::Up { tunnel: Arc::clone(tunnel), idle_since: None },
                Err(code) => {
                    route.report(None, "down", code.as_str());
                    Slot::Failed(*code, Instant::now())
                }
            };
            plane.tunnels.lock().unwrap_or_else(PoisonError::into_inner).slots.insert(connector, slot);
            sender.send_replace(Some(result));
        });
        Ok(Err(receiver))
    }
}

/// The way to one connector, over whatever relay its sessions name.
struct ToConnector {
    plane: Weak<Plane>,
    connector: Id,
}

impl ToConnector {
    fn report(&self, relay: Option<Id>, state: &'static str, detail: &str) {
        if let Some(plane) = self.plane.upgrade() {
            plane.events.post(Event::TunnelChanged { connector: self.connector, relay, state, detail: detail.to_owned() });
        }
    }
}

impl Route for ToConnector {
    fn carrier(&self) -> Waiting<'_, Result<(Secure, Id), Code>> {
        Box::pin(async {
            let plane = self.plane.upgrade().ok_or(Code::Stopped)?;
            let (grant, relays) = plane.way_to(self.connector)?;
            let ticket = grant.ticket.to_str().map_err(|_| Code::TicketMalformed)?;
            let mut last = Code::NoConnector;
            for (id, place) in relays {
                match plane.carrier(self.connector, &place, ticket).await {
                    Ok(secure) => return Ok((secure, id)),
                    Err(code) => {
                        if code.as_str().starts_with("ticket_") {
                            plane.events.post(Event::TicketRefused { session: grant.session, code });
                        }
                        last = code;
                    }
                }
            }
            Err(last)
        })
    }

    fn changed(&self, state: State, relay: Id) {
        match state {
            State::Up => self.report(Some(relay), "up", ""),
            State::Suspended => self.report(Some(relay), "suspended", ""),
            State::Ended(code) => self.report(Some(relay), "down", code.as_str()),
        }
    }
}

impl Plane {
    /// The ticket to join with and the relays to try, in order.
    fn way_to(&self, connector: Id) -> Result<(Arc<Grant>, Relays), Code> {
        let grant = self.lock().by_connector(connector).ok_or(Code::TicketMissing)?;
        let known = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        let named: Vec<_> = grant.relays.iter().filter_map(|id| known.iter().find(|(known, _)| known == id)).cloned().collect();
        let relays = if named.is_empty() { known.clone() } else { named };
        if relays.is_empty() { Err(Code::NoCarrier) } else { Ok((grant, relays)) }
    }

    /// Join at one relay and shake hands with the connector; wrapped if something in between broke the bare handshake.
    async fn carrier(&self, connector: Id, place: &RelayPlace, ticket: &str) -> Result<Secure, Code> {
        match self.join(connector, place, ticket, self.settings.always_wrapped).await {
            Err((Stage::Inner, Code::HandshakeFailed | Code::HandshakeTimeout | Code::TunnelLost)) => {
                self.join(connector, place, ticket, true).await.map_err(|(_, code)| code)
            }
            result => result.map_err(|(_, code)| code),
        }
    }

    async fn join(&self, connector: Id, place: &RelayPlace, ticket: &str, wrapped: bool) -> Result<Secure, (Stage, Code)> {
        let request = JoinRequest { ticket: ticket.to_owned(), connector: Some(connector), wrapped };
        let joined = join(&self.trust, &self.dialer, place, request).await.map_err(|code| (Stage::Outer, code))?;
        let config = self.trust.client_config(Leg::Tunnel, Role::Client, Some(connector)).map_err(|code| (Stage::Outer, code))?;
        Secure::connect(joined.io, config).await.map_err(|code| (Stage::Inner, code))
    }
}

/// Which handshake failed.
enum Stage {
    Outer,
    Inner,
}
