//! `Server`: the public port of an exchange or relay.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cloister_core::code::Code;
use cloister_core::front::{self, Config, Front};
use cloister_core::relay::{self, Relay};
use cloister_core::runtime::Event;
use pyo3::prelude::*;

use crate::core::{Shared, id};
use crate::error::{OrRefuse, error};

/// Most links up at once, unless `limits` says otherwise.
const MAX_LINKS: u64 = 20_000;

#[pyclass(frozen, module = "cloister._core")]
pub struct Server {
    shared: Arc<Shared>,
    front: Arc<Front>,
    #[pyo3(get)]
    address: String,
}

/// What `Core.serve` was asked for.
pub struct Wish<'a> {
    pub address: &'a str,
    pub links: bool,
    pub carriers: bool,
    pub web_socket: Option<PathBuf>,
    pub web: Option<(&'a str, &'a str)>,
    pub renewal_grace: u64,
    pub limits: HashMap<String, usize>,
}

impl Server {
    pub fn open(shared: &Arc<Shared>, wish: Wish<'_>) -> PyResult<Server> {
        let address: SocketAddr = wish.address.parse().ok().or_refuse(|| format!("`{}` is no `address:port`", wish.address))?;
        let (mut handshakes, mut carriers, mut max_links) = (front::Limits::default(), relay::Limits::default(), MAX_LINKS);
        for (name, bound) in wish.limits {
            match name.as_str() {
                "handshakes" => handshakes.handshakes = bound,
                "handshakes_per_source" => handshakes.handshakes_per_source = bound,
                "webs" => handshakes.webs = bound,
                "links" => max_links = bound as u64,
                "parked_per_connector" => carriers.parked_per_connector = bound,
                "joins_per_client" => carriers.joins_per_client = bound,
                "carriers" => carriers.carriers = bound,
                _ => return Err(error("argument_invalid", format!("`{name}` is no limit of a server"))),
            }
        }
        if let Some((chain, key)) = wish.web {
            set_web(shared, chain, key)?;
        }
        shared.trust.set_renewal_grace(Duration::from_secs(wish.renewal_grace));
        let relay = wish.carriers.then(|| {
            let events = shared.events.clone();
            // A wish lost at the bound is repeated by the next join.
            let wanted = move |connector| {
                let _ = events.offer(Event::CarrierWanted { connector });
            };
            Relay::new(shared.trust.clone(), carriers, wanted)
        });
        let config = Config {
            address,
            links: wish.links.then(|| link_taker(shared, max_links)),
            relay: relay.clone(),
            web: wish.web_socket,
            limits: handshakes,
        };
        let front = Front::listen(shared.trust.clone(), config, shared.runtime.handles());
        let front = front.or_refuse(|| format!("cannot listen at `{address}`"))?;
        if let Some(relay) = relay {
            shared.watch.add(relay);
        }
        shared.serve(front.clone());
        Ok(Server { shared: shared.clone(), address: front.address().to_string(), front })
    }

    fn relay(&self) -> PyResult<&Arc<Relay>> {
        self.front.relay().or_refuse(|| "this server carries no carriers".into())
    }
}

/// Takes links over from the front.
fn link_taker(shared: &Arc<Shared>, max_links: u64) -> Box<dyn Fn(front::AcceptedLink) + Send + Sync> {
    let (links, runtime) = (shared.links.clone(), Arc::downgrade(&shared.runtime));
    Box::new(move |accepted| {
        let Some(runtime) = runtime.upgrade() else { return };
        if links.stats.links.get() >= max_links {
            links.stats.links_refused.add(1);
            return;
        }
        let links = links.clone();
        runtime.spawn(async move { links.serve(accepted.tls, accepted.peer, accepted.address).await });
    })
}

fn set_web(shared: &Shared, chain_pem: &str, key_pem: &str) -> PyResult<()> {
    let set = shared.trust.set_web(chain_pem.as_bytes(), key_pem.as_bytes());
    set.or_refuse(|| "the web certificate and key do not belong together".into())
}

#[pymethods]
impl Server {
    fn set_web_certificate(&self, chain_pem: &str, key_pem: &str) -> PyResult<()> {
        set_web(&self.shared, chain_pem, key_pem)
    }

    #[pyo3(signature = (client, connector = None))]
    fn cut(&self, py: Python<'_>, client: &str, connector: Option<&str>) -> PyResult<usize> {
        let (relay, client, connector) = (self.relay()?, id(client)?, connector.map(id).transpose()?);
        Ok(py.detach(|| relay.cut(client, connector)))
    }

    fn block(&self, py: Python<'_>, client: &str, connector: &str) -> PyResult<()> {
        let (relay, client, connector) = (self.relay()?, id(client)?, id(connector)?);
        py.detach(|| relay.block(client, connector));
        Ok(())
    }

    fn unblock(&self, client: &str, connector: &str) -> PyResult<()> {
        self.relay()?.unblock(id(client)?, id(connector)?);
        Ok(())
    }

    fn drop_agent(&self, py: Python<'_>, agent: &str) -> PyResult<usize> {
        let agent = id(agent)?;
        Ok(py.detach(|| {
            let carriers = self.front.relay().map_or(0, |relay| relay.drop_agent(agent));
            carriers + self.shared.links.drop_agents(&[agent].into(), Code::AgentRevoked)
        }))
    }

    fn parked(&self) -> HashMap<String, usize> {
        let parked = self.front.relay().map(|relay| relay.parked()).unwrap_or_default();
        parked.into_iter().map(|(connector, count)| (connector.to_string(), count)).collect()
    }

    fn drain(&self) {
        self.front.drain();
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.front.close());
    }
}
