//! The resumable stream: a peer that may send anything never gets past its bounds, and acknowledged never exceeds received.
#![no_main]

use std::io::IoSlice;
use std::time::Instant;

use cloister_core::resume::{Hello, Input, Machine, TunnelId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u8, Vec<u8>, &[u8])| {
    let (step, ours, theirs) = data;
    let now = Instant::now();
    let Ok(mut machine) = Machine::accept(&Hello { tunnel: TunnelId([7; 16]), epoch: 1, received: 0 }) else { return };
    let accepted = machine.write(&[IoSlice::new(&ours)]);
    assert!(accepted <= ours.len());
    let sendable = machine.output().len();
    machine.sent(sendable, now);
    let mut waiting: Vec<u8> = Vec::new();
    for part in theirs.chunks(usize::from(step).max(1)) {
        waiting.extend_from_slice(part);
        loop {
            let Ok((used, input)) = machine.input(&waiting, now) else { return };
            assert!(used <= waiting.len());
            match input {
                Input::Data { skip, len } => {
                    assert!(skip == used && skip + len <= waiting.len());
                    let before = machine.received();
                    machine.delivered(len, now);
                    assert_eq!(machine.received(), before + len as u64);
                    waiting.drain(..skip + len);
                }
                Input::More => {
                    waiting.drain(..used);
                    break;
                }
                Input::Close(_) | Input::Refused(_) => return,
            }
        }
    }
});
