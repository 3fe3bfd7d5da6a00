//! Joined carriers: every byte, both ends, cuts.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joined_carriers_move_every_byte_both_ways_and_half_close() {
    for (wrapped, length) in [(false, 9_000_001), (true, 1_000_001), (false, 0), (false, 1)] {
        let world = World::new();
        let (near, far) = world.pair(wrapped).await;
        let (up, down) = (noise(1, length), noise(2, length / 3));
        let (got_down, got_up) = tokio::join!(talk(near, up.clone()), talk(far, down.clone()));
        assert!(got_up == up && got_down == down, "wrapped {wrapped}, {length} bytes");
        until(|| world.relay.stats().joined == 0).await;
        assert_eq!(world.relay.stats().moved, (up.len() + down.len()) as u64);
    }
}

#[tokio::test]
async fn one_direction_may_end_long_before_the_other() {
    let world = World::new();
    let (mut near, mut far) = world.pair(false).await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut question = Vec::new();
    far.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    for number in 0..100u32 {
        far.write_all(&number.to_be_bytes()).await.unwrap();
        let mut got = [0; 4];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(u32::from_be_bytes(got), number);
    }
    assert_eq!(world.relay.stats().joined, 1);
    drop(far);
    assert!(ends(near).await);
}

#[tokio::test]
async fn a_reset_on_one_side_is_a_reset_on_the_other() {
    let world = World::new();
    let (near, mut far) = world.pair(false).await;
    crate::relay::splice::reset(near.tcp());
    let error = far.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_a_carrier_in_mid_transfer_at_once() {
    for wrapped in [false, true] {
        let world = World::new();
        let (mut near, far) = world.pair(wrapped).await;
        let flood = tokio::spawn(async move {
            let data = vec![7; 1 << 16];
            while near.write_all(&data).await.is_ok() {}
        });
        let ended = tokio::spawn(ends(far));
        until(|| wrapped || world.relay.stats().moved > 1 << 20).await;
        assert_eq!(world.relay.cut(id(CLIENT), Some(id(0xc2))), 0);
        assert_eq!(world.relay.cut(id(CLIENT), Some(id(CONNECTOR))), 1);
        flood.await.unwrap();
        assert!(ended.await.unwrap());
        assert_eq!(world.relay.stats().joined, 0);
    }
}
