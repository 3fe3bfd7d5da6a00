//! The JSON objects of carriers, in all four directions.
#![no_main]

use cloister_core::frame::{FromClient, FromConnector, ToClient, ToConnector};
use libfuzzer_sys::fuzz_target;

macro_rules! survives {
    ($kind:ty, $data:expr) => {
        if let Ok(value) = serde_json::from_slice::<$kind>($data) {
            let text = serde_json::to_vec(&value).unwrap();
            assert_eq!(serde_json::from_slice::<$kind>(&text).unwrap(), value);
        }
    };
}

fuzz_target!(|data: &[u8]| {
    survives!(FromConnector, data);
    survives!(FromClient, data);
    survives!(ToConnector, data);
    survives!(ToClient, data);
});
