//! Questions to the client's resolver, and the answers of the upstreams that it passes on.
#![no_main]

use std::time::Instant;

use cloister_core::edge::dns::{answer, failure, passes};
use cloister_core::edge::names::{Names, Pools};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (&[u8], &[u8])| {
    let (question, reply) = data;
    let mut names = Names::new(Pools::parse("100.88.0.0/16", "fd6c:6f69:7374::/64").unwrap());
    let _ = answer(question, &mut names, &[], Instant::now());
    let _ = passes(reply, question, &names);
    let _ = failure(question);
});
