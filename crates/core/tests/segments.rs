//! Which segment a destination belongs to: the corpus that `tests/unit/model/test_overlap.py` holds the exchange to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use cloister_core::host::{Destination, Protocol};
use cloister_core::segment::{Assignment, Segments};
use serde_json::Value;

#[test]
fn case_59_exchange_connector_and_client_find_one_segment() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/segments.json");
    let worlds: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(worlds.len() >= 50);
    for world in &worlds {
        let segments = Segments::<Assignment>::parse(world["segments"].to_string().as_bytes()).unwrap();
        for asked in world["destinations"].as_array().unwrap() {
            let protocol = Protocol::parse(asked["protocol"].as_str().unwrap()).unwrap();
            let port = u16::try_from(asked["port"].as_u64().unwrap()).unwrap();
            let destination = Destination::parse(asked["host"].as_str().unwrap(), port, protocol).unwrap();
            let found = segments.find(&destination).map(|segment| segment.id.as_str());
            assert_eq!(found, asked["segment"].as_str(), "{asked} in {}", world["segments"]);
        }
    }
}
