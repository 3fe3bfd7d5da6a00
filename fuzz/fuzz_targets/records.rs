//! Batches of access records: what is accepted holds exactly the lines and numbers that it says.
#![no_main]

use bytes::Bytes;
use cloister_core::record::Batch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u64, u32, &[u8])| {
    let (first, count, lines) = data;
    let Ok(batch) = Batch::new(first, count, Bytes::copy_from_slice(lines)) else { return };
    assert_eq!((batch.first(), batch.count(), batch.lines()), (first, count, lines));
    let text = std::str::from_utf8(lines).unwrap();
    let numbers: Vec<u64> = text.lines().map(|line| line[5..line.find(',').unwrap()].parse().unwrap()).collect();
    assert_eq!(numbers, (first..=batch.last()).collect::<Vec<_>>());
    assert!(text.lines().all(|line| line.starts_with("{\"n\":") && line.ends_with('}')));
});
