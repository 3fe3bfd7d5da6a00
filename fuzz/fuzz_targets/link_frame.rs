//! Link frames: whatever is decoded is encoded to the same frame again, however the bytes arrive.
#![no_main]

use bytes::BytesMut;
use cloister_core::frame::LinkFrame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u8, &[u8])| {
    let (step, bytes) = data;
    let mut whole = BytesMut::from(bytes);
    let mut parts = BytesMut::new();
    let mut rest = bytes.chunks(usize::from(step).max(1));
    loop {
        let expected = LinkFrame::decode(&mut whole);
        let mut seen = LinkFrame::decode(&mut parts);
        while seen == Ok(None) {
            let Some(part) = rest.next() else { break };
            parts.extend_from_slice(part);
            seen = LinkFrame::decode(&mut parts);
        }
        assert_eq!(expected, seen);
        let Ok(Some(frame)) = expected else { break };
        let mut again = BytesMut::new();
        frame.encode(&mut again).unwrap();
        assert_eq!(LinkFrame::decode(&mut again), Ok(Some(frame)));
    }
});
