//! Which segment a destination belongs to: the most specific host, then the narrowest port range (DESIGN §1).
//!
//! `Assignment` and `Visible` are the JSON of `model/messages`; unknown fields are refused. Matching costs one hash look-up per label.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use ipnet::IpNet;
use serde::Deserialize;

use crate::address::beyond_wildcards;
use crate::code::Code;
use crate::host::{Destination, Host, Malformed, Name, Protocol, parse_host, parse_name};

/// Bounds of one set of segments.
pub const MAX_SEGMENTS: usize = 65_536;
pub const MAX_HOSTS: usize = 1_024;
pub const MAX_PORT_RANGES: usize = 256;

/// A host as a segment names it: one host, or `*.suffix` for every name below the suffix (at any depth, not the suffix itself).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    Exact(Host),
    Below(Name),
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        match text.strip_prefix("*.") {
            Some(suffix) => parse_name(suffix.as_bytes()).map(Pattern::Below),
            None => parse_host(text.as_bytes()).map(Pattern::Exact),
        }
    }

    /// What a wildcard covers never includes the control plane of a cluster.
    pub fn contains(&self, host: &Host) -> bool {
        match (self, host) {
            (Pattern::Exact(own), host) => own == host,
            (Pattern::Below(suffix), Host::Name(name)) => {
                name.parents().any(|parent| parent == suffix.as_str()) && !beyond_wildcards(name)
            }
            (Pattern::Below(_), Host::Address(_)) => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exact(host) => host.fmt(f),
            Pattern::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Pattern::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// First and last port, both included; never empty, never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "PortRangeFields")]
pub struct PortRange {
    first: u16,
    last: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PortRangeFields {
    first: u16,
    last: u16,
}

impl TryFrom<PortRangeFields> for PortRange {
    type Error = &'static str;

    fn try_from(fields: PortRangeFields) -> Result<Self, Self::Error> {
        PortRange::new(fields.first, fields.last).ok_or("a port range begins at 1 or above and does not end before it begins")
    }
}

impl PortRange {
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first != 0 && first <= last).then_some(PortRange { first, last })
    }

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    fn width(self) -> u16 {
        self.last - self.first
    }
}

/// How a connector checks a segment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default = "default_interval")]
    pub interval: u32,
    #[serde(default = "default_timeout")]
    pub timeout: u32,
}

fn default_interval() -> u32 {
    10
}

fn default_timeout() -> u32 {
    3
}

/// One segment as its connectors see it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    pub id: String,
    pub hosts: Vec<Pattern>,
    pub ports: Vec<PortRange>,
    pub protocol: Protocol,
    /// Otherwise forbidden addresses that this segment spells out.
    #[serde(default)]
    pub allow: Vec<IpNet>,
    #[serde(default = "default_true")]
    pub strict: bool,
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// Served by other groups; listed because it is more specific than a segment served here, so that its destinations are refused.
    #[serde(default)]
    pub elsewhere: bool,
}

/// One segment as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Visible {
    pub id: String,
    pub name: String,
    pub hosts: Vec<Pattern>,
    pub ports: Vec<PortRange>,
    pub protocol: Protocol,
    #[serde(default = "default_true")]
    pub healthy: bool,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn default_true() -> bool {
    true
}

/// What matching reads of a segment.
pub trait Segment {
    fn id(&self) -> &str;
    fn hosts(&self) -> &[Pattern];
    fn ports(&self) -> &[PortRange];
    fn protocol(&self) -> Protocol;
}

macro_rules! segment {
    ($type:ty) => {
        impl Segment for $type {
            fn id(&self) -> &str {
                &self.id
            }
            fn hosts(&self) -> &[Pattern] {
                &self.hosts
            }
            fn ports(&self) -> &[PortRange] {
                &self.ports
            }
            fn protocol(&self) -> Protocol {
                self.protocol
            }
        }
    };
}

segment!(Assignment);
segment!(Visible);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentsError {
    #[error("the list of segments is malformed: {0}")]
    Malformed(String),
    #[error("the list of segments is longer than its bound: {0}")]
    TooLarge(&'static str),
}

impl SegmentsError {
    pub const fn code(&self) -> Code {
        match self {
            SegmentsError::Malformed(_) => Code::MessageMalformed,
            SegmentsError::TooLarge(_) => Code::TooLarge,
        }
    }
}

/// A set of segments, ready to be asked which of them a destination belongs to.
#[derive(Clone, Debug)]
pub struct Segments<S> {
    list: Vec<S>,
    exact: HashMap<Host, Vec<u32>>,
    below: HashMap<Name, Vec<u32>>,
}

impl<S> Default for Segments<S> {
    fn default() -> Self {
        Segments { list: Vec::new(), exact: HashMap::new(), below: HashMap::new() }
    }
}

impl<S: Segment + serde::de::DeserializeOwned> Segments<S> {
    /// From a JSON list; all or nothing.
    pub fn parse(json: &[u8]) -> Result<Self, SegmentsError> {
        let list: Vec<S> = serde_json::from_slice(json).map_err(|error| SegmentsError::Malformed(error.to_string()))?;
        Segments::new(list)
    }
}

impl<S: Segment> Segments<S> {
    pub fn new(list: Vec<S>) -> Result<Self, SegmentsError> {
        if list.len() > MAX_SEGMENTS {
            return Err(SegmentsError::TooLarge("segments"));
        }
        let mut exact: HashMap<Host, Vec<u32>> = HashMap::new();
        let mut below: HashMap<Name, Vec<u32>> = HashMap::new();
        for (index, segment) in (0u32..).zip(&list) {
            if segment.hosts().len() > MAX_HOSTS {
                return Err(SegmentsError::TooLarge("hosts of a segment"));
            }
            if segment.ports().len() > MAX_PORT_RANGES {
                return Err(SegmentsError::TooLarge("port ranges of a segment"));
            }
            for pattern in segment.hosts() {
                match pattern {
                    Pattern::Exact(host) => exact.entry(host.clone()).or_default().push(index),
                    Pattern::Below(suffix) => below.entry(suffix.clone()).or_default().push(index),
                }
            }
        }
        Ok(Segments { list, exact, below })
    }

    pub fn iter(&self) -> impl Iterator<Item = &S> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn get(&self, id: &str) -> Option<&S> {
        self.list.iter().find(|segment| segment.id() == id)
    }

    /// The one segment this destination belongs to. A tie, which control refuses to save, belongs to none.
    pub fn find(&self, destination: &Destination) -> Option<&S> {
        for indices in self.candidates(destination.host()) {
            match self.narrowest(indices, destination) {
                Narrowest::None => {}
                Narrowest::One(segment) => return Some(segment),
                Narrowest::Tie => return None,
            }
        }
        None
    }

    /// Whether any segment names this host, whatever port and protocol.
    pub fn names(&self, host: &Host) -> bool {
        self.candidates(host).next().is_some()
    }

    /// Whether some segment names `*.suffix`.
    pub fn has_wildcard(&self, suffix: &Name) -> bool {
        self.below.contains_key(suffix)
    }

    /// Every segment that names this host, whatever port and protocol, most specific first.
    pub fn naming<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a S> {
        self.candidates(host).flatten().filter_map(|index| self.list.get(*index as usize))
    }

    /// Lists of segments that name the host, from the most specific pattern to the least.
    fn candidates<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a [u32]> {
        let wildcards = match host {
            Host::Name(name) if !beyond_wildcards(name) => Some(name.parents()),
            _ => None,
        };
        let exact = self.exact.get(host);
        exact.into_iter().chain(wildcards.into_iter().flatten().filter_map(|suffix| self.below.get(suffix))).map(Vec::as_slice)
    }

    fn narrowest(&self, indices: &[u32], destination: &Destination) -> Narrowest<'_, S> {
        let mut best: Option<(u16, &S)> = None;
        let mut tie = false;
        for segment in indices.iter().filter_map(|index| self.list.get(*index as usize)) {
            if segment.protocol() != destination.protocol() {
                continue;
            }
            let containing = segment.ports().iter().filter(|range| range.contains(destination.port()));
            let Some(width) = containing.map(|range| range.width()).min() else { continue };
            match best {
                Some((least, _)) if width > least => {}
                Some((least, chosen)) if width == least => tie = tie || chosen.id() != segment.id(),
                _ => {
                    best = Some((width, segment));
                    tie = false;
                }
            }
        }
        match best {
            Some(_) if tie => Narrowest::Tie,
            Some((_, segment)) => Narrowest::One(segment),
            None => Narrowest::None,
        }
    }
}

impl Segments<Visible> {
    /// The port ranges of a host whose segment is healthy, per protocol, in order and without overlap.
    pub fn healthy_ranges(&self, host: &Host) -> Vec<(Protocol, PortRange)> {
        let mut ranges = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            // between two neighbouring bounds of any range the segment is the same
            let mut starts: Vec<u16> = Vec::new();
            for range in self.naming(host).filter(|segment| segment.protocol == protocol).flat_map(|segment| &segment.ports) {
                starts.push(range.first);
                starts.extend(range.last.checked_add(1));
            }
            starts.sort_unstable();
            starts.dedup();
            let mut open: Option<PortRange> = None;
            for (at, first) in starts.iter().enumerate() {
                let last = starts.get(at + 1).map_or(u16::MAX, |next| next - 1);
                let destination = Destination::new(host.clone(), *first, protocol);
                let healthy = destination.is_ok_and(|destination| self.find(&destination).is_some_and(|segment| segment.healthy));
                open = match open {
                    Some(range) if healthy => Some(PortRange { last, ..range }),
                    Some(range) => {
                        ranges.push((protocol, range));
                        None
                    }
                    None => healthy.then_some(PortRange { first: *first, last }),
                };
            }
            ranges.extend(open.map(|range| (protocol, range)));
        }
        ranges
    }
}

enum Narrowest<'a, S> {
    None,
    One(&'a S),
    Tie,
}
