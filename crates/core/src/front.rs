//! The public port of an exchange or relay: one listener, told apart by the ALPN of the ClientHello.
//!
//! The accept loop waits for nobody: each connection is a task with a deadline for its handshake, and when too many handshakes are
//! unfinished (in all, or from one source) the oldest makes room for the newest.

mod limits;
mod web;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::server::Acceptor;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};

use crate::carrier::RecordIo;
use crate::code::Code;
use crate::dial::set_options;
use crate::relay::Relay;
use crate::tls::{ALPN_CARRIER, ALPN_ENROL, ALPN_LINK, Leg, PeerIdentity, Trust, code_of_io, peer_identity};
use limits::Unfinished;
pub(crate) use limits::group;

/// From the accept to the end of the TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Connections that the kernel holds for us.
const BACKLOG: i32 = 4096;
/// All our protocol names begin so: what begins so and is none of them is refused, never passed to the web.
const OUR_ALPN: &[u8] = b"cloister-";

/// Bounds of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub handshakes: usize,
    /// Of one IPv4 address or IPv6 /64.
    pub handshakes_per_source: usize,
    /// Connections of the web, beyond their handshake.
    pub webs: usize,
    pub webs_per_source: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { handshakes: 4096, handshakes_per_source: 256, webs: 1024, webs_per_source: 256 }
    }
}

/// A link whose handshake is finished; `peer` is None on the enrolment ALPN.
#[derive(Debug)]
pub struct AcceptedLink {
    pub tls: TlsStream<RecordIo>,
    pub peer: Option<PeerIdentity>,
    pub address: SocketAddr,
}

/// What a listener serves.
pub struct Config {
    pub address: SocketAddr,
    /// Takes links and enrolments over; must not block. None: no links here.
    pub links: Option<Box<dyn Fn(AcceptedLink) + Send + Sync>>,
    pub relay: Option<Arc<Relay>>,
    /// UNIX socket of the API and UI.
    pub web: Option<PathBuf>,
    pub limits: Limits,
}

/// One listener.
pub struct Front {
    trust: Arc<Trust>,
    config: Config,
    address: SocketAddr,
    draining: AtomicBool,
    unfinished: Unfinished,
    webs: Unfinished,
    accepting: Mutex<Vec<AbortHandle>>,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Front({})", self.address)
    }
}

impl Front {
    /// Binds and begins to accept on each of `runtimes`: a connection stays where it was accepted. IPv6 addresses take IPv4 too when
    /// unspecified.
    pub fn listen(trust: Arc<Trust>, config: Config, runtimes: &[Handle]) -> Result<Arc<Front>, Code> {
        let listener = bind(config.address).map_err(|_| Code::ArgumentInvalid)?;
        let address = listener.local_addr().map_err(|_| Code::Internal)?;
        let unfinished = Unfinished::new(config.limits.handshakes, config.limits.handshakes_per_source);
        let webs = Unfinished::new(config.limits.webs, config.limits.webs_per_source);
        let front = Arc::new(Front {
            trust,
            config,
            address,
            draining: AtomicBool::new(false),
            unfinished,
            webs,
            accepting: Mutex::default(),
        });
        for runtime in runtimes {
            let _entered = runtime.enter();
            let listener = listener.try_clone().and_then(TcpListener::from_std).map_err(|_| Code::Internal)?;
            let task = runtime.spawn(Arc::clone(&front).accept(listener));
            front.accepting.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
        }
        Ok(front)
    }

    /// As bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn relay(&self) -> Option<&Arc<Relay>> {
        self.config.relay.as_ref()
    }

    /// Takes no new links, parks and joins; what is joined, and the web, go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        if let Some(relay) = &self.config.relay {
            relay.drain();
        }
    }

    /// Stops listening and ends carriers and unfinished handshakes. Links are their taker's.
    pub fn close(&self) {
        for task in self.accepting.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        self.unfinished.abort_all();
        self.webs.abort_all();
        if let Some(relay) = &self.config.relay {
            relay.close();
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((tcp, address)) => {
                    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                    self.unfinished.spawn(address.ip(), |ticket| Arc::clone(&self).serve(tcp, address, ticket));
                }
                // Out of descriptors or memory: what waits keeps, trying again at once would only burn.
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn serve(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, unfinished: limits::Ticket) {
        if set_options(&tcp).is_err() {
            return;
        }
        let deadline = Instant::now() + HANDSHAKE_DEADLINE;
        let opened = timeout_at(deadline, self.open(tcp)).await;
        let Ok(Ok((kind, tls))) = opened else { return };
        // From here on the connection is no longer one of the unfinished, unless it was pushed out just now.
        if !unfinished.finish() {
            return;
        }
        match kind {
            Kind::Link | Kind::Enrol => self.hand_link(tls, address),
            Kind::Carrier => {
                if let Some(relay) = &self.config.relay {
                    relay.serve(tls).await;
                }
            }
            Kind::Web => {
                // A task of its own, which a later connection may push out: an honest request takes milliseconds.
                let front = Arc::clone(&self);
                self.webs.spawn(address.ip(), |place| async move {
                    if let Some(socket) = &front.config.web {
                        web::forward(tls, socket, address, front.address).await;
                    }
                    drop(place);
                });
            }
        }
    }

    /// Reads the ClientHello and finishes the handshake with the configuration that its ALPN asks for.
    async fn open(&self, tcp: TcpStream) -> Result<(Kind, TlsStream<RecordIo>), Code> {
        let mut start =
            LazyConfigAcceptor::new(Acceptor::default(), RecordIo::new(tcp)).await.map_err(|error| code_of_io(&error))?;
        let kind = Kind::of(&start)?;
        let draining = self.draining.load(Ordering::Relaxed);
        let config = match kind {
            Kind::Link | Kind::Enrol if self.config.links.is_none() => return Err(Code::HandshakeFailed),
            Kind::Link | Kind::Enrol if draining => return Err(Code::Draining),
            Kind::Link => self.trust.server_config(Leg::Link)?,
            Kind::Enrol => self.trust.server_config(Leg::Enrol)?,
            Kind::Carrier if self.config.relay.is_none() => return Err(Code::HandshakeFailed),
            Kind::Carrier => self.trust.server_config(Leg::Carrier)?,
            Kind::Web if self.config.web.is_none() => return Err(Code::HandshakeFailed),
            Kind::Web => self.trust.web_config()?,
        };
        if kind != Kind::Carrier {
            start.io.read_freely();
        }
        let tls = start.into_stream(config).await.map_err(|error| code_of_io(&error))?;
        Ok((kind, tls))
    }

    fn hand_link(&self, tls: TlsStream<RecordIo>, address: SocketAddr) {
        let peer = match tls.get_ref().1.peer_certificates().map(peer_identity) {
            Some(Ok(peer)) => Some(peer),
            Some(Err(_)) => return,
            None => None,
        };
        if let Some(links) = &self.config.links {
            links(AcceptedLink { tls, peer, address });
        }
    }
}

/// What a ClientHello asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Link,
    Enrol,
    Carrier,
    Web,
}

impl Kind {
    fn of(start: &StartHandshake<RecordIo>) -> Result<Kind, Code> {
        let hello = start.client_hello();
        let names: Vec<&[u8]> = hello.alpn().into_iter().flatten().collect();
        match names.as_slice() {
            [ALPN_LINK] => Ok(Kind::Link),
            [ALPN_ENROL] => Ok(Kind::Enrol),
            [ALPN_CARRIER] => Ok(Kind::Carrier),
            others if others.iter().any(|name| name.starts_with(OUR_ALPN)) => Err(Code::VersionUnsupported),
            _ => Ok(Kind::Web),
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(*v6.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
