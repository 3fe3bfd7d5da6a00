//! Addresses and names that no segment may reach unless its `allow` spells them out.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::code::Code;
use crate::host::Name;

/// Why an address (or name) is forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forbidden {
    Unspecified,
    Loopback,
    LinkLocal,
    Metadata,
    Multicast,
    Broadcast,
    Reserved,
    /// An IPv6 form that carries an IPv4 address: it leads where a check of IPv4 addresses does not look.
    EmbeddedIpv4,
    /// The control plane of a cluster.
    ControlPlane,
    /// An address of the exchange, a relay or this very host.
    Own,
}

impl Forbidden {
    pub const fn as_str(self) -> &'static str {
        match self {
            Forbidden::Unspecified => "unspecified",
            Forbidden::Loopback => "loopback",
            Forbidden::LinkLocal => "link_local",
            Forbidden::Metadata => "metadata",
            Forbidden::Multicast => "multicast",
            Forbidden::Broadcast => "broadcast",
            Forbidden::Reserved => "reserved",
            Forbidden::EmbeddedIpv4 => "embedded_ipv4",
            Forbidden::ControlPlane => "control_plane",
            Forbidden::Own => "own",
        }
    }

    pub const fn code(self) -> Code {
        Code::AddressForbidden
    }
}

/// Metadata and platform services outside of link-local ranges: Alibaba and its DNS, Azure, Oracle Classic.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(100, 100, 2, 136),
    Ipv4Addr::new(100, 100, 2, 138),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The first address of the default service range of kubeadm and of k3s: the API server as every pod sees it. Other ranges are given as own addresses.
const CONTROL_PLANE_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 43, 0, 1)];

/// Why no segment may reach this address unless spelled out, or None. Pure: knows nothing of this host.
pub fn forbidden(address: IpAddr) -> Option<Forbidden> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => forbidden_v6(address),
    }
}

fn forbidden_v4(address: Ipv4Addr) -> Option<Forbidden> {
    if METADATA_V4.contains(&address) || address == Ipv4Addr::new(169, 254, 169, 254) {
        return Some(Forbidden::Metadata);
    }
    if CONTROL_PLANE_V4.contains(&address) {
        return Some(Forbidden::ControlPlane);
    }
    match address.octets() {
        [0, ..] => Some(Forbidden::Unspecified),
        [127, ..] => Some(Forbidden::Loopback),
        [169, 254, ..] => Some(Forbidden::LinkLocal),
        [255, 255, 255, 255] => Some(Forbidden::Broadcast),
        [224..=239, ..] => Some(Forbidden::Multicast),
        // RFC 6890 protocol assignments; RFC 7526 (6to4 relays); class E
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Some(Forbidden::Reserved),
        _ => None,
    }
}

fn forbidden_v6(address: Ipv6Addr) -> Option<Forbidden> {
    if address == Ipv6Addr::UNSPECIFIED {
        return Some(Forbidden::Unspecified);
    }
    if address == Ipv6Addr::LOCALHOST {
        return Some(Forbidden::Loopback);
    }
    if let Some(embedded) = nat64(address) {
        return forbidden_v4(embedded);
    }
    if embeds_ipv4(address) {
        return Some(Forbidden::EmbeddedIpv4);
    }
    match address.segments() {
        // AWS fd00:ec2::/32; Google fd20:ce::254; Oracle fd00:c1::a9fe:a9fe; Scaleway fd00:42::42
        [0xfd00, 0x0ec2, ..]
        | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254]
        | [0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
        | [0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042] => Some(Forbidden::Metadata),
        [first, ..] if first & 0xffc0 == 0xfe80 => Some(Forbidden::LinkLocal),
        [first, ..] if first & 0xff00 == 0xff00 => Some(Forbidden::Multicast),
        // RFC 2928 protocol assignments (Teredo is among the embedded forms)
        [0x2001, second, ..] if second < 0x0200 => Some(Forbidden::Reserved),
        // only global unicast (2000::/3) and unique local (fc00::/7) are anybody's
        [first, ..] if first & 0xe000 == 0x2000 || first & 0xfe00 == 0xfc00 => None,
        _ => Some(Forbidden::Reserved),
    }
}

/// The address behind the well-known prefix 64:ff9b::/96 (RFC 6052). DNS64 makes these for ordinary names, so they are judged by what they embed.
fn nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.octets() {
        [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

/// Every other form with an IPv4 address inside: none is needed to reach anything, all can lead around the check.
fn embeds_ipv4(address: Ipv6Addr) -> bool {
    matches!(
        address.segments(),
        // compatible (RFC 4291 §2.5.5.1), mapped (§2.5.5.2), translated (RFC 2765)
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..]
            // local-use NAT64 (RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380)
            | [0x64, 0xff9b, 1, ..] | [0x2002, ..] | [0x2001, 0, ..]
            // ISATAP (RFC 5214 §6.1), with any setting of the u and g bits
            | [_, _, _, _, 0 | 0x0100 | 0x0200 | 0x0300, 0x5efe, ..]
    )
}

/// Names that stand for this host, a metadata service or a cluster's control plane, whatever they resolve to.
pub fn forbidden_name(name: &Name) -> Option<Forbidden> {
    let text = name.as_str();
    let labels: Vec<&str> = text.split('.').collect();
    if labels.last() == Some(&"localhost") || labels.contains(&"localdomain") && labels.first() == Some(&"localhost") {
        return Some(Forbidden::Loopback);
    }
    if matches!(
        text,
        "ip6-localhost"
            | "ip6-loopback"
            | "loopback"
            | "localhost6"
            | "localhost6.localdomain6"
            | "localhost4.localdomain4"
            | "localhost4"
    ) {
        return Some(Forbidden::Loopback);
    }
    if matches!(
        text,
        "metadata"
            | "metadata.google.internal"
            | "metadata.goog"
            | "metadata.aliyun.internal"
            | "instance-data"
            | "instance-data.ec2.internal"
    ) || text.ends_with(".metadata.google.internal")
    {
        return Some(Forbidden::Metadata);
    }
    is_api_server(&labels).then_some(Forbidden::ControlPlane)
}

/// `kubernetes`, `kubernetes.default`, `kubernetes.default.svc`, `kubernetes.default.svc.<zone>`, and names below them.
fn is_api_server(labels: &[&str]) -> bool {
    labels == ["kubernetes"]
        || labels
            .windows(2)
            .enumerate()
            .any(|(at, pair)| pair == ["kubernetes", "default"] && labels.get(at + 2).is_none_or(|next| *next == "svc"))
}

/// Names that a wildcard never covers (they must be listed exactly): the API server, and everything in the namespaces of the control plane.
pub fn beyond_wildcards(name: &Name) -> bool {
    forbidden_name(name).is_some()
        || name.as_str().split('.').any(|label| matches!(label, "kube-system" | "kube-public" | "kube-node-lease"))
}

/// Own addresses that a guard remembers.
pub const MAX_OWN: usize = 1024;

/// Judges an address for one connector: the general rules plus the addresses of the exchange, the relays and this host.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    own: HashSet<IpAddr>,
}

impl Guard {
    pub fn new(own: impl IntoIterator<Item = IpAddr>) -> Self {
        Guard { own: own.into_iter().collect() }
    }

    /// Add addresses of the exchange, of relays, of the cluster's control plane. At `MAX_OWN` nothing more is added.
    pub fn extend(&mut self, more: impl IntoIterator<Item = IpAddr>) {
        for address in more {
            if self.own.len() < MAX_OWN {
                self.own.insert(address);
            }
        }
    }

    /// Why this address may not be dialled, or None. `allow` is what the segment spells out.
    pub fn judge(&self, address: IpAddr, allow: &[IpNet]) -> Option<Forbidden> {
        let embedded = match address {
            IpAddr::V6(address) => nat64(address).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let why = if self.own.contains(&address) || embedded.is_some_and(|address| self.own.contains(&address)) {
            Some(Forbidden::Own)
        } else {
            forbidden(address)
        };
        why.filter(|_| !allow.iter().any(|net| net.contains(&address)))
    }

    /// Why this name may not even be resolved, or None. A segment that spells out addresses may use such a name; they are judged then.
    pub fn judge_name(&self, name: &Name, allow: &[IpNet]) -> Option<Forbidden> {
        forbidden_name(name).filter(|_| allow.is_empty())
    }
}
