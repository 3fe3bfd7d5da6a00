//! `Connector`: the data plane beside the services.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use cloister_core::address::Guard;
use cloister_core::connector as plane;
use cloister_core::dial::Address;
use cloister_core::host::{Host, parse_host};
use cloister_core::ids::Role;
use cloister_core::lasthop::{LastHop, site_addresses};
use cloister_core::link::{Outbox, Rider};
use cloister_core::record::Spool;
use pyo3::prelude::*;

use crate::core::{Shared, id, ids, places};
use crate::error::{OrRefuse, error};

#[pyclass(frozen, module = "cloister._core")]
pub struct Connector {
    plane: Arc<plane::Connector>,
}

/// What follows the link: grants, spool, and where the exchange is.
struct Riding {
    plane: Arc<plane::Connector>,
    spool: Arc<Spool>,
    exchange: Vec<Host>,
}

impl Rider for Riding {
    fn up(&self, outbox: &Arc<Outbox>) {
        self.plane.link_up();
        self.spool.up(outbox);
        self.plane.forbid_hosts(self.exchange.clone());
    }

    fn down(&self) {
        self.plane.link_down();
        self.spool.down();
    }

    fn records_written(&self, last: u64) {
        self.spool.records_written(last);
    }
}

impl Connector {
    pub fn open(py: Python<'_>, shared: &Arc<Shared>, spool: &str, max_bytes: u64, link: u64) -> PyResult<Connector> {
        let own = shared.trust.own(Role::Connector).or_refuse(|| "a connector needs its identity first".into())?;
        let exchange = shared.links.exchange_of(link).or_refuse(|| format!("`{link}` is no dialled link"))?;
        let opened = py.detach(|| Spool::open(Path::new(spool), own.id, max_bytes));
        let opened = opened.map_err(|failed| error("argument_invalid", format!("cannot keep records in `{spool}`: {failed}")))?;
        let spool = Arc::new(opened);
        let parts = plane::Parts {
            trust: shared.trust.clone(),
            dialer: shared.dialer.clone(),
            events: shared.events.clone(),
            stats: shared.stats.clone(),
            last_hop: LastHop::system(Guard::new(site_addresses())),
            spool: Some(spool.clone()),
            runtime: shared.handle()?,
        };
        let plane = Arc::new(plane::Connector::new(parts).or_refuse(|| "the connector cannot start".into())?);
        let riding = Arc::new(Riding { plane: plane.clone(), spool: spool.clone(), exchange: hosts([&exchange]) });
        shared.links.ride(link, riding).or_refuse(|| format!("`{link}` is no dialled link"))?;
        shared.keep_connector(&plane, spool.clone());
        Ok(Connector { plane })
    }
}

#[pymethods]
impl Connector {
    #[pyo3(signature = (relays, spare = 2))]
    fn set_relays(&self, relays: Vec<(String, String)>, spare: usize) -> PyResult<()> {
        let relays = places(&relays)?;
        self.plane.forbid_hosts(hosts(relays.iter().map(|(_, place)| &place.address)));
        self.plane.set_relays(relays, spare).or_refuse(|| "more relays or spare carriers than there may be".into())
    }

    fn open_carrier(&self, relay: &str) -> PyResult<()> {
        let relay_id = id(relay)?;
        self.plane.open_carrier(relay_id).or_refuse(|| format!("no relay `{relay}` was named"))
    }

    fn assign(&self, py: Python<'_>, segments_json: &[u8]) -> PyResult<()> {
        py.detach(|| self.plane.assign(segments_json)).map(drop).or_refuse(|| "the segments cannot be read".into())
    }

    fn snapshot(&self, py: Python<'_>, generation: u64, sessions: Vec<String>) -> PyResult<usize> {
        let sessions = ids(&sessions)?;
        Ok(py.detach(|| self.plane.snapshot(generation, sessions)))
    }

    fn revoke(&self, py: Python<'_>, generation: u64, sessions: Vec<String>) -> PyResult<usize> {
        let sessions = ids(&sessions)?;
        Ok(py.detach(|| self.plane.revoke(generation, sessions)))
    }

    fn probe(&self, segment: &str) -> PyResult<()> {
        let segment_id = id(segment)?;
        self.plane.probe(segment_id).or_refuse(|| format!("the segment `{segment}` is not assigned here"))
    }

    fn status(&self, py: Python<'_>) -> String {
        py.detach(|| self.plane.status())
    }

    fn drain(&self) {
        self.plane.drain();
    }
}

/// Those that can be a destination at all.
fn hosts<'a>(places: impl IntoIterator<Item = &'a Address>) -> Vec<Host> {
    places.into_iter().filter_map(|place| parse_host(place.host.as_bytes()).ok()).collect()
}

/// Settings of a connector: none yet.
pub fn read_settings(settings: &HashMap<String, u64>) -> PyResult<()> {
    match settings.keys().next() {
        Some(name) => Err(error("argument_invalid", format!("`{name}` is no setting of a connector"))),
        None => Ok(()),
    }
}
