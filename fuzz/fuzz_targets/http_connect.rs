//! Proxy requests over HTTP: what is accepted from a prefix is accepted from that prefix alone.
#![no_main]

use cloister_core::edge::http_connect::parse_request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((request, used)) = parse_request(data) {
        assert_eq!(parse_request(&data[..used]), Ok((request, used)));
    }
});
