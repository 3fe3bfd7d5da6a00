//! SOCKS5 as local programs speak it, and its datagrams.
#![no_main]

use cloister_core::edge::socks::{parse_datagram, parse_greeting, parse_password, parse_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((_, used)) = parse_greeting(data) {
        assert!(used <= data.len());
    }
    if let Ok((_, used)) = parse_password(data) {
        assert!(used <= data.len());
    }
    if let Ok((request, used)) = parse_request(data) {
        assert_eq!(parse_request(&data[..used]), Ok((request, used)));
    }
    if let Ok((_, _, used)) = parse_datagram(data) {
        assert!(used <= data.len());
    }
});
