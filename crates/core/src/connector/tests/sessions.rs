//! Sessions and what they end: revocation, renewal, expiry, other connectors, other tunnels.

use super::*;

#[tokio::test]
async fn revoking_resets_idle_and_busy_flows_before_it_returns() {
    let world = World::new().await;
    let flood = service(|mut tcp| async move {
        let block = vec![7; 1 << 16];
        while tcp.write_all(&block).await.is_ok() {}
    })
    .await;
    let (mut idle, idle_end) = world.connect(echo().await).await;
    exchange(&mut idle, 10).await;
    let (mut busy, busy_end) = world.connect(flood).await;
    busy.read_exact(&mut [0; 100_000]).await.unwrap();
    let udp = world.open_udp(9).await.unwrap();
    assert_eq!(world.connectors[0].revoke(6, [id(SESSION), id(SESSION + 1)]), 3);
    assert_eq!(world.connectors[0].revoke(6, [id(SESSION)]), 0);
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(1), busy.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!((idle_end.await.unwrap(), busy_end.await.unwrap()), (Code::SessionRevoked, Code::SessionRevoked));
    assert_eq!(udp.receive().await, Err(Code::SessionRevoked));
    // The ticket is as good as before, the session is not.
    let refused = world.open(echo().await).await.err();
    assert_eq!(refused, Some(Code::TicketRevoked));
    let told = world.events.take(100);
    assert!(told.iter().any(|event| matches!(event, Event::TicketRefused { session, .. } if *session == id(SESSION))));
}

#[tokio::test]
async fn session_ended_by_the_client_resets_its_flows() {
    let world = World::new().await;
    let (mut app, end) = world.connect(echo().await).await;
    exchange(&mut app, 10).await;
    assert_eq!(world.client.end_session(id(SESSION), Code::PolicyChanged), 1);
    assert!(app.read(&mut [0; 1]).await.is_err());
    assert_eq!(end.await.unwrap(), Code::PolicyChanged);
    until(|| world.connector_stats.flows.get() == 0).await;
}

#[tokio::test]
async fn datagrams_pass_both_ways() {
    let world = World::new().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..count], from).await.unwrap();
        }
    });
    let flow = world.open_udp(port).await.unwrap();
    for size in [0, 1, 1200, 9000, 65_507] {
        let datagram: Vec<u8> = (0..size).map(byte).collect();
        assert!(flow.send(datagram.clone().into()));
        assert_eq!(flow.receive().await.unwrap(), datagram);
    }
    assert!(!flow.send(vec![0; 65_528].into()));
    drop(flow);
    until(|| world.connector_stats.flows.get() == 0).await;
}

#[tokio::test]
async fn flow_waits_for_its_session_and_is_told_the_answer() {
    let world = World::new().await;
    let port = echo().await;
    world.client.end_session(id(SESSION), Code::PolicyChanged);
    world.events.take(1000);
    let wanted = || async {
        loop {
            if let Some(Event::SessionWanted { request, .. }) =
                world.events.take(1000).into_iter().find(|event| matches!(event, Event::SessionWanted { .. }))
            {
                return request;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let answer = async {
        let request = wanted().await;
        world.client.refuse(request, Code::DeniedByDefault);
    };
    let (opened, second, ()) = tokio::join!(world.open(port), world.open(port), answer);
    assert_eq!((opened.err(), second.err()), (Some(Code::DeniedByDefault), Some(Code::DeniedByDefault)));
    let answer = async {
        wanted().await;
        world.grant(SESSION + 7, SEGMENT, 60);
    };
    let (opened, ()) = tokio::join!(world.open(port), answer);
    assert!(opened.is_ok());
}

#[tokio::test]
async fn renewed_ticket_reaches_the_connector() {
    let world = World::new().await;
    let (mut app, _end) = world.connect(echo().await).await;
    exchange(&mut app, 10).await;
    let deadline = || world.connectors[0].plane().lock().grants.next_deadline();
    let before = deadline();
    world.grant(SESSION, SEGMENT, 80);
    until(|| deadline() > before).await;
}

#[tokio::test]
async fn dead_connector_is_left_for_the_next() {
    let mut world = World::with(2, Settings::default()).await;
    let port = echo().await;
    let (mut app, _end) = world.connect(port).await;
    exchange(&mut app, 10).await;
    let dead = world.connectors.remove(0);
    dead.plane().tunnels().vanish();
    drop(dead);
    let begun = Instant::now();
    let flow = world.open(port).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(flow);
}

#[tokio::test]
async fn tunnel_rotates_before_its_streams_run_out() {
    let world = World::with(1, Settings { tunnel_streams: 5, ..Settings::default() }).await;
    let port = echo().await;
    let mut flows = Vec::new();
    for _ in 0..12 {
        let (mut app, end) = world.connect(port).await;
        exchange(&mut app, 10).await;
        flows.push((app, end));
    }
    assert_eq!(world.connector_stats.tunnels_opened.get(), 3);
    for (app, _) in &mut flows {
        exchange(app, 10).await;
    }
    flows.clear();
    until(|| world.connector_stats.tunnels.get() == 1).await;
}

#[tokio::test]
async fn device_that_is_dropped_loses_its_tunnel() {
    let world = World::new().await;
    let (mut app, _end) = world.connect(echo().await).await;
    exchange(&mut app, 10).await;
    assert_eq!(world.connectors[0].drop_devices(&HashSet::from([id(CLIENT)])), 1);
    assert!(app.read(&mut [0; 1]).await.is_err());
    until(|| world.connector_stats.tunnels.get() == 0).await;
}

#[tokio::test]
async fn flow_ends_at_the_end_of_its_ticket_unless_renewed() {
    let world = World::new().await;
    let (mut app, end) = world.connect(echo().await).await;
    exchange(&mut app, 10).await;
    world.grant(SESSION, SEGMENT, 80);
    let plane = Arc::clone(world.connectors[0].plane());
    until(|| plane.lock().grants.next_deadline() == Some(EPOCH + 80 + 300 + crate::ticket::LEEWAY + 1)).await;
    world.set_clock(410);
    plane.tick();
    exchange(&mut app, 10).await;
    world.set_clock(411);
    plane.tick();
    assert!(app.read(&mut [0; 1]).await.is_err());
    assert_eq!(end.await.unwrap(), Code::SessionRevoked);
}

/// A flow without a session, held by the answer `step_up_required`; its end so far, and the number of its question.
async fn held_flow(world: &World, port: u16) -> (std::pin::Pin<Box<dyn Future<Output = Option<Code>> + '_>>, u64) {
    world.client.end_session(id(SESSION), Code::PolicyChanged);
    world.events.take(1000);
    let mut flow = Box::pin(async move { world.open(port).await.err() });
    let request = tokio::select! {
        _ = &mut flow => panic!("it did not wait"),
        request = async {
            loop {
                if let Some(Event::SessionWanted { request, .. }) = world.events.take(1).first() {
                    return *request;
                }
                tokio::task::yield_now().await;
            }
        } => request,
    };
    world.client.hold(request, Code::StepUpRequired);
    (flow, request)
}

#[tokio::test]
async fn held_flow_goes_on_waiting_until_its_session_comes() {
    let world = World::new().await;
    let (flow, _) = held_flow(&world, echo().await).await;
    let granted = async {
        tokio::task::yield_now().await;
        world.grant(SESSION + 7, SEGMENT, 60);
    };
    assert_eq!(tokio::join!(flow, granted).0, None);
}

#[tokio::test]
async fn held_flow_ends_at_once_with_a_final_refusal() {
    let world = World::new().await;
    let (flow, request) = held_flow(&world, echo().await).await;
    world.client.refuse(request, Code::ForbiddenByRule);
    assert_eq!(flow.await, Some(Code::ForbiddenByRule));
}

#[tokio::test]
async fn held_flow_ends_after_two_minutes_with_the_reason_that_held_it() {
    let world = World::new().await;
    let (flow, _) = held_flow(&world, echo().await).await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    assert_eq!(flow.await, Some(Code::StepUpRequired));
    assert!(begun.elapsed() >= Duration::from_secs(client::sessions::PENDING_LIFE));
}

#[tokio::test]
async fn flows_of_a_connector_that_stops_were_stopped() {
    let mut world = World::new().await;
    let (mut app, end) = world.connect(echo().await).await;
    exchange(&mut app, 10).await;
    drop(world.connectors.remove(0));
    assert_eq!(end.await.unwrap(), Code::Stopped);
}

fn kill(connector: Connector) {
    connector.plane().tunnels().vanish();
    drop(connector);
}

#[tokio::test]
async fn flow_does_not_wait_behind_a_suspended_tunnel_if_another_connector_is_named() {
    let mut world = World::with(2, Settings::default()).await;
    let port = echo().await;
    let (mut app, _end) = world.connect(port).await;
    exchange(&mut app, 10).await;
    kill(world.connectors.remove(0));
    until(|| world.client.status().contains("suspended")).await;
    let begun = Instant::now();
    assert!(world.open(port).await.is_ok());
    assert!(begun.elapsed() < client::tunnels::SHORT_PATIENCE);
}

#[tokio::test]
async fn flow_leaves_a_dead_connector_as_soon_as_its_ticket_names_another() {
    let mut world = World::with(2, Settings::default()).await;
    let port = echo().await;
    world.grant_at(SESSION, SEGMENT, 61, vec![id(0xc1)]);
    let (mut app, _end) = world.connect(port).await;
    exchange(&mut app, 10).await;
    let elsewhere = world.make_grant(SESSION, SEGMENT, 62, vec![id(0xc2)]);
    kill(world.connectors.remove(0));
    let begun = Instant::now();
    let placed = async {
        until(|| world.client.status().contains("suspended")).await;
        world.client.grant(None, elsewhere).unwrap();
    };
    let (opened, ()) = tokio::join!(world.open(port), placed);
    assert!(opened.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
#[allow(clippy::await_holding_lock, reason = "the connector whose lock is held must not get on")]
async fn flow_leaves_a_silent_connector_as_soon_as_its_ticket_names_another() {
    let world = World::with(2, Settings::default()).await;
    let port = echo().await;
    world.grant_at(SESSION, SEGMENT, 61, vec![id(0xc1)]);
    let (mut app, _end) = world.connect(port).await;
    exchange(&mut app, 10).await;
    let silenced = world.connectors[0].plane().lock();
    let begun = Instant::now();
    let elsewhere = async {
        // The tunnel counts the flow from its question on, the session from its answer.
        until(|| world.client.status().contains(r#""flows":2"#)).await;
        world.grant_at(SESSION, SEGMENT, 62, vec![id(0xc2)]);
    };
    let (opened, ()) = tokio::join!(world.open(port), elsewhere);
    drop(silenced);
    assert!(opened.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(2));
}
