//! The client's local side: names with synthetic addresses, and the entrances through which applications reach them.
//!
//! Entrances listen on loopback and serve their owner only: the kernel is asked whose socket the peer's is. They know destinations, not
//! sessions: what is visible and allowed is decided behind `Flows`.

pub mod associations;
pub mod capture;
pub mod dns;
pub mod forward;
pub mod http_connect;
mod local;
pub mod names;
pub mod owner;
mod resolver;
pub mod socks;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::code::Code;
use crate::flow::Flows;
use crate::host::{Destination, Protocol, parse_name};
use crate::segment::{Segments, Visible};
pub use local::MAX_CONNECTIONS;
use local::{Shared, accept_all, reset};
use names::{Names, Pools};
use owner::Owners;

/// Entrances of one client.
pub const MAX_ENTRANCES: usize = 64;
/// Resolvers asked one after the other.
pub const MAX_UPSTREAMS: usize = 8;
/// How often slots of long idle names are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// A refused argument or a failed set-up.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EdgeError {
    pub code: Code,
    pub message: String,
}

impl EdgeError {
    fn argument(message: impl Into<String>) -> Self {
        EdgeError { code: Code::ArgumentInvalid, message: message.into() }
    }

    fn io(doing: &str, error: &io::Error) -> Self {
        EdgeError { code: Code::ArgumentInvalid, message: format!("cannot {doing}: {error}") }
    }
}

/// The entrances of one client. Dropping it closes them; what is open goes on until its flow ends.
pub struct Edge {
    shared: Arc<Shared>,
    runtime: Handle,
    entrances: Mutex<Vec<Entrance>>,
}

struct Entrance {
    what: String,
    bound: Option<SocketAddr>,
    task: AbortHandle,
}

impl Edge {
    /// `owner`: the user id that may use the entrances (by default the one of this process). Uses `runtime` for its tasks.
    pub fn new(flows: Arc<dyn Flows>, owner: Option<u32>, runtime: Handle) -> Result<Self, EdgeError> {
        let owners = Owners::new().map_err(|error| EdgeError::io("ask the kernel for owners of sockets", &error))?;
        let shared = Shared {
            flows,
            owner: owner.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
            owners,
            catalogue: Mutex::default(),
            names: Mutex::default(),
            suffixes: Mutex::default(),
            upstreams: Mutex::default(),
        };
        Ok(Edge { shared: Arc::new(shared), runtime, entrances: Mutex::default() })
    }

    /// Replace what is visible.
    pub fn set_catalogue(&self, catalogue: Arc<Segments<Visible>>) {
        *self.shared.catalogue.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&catalogue);
        if let Some(names) = self.shared.names().as_mut() {
            names.set_catalogue(catalogue, Instant::now());
        }
    }

    /// SOCKS5 and HTTP CONNECT on one port; returns the bound address.
    pub fn serve_socks(&self, address: &str, secret: Option<&str>) -> Result<SocketAddr, EdgeError> {
        let address = parse_loopback(address)?;
        let secret = match secret {
            Some("") => return Err(EdgeError::argument("the secret is empty: give one, or none")),
            Some(secret) if secret.len() > socks::MAX_SECRET => {
                return Err(EdgeError::argument("the secret is longer than 255 bytes"));
            }
            secret => secret.map(|secret| Arc::from(secret.as_bytes())),
        };
        let _entered = self.runtime.enter();
        let (listener, bound) = listen_tcp(address)?;
        self.spawn(format!("socks {bound}"), Some(bound), socks::serve(Arc::clone(&self.shared), listener, secret))?;
        Ok(bound)
    }

    /// One local port for one destination; returns the bound address.
    pub fn forward(&self, address: &str, destination: Destination) -> Result<SocketAddr, EdgeError> {
        let address = parse_loopback(address)?;
        let _entered = self.runtime.enter();
        match destination.protocol() {
            Protocol::Tcp => {
                let (listener, bound) = listen_tcp(address)?;
                self.spawn(
                    format!("forward {bound} {destination}"),
                    Some(bound),
                    forward::serve_tcp(Arc::clone(&self.shared), listener, destination),
                )?;
                Ok(bound)
            }
            Protocol::Udp => {
                let (socket, bound) = bind_udp(address)?;
                self.spawn(
                    format!("forward {bound} {destination}"),
                    Some(bound),
                    forward::serve_udp(Arc::clone(&self.shared), socket, destination),
                )?;
                Ok(bound)
            }
        }
    }

    /// Answer DNS over UDP and TCP; returns the bound address. Once per client: the pool stays what it is.
    pub fn serve_dns(
        &self,
        address: &str,
        upstreams: &[String],
        pool4: &str,
        pool6: &str,
        suffixes: &[String],
    ) -> Result<SocketAddr, EdgeError> {
        let address = parse_loopback(address)?;
        let pools = Pools::parse(pool4, pool6).map_err(|error| EdgeError { code: error.code(), message: error.to_string() })?;
        self.set_upstreams(upstreams)?;
        self.set_suffixes(suffixes)?;
        let mut names = Names::new(pools);
        names.set_catalogue(Arc::clone(&self.shared.catalogue.lock().unwrap_or_else(PoisonError::into_inner)), Instant::now());
        {
            let mut slot = self.shared.names();
            if slot.as_ref().is_some_and(|names| names.pools() != pools) {
                return Err(EdgeError::argument("names have addresses of another pool already"));
            }
            slot.get_or_insert(names);
        }
        let _entered = self.runtime.enter();
        let (listener, socket, bound) =
            resolver::bind(address).map_err(|error| EdgeError::io(&format!("listen on `{address}`"), &error))?;
        self.spawn(format!("dns {bound}"), Some(bound), resolver::serve(Arc::clone(&self.shared), listener, socket, bound))?;
        self.spawn(format!("names {bound}"), Some(bound), sweep(Arc::clone(&self.shared)))?;
        Ok(bound)
    }

    /// Replace the resolvers asked for everybody else's names, as the host's network changes.
    pub fn set_upstreams(&self, upstreams: &[String]) -> Result<(), EdgeError> {
        if upstreams.len() > MAX_UPSTREAMS {
            return Err(EdgeError::argument(format!("at most {MAX_UPSTREAMS} upstreams are asked")));
        }
        let upstreams = upstreams.iter().map(|text| parse_address(text)).collect::<Result<Vec<_>, _>>()?;
        *self.shared.upstreams.lock().unwrap_or_else(PoisonError::into_inner) = upstreams;
        Ok(())
    }

    /// Replace the private suffixes, below which nobody else is asked.
    pub fn set_suffixes(&self, suffixes: &[String]) -> Result<(), EdgeError> {
        let parse = |text: &String| {
            parse_name(text.as_bytes()).map_err(|error| EdgeError { code: Code::HostMalformed, message: error.to_string() })
        };
        let suffixes = suffixes.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        *self.shared.suffixes.lock().unwrap_or_else(PoisonError::into_inner) = suffixes;
        Ok(())
    }

    /// Transparent sockets for TCP and UDP on the given loopback addresses; returns the bound ports by name.
    pub fn capture(&self, tcp4: &str, tcp6: &str) -> Result<BTreeMap<&'static str, u16>, EdgeError> {
        let (address4, address6) = (parse_loopback(tcp4)?, parse_loopback(tcp6)?);
        if !address4.is_ipv4() || !address6.is_ipv6() {
            return Err(EdgeError::argument("capture takes an IPv4 and an IPv6 loopback address"));
        }
        let _entered = self.runtime.enter();
        let mut ports = BTreeMap::new();
        for (address, tcp, udp) in [(address4, "tcp4", "udp4"), (address6, "tcp6", "udp6")] {
            let failed = |error: io::Error| EdgeError::io(&format!("capture on `{address}` (it takes CAP_NET_ADMIN)"), &error);
            let listener = match capture::listen_tcp(address) {
                Ok(listener) => listener,
                // no IPv6 on this host
                Err(error) if address.is_ipv6() && is_without_ipv6(&error) => {
                    if let Some(names) = self.shared.names().as_mut() {
                        names.leave_out_ipv6();
                    }
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let socket = capture::bind_udp(address).map_err(failed)?;
            ports.insert(tcp, listener.local_addr().map_err(failed)?.port());
            ports.insert(udp, socket.local_addr().map_err(failed)?.port());
            self.spawn(format!("capture {tcp}"), None, capture::serve_tcp(Arc::clone(&self.shared), listener))?;
            self.spawn(format!("capture {udp}"), None, capture::serve_udp(Arc::clone(&self.shared), socket))?;
        }
        Ok(ports)
    }

    /// What the kernel must capture now: (address, protocol, first port, last port).
    pub fn captured(&self) -> Vec<(IpAddr, Protocol, u16, u16)> {
        self.shared.names().as_ref().map(Names::captured).unwrap_or_default()
    }

    /// Entrances by what they are and where.
    pub fn entrances(&self) -> Vec<String> {
        self.entrances.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|entrance| entrance.what.clone()).collect()
    }

    /// Names with an address, and how many can have one.
    pub fn names_fill(&self) -> Option<(usize, u32)> {
        self.shared.names().as_ref().map(Names::fill)
    }

    /// Stop listening at a bound address; open TCP flows go on. False if nothing listens there.
    pub fn close_entrance(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<SocketAddr>() else { return false };
        let mut entrances = self.entrances.lock().unwrap_or_else(PoisonError::into_inner);
        let before = entrances.len();
        entrances.retain(|entrance| {
            let stays = entrance.bound != Some(address);
            if !stays {
                entrance.task.abort();
            }
            stays
        });
        entrances.len() < before
    }

    fn spawn(
        &self,
        what: String,
        bound: Option<SocketAddr>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), EdgeError> {
        let mut entrances = self.entrances.lock().unwrap_or_else(PoisonError::into_inner);
        if entrances.len() >= MAX_ENTRANCES {
            return Err(EdgeError { code: Code::LimitReached, message: format!("a client has at most {MAX_ENTRANCES} entrances") });
        }
        entrances.push(Entrance { what, bound, task: self.runtime.spawn(task).abort_handle() });
        Ok(())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        for entrance in self.entrances.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            entrance.task.abort();
        }
    }
}

async fn sweep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if let Some(names) = shared.names().as_mut() {
            let now = Instant::now();
            names.release_idle(now);
            names.expire(now);
        }
    }
}

/// IPv6 is switched off on `lo`, or not in the kernel.
fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn parse_address(text: &str) -> Result<SocketAddr, EdgeError> {
    text.parse().map_err(|_| EdgeError::argument(format!("`{text}` is no address with a port, such as `127.0.0.1:1080`")))
}

fn parse_loopback(text: &str) -> Result<SocketAddr, EdgeError> {
    let address = parse_address(text)?;
    if !address.ip().is_loopback() {
        return Err(EdgeError::argument(format!("`{text}` is no loopback address: entrances serve this machine only")));
    }
    Ok(address)
}

fn listen_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), EdgeError> {
    let listen = || -> io::Result<(TcpListener, SocketAddr)> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, bound))
    };
    listen().map_err(|error| EdgeError::io(&format!("listen on `{address}`"), &error))
}

fn bind_udp(address: SocketAddr) -> Result<(UdpSocket, SocketAddr), EdgeError> {
    let bind = || -> io::Result<(UdpSocket, SocketAddr)> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let bound = socket.local_addr()?;
        Ok((UdpSocket::from_std(socket)?, bound))
    };
    bind().map_err(|error| EdgeError::io(&format!("listen on `{address}`"), &error))
}
