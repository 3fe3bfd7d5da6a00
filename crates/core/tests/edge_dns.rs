//! The DNS server over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod entrances;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use entrances::{edge, refusing};

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn ask(server: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question.to_vec().unwrap(), server).await.unwrap();
    let mut buffer = [0u8; 4096];
    let length = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask_over_tcp(server: SocketAddr, question: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let bytes = question.to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

/// One free port of both protocols: the system picks the port for UDP alone, so TCP may have to ask for another.
async fn both_protocols() -> (UdpSocket, TcpListener) {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        match TcpListener::bind(socket.local_addr().unwrap()).await {
            Ok(listener) => return (socket, listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Answers every question with one address, over UDP and TCP; counts names.
async fn upstream(address: [u8; 4]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let (socket, listener) = both_protocols().await;
    let bound = socket.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let answer = move |bytes: &[u8], seen: &Mutex<Vec<String>>| {
        let query = Message::from_vec(bytes).unwrap();
        let question = query.queries[0].clone();
        seen.lock().unwrap().push(question.name.to_ascii());
        let mut reply = Message::response(query.metadata.id, OpCode::Query);
        reply.add_answer(hickory_proto::rr::Record::from_rdata(
            question.name.clone(),
            60,
            RData::A(std::net::Ipv4Addr::from(address).into()),
        ));
        reply.add_query(question);
        reply.to_vec().unwrap()
    };
    let (udp_seen, tcp_seen) = (seen.clone(), seen.clone());
    tokio::spawn(async move {
        let mut buffer = [0u8; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&answer(&buffer[..length], &udp_seen), peer).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            let reply = answer(&query, &tcp_seen);
            stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    (bound, seen)
}

#[tokio::test]
async fn case_70_private_names_never_reach_an_upstream_and_others_do() {
    let (upstream, seen) = upstream([192, 0, 2, 55]).await;
    let edge = edge(&refusing(&[]));
    let server = edge
        .serve_dns("127.0.0.1:0", &[upstream.to_string()], "100.64.0.0/16", "fd12:3456:789a::/64", &["lab.internal".into()])
        .unwrap();
    for name in [
        "jupyter.lab.internal.",
        "secret.lab.internal.",
        "SeCrEt.LAB.internal.",
        "_https._tcp.secret.lab.internal.",
        "secret.lab.internal.home.arpa.",
        "a.team.internal.",
        "7.0.64.100.in-addr.arpa.",
    ] {
        for kind in [
            RecordType::A,
            RecordType::AAAA,
            RecordType::HTTPS,
            RecordType::SVCB,
            RecordType::PTR,
            RecordType::ANY,
            RecordType::TXT,
            RecordType::SOA,
            RecordType::MX,
        ] {
            let (over_udp, over_tcp) =
                (ask(server, &question(name, kind)).await, ask_over_tcp(server, &question(name, kind)).await);
            assert_eq!(over_udp, over_tcp, "{name} {kind}");
        }
    }
    assert!(seen.lock().unwrap().is_empty());
    let public = ask(server, &question("www.example.", RecordType::A)).await;
    assert_eq!(public.answers.len(), 1);
    assert_eq!(public.metadata.id, 7);
    assert_eq!(ask_over_tcp(server, &question("www.example.", RecordType::A)).await.answers.len(), 1);
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn upstream_answer_into_the_pool_is_refused() {
    let (rebinding, _) = upstream([100, 64, 0, 1]).await;
    let edge = edge(&refusing(&[]));
    let server = edge.serve_dns("127.0.0.1:0", &[rebinding.to_string()], "100.64.0.0/16", "fd12:3456:789a::/64", &[]).unwrap();
    let answer = ask(server, &question("evil.example.", RecordType::A)).await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::ServFail, 0));
}

#[tokio::test]
async fn dns_asks_the_next_upstream_and_fails_when_none_is_left() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (upstream, _) = upstream([192, 0, 2, 55]).await;
    let upstreams = [silent.local_addr().unwrap().to_string(), upstream.to_string()];
    let server = |upstreams: &[String]| {
        let edge = edge(&refusing(&[]));
        let address = edge.serve_dns("127.0.0.1:0", upstreams, "100.64.0.0/16", "fd12:3456:789a::/64", &[]).unwrap();
        (edge, address)
    };
    let (_second, address) = server(&upstreams);
    assert_eq!(ask(address, &question("www.example.", RecordType::A)).await.answers.len(), 1);
    let (_none, address) = server(&[]);
    assert_eq!(ask(address, &question("www.example.", RecordType::A)).await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn case_73_dns_bounds_long_messages_and_unfinished_connections() {
    let edge = edge(&refusing(&[]));
    let server = edge.serve_dns("127.0.0.1:0", &[], "100.64.0.0/16", "fd12:3456:789a::/64", &[]).unwrap();
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(65535).await.unwrap();
    let _ = stream.write_all(&[0; 65535]).await;
    let mut byte = [0u8; 1];
    assert!(!matches!(stream.read(&mut byte).await, Ok(1)));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for junk in [&[0u8; 1][..], &[0xff; 512], &[0u8; 5000]] {
        socket.send_to(junk, server).await.unwrap();
    }
    assert_eq!(ask(server, &question("jupyter.lab.internal.", RecordType::A)).await.answers.len(), 1);
}
