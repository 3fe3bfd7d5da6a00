//! HTTP proxies on the way out: CONNECT (RFC 9110 §9.3.6) with Basic authentication (RFC 7617), in the clear or inside TLS, and which
//! destinations are dialled without one.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::{Address, connect_direct};
use crate::code::Code;

/// Longest head of a proxy's answer.
const MAX_PROXY_HEAD: usize = 8 << 10;
/// Entries of one list of exemptions.
const MAX_EXEMPTIONS: usize = 1024;
/// One TLS record.
const BUFFER: usize = 16 << 10;
/// What the far side may still send once the near side has ended.
const LINGER: Duration = Duration::from_secs(5);

/// A proxy that is asked to CONNECT.
#[derive(Clone)]
pub struct Proxy {
    address: Address,
    /// The value of `proxy-authorization`, a secret.
    authorization: Option<String>,
    /// Whom to believe, for a proxy that is spoken to inside TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.address.authority())
    }
}

impl Proxy {
    /// `http[s]://[user:password@]host[:port]`, the user and password percent-encoded. The certificate of an `https` proxy is judged by the
    /// host's trust store, or by `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set.
    pub fn parse(url: &str) -> Result<Proxy, Code> {
        Proxy::parse_believing(url, host_roots)
    }

    /// As `parse`, believing these roots.
    pub fn parse_believing(url: &str, roots: impl FnOnce() -> RootCertStore) -> Result<Proxy, Code> {
        let (scheme, rest) = url.split_once("://").ok_or(Code::ArgumentInvalid)?;
        let (port, tls) = match scheme {
            "http" => (80, None),
            "https" => (443, Some(Arc::new(client_config(roots())?))),
            _ => return Err(Code::ArgumentInvalid),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let address = Address::parse(place).or_else(|_| Address::parse(&format!("{place}:{port}")))?;
        let authorization = match user {
            None => None,
            Some(user) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let name = percent_decode(name)?;
                if name.contains(&b':') {
                    return Err(Code::ArgumentInvalid);
                }
                let pair = [name, b":".to_vec(), percent_decode(password)?].concat();
                Some(format!("Basic {}", STANDARD.encode(pair)))
            }
        };
        Ok(Proxy { address, authorization, tls })
    }

    /// A connection to `address` by this proxy.
    pub(super) async fn connect(&self, address: &Address) -> Result<TcpStream, Code> {
        let mut tcp = connect_direct(&self.address).await?;
        let Some(config) = &self.tls else {
            self.ask(&mut tcp, address).await?;
            return Ok(tcp);
        };
        let name = ServerName::try_from(self.address.host.clone()).map_err(|_| Code::ArgumentInvalid)?;
        let mut tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.map_err(|_| Code::ProxyRefused)?;
        self.ask(&mut tls, address).await?;
        stand_in(tls).map_err(|_| Code::Internal)
    }

    async fn ask<IO: AsyncRead + AsyncWrite + Unpin>(&self, io: &mut IO, address: &Address) -> Result<(), Code> {
        let authority = address.authority();
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str("proxy-authorization: ");
            request.push_str(authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        io.write_all(request.as_bytes()).await.map_err(|_| Code::ProxyRefused)?;
        io.flush().await.map_err(|_| Code::ProxyRefused)?;
        let mut head = Vec::new();
        // The far side waits for us to speak, so nothing follows the head; what does is not ours.
        while !head.ends_with(b"\r\n\r\n") {
            let mut part = [0u8; 1024];
            let count = io.read(&mut part).await.map_err(|_| Code::ProxyRefused)?;
            head.extend_from_slice(part.get(..count).unwrap_or_default());
            if count == 0 || head.len() > MAX_PROXY_HEAD {
                return Err(Code::ProxyRefused);
            }
        }
        accept_answer(&head).then_some(()).ok_or(Code::ProxyRefused)
    }
}

/// A socket whose bytes go through `tls`: whoever hands carriers over needs a descriptor. A pair of unnamed sockets, so nothing listens.
fn stand_in<IO: AsyncRead + AsyncWrite + Send + 'static>(tls: IO) -> std::io::Result<TcpStream> {
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let near = TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(near)))?;
    let far = UnixStream::from_std(far)?;
    tokio::spawn(async move {
        let (mut from_proxy, mut to_proxy) = tokio::io::split(tls);
        let (mut from_near, mut to_near) = far.into_split();
        let up = async {
            let _ = copy(&mut from_near, &mut to_proxy).await;
            let _ = to_proxy.shutdown().await;
            sleep(LINGER).await;
        };
        // What ends towards us is over: the legs above close in order inside.
        tokio::select! {
            _ = copy(&mut from_proxy, &mut to_near) => {}
            () = up => {}
        }
    });
    Ok(near)
}

async fn copy<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(from: &mut R, to: &mut W) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        to.flush().await?;
    }
}

fn host_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // What cannot be read is left out: with no root at all every proxy is refused.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// TLS 1.3, as everywhere; a proxy gets no certificate of ours.
fn client_config(roots: RootCertStore) -> Result<ClientConfig, Code> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = builder.map_err(|_| Code::Internal)?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn percent_decode(text: &str) -> Result<Vec<u8>, Code> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let pair = [bytes.next().ok_or(Code::ArgumentInvalid)?, bytes.next().ok_or(Code::ArgumentInvalid)?];
                let hex = std::str::from_utf8(&pair)
                    .ok()
                    .filter(|_| pair.iter().all(u8::is_ascii_hexdigit))
                    .ok_or(Code::ArgumentInvalid)?;
                u8::from_str_radix(hex, 16).map_err(|_| Code::ArgumentInvalid)?
            }
            plain => plain,
        });
    }
    Ok(decoded)
}

/// Whether a proxy's answer head is one complete HTTP/1 head with a 2xx status.
pub fn accept_answer(head: &[u8]) -> bool {
    let Some(line) = head.split(|byte| *byte == b'\r').next().and_then(|line| std::str::from_utf8(line).ok()) else { return false };
    let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 ")).and_then(|rest| rest.get(..3));
    let once = head.windows(4).position(|four| four == b"\r\n\r\n") == head.len().checked_sub(4);
    once && status.is_some_and(|status| status.starts_with('2') && status.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Destinations that are dialled without the proxy: what `NO_PROXY` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exemptions(Vec<Exemption>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exemption {
    Everything,
    Network(IpNet),
    /// A name and what lies below it, or an address; at every port or at one.
    Host(String, Option<u16>),
}

impl Exemptions {
    /// A comma-separated list, as curl and others read it: `*`, networks (`10.0.0.0/8`), addresses, and names that cover what lies below them
    /// (`example.com`, `.example.com` and `*.example.com` are the same), each name or address with a port or without. What is none of
    /// these exempts nothing. Names are not resolved. Errors: `too_large`.
    pub fn parse(text: &str) -> Result<Exemptions, Code> {
        let entries: Vec<&str> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if entries.len() > MAX_EXEMPTIONS {
            return Err(Code::TooLarge);
        }
        Ok(Exemptions(entries.into_iter().filter_map(Exemption::parse).collect()))
    }

    pub fn cover(&self, address: &Address) -> bool {
        let host = address.host.trim_end_matches('.').to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        self.0.iter().any(|exemption| match exemption {
            Exemption::Everything => true,
            Exemption::Network(network) => ip.is_some_and(|ip| network.contains(&ip)),
            Exemption::Host(_, Some(port)) if *port != address.port => false,
            Exemption::Host(name, _) => match ip {
                Some(ip) => name.parse::<IpAddr>().is_ok_and(|exempt| exempt == ip),
                None => host.strip_suffix(name.as_str()).is_some_and(|head| head.is_empty() || head.ends_with('.')),
            },
        })
    }
}

impl Exemption {
    fn parse(entry: &str) -> Option<Exemption> {
        if entry == "*" {
            return Some(Exemption::Everything);
        }
        if let Ok(network) = entry.parse::<IpNet>() {
            return Some(Exemption::Network(network));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
            _ => (entry, None),
        };
        let host = host.strip_prefix('*').unwrap_or(host).trim_start_matches('.').trim_end_matches('.');
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        (!host.is_empty() && host.bytes().all(plain)).then(|| Exemption::Host(host.to_ascii_lowercase(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemptions_are_read_as_elsewhere() {
        for (list, exempt, not) in [
            ("*", vec!["exchange.example:443", "10.1.2.3:1"], vec![]),
            (
                "exchange.example",
                vec!["exchange.example:443", "EXCHANGE.example.:1", "a.exchange.example:1"],
                vec!["notexchange.example:443"],
            ),
            (".example", vec!["exchange.example:443"], vec!["example.com:443"]),
            (" other , *.example", vec!["exchange.example:443"], vec!["another:1"]),
            ("exchange.example:443", vec!["exchange.example:443"], vec!["exchange.example:8443"]),
            ("10.0.0.0/8,2001:db8::/32", vec!["10.1.2.3:443", "[2001:db8::1]:443"], vec!["11.1.2.3:443", "[2001:db9::1]:443"]),
            (
                "10.1.2.3,[::1]:443,fe80::1",
                vec!["10.1.2.3:443", "[::1]:443", "[fe80::1]:1"],
                vec!["10.1.2.4:443", "[::1]:80", "110.1.2.3:443"],
            ),
            ("2.3,junk/99,a b,:,.,,exchange.example:x", vec![], vec!["10.1.2.3:443", "exchange.example:443", "a:1"]),
            ("", vec![], vec!["exchange.example:443"]),
        ] {
            let exemptions = Exemptions::parse(list).unwrap();
            let covered = |text: &str| exemptions.cover(&Address::parse(text).unwrap());
            exempt.into_iter().for_each(|text| assert!(covered(text), "{list}: {text}"));
            not.into_iter().for_each(|text| assert!(!covered(text), "{list}: {text}"));
        }
        assert!(Exemptions::parse(&"a,".repeat(MAX_EXEMPTIONS)).is_ok());
        assert_eq!(Exemptions::parse(&"a,".repeat(MAX_EXEMPTIONS + 1)), Err(Code::TooLarge));
    }

    #[test]
    fn proxies_of_other_schemes_and_shapes_are_refused() {
        for url in ["socks5://p:1", "p:1", "http://", "https://", "http://u%3a:s@p", "http://u%g1@p", "ftp://p"] {
            assert_eq!(Proxy::parse(url).unwrap_err(), Code::ArgumentInvalid, "{url}");
        }
        assert_eq!(format!("{:?}", Proxy::parse("https://user:secret@proxy.test").unwrap()), "Proxy(proxy.test:443)");
        assert_eq!(format!("{:?}", Proxy::parse("http://proxy.test/").unwrap()), "Proxy(proxy.test:80)");
    }
}
