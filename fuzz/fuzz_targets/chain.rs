//! A peer's chain through the verification of every leg: nothing that was not signed by the root is believed, and nothing panics.
#![no_main]

use cloister_core::tls::{MAX_DEPTH, Usage, verify_chain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<Vec<u8>>, u64, Option<String>)| {
    let (chain, roots, now, name) = input;
    for usage in [Usage::Server, Usage::Client] {
        let verdict = verify_chain(&chain, &roots, now, name.as_deref(), usage, MAX_DEPTH);
        assert!(verdict.is_err() || !roots.is_empty());
    }
});
