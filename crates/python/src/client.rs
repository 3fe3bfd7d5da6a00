//! `Client`: the data plane beside the user, with its entrances.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cloister_core::client as plane;
use cloister_core::client::sessions::Grant;
use cloister_core::code::Code;
use cloister_core::descriptor;
use cloister_core::edge::{Edge, EdgeError};
use cloister_core::host::{Destination, Protocol};
use cloister_core::segment::Segments;
use cloister_core::sys::adopt::adopt;
use pyo3::prelude::*;

use crate::core::{Shared, code, id, ids, places};
use crate::error::{OrRefuse, error};

#[pyclass(frozen, module = "cloister._core")]
pub struct Client {
    shared: Arc<Shared>,
    plane: Arc<plane::Client>,
    edge: Edge,
}

fn refused(failed: EdgeError) -> PyErr {
    error(failed.code.as_str(), failed.message)
}

fn destination(host: &str, port: u16, protocol: &str) -> PyResult<Destination> {
    let protocol = Protocol::parse(protocol).or_refuse(|| format!("`{protocol}` is neither `tcp` nor `udp`"))?;
    Destination::parse(host, port, protocol).map_err(|malformed| error(malformed.code().as_str(), malformed.to_string()))
}

impl Client {
    /// Settings: `owner` (the user id that may use the entrances), `tunnel_streams`, `always_wrapped` (0 or 1).
    pub fn open(shared: &Arc<Shared>, settings: &HashMap<String, u64>) -> PyResult<Client> {
        let (mut owner, mut of_plane) = (None, plane::Settings::default());
        for (name, value) in settings {
            match name.as_str() {
                "owner" => owner = Some(u32::try_from(*value).ok().or_refuse(|| format!("`{value}` is no user id"))?),
                "tunnel_streams" => of_plane.tunnel_streams = *value,
                "always_wrapped" => of_plane.always_wrapped = *value != 0,
                _ => return Err(error("argument_invalid", format!("`{name}` is no setting of a client"))),
            }
        }
        let runtime = shared.handle()?;
        let plane = Arc::new(plane::Client::new(plane::Parts {
            trust: shared.trust.clone(),
            dialer: shared.dialer.clone(),
            events: shared.events.clone(),
            stats: shared.stats.clone(),
            runtime: runtime.clone(),
            settings: of_plane,
        }));
        let edge = Edge::new(plane.flows(), owner, runtime).map_err(refused)?;
        shared.keep_client(&plane);
        Ok(Client { shared: shared.clone(), plane, edge })
    }
}

#[pymethods]
impl Client {
    fn set_catalogue(&self, py: Python<'_>, segments_json: &[u8]) -> PyResult<()> {
        let parsed = py.detach(|| {
            let catalogue = Arc::new(Segments::parse(segments_json)?);
            self.plane.set_catalogue(Arc::clone(&catalogue));
            self.edge.set_catalogue(catalogue);
            Ok(())
        });
        parsed.map_err(|failed: cloister_core::segment::SegmentsError| error(failed.code().as_str(), failed.to_string()))
    }

    fn set_relays(&self, relays: Vec<(String, String)>) -> PyResult<()> {
        self.plane.set_relays(places(&relays)?);
        Ok(())
    }

    // One argument per field of the message.
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (request, session, segment, ticket, connectors, relays, expires))]
    fn grant(
        &self,
        py: Python<'_>,
        request: Option<u64>,
        session: &str,
        segment: &str,
        ticket: &str,
        connectors: Vec<String>,
        relays: Vec<String>,
        expires: u64,
    ) -> PyResult<()> {
        let grant = Grant {
            session: id(session)?,
            segment: id(segment)?,
            ticket: ticket.parse().ok().or_refuse(|| "the ticket holds characters that no ticket has".into())?,
            connectors: ids(&connectors)?,
            relays: ids(&relays)?,
            expires,
        };
        py.detach(|| self.plane.grant(request, grant)).or_refuse(|| format!("the session `{session}` cannot be held"))
    }

    fn refuse(&self, request: u64, code: &str) -> PyResult<()> {
        self.plane.refuse(request, read_code(code)?);
        Ok(())
    }

    fn hold(&self, request: u64, code: &str) -> PyResult<()> {
        self.plane.hold(request, read_code(code)?);
        Ok(())
    }

    fn end_session(&self, py: Python<'_>, session: &str, code: &str) -> PyResult<usize> {
        let (session, code) = (id(session)?, read_code(code)?);
        Ok(py.detach(|| self.plane.end_session(session, code)))
    }

    #[pyo3(signature = (address, *, secret = None))]
    fn serve_socks(&self, address: &str, secret: Option<&str>) -> PyResult<String> {
        self.edge.serve_socks(address, secret).map(|bound| bound.to_string()).map_err(refused)
    }

    #[pyo3(signature = (address, host, port, protocol = "tcp"))]
    fn forward(&self, address: &str, host: &str, port: u16, protocol: &str) -> PyResult<String> {
        let destination = destination(host, port, protocol)?;
        self.edge.forward(address, destination).map(|bound| bound.to_string()).map_err(refused)
    }

    #[pyo3(signature = (address, *, upstreams, pool4, pool6, suffixes))]
    fn serve_dns(
        &self,
        address: &str,
        upstreams: Vec<String>,
        pool4: &str,
        pool6: &str,
        suffixes: Vec<String>,
    ) -> PyResult<String> {
        let bound = self.edge.serve_dns(address, &upstreams, pool4, pool6, &suffixes);
        bound.map(|bound| bound.to_string()).map_err(refused)
    }

    fn set_upstreams(&self, upstreams: Vec<String>) -> PyResult<()> {
        self.edge.set_upstreams(&upstreams).map_err(refused)
    }

    fn set_suffixes(&self, suffixes: Vec<String>) -> PyResult<()> {
        self.edge.set_suffixes(&suffixes).map_err(refused)
    }

    fn close_entrance(&self, address: &str) -> bool {
        self.edge.close_entrance(address)
    }

    fn capture(&self, tcp4: &str, tcp6: &str) -> PyResult<BTreeMap<&'static str, u16>> {
        self.edge.capture(tcp4, tcp6).map_err(refused)
    }

    fn captured(&self) -> Vec<(String, &'static str, u16, u16)> {
        let captured = self.edge.captured().into_iter();
        captured.map(|(address, protocol, first, last)| (address.to_string(), protocol.as_str(), first, last)).collect()
    }

    fn connect(&self, host: &str, port: u16, fd: i32) -> PyResult<u64> {
        let unusable = |failed: std::io::Error| error("argument_invalid", format!("descriptor `{fd}`: {failed}"));
        let socket = adopt(fd).map_err(unusable)?;
        let destination = destination(host, port, "tcp")?;
        // The socket belongs to the runtime that will read it.
        let _entered = self.shared.runtime.handle().or_refuse(|| "the core has stopped".into())?.enter();
        Ok(self.plane.connect(destination, descriptor::local(socket).map_err(unusable)?))
    }

    fn status(&self, py: Python<'_>) -> String {
        py.detach(|| self.plane.status())
    }
}

fn read_code(text: &str) -> PyResult<Code> {
    code(text)
}
