//! What comes in at the public port and what is dialled from here: links, the web, proxies, address families.

use super::*;
use tokio::io::AsyncWrite;

#[tokio::test]
async fn links_and_enrolments_are_handed_over_with_the_proved_identity() {
    let world = World::new();
    let address = Address::parse(&world.front.address().to_string()).unwrap();
    let mut links = std::mem::replace(&mut *world.links.lock().unwrap(), mpsc::unbounded_channel().1);
    for (trust, role, number) in [(&world.connector, Role::Connector, CONNECTOR), (&world.client, Role::Client, CLIENT)] {
        let config = trust.client_config(Leg::Link, role, None).unwrap();
        let _dialled = world.dialer.connect_tls(&address, Leg::Link, config).await.unwrap();
        let peer = links.recv().await.unwrap().peer.unwrap();
        assert_eq!((peer.role, peer.id), (role, id(number)));
    }
    let bare = Arc::new(Trust::with_clock(Clock::new(NOW)));
    let config = bare.enrol_config(world.ca.root_sha256()).unwrap();
    let _dialled = world.dialer.connect_tls(&address, Leg::Enrol, config).await.unwrap();
    let link = links.recv().await.unwrap();
    assert!(link.peer.is_none());
    // Draining: no new links.
    world.front.drain();
    let config = world.client.client_config(Leg::Link, Role::Client, None).unwrap();
    assert!(world.dialer.connect_tls(&address, Leg::Link, config).await.is_err());
}

#[tokio::test]
async fn the_web_gets_plain_http_and_the_real_source() {
    let world = World::new();
    let mut config = (*world.client.client_config(Leg::Link, Role::Client, None).unwrap()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(world.front.address()).await.unwrap();
    let source = tcp.local_addr().unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (mut web, _) = world.web.accept().await.unwrap();
    let header = super::web::proxy_header(source, world.front.address());
    let mut got = vec![0; header.len() + 18];
    web.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [header.as_slice(), b"GET / HTTP/1.1\r\n\r\n"].concat());
    web.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    drop(web);
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK\r\n\r\n");
}

/// A CONNECT proxy that wants a name and password, inside TLS if it has a certificate; ends with the request head it saw, empty if none came.
async fn proxy(listener: TokioListener, wanted: &'static str, tls: Option<Arc<rustls::ServerConfig>>) -> String {
    let (near, _) = listener.accept().await.unwrap();
    match tls {
        None => connect_for(near, wanted).await,
        Some(config) => match tokio_rustls::TlsAcceptor::from(config).accept(near).await {
            Ok(near) => connect_for(near, wanted).await,
            Err(_) => String::new(),
        },
    }
}

async fn connect_for(mut near: impl AsyncRead + AsyncWrite + Unpin, wanted: &'static str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    if !head.contains(wanted) {
        near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        near.shutdown().await.unwrap();
        return head;
    }
    let target = head.split(' ').nth(1).unwrap();
    let mut far = TcpStream::connect(target).await.unwrap();
    near.write_all(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n").await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    head
}

/// A proxy's certificate for 127.0.0.1, and the roots that believe it.
fn proxy_certificate() -> (Arc<rustls::ServerConfig>, rustls::RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    (Arc::new(config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap()), roots)
}

#[tokio::test]
async fn carriers_go_through_a_proxy_that_wants_authentication() {
    let wanted = "proxy-authorization: Basic dXNlOnI6cEA6czpz"; // `use:r:p@:s:s`
    let (certificate, roots) = proxy_certificate();
    for (scheme, tls) in [("http", None), ("https", Some(certificate))] {
        let world = World::new();
        let mut parked = Some(world.park().await);
        for (user, expected) in
            [("use:r%3ap%40%3as%3as@", None), ("user:p%40%3as:s@", Some(Code::ProxyRefused)), ("", Some(Code::ProxyRefused))]
        {
            let listener = TokioListener::bind("127.0.0.1:0").await.unwrap();
            let text = format!("{scheme}://{user}{}", listener.local_addr().unwrap());
            let proxied = Proxy::parse_believing(&text, || roots.clone()).unwrap();
            world.dialer.set_proxy(Some(proxied), Exemptions::default());
            let serving = tokio::spawn(proxy(listener, wanted, tls.clone()));
            let joined = world.join().await;
            assert_eq!(joined.as_ref().err().copied(), expected, "{text}");
            if let (Ok(near), Some(far)) = (joined, parked.take()) {
                let (sent, back) = (noise(1, 1 << 20), noise(2, 1 << 20));
                let (got, returned) = tokio::join!(talk(near, sent.clone()), talk(far.await.unwrap().unwrap(), back.clone()));
                assert!(got == back && returned == sent, "{scheme}");
            }
            let head = serving.await.unwrap();
            assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1\r\nhost: ", world.front.address())), "{head}");
        }
    }
}

#[tokio::test]
async fn proxy_that_nobody_vouches_for_is_told_nothing() {
    let world = World::new();
    let (certificate, _) = proxy_certificate();
    let (_, other_roots) = proxy_certificate();
    for roots in [other_roots, rustls::RootCertStore::empty()] {
        let listener = TokioListener::bind("127.0.0.1:0").await.unwrap();
        let text = format!("https://user:secret@{}", listener.local_addr().unwrap());
        world.dialer.set_proxy(Some(Proxy::parse_believing(&text, || roots).unwrap()), Exemptions::default());
        let serving = tokio::spawn(proxy(listener, "", Some(Arc::clone(&certificate))));
        assert_eq!(world.join().await.err(), Some(Code::ProxyRefused));
        assert_eq!(serving.await.unwrap(), "");
    }
}

#[tokio::test]
async fn exempt_destination_is_dialled_without_the_proxy() {
    let world = World::new();
    let _parked = world.park().await;
    // Nothing listens at port 9: only a dial around it gets through.
    for (exemptions, expected) in [("127.0.0.0/8", None), ("10.0.0.0/8", Some(Code::DialRefused))] {
        let proxied = Proxy::parse("http://127.0.0.1:9").unwrap();
        world.dialer.set_proxy(Some(proxied), Exemptions::parse(exemptions).unwrap());
        assert_eq!(world.join().await.err(), expected, "{exemptions}");
    }
}

#[tokio::test]
async fn both_families_are_dialled_and_a_dead_address_costs_little() {
    let listener = TokioListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dialer = Dialer::default();
    let begun = Instant::now();
    // Only ::1 listens here; what refuses passes the turn on at once.
    let both = vec![SocketAddr::from(([127, 0, 0, 1], port)), listener.local_addr().unwrap()];
    assert!(crate::dial::connect_any(both).await.unwrap().peer_addr().unwrap().is_ipv6());
    dialer.connect(&Address::parse(&format!("[::1]:{port}")).unwrap(), soon()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(dialer.connect(&Address { host: "127.0.0.1".into(), port }, soon()).await.unwrap_err(), Code::DialRefused);
    assert_eq!(
        dialer.connect(&Address { host: "no-such-name.invalid".into(), port }, soon()).await.unwrap_err(),
        Code::NameUnresolved
    );
}

#[tokio::test]
async fn a_silent_peer_of_a_joined_carrier_is_noticed_within_15_seconds() {
    let world = World::new();
    let (near, far) = world.pair(false).await;
    // Idle: the first probe and the unanswered ones; busy: what may stay unacknowledged. Both ends and, as accepted, the relay's.
    let listener = TokioListener::bind("127.0.0.1:0").await.unwrap();
    let _outgoing = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let accepted = listener.accept().await.unwrap().0;
    set_options(&accepted).unwrap();
    for tcp in [near.tcp(), far.tcp(), &accepted] {
        let socket = socket2::SockRef::from(tcp);
        let probes = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert!(socket.tcp_keepalive_time().unwrap() + probes <= Duration::from_secs(15));
        assert!(socket.tcp_user_timeout().unwrap().unwrap() <= Duration::from_secs(15));
    }
}

#[test]
fn case_26_stolen_leaves_are_of_no_use_on_a_carrier() {
    // The certificate of another with one's own key is refused when it is loaded, before any socket.
    let ca = Ca::new(DOMAIN);
    let (victim, own) = (ca.leaf(Role::Connector, id(1)), ca.leaf(Role::Connector, id(2)));
    let mixed = Leaf { chain: victim.chain, key: own.key, der: victim.der };
    assert_eq!(
        ca.trust(&[]).set_identity(Role::Connector, mixed.chain.as_bytes(), mixed.key.as_bytes()).unwrap_err(),
        Code::ArgumentInvalid
    );
}
