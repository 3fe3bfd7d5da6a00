//! `Core`: the runtime of one process.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use cloister_core::carrier::RelayPlace;
use cloister_core::code::Code;
use cloister_core::dial::{Address, Dialer, Exemptions, Proxy};
use cloister_core::front::Front;
use cloister_core::ids::{Id, Role};
use cloister_core::link::Links;
use cloister_core::record::{Journal, Spool};
use cloister_core::runtime::{Events, Runtime, Stats};
use cloister_core::ticket::{LinkState, TicketKeys};
use cloister_core::tls::Trust;
use cloister_core::{client as client_plane, connector as connector_plane};
use pyo3::prelude::*;
use tokio::runtime::Handle;

use crate::client::Client;
use crate::connector::{self, Connector};
use crate::error::{OrRefuse, error};
use crate::events;
use crate::server::{Server, Wish};
use crate::watch::Watch;

/// Most events taken at once.
const MAX_TAKE: usize = 65_536;
/// Time for links to say that they close.
const GOODBYE: Duration = Duration::from_millis(500);
/// Time for the exchange to acknowledge the last records; beyond, they wait on disk for the next start.
const LAST_RECORDS: Duration = Duration::from_secs(1);

/// What every plane of one process shares.
pub struct Shared {
    pub events: Arc<Events>,
    pub stats: Arc<Stats>,
    pub trust: Arc<Trust>,
    pub dialer: Arc<Dialer>,
    pub links: Arc<Links>,
    pub watch: Arc<Watch>,
    pub runtime: Arc<Runtime>,
    fronts: Mutex<Vec<Arc<Front>>>,
    connectors: Mutex<Vec<(Weak<connector_plane::Connector>, Arc<Spool>)>>,
    clients: Mutex<Vec<Weak<client_plane::Client>>>,
    /// Agents refused on every leg.
    revoked: Mutex<HashSet<Id>>,
}

#[pyclass(frozen, module = "cloister._core")]
pub struct Core {
    pub shared: Arc<Shared>,
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (*, threads = 1, event_capacity = 65536))]
    fn new(threads: usize, event_capacity: usize) -> PyResult<Core> {
        let stats = Arc::new(Stats::default());
        let events = Arc::new(Events::new(event_capacity).or_refuse(|| "no eventfd to be had".into())?);
        let runtime = Runtime::start(threads, stats.clone()).or_refuse(|| format!("cannot start `{threads}` threads"))?;
        let (trust, dialer) = (Arc::new(Trust::new()), Arc::new(Dialer::default()));
        let links = Arc::new(Links::new(events.clone(), stats.clone(), trust.clone(), dialer.clone()));
        let watch = Arc::new(Watch::new(trust.clone()));
        let shared = Shared {
            events,
            stats,
            trust,
            dialer,
            links,
            watch,
            runtime: Arc::new(runtime),
            fronts: Mutex::default(),
            connectors: Mutex::default(),
            clients: Mutex::default(),
            revoked: Mutex::default(),
        };
        Ok(Core { shared: Arc::new(shared) })
    }

    fn fileno(&self) -> i32 {
        self.shared.events.fileno()
    }

    #[pyo3(signature = (limit = 1024))]
    fn take_events(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<Py<PyAny>>> {
        let taken = self.shared.events.take(limit.min(MAX_TAKE));
        taken.into_iter().map(|event| events::to_python(py, event)).collect()
    }

    fn set_identity(&self, role: &str, chain_pem: &str, key_pem: &str) -> PyResult<()> {
        let role = Role::parse(role).or_refuse(|| format!("`{role}` is no role"))?;
        let set = self.shared.trust.set_identity(role, chain_pem.as_bytes(), key_pem.as_bytes());
        set.or_refuse(|| format!("the chain and key are no identity of role `{role}`"))?;
        if role == Role::Connector {
            self.shared.connectors().iter().for_each(|connector| connector.identity_changed());
        }
        Ok(())
    }

    #[pyo3(signature = (roots_pem, revoked_agents = Vec::new()))]
    fn set_trust(&self, py: Python<'_>, roots_pem: &str, revoked_agents: Vec<String>) -> PyResult<()> {
        let revoked = ids(&revoked_agents)?.into_iter().collect::<HashSet<_>>();
        let set = self.shared.trust.set_roots(roots_pem.as_bytes(), revoked.iter().copied());
        set.or_refuse(|| "the roots are not PEM certificates".into())?;
        py.detach(|| self.shared.revoke(revoked));
        Ok(())
    }

    fn set_ticket_keys(&self, py: Python<'_>, keys: HashMap<String, Vec<u8>>) -> PyResult<()> {
        self.shared.trust.set_ticket_keys(ticket_keys(&keys)?);
        py.detach(|| {
            self.shared.connectors().iter().for_each(|connector| {
                connector.keys_changed();
            })
        });
        Ok(())
    }

    #[pyo3(signature = (url, exemptions = ""))]
    fn set_proxy(&self, url: Option<&str>, exemptions: &str) -> PyResult<()> {
        // The URL may hold a password: it is not repeated.
        let proxy =
            url.map(Proxy::parse).transpose().or_refuse(|| "the proxy is not `http[s]://user:password@host:port`".into())?;
        let exemptions = Exemptions::parse(exemptions).or_refuse(|| "the list of hosts without a proxy is too long".into())?;
        self.shared.dialer.set_proxy(proxy, exemptions);
        Ok(())
    }

    #[pyo3(signature = (
        address, *, links, carriers, web_socket = None, web_chain_pem = None, web_key_pem = None, renewal_grace = 30 * 86400,
        limits = HashMap::new()
    ))]
    // One argument per setting of the verb.
    #[allow(clippy::too_many_arguments)]
    fn serve(
        &self,
        address: &str,
        links: bool,
        carriers: bool,
        web_socket: Option<PathBuf>,
        web_chain_pem: Option<&str>,
        web_key_pem: Option<&str>,
        renewal_grace: u64,
        limits: HashMap<String, usize>,
    ) -> PyResult<Server> {
        let web = match (web_chain_pem, web_key_pem) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            _ => return Err(error("argument_invalid", "a web certificate needs its chain and its key")),
        };
        Server::open(&self.shared, Wish { address, links, carriers, web_socket, web, renewal_grace, limits })
    }

    #[pyo3(signature = (address, *, role, root_sha256 = None))]
    fn dial_link(&self, address: &str, role: Option<&str>, root_sha256: Option<&str>) -> PyResult<u64> {
        let Shared { links, runtime, watch, .. } = &*self.shared;
        let refused = || format!("cannot dial a link to `{address}`");
        match (role, root_sha256) {
            (Some(role), None) => {
                let role = Role::parse(role).or_refuse(|| format!("`{role}` is no role"))?;
                let number = links.dial(runtime, address, role).or_refuse(refused)?;
                watch.set(LinkState::Down);
                links.ride(number, watch.clone()).or_refuse(refused)?;
                Ok(number)
            }
            (None, root) => {
                let root = root.map(|root| digest(root).or_refuse(|| format!("`{root}` is no SHA-256 in hex"))).transpose()?;
                links.dial_enrolment(runtime, address, root).or_refuse(refused)
            }
            (Some(_), Some(_)) => Err(error("argument_invalid", "a root is pinned on enrolment links only")),
        }
    }

    fn send(&self, link: u64, body: &[u8]) -> bool {
        self.shared.links.send(link, bytes::Bytes::copy_from_slice(body))
    }

    fn close_link(&self, link: u64, reason: &str) -> PyResult<()> {
        self.shared.links.close(link, code(reason)?);
        Ok(())
    }

    fn redial(&self, link: u64, reason: &str) -> PyResult<()> {
        self.shared.links.redial(link, code(reason)?);
        Ok(())
    }

    #[pyo3(signature = (directory, *, max_bytes = 1 << 34))]
    fn open_journal(&self, py: Python<'_>, directory: &str, max_bytes: u64) -> PyResult<()> {
        let journal = py.detach(|| Journal::open(Path::new(directory), max_bytes));
        let journal =
            journal.map_err(|failed| error("argument_invalid", format!("cannot keep records in `{directory}`: {failed}")))?;
        self.shared.links.set_journal(Some(journal));
        Ok(())
    }

    #[pyo3(signature = (*, spool, spool_max_bytes = 256 << 20, link, settings = HashMap::new()))]
    fn connector(
        &self,
        py: Python<'_>,
        spool: &str,
        spool_max_bytes: u64,
        link: u64,
        settings: HashMap<String, u64>,
    ) -> PyResult<Connector> {
        connector::read_settings(&settings)?;
        Connector::open(py, &self.shared, spool, spool_max_bytes, link)
    }

    #[pyo3(signature = (*, settings = HashMap::new()))]
    fn client(&self, settings: HashMap<String, u64>) -> PyResult<Client> {
        Client::open(&self.shared, &settings)
    }

    fn stats(&self) -> HashMap<&'static str, u64> {
        let relays: Vec<_> = self.shared.watch.relays().iter().map(|relay| relay.stats()).collect();
        let of_relays = [
            ("carriers_parked", relays.iter().map(|relay| relay.parked as u64).sum()),
            ("carriers_joined", relays.iter().map(|relay| relay.joined as u64).sum()),
            ("relayed_bytes", relays.iter().map(|relay| relay.moved).sum()),
        ];
        let mut stats = HashMap::new();
        for (name, value) in self.shared.stats.all().into_iter().chain(of_relays) {
            *stats.entry(name).or_default() += value;
        }
        stats
    }

    #[pyo3(signature = (grace = 0.0))]
    fn shutdown(&self, py: Python<'_>, grace: f64) {
        let grace = Duration::try_from_secs_f64(grace).unwrap_or_default();
        py.detach(|| self.shared.shutdown(grace));
    }
}

impl Shared {
    pub fn serve(&self, front: Arc<Front>) {
        self.fronts.lock().unwrap_or_else(PoisonError::into_inner).push(front);
    }

    /// Where the planes run.
    pub fn handle(&self) -> PyResult<Handle> {
        self.runtime.handle().cloned().or_refuse(|| "the core has stopped".into())
    }

    pub fn keep_connector(&self, plane: &Arc<connector_plane::Connector>, spool: Arc<Spool>) {
        self.connectors.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::downgrade(plane), spool));
    }

    pub fn keep_client(&self, plane: &Arc<client_plane::Client>) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(plane));
    }

    fn connectors(&self) -> Vec<Arc<connector_plane::Connector>> {
        self.connectors.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(|(plane, _)| plane.upgrade()).collect()
    }

    fn clients(&self) -> Vec<Arc<client_plane::Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends what agents hold that were trusted until now.
    fn revoke(&self, revoked: HashSet<Id>) {
        let mut known = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh: HashSet<Id> = revoked.difference(&known).copied().collect();
        *known = revoked;
        drop(known);
        if fresh.is_empty() {
            return;
        }
        self.links.drop_agents(&fresh, Code::AgentRevoked);
        for connector in self.connectors() {
            connector.drop_devices(&fresh);
        }
        for relay in self.watch.relays() {
            for agent in &fresh {
                relay.drop_agent(*agent);
            }
        }
    }

    fn shutdown(&self, grace: Duration) {
        let fronts = std::mem::take(&mut *self.fronts.lock().unwrap_or_else(PoisonError::into_inner));
        fronts.iter().for_each(|front| front.drain());
        self.connectors().iter().for_each(|connector| connector.drain());
        self.wait(grace, || self.stats.flows.get() == 0 && self.watch.relays().iter().all(|relay| relay.stats().joined == 0));
        fronts.iter().for_each(|front| front.close());
        self.connectors().iter().for_each(|connector| connector.close());
        self.clients().iter().for_each(|client| client.close());
        self.wait(GOODBYE, || self.stats.flows.get() == 0);
        let spools = std::mem::take(&mut *self.connectors.lock().unwrap_or_else(PoisonError::into_inner));
        spools.iter().for_each(|(_, spool)| spool.finish(LAST_RECORDS));
        self.links.close_all(Code::Stopped);
        self.wait(GOODBYE, || self.stats.links.get() == 0);
        self.runtime.stop();
        self.links.set_journal(None);
    }

    fn wait(&self, most: Duration, done: impl Fn() -> bool) {
        let end = Instant::now() + most;
        while Instant::now() < end && !done() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn code(text: &str) -> PyResult<Code> {
    Code::parse(text).or_refuse(|| format!("`{text}` is no reason code"))
}

pub fn id(text: &str) -> PyResult<Id> {
    Id::parse(text).or_refuse(|| format!("`{text}` is no id: 16 lower hex digits"))
}

pub fn ids(texts: &[String]) -> PyResult<Vec<Id>> {
    texts.iter().map(|text| id(text)).collect()
}

pub fn ticket_keys(keys: &HashMap<String, Vec<u8>>) -> PyResult<TicketKeys> {
    let keys = TicketKeys::new(keys.iter().map(|(kid, key)| (kid.clone(), key.as_slice())));
    keys.or_refuse(|| "ticket keys are at most 16 pairs of kid and 32 bytes".into())
}

/// (relay id, address) pairs.
pub fn places(relays: &[(String, String)]) -> PyResult<Vec<(Id, RelayPlace)>> {
    let place = |(relay, address): &(String, String)| {
        let relay = id(relay)?;
        let address = Address::parse(address).or_refuse(|| format!("`{address}` is no `host:port`"))?;
        Ok((relay, RelayPlace { id: Some(relay), address }))
    };
    relays.iter().map(place).collect()
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
