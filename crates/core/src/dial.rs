//! Outbound TCP of links and carriers: happy eyeballs (RFC 8305), an HTTP proxy on the way, keep-alive, one deadline for all of it.

mod proxy;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::code::Code;
use crate::tls::{Leg, code_of_io};
pub use proxy::{Exemptions, Proxy, accept_answer};

/// Name resolution, connect, proxy and TLS handshake together.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// Head start of one address over the next (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses tried per name.
const MAX_ADDRESSES: usize = 8;
/// A silent peer is noticed after 4 s of idleness and three probes 3 s apart, or 12 s of unacknowledged data.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(4);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_PROBES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(12);

/// `host:port`, `[v6]:port`: where to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    pub fn parse(text: &str) -> Result<Address, Code> {
        let (host, port) = text.rsplit_once(':').ok_or(Code::ArgumentInvalid)?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_v6 = bare.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
        let host = bare.unwrap_or(host);
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|port| digits && *port != 0).ok_or(Code::ArgumentInvalid)?;
        // A name that TLS can carry; brackets and IPv6 belong together.
        if (bare.is_some() || host.contains(':')) && !is_v6 || ServerName::try_from(host).is_err() {
            return Err(Code::ArgumentInvalid);
        }
        Ok(Address { host: host.to_owned(), port })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

/// Dials out, through the proxy if one is set and the destination is not exempt.
#[derive(Debug, Default)]
pub struct Dialer {
    proxy: RwLock<Option<Arc<(Proxy, Exemptions)>>>,
}

impl Dialer {
    pub fn set_proxy(&self, proxy: Option<Proxy>, exemptions: Exemptions) {
        *self.proxy.write().unwrap_or_else(PoisonError::into_inner) = proxy.map(|proxy| Arc::new((proxy, exemptions)));
    }

    /// A TCP connection to `address` with our socket options, by `deadline`.
    pub async fn connect(&self, address: &Address, deadline: Instant) -> Result<TcpStream, Code> {
        let proxy = self.proxy.read().unwrap_or_else(PoisonError::into_inner).clone();
        let dialled = async {
            match proxy.as_deref() {
                Some((proxy, exemptions)) if !exemptions.cover(address) => proxy.connect(address).await,
                _ => connect_direct(address).await,
            }
        };
        timeout_at(deadline, dialled).await.map_err(|_| Code::DialTimeout)?
    }

    /// `connect`, then the TLS handshake of `leg`.
    pub async fn connect_tls(&self, address: &Address, leg: Leg, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Code> {
        let deadline = Instant::now() + DIAL_DEADLINE;
        let tcp = self.connect(address, deadline).await?;
        handshake(tcp, &address.host, leg, config, deadline).await
    }
}

/// The client's TLS handshake of `leg` over an open connection.
pub async fn handshake<IO>(
    io: IO,
    host: &str,
    leg: Leg,
    config: Arc<ClientConfig>,
    deadline: Instant,
) -> Result<TlsStream<IO>, Code>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Code::ArgumentInvalid)?;
    let stream = timeout_at(deadline, TlsConnector::from(config).connect(name, io)).await;
    let stream = stream.map_err(|_| Code::HandshakeTimeout)?.map_err(|error| code_of_io(&error))?;
    leg.require_alpn(stream.get_ref().1)?;
    Ok(stream)
}

/// Bytes that the kernel takes on top of what is under way: more would queue in front of whatever is more urgent, and be held for peers
/// that do not read.
pub const UNSENT: u32 = 256 << 10;

/// Socket options of every connection that carries links, carriers and tunnels.
pub fn set_options(tcp: &TcpStream) -> std::io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

async fn connect_direct(address: &Address) -> Result<TcpStream, Code> {
    let found = lookup_host((address.host.as_str(), address.port)).await.map_err(|_| Code::NameUnresolved)?;
    let tcp = connect_any(interleave(found)).await?;
    set_options(&tcp).map_err(|_| Code::DialUnreachable)?;
    Ok(tcp)
}

/// IPv6 and IPv4 in turn, in the resolver's order within a family (RFC 8305 §4), each once.
fn interleave(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (sixes, fours): (Vec<_>, Vec<_>) = found.partition(SocketAddr::is_ipv6);
    let (mut sixes, mut fours) = (sixes.into_iter(), fours.into_iter());
    let mut order: Vec<SocketAddr> = Vec::new();
    loop {
        let pair = [sixes.next(), fours.next()];
        if pair == [None, None] || order.len() >= MAX_ADDRESSES {
            order.truncate(MAX_ADDRESSES);
            return order;
        }
        for address in pair.into_iter().flatten() {
            if !order.contains(&address) {
                order.push(address);
            }
        }
    }
}

/// The first address that answers; each gets a head start over the next, a failure gives the turn on at once.
pub(crate) async fn connect_any(addresses: Vec<SocketAddr>) -> Result<TcpStream, Code> {
    let mut waiting = addresses.into_iter();
    let mut trying = JoinSet::new();
    let mut last = Code::NameUnresolved;
    loop {
        match waiting.next() {
            Some(address) => drop(trying.spawn(TcpStream::connect(address))),
            None if trying.is_empty() => return Err(last),
            None => {}
        }
        let until = if waiting.len() > 0 { ATTEMPT_DELAY } else { DIAL_DEADLINE };
        match tokio::time::timeout(until, trying.join_next()).await {
            Ok(Some(Ok(Ok(tcp)))) => return Ok(tcp),
            Ok(Some(Ok(Err(error)))) => last = code_of_dial(&error),
            Ok(Some(Err(_)) | None) => last = Code::Internal,
            Err(_) if waiting.len() > 0 => {}
            Err(_) => return Err(Code::DialTimeout),
        }
    }
}

/// The reason code of a failed connect.
pub fn code_of_dial(error: &std::io::Error) -> Code {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset => Code::DialRefused,
        std::io::ErrorKind::TimedOut => Code::DialTimeout,
        _ => Code::DialUnreachable,
    }
}
