//! Links, relays, carriers, tunnels, flows, capture and names: the bytes of Cloister.
//!
//! Knows keys, tickets, destinations and revocations; nothing of users or policy. No Python in sight.

pub mod address;
pub mod capsule;
pub mod carrier;
pub mod client;
pub mod code;
pub mod connector;
pub mod descriptor;
pub mod dial;
pub mod edge;
pub mod flow;
pub mod frame;
pub mod front;
pub mod grants;
pub mod host;
pub mod ids;
pub mod lasthop;
pub mod link;
pub mod pool;
pub mod record;
pub mod relay;
pub mod resume;
pub mod runtime;
pub mod secure;
pub mod segment;
pub mod sys;
pub mod ticket;
pub mod tls;
pub mod tunnel;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_ca;
