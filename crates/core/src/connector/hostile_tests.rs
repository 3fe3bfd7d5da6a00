//! Clients that are not ours: foreign HTTP/2, floods, stolen and misused tickets.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Method, Request, StatusCode};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::serve::MAX_OPENING;
use super::tests::{SEGMENT, SESSION, World, echo, service, until};
use crate::carrier::{JoinRequest, join};
use crate::code::Code;
use crate::dial::Dialer;
use crate::host::{Destination, Protocol};
use crate::ids::Role;
use crate::resume::{HELLO_BYTES, Hello, TunnelId};
use crate::secure::Secure;
use crate::testing_ca::id;
use crate::tls::{ALPN_H2, Leg, PeerAlpn};
use crate::tunnel::connector::MAX_CLIENT_TUNNELS;
use crate::tunnel::request;

/// A carrier to the connector with the inner handshake done, by a client that asks for this ALPN.
async fn carrier(world: &World, plain: bool) -> Secure {
    let asked = JoinRequest { ticket: world.ticket(SESSION, SEGMENT, 60), connector: Some(id(0xc1)), wrapped: false };
    let joined = join(&world.trust, &Dialer::default(), &world.at_relay, asked).await.unwrap();
    let config = world.trust.client_config(Leg::Tunnel, Role::Client, Some(id(0xc1))).unwrap();
    let mut config = ClientConfig::clone(&config);
    if plain {
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
    }
    Secure::connect(joined.io, Arc::new(config)).await.unwrap()
}

async fn foreign(world: &World) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let secure = carrier(world, true).await;
    assert_eq!(secure.alpn(), PeerAlpn::PlainH2);
    let (send, connection) = h2::client::handshake(secure).await.unwrap();
    (send.ready().await.unwrap(), tokio::spawn(connection))
}

fn connect(port: u16, session: u64, ticket: Option<&str>) -> Request<()> {
    let destination = Destination::parse("127.0.0.1", port, Protocol::Tcp).unwrap();
    let ticket = ticket.map(|ticket| HeaderValue::from_str(ticket).unwrap());
    request::flow(&destination, id(session), ticket.as_ref()).unwrap()
}

async fn ask(send: &mut SendRequest<Bytes>, request: Request<()>) -> Result<(SendStream<Bytes>, RecvStream), Code> {
    let (response, stream) = send.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    if response.status() == StatusCode::OK { Ok((stream, response.into_body())) } else { Err(request::reason(response.headers())) }
}

#[tokio::test]
async fn case_36_foreign_tunnels_count_among_the_tunnels_of_their_client() {
    let world = World::new().await;
    let mut held = Vec::new();
    for _ in 0..MAX_CLIENT_TUNNELS {
        held.push(foreign(&world).await);
    }
    let count = || world.connectors[0].plane().tunnels().len();
    until(|| count() == MAX_CLIENT_TUNNELS).await;
    let mut refused = carrier(&world, true).await;
    assert!(matches!(
        refused.read_u8().await.map_err(|error| error.kind()),
        Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
    ));
    let (send, connection) = held.pop().unwrap();
    drop(send);
    connection.abort();
    until(|| count() < MAX_CLIENT_TUNNELS).await;
    foreign(&world).await;
}

#[tokio::test]
async fn foreign_http2_client_is_served_without_resumption() {
    let world = World::new().await;
    let (mut send, _connection) = foreign(&world).await;
    let mut request = connect(echo().await, SESSION, Some(&world.ticket(SESSION, SEGMENT, 60)));
    request.headers_mut().remove(request::SESSION); // a ticket says enough
    let (mut up, mut down) = ask(&mut send, request).await.unwrap();
    up.send_data(Bytes::from_static(b"hello"), true).unwrap();
    let mut got = Vec::new();
    while let Some(data) = down.data().await {
        got.extend_from_slice(&data.unwrap());
    }
    assert_eq!(got, b"hello");
}

#[tokio::test]
async fn case_18_stolen_misused_or_missing_ticket_opens_nothing() {
    let world = World::new().await;
    let port = echo().await;
    let (mut send, _connection) = foreign(&world).await;
    let good = world.ticket(SESSION, SEGMENT, 60);
    assert_eq!(ask(&mut send, connect(port, SESSION, None)).await.err(), Some(Code::TicketMissing));
    assert_eq!(ask(&mut send, connect(port, SESSION + 9, Some(&good))).await.err(), Some(Code::TicketNotYours));
    let other_segment = world.ticket(SESSION + 1, SEGMENT + 1, 60);
    assert_eq!(ask(&mut send, connect(port, SESSION + 1, Some(&other_segment))).await.err(), Some(Code::NotInSegment));
    let mut broken = good.clone();
    broken.pop();
    assert!(ask(&mut send, connect(port, SESSION, Some(&broken))).await.is_err());
    let expired = world.ticket(SESSION, SEGMENT, 0).replace("...", "");
    world.set_clock(400);
    assert_eq!(ask(&mut send, connect(port, SESSION, Some(&expired))).await.err(), Some(Code::TicketExpired));
    world.set_clock(60);
    // Negative control: the good one opens, and from then on its id is enough.
    assert!(ask(&mut send, connect(port, SESSION, Some(&good))).await.is_ok());
    assert!(ask(&mut send, connect(port, SESSION, None)).await.is_ok());
    assert_eq!(world.connector_stats.flows_refused.get(), 5);
}

#[tokio::test]
async fn case_36_requests_opened_and_taken_back_end_the_tunnel() {
    let world = World::new().await;
    let (mut other, _end) = world.connect(echo().await).await;
    let (mut send, connection) = foreign(&world).await;
    let ticket = world.ticket(SESSION, SEGMENT, 60);
    let port = echo().await;
    assert!(ask(&mut send, connect(port, SESSION, Some(&ticket))).await.is_ok());
    let flood = async {
        loop {
            let Ok(ready) = send.clone().ready().await else { return };
            send = ready;
            let Ok((_, mut stream)) = send.send_request(connect(port, SESSION, None), false) else { return };
            tokio::task::yield_now().await;
            stream.send_reset(Reason::CANCEL);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), flood).await.expect("the flood goes on");
    assert!(connection.await.unwrap().is_err());
    // Others keep what they have.
    other.write_all(b"x").await.unwrap();
    other.read_exact(&mut [0; 1]).await.unwrap();
}

#[tokio::test]
async fn case_36_open_flood_is_turned_away_beyond_the_bound() {
    let world = World::new().await;
    let (mut send, _connection) = foreign(&world).await;
    let ticket = world.ticket(SESSION, SEGMENT, 60);
    assert!(ask(&mut send, connect(echo().await, SESSION, Some(&ticket))).await.is_ok());
    // Discard: dials there hang until their deadline.
    let mut waiting = Vec::new();
    let hanging = service(|tcp| async move { drop(tcp) }).await;
    for _ in 0..MAX_OPENING + 64 {
        send = send.ready().await.unwrap();
        waiting.push(send.send_request(connect(hanging, SESSION, None), false).unwrap());
    }
    let mut codes = Vec::new();
    for (response, _stream) in waiting {
        let response = response.await.unwrap();
        codes.push(response.status());
    }
    assert!(codes.iter().all(|status| *status == StatusCode::OK || *status == StatusCode::SERVICE_UNAVAILABLE));
}

#[tokio::test]
async fn case_35_garbage_in_the_place_of_http2_ends_that_tunnel_only() {
    let world = World::new().await;
    let (mut other, _end) = world.connect(echo().await).await;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 100],
        &[255; 100],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x00",
    ];
    for bytes in garbage {
        let mut secure = carrier(&world, true).await;
        secure.write_all(bytes).await.unwrap();
        secure.flush().await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(6), secure.read_to_end(&mut rest)).await.expect("not ended");
    }
    until(|| world.connector_stats.tunnels.get() == 1).await;
    other.write_all(b"x").await.unwrap();
    other.read_exact(&mut [0; 1]).await.unwrap();
}

#[tokio::test]
async fn case_36_headers_beyond_the_bound_are_refused() {
    let world = World::new().await;
    let (mut send, connection) = foreign(&world).await;
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("127.0.0.1:1")
        .header("x", HeaderValue::from_bytes(&vec![b'a'; 100_000]).unwrap())
        .body(())
        .unwrap();
    let refused = match send.send_request(request, false) {
        Ok((response, _)) => response.await.map_or(true, |response| !response.status().is_success()),
        Err(_) => true,
    };
    assert!(refused);
    drop(send);
    let _ = connection.await;
}

#[tokio::test]
async fn case_37_tunnel_of_another_client_or_unknown_is_not_resumed() {
    let world = World::new().await;
    let (mut app, _end) = world.connect(echo().await).await;
    app.write_all(b"x").await.unwrap();
    app.read_exact(&mut [0; 1]).await.unwrap();
    for (epoch, received) in [(2, 0), (1, 5), (u32::MAX, 0)] {
        let mut secure = carrier(&world, false).await;
        let mut frame = Vec::with_capacity(HELLO_BYTES);
        Hello { tunnel: TunnelId([0xee; 16]), epoch, received }.encode(&mut frame);
        secure.write_all(&frame).await.unwrap();
        secure.flush().await.unwrap();
        let mut answer = Vec::new();
        secure.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [4, 0, 0, 1, 0]);
    }
    app.write_all(b"x").await.unwrap();
    app.read_exact(&mut [0; 1]).await.unwrap();
}

#[tokio::test]
async fn case_40_session_of_another_client_is_not_carried() {
    // The ticket is bound to the key that the tunnel proved: another key of the same exchange gets nowhere with it.
    let (world, stranger) = (World::new().await, World::new().await);
    let port = echo().await;
    let (mut send, _connection) = foreign(&world).await;
    let foreign_ticket = stranger.ticket(SESSION, SEGMENT, 60);
    assert_eq!(ask(&mut send, connect(port, SESSION, Some(&foreign_ticket))).await.err(), Some(Code::TicketSignature));
    let others = world.ticket_for(SESSION, SEGMENT, 60, &"A".repeat(43));
    assert_eq!(ask(&mut send, connect(port, SESSION, Some(&others))).await.err(), Some(Code::TicketNotYours));
}
