//! Tunnels: HTTP/2 over the resumable stream over the inner TLS over carriers.

pub mod client;
pub mod connector;
pub mod request;
pub mod stream;
pub mod windows;
