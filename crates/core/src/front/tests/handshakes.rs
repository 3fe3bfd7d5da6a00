//! Handshakes at the public port that are wrong, old or never finished.

use super::*;

/// Shakes hands with these ALPNs and no certificate; what was agreed.
async fn offer(world: &World, names: &[&[u8]]) -> Result<Option<Vec<u8>>, std::io::Error> {
    let mut config = (*world.client.client_config(Leg::Link, Role::Client, None).unwrap()).clone();
    config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
    let tcp = TcpStream::connect(world.front.address()).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    tls.flush().await?;
    Ok(tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test]
async fn case_34_unknown_names_of_ours_never_reach_the_web() {
    let world = World::new();
    for names in [
        &[&b"cloister-link/2"[..]][..],
        &[b"cloister-carrier/0"],
        &[b"cloister-tunnel/1"],
        &[b"cloister-link/1", b"http/1.1"],
        &[b"http/1.1", b"cloister-enrol/1"],
        &[b"cloister-link/1", b"cloister-carrier/1"],
        &[b"h2"],
    ] {
        assert!(offer(&world, names).await.is_err(), "{names:?}");
    }
    assert_eq!(offer(&world, &[b"h2", b"http/1.1"]).await.unwrap().as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(offer(&world, &[]).await.unwrap(), None);
    assert_eq!(offer(&world, &[b"cloister-link/1"]).await.unwrap().as_deref(), Some(&b"cloister-link/1"[..]));
}

#[tokio::test]
async fn case_34_tls_1_2_is_refused() {
    let world = World::new();
    // A TLS 1.2 ClientHello: no supported_versions; ALPN http/1.1, groups, points and signature schemes that the server knows.
    let alpn: &[u8] = b"\x00\x10\x00\x0b\x00\x09\x08http/1.1";
    let rest: &[u8] = b"\x00\x0a\x00\x04\x00\x02\x00\x17\x00\x0b\x00\x02\x01\x00\x00\x0d\x00\x04\x00\x02\x04\x03";
    let extensions = [alpn, rest].concat();
    let mut hello = [b"\x03\x03".as_slice(), &[7; 32], b"\x00\x00\x02\xc0\x2b\x01\x00"].concat();
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);
    let handshake = [&[1, 0][..], &(hello.len() as u16).to_be_bytes(), &hello].concat();
    let record = [b"\x16\x03\x01".as_slice(), &(handshake.len() as u16).to_be_bytes(), &handshake].concat();
    let mut tcp = TcpStream::connect(world.front.address()).await.unwrap();
    tcp.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70], "alert protocol_version");
}

#[tokio::test]
async fn case_33_unfinished_handshakes_hold_up_nobody() {
    let limits = Limits { handshakes: 64, handshakes_per_source: 16, ..Limits::default() };
    let world = World::with(limits);
    let address = Address::parse(&world.front.address().to_string()).unwrap();
    let mut links = std::mem::replace(&mut *world.links.lock().unwrap(), mpsc::unbounded_channel().1);
    // Some stop after TCP, some in the ClientHello's header, from one source up to three times its bound.
    let mut stalled = Vec::new();
    for number in 0..limits.handshakes_per_source * 3 {
        let mut tcp = TcpStream::connect(world.front.address()).await.unwrap();
        if number % 2 == 0 {
            tcp.write_all(b"\x16\x03\x01\x02").await.unwrap();
        }
        stalled.push(tcp);
    }
    for _ in 0..20 {
        let config = world.client.client_config(Leg::Link, Role::Client, None).unwrap();
        let begun = Instant::now();
        let _link = world.dialer.connect_tls(&address, Leg::Link, config).await.unwrap();
        links.recv().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    // The oldest made room, and whoever is left is cut at the deadline.
    for tcp in stalled {
        assert!(timeout_at(Instant::now() + HANDSHAKE_DEADLINE + Duration::from_secs(1), ends(tcp)).await.unwrap());
    }
}
/// Times of this many honest handshakes, one after the other, in order of length.
async fn handshakes(world: &World, links: &mut mpsc::UnboundedReceiver<AcceptedLink>, count: usize) -> Vec<Duration> {
    let address = Address::parse(&world.front.address().to_string()).unwrap();
    let mut times = Vec::new();
    for _ in 0..count {
        let config = world.client.client_config(Leg::Link, Role::Client, None).unwrap();
        let begun = Instant::now();
        let _link = world.dialer.connect_tls(&address, Leg::Link, config).await.unwrap();
        links.recv().await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    times
}

/// A connection from 127.1.x.y that stops after TCP or in the ClientHello's header.
async fn stall(world: &World, number: usize) -> TcpStream {
    let source = number / Limits::default().handshakes_per_source;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 1, (source >> 8) as u8, source as u8], 0))).unwrap();
    let mut tcp = socket.connect(world.front.address()).await.unwrap();
    if number.is_multiple_of(2) {
        // Whom the bound has pushed out already is no longer there to write to.
        let _ = tcp.write_all(b"\x16\x03\x01\x02").await;
    }
    tcp
}

/// The bounds as shipped: 10,000 handshakes that never finish, each source at its bound, new ones coming all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_33_ten_thousand_stalled_handshakes_slow_nobody() {
    const STALLED: usize = 10_000;
    const HONEST: usize = 100;
    crate::sys::raise_descriptor_limit();
    let world = World::new();
    let mut links = std::mem::replace(&mut *world.links.lock().unwrap(), mpsc::unbounded_channel().1);
    let idle = handshakes(&world, &mut links, HONEST).await;
    let begun = Instant::now();
    let mut stalled = Vec::new();
    for number in 0..STALLED {
        stalled.push(stall(&world, number).await);
    }
    let busy = handshakes(&world, &mut links, HONEST).await;
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    let median = |times: &[Duration]| times[times.len() / 2];
    // The tail of a hundred on a shared machine is one pause of the scheduler: it may take that much more.
    assert!(median(&busy) <= 2 * median(&idle) + Duration::from_millis(2), "{:?} {:?}", median(&busy), median(&idle));
    assert!(p99(&busy) <= 2 * p99(&idle) + Duration::from_millis(50), "{:?} {:?}", p99(&busy), p99(&idle));
    assert!(world.front.unfinished.count() <= Limits::default().handshakes, "bounded in all");
    // Nobody outlives the deadline: what was pushed out is closed, the rest is cut.
    for tcp in stalled {
        assert!(timeout_at(Instant::now() + HANDSHAKE_DEADLINE + Duration::from_secs(1), ends(tcp)).await.unwrap());
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    // The socket of who is cut closes a moment before its place is given back.
    timeout_at(soon(), until(|| world.front.unfinished.count() == 0)).await.unwrap();
}
