//! Tickets: nothing that the signing key did not sign is ever accepted.
#![no_main]

use cloister_core::ticket::{Thumbprint, Ticket, TicketKeys, verify_jws};
use libfuzzer_sys::fuzz_target;

// The point of the curve's generator: nobody knows that it is anybody's key, and the fuzzer cannot sign with it.
const KEY: [u8; 32] = [
    0x58, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
    0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
];

fuzz_target!(|data: &[u8]| {
    let keys = TicketKeys::new([("k".to_owned(), KEY.as_slice())]).unwrap();
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(Ticket::verify(text, &keys).is_err());
        assert!(verify_jws(text, &KEY).is_err());
        let _ = Thumbprint::parse(text);
    }
    let _ = Thumbprint::of_certificate(data);
});
