//! Destinations: what is accepted is canonical, so that the decision and the dial read the same.
#![no_main]

use cloister_core::host::{Destination, Protocol, parse_host};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(destination) = Destination::parse_authority(data, Protocol::Tcp) {
        let text = destination.authority();
        assert_eq!(Destination::parse_authority(text.as_bytes(), Protocol::Tcp), Ok(destination));
    }
    if let Ok(host) = parse_host(data) {
        assert_eq!(parse_host(host.to_string().as_bytes()), Ok(host));
    }
});
