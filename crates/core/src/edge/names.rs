//! Synthetic addresses for visible names: a machine without I/O.
//!
//! Every name has one slot of the pool: one IPv4 and one IPv6 address. Exact names get theirs with the catalogue; a name below a wildcard
//! gets one when asked for, out of spares that are captured beforehand, so that the first packet after the DNS answer is caught. A live
//! mapping is never taken away; an address that was one name's is nobody else's before `QUARANTINE` has passed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::address::forbidden;
use crate::code::Code;
use crate::host::{Host, Name, Protocol, parse_name};
use crate::segment::{Pattern, PortRange, Segments, Visible};

/// Slots of a pool at most, however large its networks are.
pub const MAX_SLOTS: u32 = 65_536;
/// Longer than any cache keeps an answer that lives `dns::TTL`.
pub const QUARANTINE: Duration = Duration::from_secs(3600);
/// A name below a wildcard that nobody asked for or used this long gives its slot back.
pub const IDLE: Duration = Duration::from_secs(24 * 3600);
/// Captured in advance for each wildcard.
pub const SPARES: usize = 16;
/// Wildcards that get spares.
pub const MAX_WILDCARDS: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("the IPv4 pool is no network of 4 or more addresses inside of 100.64.0.0/10")]
    V4,
    #[error("the IPv6 pool is no network of /120 or larger inside of fd00::/8")]
    V6,
}

impl PoolError {
    pub const fn code(self) -> Code {
        Code::ArgumentInvalid
    }
}

/// Where synthetic addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    v4: Ipv4Net,
    v6: Ipv6Net,
}

impl Pools {
    pub fn parse(v4: &str, v6: &str) -> Result<Self, PoolError> {
        let shared = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
        let v4: Ipv4Net = v4.parse().map_err(|_| PoolError::V4)?;
        if !shared.contains(&v4) || v4.prefix_len() > 30 || v4 != v4.trunc() {
            return Err(PoolError::V4);
        }
        let local = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8);
        let v6: Ipv6Net = v6.parse().map_err(|_| PoolError::V6)?;
        if !local.contains(&v6) || v6.prefix_len() > 120 || v6 != v6.trunc() {
            return Err(PoolError::V6);
        }
        Ok(Pools { v4, v6 })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(&address),
            IpAddr::V6(address) => self.v6.contains(&address),
        }
    }

    /// Slots: what fits both networks, without the first and last address.
    fn slots(&self) -> u32 {
        let v4 = (1u64 << (32 - self.v4.prefix_len())) - 2;
        let v6 = (1u128 << (128 - self.v6.prefix_len()).min(64)) - 2;
        u64::try_from(v6).unwrap_or(u64::MAX).min(v4).min(u64::from(MAX_SLOTS)).try_into().unwrap_or(MAX_SLOTS)
    }

    fn addresses(&self, slot: u32) -> Addresses {
        Addresses {
            v4: Ipv4Addr::from_bits(self.v4.network().to_bits().wrapping_add(slot + 1)),
            v6: Ipv6Addr::from_bits(self.v6.network().to_bits().wrapping_add(u128::from(slot) + 1)),
        }
    }

    fn slot(&self, address: IpAddr) -> Option<u32> {
        let offset = match address {
            IpAddr::V4(address) => u128::from(address.to_bits().checked_sub(self.v4.network().to_bits())?),
            IpAddr::V6(address) => address.to_bits().checked_sub(self.v6.network().to_bits())?,
        };
        let slot = u32::try_from(offset.checked_sub(1)?).ok()?;
        (slot < self.slots()).then_some(slot)
    }
}

/// What a name resolves to on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(Addresses),
    NotVisible,
    /// Visible, but every slot is taken or in quarantine.
    Full,
}

#[derive(Debug)]
enum Slot {
    Live {
        name: Name,
        used: Instant,
    },
    Spare {
        suffix: Name,
    },
    /// Kept for its last name until the end of the quarantine.
    Resting {
        name: Name,
        until: Instant,
    },
}

/// The slots of one client.
#[derive(Debug)]
pub struct Names {
    pools: Pools,
    catalogue: Arc<Segments<Visible>>,
    slots: HashMap<u32, Slot>,
    by_name: HashMap<Name, u32>,
    wildcards: HashMap<Name, VecDeque<u32>>,
    resting: VecDeque<(Instant, u32)>,
    unused: VecDeque<u32>,
    next: u32,
    ipv6: bool,
}

impl Names {
    pub fn new(pools: Pools) -> Self {
        Names {
            pools,
            catalogue: Arc::default(),
            slots: HashMap::new(),
            by_name: HashMap::new(),
            wildcards: HashMap::new(),
            resting: VecDeque::new(),
            unused: VecDeque::new(),
            next: 0,
            ipv6: true,
        }
    }

    /// Without IPv6 on this host, names have IPv4 addresses only.
    pub fn leave_out_ipv6(&mut self) {
        self.ipv6 = false;
    }

    pub fn has_ipv6(&self) -> bool {
        self.ipv6
    }

    pub fn pools(&self) -> Pools {
        self.pools
    }

    /// Replace what is visible. Names no longer visible go to quarantine; names visible again within it get their address back.
    pub fn set_catalogue(&mut self, catalogue: Arc<Segments<Visible>>, now: Instant) {
        self.catalogue = catalogue;
        self.expire(now);
        let gone: Vec<Name> = self.by_name.keys().filter(|name| !self.is_visible(name)).cloned().collect();
        for name in gone {
            self.rest(&name, now);
        }
        let catalogue = Arc::clone(&self.catalogue);
        let mut suffixes = HashSet::new();
        for pattern in catalogue.iter().flat_map(|segment| &segment.hosts) {
            match pattern {
                Pattern::Exact(Host::Name(name)) => {
                    let _ = self.look_up(name, now);
                }
                Pattern::Below(suffix) if suffixes.len() < MAX_WILDCARDS => {
                    suffixes.insert(suffix.clone());
                }
                Pattern::Exact(Host::Address(_)) | Pattern::Below(_) => {}
            }
        }
        self.wildcards.retain(|suffix, spares| {
            let kept = suffixes.contains(suffix);
            if !kept {
                // a spare was never anybody's address
                for slot in spares.drain(..) {
                    self.slots.remove(&slot);
                    self.unused.push_back(slot);
                }
            }
            kept
        });
        for suffix in suffixes {
            self.fill_spares(&suffix);
        }
    }

    pub fn is_visible(&self, name: &Name) -> bool {
        self.catalogue.names(&Host::Name(name.clone()))
    }

    /// Whether names at or below this one are this client's affair.
    pub fn is_parent(&self, name: &Name) -> bool {
        self.is_visible(name) || self.catalogue.has_wildcard(name)
    }

    /// The addresses of a visible name; it gets a slot if it has none.
    pub fn look_up(&mut self, name: &Name, now: Instant) -> Lookup {
        if !self.is_visible(name) {
            return Lookup::NotVisible;
        }
        if let Some(slot) = self.by_name.get(name).copied() {
            self.slots.insert(slot, Slot::Live { name: name.clone(), used: now });
            return Lookup::Found(self.pools.addresses(slot));
        }
        self.expire(now);
        let Some(slot) = self.take_slot(name) else { return Lookup::Full };
        self.slots.insert(slot, Slot::Live { name: name.clone(), used: now });
        self.by_name.insert(name.clone(), slot);
        Lookup::Found(self.pools.addresses(slot))
    }

    /// The name behind a synthetic address, if it is visible now.
    pub fn name_of(&mut self, address: IpAddr, now: Instant) -> Option<Name> {
        let slot = self.pools.slot(address)?;
        match self.slots.get_mut(&slot)? {
            Slot::Live { name, used } => {
                *used = now;
                Some(name.clone())
            }
            Slot::Spare { .. } | Slot::Resting { .. } => None,
        }
    }

    /// What the kernel must capture now: addresses with the ports of visible, healthy segments. Sorted.
    pub fn captured(&self) -> Vec<(IpAddr, Protocol, u16, u16)> {
        let mut captured = Vec::new();
        let mut by_wildcard: HashMap<&Name, Vec<(Protocol, PortRange)>> = HashMap::new();
        for (slot, state) in &self.slots {
            let ranges = match state {
                Slot::Live { name, .. } => self.catalogue.healthy_ranges(&Host::Name(name.clone())),
                Slot::Spare { suffix } => by_wildcard.entry(suffix).or_insert_with(|| self.ranges_below(suffix)).clone(),
                Slot::Resting { .. } => continue,
            };
            let addresses = self.pools.addresses(*slot);
            for (protocol, range) in ranges {
                captured.push((IpAddr::V4(addresses.v4), protocol, range.first(), range.last()));
                if self.ipv6 {
                    captured.push((IpAddr::V6(addresses.v6), protocol, range.first(), range.last()));
                }
            }
        }
        // a segment may name an address itself: then that address is captured
        for host in self.catalogue.iter().flat_map(|segment| &segment.hosts) {
            let Pattern::Exact(host @ Host::Address(address)) = host else { continue };
            if forbidden(*address).is_none() && !self.pools.contains(*address) && (self.ipv6 || address.is_ipv4()) {
                captured.extend(
                    self.catalogue
                        .healthy_ranges(host)
                        .into_iter()
                        .map(|(protocol, range)| (*address, protocol, range.first(), range.last())),
                );
            }
        }
        captured.sort_unstable();
        captured.dedup();
        captured
    }

    /// Slots with a name, and slots in all.
    pub fn fill(&self) -> (usize, u32) {
        (self.by_name.len(), self.pools.slots())
    }

    /// Let go of what is over: quarantines that ended, wildcard names that nobody used for long.
    pub fn expire(&mut self, now: Instant) {
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, slot)) = self.resting.pop_front() else { break };
            // the slot may have gone back to its name, and may rest again since
            let Some(Slot::Resting { name, until }) = self.slots.get(&slot) else { continue };
            if *until <= now {
                self.by_name.remove(name);
                self.slots.remove(&slot);
                self.unused.push_back(slot);
            }
        }
    }

    /// Slots of wildcard names that nobody asked for or used since `IDLE` go to quarantine.
    pub fn release_idle(&mut self, now: Instant) {
        let exact: HashSet<&Host> = self
            .catalogue
            .iter()
            .flat_map(|segment| &segment.hosts)
            .filter_map(|pattern| match pattern {
                Pattern::Exact(host) => Some(host),
                Pattern::Below(_) => None,
            })
            .collect();
        let idle: Vec<Name> = self
            .slots
            .values()
            .filter_map(|slot| match slot {
                Slot::Live { name, used } if now.duration_since(*used) >= IDLE && !exact.contains(&Host::Name(name.clone())) => {
                    Some(name.clone())
                }
                _ => None,
            })
            .collect();
        for name in idle {
            self.rest(&name, now);
        }
    }

    fn rest(&mut self, name: &Name, now: Instant) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        if let Some(state @ Slot::Live { .. }) = self.slots.get_mut(&slot) {
            let until = now + QUARANTINE;
            *state = Slot::Resting { name: name.clone(), until };
            self.resting.push_back((until, slot));
        }
    }

    /// The port ranges of a name that only this wildcard, and those it lies below, cover.
    fn ranges_below(&self, suffix: &Name) -> Vec<(Protocol, PortRange)> {
        match parse_name(format!("cloister-spare.{suffix}").as_bytes()) {
            Ok(name) => self.catalogue.healthy_ranges(&Host::Name(name)),
            Err(_) => Vec::new(),
        }
    }

    fn take_slot(&mut self, name: &Name) -> Option<u32> {
        let suffix = name.parents().find_map(|parent| self.wildcards.get_key_value(parent)).map(|(suffix, _)| suffix.clone());
        // exact names may have ports of their own: only names that a wildcard alone covers are served from its spares
        let spare = suffix.as_ref().and_then(|suffix| self.wildcards.get_mut(suffix)).and_then(VecDeque::pop_front);
        let slot = spare.or_else(|| self.fresh_slot());
        if let Some(suffix) = suffix {
            self.fill_spares(&suffix);
        }
        slot
    }

    fn fill_spares(&mut self, suffix: &Name) {
        // spares must not starve names: at most a quarter of the pool
        let bound = (self.pools.slots() as usize / 4 / (self.wildcards.len() + 1)).min(SPARES);
        let mut spares = self.wildcards.remove(suffix).unwrap_or_default();
        while spares.len() < bound {
            let Some(slot) = self.fresh_slot() else { break };
            self.slots.insert(slot, Slot::Spare { suffix: suffix.clone() });
            spares.push_back(slot);
        }
        self.wildcards.insert(suffix.clone(), spares);
    }

    /// A slot that is nobody's: never used ones first, then those longest out of quarantine.
    fn fresh_slot(&mut self) -> Option<u32> {
        while self.next < self.pools.slots() {
            let slot = self.next;
            self.next += 1;
            let addresses = self.pools.addresses(slot);
            if forbidden(IpAddr::V4(addresses.v4)).is_none() && forbidden(IpAddr::V6(addresses.v6)).is_none() {
                return Some(slot);
            }
        }
        self.unused.pop_front()
    }
}

#[cfg(test)]
#[path = "names_test.rs"]
mod test;
