//! Capsules of UDP flows: the same datagrams, or the same refusal, wherever the stream is cut.
#![no_main]

use cloister_core::capsule::{Decoder, MAX_DATAGRAM};
use libfuzzer_sys::fuzz_target;

fn decode(parts: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut decoder, mut datagrams) = (Decoder::default(), Vec::new());
    for part in parts {
        decoder.push(part);
        loop {
            match decoder.take() {
                Ok(Some(datagram)) => datagrams.push(datagram.to_vec()),
                Ok(None) => break,
                Err(_) => return (datagrams, true),
            }
        }
    }
    (datagrams, false)
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, data) = input;
    let whole = decode(&[data]);
    let (head, tail) = data.split_at(usize::from(cut).min(data.len()));
    assert_eq!(decode(&[head, tail]), whole);
    assert!(whole.0.iter().all(|datagram| datagram.len() <= MAX_DATAGRAM));
});
