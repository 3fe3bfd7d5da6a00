//! Parking and joining: who may, who waits, what is refused.

use super::*;

#[tokio::test]
async fn a_blocked_pair_cannot_join_until_unblocked() {
    let world = World::new();
    let (near, far) = world.pair(false).await;
    assert_eq!(world.relay.block(id(CLIENT), id(CONNECTOR)), 1);
    assert!(ends(near).await && ends(far).await);
    let parked = world.park().await;
    assert_eq!(world.join().await.unwrap_err(), Code::JoinBlocked);
    world.relay.unblock(id(CLIENT), id(CONNECTOR));
    world.join().await.unwrap();
    parked.await.unwrap().unwrap();
}

#[tokio::test]
async fn case_18_a_ticket_is_worth_nothing_without_its_key() {
    let world = World::new();
    let _parked = world.park().await;
    let thief_leaf = world.ca.leaf(Role::Client, id(CLIENT + 1));
    let twin_leaf = world.ca.leaf(Role::Client, id(CLIENT));
    for leaf in [&thief_leaf, &twin_leaf] {
        let thief = world.ca.trust(&[(Role::Client, leaf)]);
        let request = JoinRequest { ticket: world.ticket(|_| {}), connector: None, wrapped: false };
        assert_eq!(join(&thief, &world.dialer, &world.place(), request).await.unwrap_err(), Code::TicketNotYours);
    }
    // A connector is no client, whatever ticket it holds.
    let mut framed = world.framed(&world.connector, Role::Connector).await.unwrap();
    framed.write(&FromClient::Join { ticket: world.ticket(|_| {}), connector: None, wrapped: false }).await.unwrap();
    assert!(framed.read::<ToClient>().await.is_err());
    assert_eq!(world.relay.stats().joined, 0);
    // Control: with its own key it is good.
    world.join().await.unwrap();
}

#[tokio::test]
async fn case_18_a_ticket_is_judged_whole_before_a_join() {
    let world = World::new();
    let _parked = world.park().await;
    let other = Issuer::new("k1");
    let expired = world.ticket(|claims| {
        claims["iat"] = json!(NOW - 331);
        claims["exp"] = json!(NOW - 31);
    });
    let edits: Vec<(String, Option<Id>, Code)> = vec![
        (expired, None, Code::TicketExpired),
        (world.ticket(|claims| claims["iss"] = json!("fedcba9876543210.cloister")), None, Code::TicketAudience),
        (world.ticket(|_| {}), Some(id(0xc9)), Code::TicketAudience),
        (other.sign(&claims()), None, Code::TicketSignature),
        ("x".repeat(9000), None, Code::TicketMalformed),
    ];
    for (ticket, connector, code) in edits {
        assert_eq!(world.join_with(ticket, connector, false).await.unwrap_err(), code);
    }
    world.exchange.set_ticket_keys(Issuer::new("k2").keys());
    assert_eq!(world.join().await.unwrap_err(), Code::TicketKeyUnknown);
    assert_eq!(world.relay.stats().parked, 1);
}

#[tokio::test]
async fn case_37_a_field_that_claims_an_identity_is_refused() {
    let world = World::new();
    let _parked = world.park().await;
    let ticket = world.ticket(|_| {});
    let good = json!({"t": "join", "ticket": ticket, "connector": null, "wrapped": false});
    for (field, value) in [("client", json!(id(CLIENT))), ("device", json!("x")), ("session", json!("y")), ("exp", json!(9))] {
        let mut claimed = good.clone();
        claimed[field] = value;
        assert_eq!(FromClient::parse(claimed.to_string().as_bytes()), Err(Code::ProtocolError), "{field}");
    }
    FromClient::parse(good.to_string().as_bytes()).unwrap();
}

#[tokio::test]
async fn a_join_is_answered_when_a_carrier_arrives_and_control_was_asked() {
    let world = Arc::new(World::new());
    let joining = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.join().await }
    });
    let mut wanted = std::mem::replace(&mut *world.wanted.lock().unwrap(), mpsc::unbounded_channel().1);
    assert_eq!(wanted.recv().await, Some(id(CONNECTOR)));
    let parked = park(&world.connector, &world.dialer, &world.place()).await.unwrap().wait();
    let (near, far) = tokio::join!(joining, parked);
    drop((near.unwrap().unwrap(), far.unwrap()));
}

#[tokio::test]
async fn a_connector_late_with_ready_is_replaced() {
    let world = World::new();
    let mut silent = world.framed(&world.connector, Role::Connector).await.unwrap();
    silent.write(&FromConnector::Park {}).await.unwrap();
    until(|| world.relay.stats().parked == 1).await;
    let good = world.park().await;
    let near = world.join().await.unwrap();
    assert_eq!(silent.read::<ToConnector>().await.unwrap(), ToConnector::Go { wrapped: false });
    assert!(silent.read::<ToConnector>().await.is_err(), "dropped");
    let (up, down) = (noise(3, 1000), noise(4, 1000));
    let (got_down, got_up) = tokio::join!(talk(near, up.clone()), talk(good.await.unwrap().unwrap(), down.clone()));
    assert!(got_up == up && got_down == down);
}

#[tokio::test]
async fn a_peer_that_speaks_out_of_turn_never_joins() {
    let world = World::new();
    // A connector that sends a byte of the tunnel inside the record of its `ready`.
    let mut eager = world.framed(&world.connector, Role::Connector).await.unwrap();
    eager.write(&FromConnector::Park {}).await.unwrap();
    until(|| world.relay.stats().parked == 1).await;
    let connector = tokio::spawn(async move {
        eager.read::<ToConnector>().await.unwrap();
        let mut bytes = FromConnector::Ready {}.to_bytes().unwrap();
        bytes.push(0x16);
        eager.write_bytes(&bytes).await.unwrap();
        eager.read::<ToConnector>().await
    });
    // A client that does not wait for `go`.
    let mut client = world.framed(&world.client, Role::Client).await.unwrap();
    client.write(&FromClient::Join { ticket: world.ticket(|_| {}), connector: None, wrapped: false }).await.unwrap();
    assert!(connector.await.unwrap().is_err());
    assert_eq!(world.relay.stats().joined, 0);
    client.write(&FromClient::Join { ticket: world.ticket(|_| {}), connector: None, wrapped: false }).await.unwrap();
    assert_eq!(client.read::<ToClient>().await.unwrap(), ToClient::Refuse { code: Code::ProtocolError });
}

#[tokio::test]
async fn unfinished_joins_are_bounded_per_client() {
    let world = World::new();
    let (sender, mut answers) = mpsc::unbounded_channel();
    let mut open = tokio::task::JoinSet::new();
    for _ in 0..=RelayLimits::default().joins_per_client {
        let mut framed = world.framed(&world.client, Role::Client).await.unwrap();
        let sender = sender.clone();
        open.spawn(async move { sender.send(framed.read::<ToClient>().await) });
    }
    assert_eq!(answers.recv().await, Some(Ok(ToClient::Refuse { code: Code::TooManyJoins })));
    assert!(answers.is_empty(), "exactly the one beyond the bound");
    open.shutdown().await;
    let _parked = world.park().await;
    while let Err(code) = world.join().await {
        assert_eq!(code, Code::TooManyJoins);
    }
}

#[tokio::test]
async fn case_35_broken_carrier_frames_end_that_carrier_only() {
    let world = World::new();
    let (mut near, mut far) = world.pair(false).await;
    let long = [&[0x40, 0x01][..], &vec![b' '; 0x4001]].concat();
    for bytes in [
        &b"\x00\x00"[..],
        b"\xff\xff",
        &long,
        b"\x00\x02{}",
        b"\x00\x02[]",
        b"\x00\x01\x80",
        b"\x00\x0c{\"t\":\"park\"",
        b"\x00\x0d{\"t\":\"ready\"}",
    ] {
        for (trust, role) in [(&world.connector, Role::Connector), (&world.client, Role::Client)] {
            let mut framed = world.framed(trust, role).await.unwrap();
            framed.write_bytes(bytes).await.unwrap();
            framed.half_close().await;
            let answer = framed.read::<ToClient>().await;
            assert!(matches!(answer, Err(_) | Ok(ToClient::Refuse { .. })), "{bytes:?} as {role}: {answer:?}");
        }
    }
    near.write_all(b"still").await.unwrap();
    let mut got = [0; 5];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"still");
    assert_eq!(world.relay.stats().parked, 0);
}

#[tokio::test]
async fn a_dropped_agent_loses_parked_and_joined_carriers() {
    let world = World::new();
    let (near, far) = world.pair(false).await;
    let parked = world.park().await;
    world.exchange.revoke(id(CONNECTOR));
    assert_eq!(world.relay.drop_agent(id(CONNECTOR)), 2);
    assert!(ends(near).await && ends(far).await);
    parked.await.unwrap().unwrap_err();
    assert_eq!(world.framed(&world.connector, Role::Connector).await.and(Ok(())), Ok(()), "TLS 1.3 tells a client late");
    assert_eq!(park(&world.connector, &world.dialer, &world.place()).await.unwrap().wait().await.unwrap_err(), Code::AgentRevoked);
}

#[tokio::test]
async fn case_42_draining_sends_the_parked_away_and_keeps_the_joined() {
    let world = World::new();
    let (mut near, mut far) = world.pair(false).await;
    let parked = world.park().await;
    world.front.drain();
    parked.await.unwrap().unwrap_err();
    assert_eq!(world.join().await.unwrap_err(), Code::Draining);
    near.write_all(b"on").await.unwrap();
    let mut got = [0; 2];
    far.read_exact(&mut got).await.unwrap();
    world.front.close();
    assert!(ends(near).await && ends(far).await);
    TcpStream::connect(world.front.address()).await.unwrap_err();
}
