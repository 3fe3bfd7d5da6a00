//! The last hop: the connector resolves a name where it stands, once, checks every address of the answer, and dials exactly those.
//!
//! One forbidden address in an answer refuses the whole answer, so that no order, family or retry picks it later.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket as StdUdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::address::{Forbidden, Guard};
use crate::code::Code;
use crate::host::{Destination, Host, Name};

/// From the request to the open connection, resolving included.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Before the next address is tried beside the last (RFC 8305 §5).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Look-ups under way at once; each holds a thread.
pub const MAX_LOOKUPS: usize = 64;
/// Addresses of one answer that are dialled; all are checked.
pub const MAX_DIALLED: usize = 8;
/// How long an address is known not to be this host's own.
const OWN_CHECK_AGE: Duration = Duration::from_secs(1);
const MAX_OWN_CHECKS: usize = 1024;

type Answer<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Turns a name into addresses.
pub trait Resolve: Send + Sync + 'static {
    fn resolve(&self, name: &Name) -> Answer<'_, Vec<IpAddr>>;
}

/// Opens a TCP connection to one address.
pub trait Connect: Send + Sync + 'static {
    fn connect(&self, address: SocketAddr) -> Answer<'static, TcpStream>;
}

/// The resolver of the host (`getaddrinfo`), on threads of its own, bounded.
pub struct SystemResolver {
    lookups: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        SystemResolver { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: &Name) -> Answer<'_, Vec<IpAddr>> {
        let name = name.clone();
        Box::pin(async move {
            // the permit goes with the thread, which outlives a caller that gives up
            let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
            let lookup = move || {
                let answer = (name.as_str(), 0u16).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
                drop(permit);
                answer
            };
            tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
        })
    }
}

/// The host's own TCP.
pub struct SystemConnect;

impl Connect for SystemConnect {
    fn connect(&self, address: SocketAddr) -> Answer<'static, TcpStream> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let keepalive =
                TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            Ok(stream)
        })
    }
}

/// How a dial went and what each stage took.
#[derive(Debug)]
pub struct Attempt<T> {
    pub result: Result<T, Code>,
    pub resolve: Duration,
    pub dial: Duration,
}

/// Resolves, checks and dials for one connector.
pub struct LastHop {
    resolver: Arc<dyn Resolve>,
    connect: Arc<dyn Connect>,
    guard: RwLock<Arc<Guard>>,
    foreign: Mutex<HashMap<IpAddr, Instant>>,
}

impl LastHop {
    /// With the resolver and TCP of the host.
    pub fn system(guard: Guard) -> Self {
        LastHop::new(Arc::new(SystemResolver::default()), Arc::new(SystemConnect), guard)
    }

    pub fn new(resolver: Arc<dyn Resolve>, connect: Arc<dyn Connect>, guard: Guard) -> Self {
        LastHop { resolver, connect, guard: RwLock::new(Arc::new(guard)), foreign: Mutex::default() }
    }

    /// Never dial what these hosts are now: the exchange, the relays. Call it whenever their list changes or a link comes up; what was forbidden stays so.
    pub async fn forbid_hosts(&self, hosts: Vec<Host>) {
        for host in hosts {
            let found = match &host {
                Host::Address(address) => vec![*address],
                Host::Name(name) => {
                    tokio::time::timeout(DEADLINE, self.resolver.resolve(name)).await.ok().and_then(Result::ok).unwrap_or_default()
                }
            };
            let mut guard = self.guard.write().unwrap_or_else(PoisonError::into_inner);
            Arc::make_mut(&mut guard).extend(found);
        }
    }

    /// Open a TCP connection to a destination that the caller has matched to a segment; `allow` is what that segment spells out.
    pub async fn dial_tcp(&self, destination: &Destination, allow: &[IpNet]) -> Attempt<TcpStream> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let started = Instant::now();
        let addresses = self.check(destination.host(), allow, deadline).await;
        let resolve = started.elapsed();
        let started = Instant::now();
        let result = match addresses {
            Ok(addresses) => {
                let targets =
                    interleave(&addresses).into_iter().map(|address| SocketAddr::new(address, destination.port())).collect();
                match timeout_at(deadline, race(Arc::clone(&self.connect), targets)).await {
                    Ok(result) => result,
                    Err(_) => Err(Code::DialTimeout),
                }
            }
            Err(code) => Err(code),
        };
        Attempt { result, resolve, dial: started.elapsed() }
    }

    /// A UDP socket connected to the first checked address that the host has a route to.
    pub async fn dial_udp(&self, destination: &Destination, allow: &[IpNet]) -> Attempt<UdpSocket> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let started = Instant::now();
        let addresses = self.check(destination.host(), allow, deadline).await;
        let resolve = started.elapsed();
        let started = Instant::now();
        let result = match addresses {
            Ok(addresses) => connect_udp(&addresses, destination.port()).await,
            Err(code) => Err(code),
        };
        Attempt { result, resolve, dial: started.elapsed() }
    }

    /// The addresses of a host, each of them checked; refused as a whole if one is forbidden.
    async fn check(&self, host: &Host, allow: &[IpNet], deadline: tokio::time::Instant) -> Result<Vec<IpAddr>, Code> {
        let guard = Arc::clone(&self.guard.read().unwrap_or_else(PoisonError::into_inner));
        let addresses = match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                if let Some(why) = guard.judge_name(name, allow) {
                    return Err(refuse(why));
                }
                match timeout_at(deadline, self.resolver.resolve(name)).await {
                    Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
                    Ok(_) | Err(_) => return Err(Code::NameUnresolved),
                }
            }
        };
        for address in &addresses {
            let why = guard.judge(*address, allow).or_else(|| {
                let spelled_out = allow.iter().any(|net| net.contains(address));
                (!spelled_out && self.is_own(*address)).then_some(Forbidden::Own)
            });
            if let Some(why) = why {
                return Err(refuse(why));
            }
        }
        Ok(addresses)
    }

    /// Whether this host would deliver to itself; asked of its routing table, so that addresses that come and go count.
    fn is_own(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        if foreign.get(&address).is_some_and(|seen| now.duration_since(*seen) < OWN_CHECK_AGE) {
            return false;
        }
        let own = routes_to_self(address);
        if !own {
            if foreign.len() >= MAX_OWN_CHECKS {
                foreign.retain(|_, seen| now.duration_since(*seen) < OWN_CHECK_AGE);
            }
            if foreign.len() < MAX_OWN_CHECKS {
                foreign.insert(address, now);
            }
        }
        own
    }
}

/// What the environment says about the site: the cluster's API server, and the node if the pod is told its address (`CLOISTER_NODE_ADDRESS`).
pub fn site_addresses() -> Vec<IpAddr> {
    let known = ["KUBERNETES_SERVICE_HOST", "CLOISTER_NODE_ADDRESS"];
    known.iter().filter_map(|name| std::env::var(name).ok()?.parse().ok()).collect()
}

fn refuse(why: Forbidden) -> Code {
    tracing::info!(why = why.as_str(), "destination refused");
    why.code()
}

/// Connecting a UDP socket sends nothing; the source address that the kernel picks for one of its own addresses is that address.
fn routes_to_self(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = || -> io::Result<bool> {
        let socket = StdUdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip() == address)
    };
    // without a route nothing is reached either
    probe().unwrap_or(false)
}

/// Alternate the families, beginning with that of the resolver's first answer (RFC 8305 §4); no address twice.
fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let mut seen = std::collections::HashSet::new();
    let unique: Vec<IpAddr> = addresses.iter().copied().filter(|address| seen.insert(*address)).collect();
    let (mut ours, mut others): (Vec<_>, Vec<_>) = unique.into_iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    ours.reverse();
    others.reverse();
    let mut order = Vec::new();
    while order.len() < MAX_DIALLED {
        let next = if order.len() % 2 == 0 { ours.pop().or_else(|| others.pop()) } else { others.pop().or_else(|| ours.pop()) };
        match next {
            Some(address) => order.push(address),
            None => break,
        }
    }
    order
}

/// Happy eyeballs (RFC 8305 §5): one more attempt whenever one fails or 250 ms pass; the first connection wins.
async fn race(connect: Arc<dyn Connect>, targets: Vec<SocketAddr>) -> Result<TcpStream, Code> {
    let mut waiting = targets.into_iter();
    let mut attempts = JoinSet::new();
    let mut worst = Code::DialUnreachable;
    let Some(first) = waiting.next() else { return Err(Code::DialUnreachable) };
    if waiting.len() == 0 {
        return connect.connect(first).await.map_err(|error| code_of(&error));
    }
    attempts.spawn(connect.connect(first));
    loop {
        let finished = tokio::select! {
            finished = attempts.join_next() => finished,
            () = tokio::time::sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {
                if let Some(next) = waiting.next() {
                    attempts.spawn(connect.connect(next));
                }
                continue;
            }
        };
        match finished {
            Some(Ok(Ok(stream))) => return Ok(stream),
            // a refusal says most: somebody is there
            Some(Ok(Err(error))) if worst != Code::DialRefused => worst = code_of(&error),
            Some(Ok(Err(_)) | Err(_)) => {}
            None if waiting.len() == 0 => return Err(worst),
            None => {}
        }
        if let Some(next) = waiting.next() {
            attempts.spawn(connect.connect(next));
        }
    }
}

fn code_of(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Code::DialRefused,
        io::ErrorKind::TimedOut => Code::DialTimeout,
        _ => Code::DialUnreachable,
    }
}

async fn connect_udp(addresses: &[IpAddr], port: u16) -> Result<UdpSocket, Code> {
    for address in addresses.iter().take(MAX_DIALLED) {
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { continue };
        if socket.connect((*address, port)).await.is_ok() {
            return Ok(socket);
        }
    }
    Err(Code::DialUnreachable)
}

#[cfg(test)]
#[path = "lasthop_test.rs"]
mod test;
