//! Counters and gauges by stable name; `Core.stats()` lists them all.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number, changed from any thread.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn sub(&self, by: u64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub struct Stats { $($(#[$doc])* pub $name: Gauge,)* }

        impl Stats {
            /// Every number with its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

stats! {
    /// Links up now, either side.
    links,
    links_opened,
    links_refused,
    link_messages_in,
    link_messages_out,
    records_in,
    handshakes,
    handshakes_failed,
    /// A connector's own, at relays.
    carriers_parked,
    tunnels,
    tunnels_opened,
    tunnels_resumed,
    flows,
    flows_opened,
    flows_refused,
    flows_reset,
    bytes_in,
    bytes_out,
    datagrams_dropped,
    /// Tasks that ended by a bug; each closed what it held.
    panics,
}
