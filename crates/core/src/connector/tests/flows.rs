//! Flows: bytes, ends and resets each way, lost carriers, stalled peers.

use super::*;

#[tokio::test]
async fn bytes_pass_to_a_service_and_back() {
    let world = World::new().await;
    let (mut app, end) = world.connect(echo().await).await;
    for size in [1, 64, 5000, 3_000_000] {
        exchange(&mut app, size).await;
    }
    app.shutdown().await.unwrap();
    assert_eq!(app.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(end.await.unwrap(), Code::Ok);
    until(|| world.connector_stats.flows.get() == 0).await;
    assert_eq!(world.stats.flows.get(), 0);
}

#[tokio::test]
async fn half_close_passes_each_way() {
    let world = World::new().await;
    // The service answers only after it has seen the end, and the other way round.
    let after_end = service(|mut tcp| async move {
        let mut got = Vec::new();
        tcp.read_to_end(&mut got).await.unwrap();
        tcp.write_all(&got.len().to_be_bytes()).await.unwrap();
    })
    .await;
    let (mut app, end) = world.connect(after_end).await;
    app.write_all(&vec![1; 100_000]).await.unwrap();
    app.shutdown().await.unwrap();
    let mut answer = Vec::new();
    app.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, 100_000usize.to_be_bytes());
    assert_eq!(end.await.unwrap(), Code::Ok);

    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let before_end = service(move |mut tcp| {
        let told = told.clone();
        async move {
            tcp.write_all(b"banner").await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut got = Vec::new();
            tcp.read_to_end(&mut got).await.unwrap();
            told.send(got).await.unwrap();
        }
    })
    .await;
    let (mut app, end) = world.connect(before_end).await;
    let mut banner = Vec::new();
    app.read_to_end(&mut banner).await.unwrap();
    assert_eq!(banner, b"banner");
    app.write_all(b"late").await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), b"late");
    assert_eq!(end.await.unwrap(), Code::Ok);
}

#[tokio::test]
async fn reset_passes_each_way() {
    let world = World::new().await;
    let resetting = service(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 1]).await;
        let _ = tcp.set_zero_linger();
    })
    .await;
    let (mut app, end) = world.connect(resetting).await;
    app.write_all(b"x").await.unwrap();
    assert_eq!(app.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(end.await.unwrap(), Code::ServiceReset);

    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let reset = service(move |mut tcp| {
        let told = told.clone();
        async move {
            tcp.write_all(b"x").await.unwrap();
            told.send(tcp.read(&mut [0; 1]).await).await.unwrap();
        }
    })
    .await;
    let (mut app, end) = world.connect(reset).await;
    app.read_exact(&mut [0; 1]).await.unwrap();
    app.set_zero_linger().unwrap();
    drop(app);
    assert_eq!(heard.recv().await.unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(end.await.unwrap(), Code::ClientReset);
}

#[tokio::test]
async fn refused_dial_is_told_with_its_reason() {
    let world = World::new().await;
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    assert_eq!(world.open(port).await.err(), Some(Code::DialRefused));
    let other = Destination::parse("10.0.0.1", 80, Protocol::Tcp).unwrap();
    assert_eq!(world.client.flows().open_tcp(other).await.err(), Some(Code::NotFound));
}

#[tokio::test]
async fn carriers_cut_in_mid_transfer_lose_no_flow() {
    let world = World::new().await;
    let (mut app, _end) = world.connect(echo().await).await;
    exchange(&mut app, 1000).await;
    let transfer = exchange(&mut app, 30_000_000);
    let cuts = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let resumed = world.connector_stats.tunnels_resumed.get();
            world.relay.cut(id(CLIENT), None);
            until(|| world.connector_stats.tunnels_resumed.get() > resumed).await;
        }
    };
    tokio::join!(transfer, cuts);
    exchange(&mut app, 1000).await;
    assert_eq!(world.connector_stats.tunnels_opened.get(), 1);
}

#[tokio::test]
async fn idle_flow_survives_a_cut() {
    let world = World::new().await;
    let (mut app, _end) = world.connect(echo().await).await;
    exchange(&mut app, 10).await;
    world.cut_carriers();
    until(|| world.connector_stats.tunnels_resumed.get() == 1).await;
    exchange(&mut app, 10).await;
}

#[tokio::test]
async fn wrapped_tunnel_carries_flows_and_resumes() {
    let world = World::with(1, Settings { always_wrapped: true, ..Settings::default() }).await;
    let (mut app, _end) = world.connect(echo().await).await;
    exchange(&mut app, 1_000_000).await;
    world.cut_carriers();
    exchange(&mut app, 1_000_000).await;
}

#[tokio::test]
async fn stalled_flows_slow_neither_a_bulk_nor_an_interactive_one() {
    let world = World::new().await;
    let flood = service(|mut tcp| async move {
        let block = vec![7; 1 << 16];
        while tcp.write_all(&block).await.is_ok() {}
    })
    .await;
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let flow = world.connect(flood).await; // nobody reads
        socket2::SockRef::from(&flow.0).set_recv_buffer_size(16 << 10).unwrap();
        stalled.push(flow);
    }
    let port = echo().await;
    let (mut bulk, _bulk_end) = world.connect(port).await;
    let (mut interactive, _interactive_end) = world.connect(port).await;
    let both = async {
        tokio::join!(exchange(&mut bulk, 20_000_000), async {
            for _ in 0..50 {
                exchange(&mut interactive, 64).await;
            }
        })
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("stalled flows hold up the others");
}

#[tokio::test]
async fn flow_goes_on_under_a_window_that_shrank_below_what_it_had_taken() {
    let world = World::new().await;
    let port = echo().await;
    let (mut first, end) = world.connect(port).await;
    exchange(&mut first, 64).await;
    first.shutdown().await.unwrap();
    end.await.unwrap();
    until(|| world.connector_stats.flows.get() == 0).await;
    // Alone from its beginning: its window is 1 MiB, and less than half of that is taken, so HTTP/2 has told the peer of none of it.
    let (mut early, _early_end) = world.connect(port).await;
    for _ in 0..300 {
        exchange(&mut early, 1000).await;
    }
    // Beside another one its window is 128 KiB.
    let (mut late, _late_end) = world.connect(port).await;
    for _ in 0..20 {
        exchange(&mut late, 64).await;
    }
    tokio::time::timeout(Duration::from_secs(10), exchange(&mut early, 64)).await.expect("it never goes on");
}

#[tokio::test]
async fn writer_waits_when_nobody_reads() {
    let world = World::new().await;
    let deaf = service(|tcp| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(tcp);
    })
    .await;
    let (mut app, _end) = world.connect(deaf).await;
    let block = vec![0; 1 << 16];
    let mut total = 0usize;
    while let Ok(count) = tokio::time::timeout(Duration::from_millis(500), app.write(&block)).await {
        total += count.unwrap();
        assert!(total < 100 << 20, "no back-pressure");
    }
}
