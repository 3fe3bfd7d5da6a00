//! What an HTTP proxy answers to CONNECT: accepted only as one whole head with a 2xx status and nothing behind it.
#![no_main]

use cloister_core::dial::accept_answer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if accept_answer(data) {
        assert!(data.starts_with(b"HTTP/1.") && data.ends_with(b"\r\n\r\n"));
        assert_eq!(data.windows(4).filter(|four| four == b"\r\n\r\n").count(), 1);
        let longer = [data, b"\x16"].concat();
        assert!(!accept_answer(&longer));
    }
});
