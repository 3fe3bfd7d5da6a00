//! The one strict parse of a destination, used for the decision and for the dial.
//!
//! A host is a DNS name or an address in its one canonical spelling; everything else is malformed: alternative numerals (octal, hex,
//! dword, short forms), zone ids, userinfo, percent-encoding, white space, NUL, Unicode. Addresses are judged in `address.rs`,
//! segments matched in `segment.rs`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::code::Code;

/// RFC 1035 §2.3.4, without the trailing dot.
pub const MAX_NAME: usize = 253;
/// RFC 1035 §2.3.4.
pub const MAX_LABEL: usize = 63;
/// Longest `host:port`: a name, a colon, five digits.
pub const MAX_AUTHORITY: usize = MAX_NAME + 1 + 6;

/// Why a text is no destination. The text itself is not repeated: it may be hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the host is empty")]
    Empty,
    #[error("the host is longer than 253 characters")]
    TooLong,
    #[error("a label of the host is empty or longer than 63 characters")]
    Label,
    #[error("the host holds a character other than letters, digits, hyphens and dots")]
    Character,
    #[error("a label of the host begins or ends with a hyphen")]
    Hyphen,
    #[error("the host looks like a number but is no dotted quad of four decimal numbers without leading zeros")]
    Numeric,
    #[error("the IPv6 address is not written as RFC 5952 says")]
    Ipv6,
    #[error("names below `ipv6-literal.net` are addresses in disguise")]
    LiteralName,
    #[error("the port is missing or no decimal number from 1 to 65535")]
    Port,
    #[error("the authority is not `host:port`; an IPv6 address stands in brackets, a name does not")]
    Authority,
}

impl Malformed {
    pub const fn code(self) -> Code {
        Code::HostMalformed
    }
}

/// A DNS name: lower case, LDH labels (RFC 1123 §2.1, no underscores), no trailing dot, last label not numeric.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label, then without its first two, …: the suffixes a wildcard can name, longest first.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('.').filter_map(|(dot, _)| self.0.get(dot + 1..))
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Where a flow goes, as asked for: a name stays a name until the last hop resolves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Name(Name),
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => name.fmt(f),
            Host::Address(address) => address.fmt(f),
        }
    }
}

impl std::str::FromStr for Host {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        parse_host(text.as_bytes())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Host, port (never 0) and protocol: what a segment contains and a flow asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    host: Host,
    port: u16,
    protocol: Protocol,
}

impl Destination {
    pub fn new(host: Host, port: u16, protocol: Protocol) -> Result<Self, Malformed> {
        if port == 0 {
            return Err(Malformed::Port);
        }
        Ok(Destination { host, port, protocol })
    }

    /// From a host text and a port number.
    pub fn parse(host: &str, port: u16, protocol: Protocol) -> Result<Self, Malformed> {
        Destination::new(parse_host(host.as_bytes())?, port, protocol)
    }

    /// From `host:port`, as in the authority of a CONNECT request.
    pub fn parse_authority(authority: &[u8], protocol: Protocol) -> Result<Self, Malformed> {
        let (host, port) = parse_authority(authority)?;
        Destination::new(host, port, protocol)
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// `host:port`, IPv6 in brackets; `parse_authority` reads it back.
    pub fn authority(&self) -> String {
        write_authority(&self.host, self.port)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.authority(), self.protocol)
    }
}

/// `host:port`, IPv6 in brackets (RFC 3986 §3.2.2).
pub fn write_authority(host: &Host, port: u16) -> String {
    match host {
        Host::Address(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        host => format!("{host}:{port}"),
    }
}

/// A bare host: a name, a dotted quad, or an IPv6 address without brackets.
pub fn parse_host(text: &[u8]) -> Result<Host, Malformed> {
    if text.is_empty() {
        return Err(Malformed::Empty);
    }
    if text.contains(&b':') {
        return parse_ipv6(text).map(|address| Host::Address(IpAddr::V6(address)));
    }
    if let Some(address) = parse_ipv4(text) {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    parse_name(text).map(Host::Name)
}

/// `host:port` with a name or dotted quad, or `[ipv6]:port`; the port is decimal without leading zeros.
pub fn parse_authority(text: &[u8]) -> Result<(Host, u16), Malformed> {
    if text.len() > MAX_AUTHORITY {
        return Err(Malformed::TooLong);
    }
    let colon = text.iter().rposition(|byte| *byte == b':').ok_or(Malformed::Port)?;
    let (host, port) = text.split_at(colon);
    let port = parse_port(port.get(1..).unwrap_or_default())?;
    match host.strip_prefix(b"[") {
        Some(rest) => {
            let inner = rest.strip_suffix(b"]").ok_or(Malformed::Authority)?;
            parse_ipv6(inner).map(|address| (Host::Address(IpAddr::V6(address)), port))
        }
        None if host.contains(&b':') => Err(Malformed::Authority),
        None => parse_host(host).map(|host| (host, port)),
    }
}

/// A decimal number from 1 to 65535 without sign, spaces or leading zeros.
pub fn parse_port(text: &[u8]) -> Result<u16, Malformed> {
    if text.is_empty() || text.len() > 5 || text.starts_with(b"0") || !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Port);
    }
    let text = std::str::from_utf8(text).map_err(|_| Malformed::Port)?;
    text.parse().map_err(|_| Malformed::Port)
}

/// A DNS name; one trailing dot and upper case are canonicalised away.
pub fn parse_name(text: &[u8]) -> Result<Name, Malformed> {
    if text.is_empty() {
        return Err(Malformed::Empty);
    }
    let text = text.strip_suffix(b".").unwrap_or(text);
    if text.len() > MAX_NAME {
        return Err(Malformed::TooLong);
    }
    let mut last: &[u8] = &[];
    for label in text.split(|byte| *byte == b'.') {
        check_label(label)?;
        last = label;
    }
    if is_numeric(last) {
        return Err(Malformed::Numeric);
    }
    let name = std::str::from_utf8(text).map_err(|_| Malformed::Character)?.to_ascii_lowercase();
    if name == "ipv6-literal.net" || name.ends_with(".ipv6-literal.net") {
        return Err(Malformed::LiteralName);
    }
    Ok(Name(name.into()))
}

fn check_label(label: &[u8]) -> Result<(), Malformed> {
    if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
        return Err(Malformed::Character);
    }
    if label.is_empty() || label.len() > MAX_LABEL {
        return Err(Malformed::Label);
    }
    if label.starts_with(b"-") || label.ends_with(b"-") {
        return Err(Malformed::Hyphen);
    }
    Ok(())
}

/// A last label that some resolver reads as a number, so the whole as an address (WHATWG URL, "ends in a number").
fn is_numeric(label: &[u8]) -> bool {
    let hex = match label {
        [b'0', b'x' | b'X', rest @ ..] => rest.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    };
    hex || label.iter().all(u8::is_ascii_digit)
}

fn parse_ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let text = std::str::from_utf8(text).ok()?;
    let address: Ipv4Addr = text.parse().ok()?;
    (address.to_string() == text).then_some(address)
}

fn parse_ipv6(text: &[u8]) -> Result<Ipv6Addr, Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| Malformed::Ipv6)?;
    let address: Ipv6Addr = text.parse().map_err(|_| Malformed::Ipv6)?;
    if address.to_string() == text { Ok(address) } else { Err(Malformed::Ipv6) }
}
