//! The local entrances over real sockets, in front of flows that echo.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod entrances;

use std::net::SocketAddr;

use cloister_core::code::Code;
use cloister_core::edge::MAX_ENTRANCES;
use cloister_core::host::{Destination, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use entrances::{STRANGER, edge, edge_of, refusing};

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut buffer = [0u8; 16];
    match stream.read(&mut buffer).await {
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn socks_name(command: u8, name: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, command, 0, 3, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    bytes.extend(port.to_be_bytes());
    bytes
}

async fn greet(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut answer = [0u8; 2];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [5, 0]);
    stream
}

async fn socks(address: SocketAddr, request: &[u8]) -> (TcpStream, u8) {
    let mut stream = greet(address).await;
    stream.write_all(request).await.unwrap();
    let mut reply = [0u8; 10];
    stream.read_exact(&mut reply).await.unwrap();
    (stream, reply[1])
}

#[tokio::test]
async fn socks_keeps_names_and_half_close() {
    let flows = refusing(&[]);
    let edge = edge(&flows);
    let address = edge.serve_socks("127.0.0.1:0", None).unwrap();
    let (mut stream, reply) = socks(address, &socks_name(1, "Jupyter.LAB.internal.", 8888)).await;
    assert_eq!(reply, 0);
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, b"hello<end>");
    assert_eq!(flows.asked(), ["jupyter.lab.internal:8888/tcp"]);
}

#[tokio::test]
async fn socks_tells_the_reason_and_then_ends() {
    let flows = refusing(&[
        ("unknown.internal", Code::NotFound),
        ("denied.internal", Code::ForbiddenByRule),
        ("refused.internal", Code::DialRefused),
        ("slow.internal", Code::DialTimeout),
    ]);
    let edge = edge(&flows);
    let address = edge.serve_socks("127.0.0.1:0", None).unwrap();
    for (name, expected) in [
        ("unknown.internal", 4),
        ("denied.internal", 2),
        ("refused.internal", 5),
        ("slow.internal", 6),
        ("bad_name", 4),
        ("1.2.3", 4),
    ] {
        let (mut stream, reply) = socks(address, &socks_name(1, name, 80)).await;
        assert_eq!(reply, expected, "{name}");
        assert_eq!(read_to_end(&mut stream).await, b"");
    }
    let (_, reply) = socks(address, &socks_name(2, "a.internal", 80)).await;
    assert_eq!(reply, 7, "BIND is not served");
    let (_, reply) = socks(address, &[5, 1, 0, 9, 0, 0, 0]).await;
    assert_eq!(reply, 8);
    assert_eq!(flows.asked().len(), 4, "what is malformed asks nobody");
}

#[tokio::test]
async fn case_67_proxy_and_forward_serve_the_owner_only() {
    let flows = refusing(&[]);
    let foreign = edge_of(&flows, Some(STRANGER));
    let destination = Destination::parse("jupyter.lab.internal", 8888, Protocol::Tcp).unwrap();
    for address in [foreign.serve_socks("127.0.0.1:0", None).unwrap(), foreign.forward("127.0.0.1:0", destination).unwrap()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(&[5, 1, 0]).await;
        assert!(is_reset(&mut stream).await);
    }
    let destination = Destination::parse("jupyter.lab.internal", 53, Protocol::Udp).unwrap();
    let forward = foreign.forward("127.0.0.1:0", destination.clone()).unwrap();
    let own = edge(&flows);
    let ours = own.forward("127.0.0.1:0", destination).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"no", forward).await.unwrap();
    socket.send_to(b"yes", ours).await.unwrap();
    let mut buffer = [0u8; 16];
    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..length], from), (&b"yes"[..], ours));
    assert_eq!(flows.asked().len(), 1, "the owner's datagram, and nothing before it");
}

#[tokio::test]
async fn secret_lets_a_stranger_in_and_nothing_else_does() {
    let flows = refusing(&[]);
    let foreign = edge_of(&flows, Some(STRANGER));
    let address = foreign.serve_socks("127.0.0.1:0", Some("open sesame")).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, [5, 0xff]);
    for (secret, status) in [("open sesam", 1), ("", 1), ("open sesame", 0)] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[5, 2, 0, 2]).await.unwrap();
        let mut answer = [0u8; 2];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [5, 2]);
        let mut message = vec![1, 1, b'u', u8::try_from(secret.len()).unwrap()];
        message.extend(secret.as_bytes());
        stream.write_all(&message).await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [1, status], "{secret}");
    }
    for (credentials, status) in [
        ("", "407"),
        ("Proxy-Authorization: Basic dTpubw==\r\n", "407"),
        ("Proxy-Authorization: Basic dTpvcGVuIHNlc2FtZQ==\r\n", "200"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("CONNECT a.internal:1 HTTP/1.1\r\n{credentials}\r\n").as_bytes()).await.unwrap();
        let mut answer = [0u8; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer[9..], status.as_bytes());
    }
    assert_eq!(flows.asked(), ["a.internal:1/tcp"]);
}

#[tokio::test]
async fn http_connect_passes_early_bytes_and_explains_refusals() {
    let flows = refusing(&[("unknown.internal", Code::NotFound), ("denied.internal", Code::ForbiddenByRule)]);
    let edge = edge(&flows);
    let address = edge.serve_socks("127.0.0.1:0", None).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"CONNECT jupyter.lab.internal:8888 HTTP/1.1\r\nHost: x\r\n\r\nearly").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, b"HTTP/1.1 200 Connection established\r\n\r\nearly<end>");
    for (request, status, code) in [
        ("CONNECT unknown.internal:80", 502, "not_found"),
        ("CONNECT denied.internal:80", 403, "forbidden_by_rule"),
        ("CONNECT 127.1:80", 400, "host_malformed"),
        ("CONNECT a@b:80", 400, "host_malformed"),
        ("CONNECT a.internal", 400, "host_malformed"),
        ("GET /", 400, "protocol_error"),
        ("GET http://u@a.internal/", 400, "host_malformed"),
        ("GET ftp://a.internal/", 400, "protocol_error"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains(&format!("Cloister-Reason: {code}\r\n")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn absolute_form_goes_on_in_origin_form_with_the_judged_host_only() {
    let flows = refusing(&[]);
    let edge = edge(&flows);
    let address = edge.serve_socks("127.0.0.1:0", None).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET http://jupyter.lab.internal:8888/tree?a=1 HTTP/1.1\r\nHost: evil.example\r\nAccept: */*\r\nProxy-Connection: keep-alive\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let passed = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    assert_eq!(
        passed,
        "GET /tree?a=1 HTTP/1.1\r\nHost: jupyter.lab.internal:8888\r\nConnection: close\r\nAccept: */*\r\n\r\n<end>"
    );
}

#[tokio::test]
async fn socks_datagrams_keep_their_destination() {
    let flows = refusing(&[]);
    let edge = edge(&flows);
    let address = edge.serve_socks("127.0.0.1:0", None).unwrap();
    let mut control = greet(address).await;
    control.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    let mut reply = [0u8; 10];
    control.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..4], [5, 0, 0, 1]);
    let relay = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[8], reply[9]])));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for name in ["one.team.internal", "two.team.internal"] {
        let mut datagram = socks_name(0, name, 53);
        datagram[..3].copy_from_slice(&[0, 0, 0]);
        datagram.extend(name.as_bytes());
        socket.send_to(&datagram, relay).await.unwrap();
        let mut buffer = [0u8; 200];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&datagram[..], relay));
    }
    assert_eq!(flows.asked(), ["one.team.internal:53/udp", "two.team.internal:53/udp"]);
    drop(control);
}

#[tokio::test]
async fn forward_leads_to_one_destination_in_tcp_and_udp() {
    let flows = refusing(&[("dead.internal", Code::DialRefused)]);
    let edge = edge(&flows);
    let to = |host: &str, protocol| Destination::parse(host, 5432, protocol).unwrap();
    let address = edge.forward("[::1]:0", to("db.internal", Protocol::Tcp)).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, b"x<end>");
    let dead = edge.forward("127.0.0.1:0", to("dead.internal", Protocol::Tcp)).unwrap();
    assert!(is_reset(&mut TcpStream::connect(dead).await.unwrap()).await);
    let address = edge.forward("127.0.0.1:0", to("db.internal", Protocol::Udp)).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    socket.send(b"ping").await.unwrap();
    let mut buffer = [0u8; 16];
    assert_eq!(socket.recv(&mut buffer).await.unwrap(), 4);
    assert_eq!(flows.asked(), ["db.internal:5432/tcp", "dead.internal:5432/tcp", "db.internal:5432/udp"]);
}

#[tokio::test]
async fn entrances_listen_on_loopback_only() {
    let edge = edge(&refusing(&[]));
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "localhost:0", "127.0.0.1"] {
        assert_eq!(edge.serve_socks(address, None).unwrap_err().code, Code::ArgumentInvalid, "{address}");
        assert!(edge.serve_dns(address, &[], "100.64.0.0/16", "fd12::/64", &[]).is_err());
        assert!(edge.capture(address, "[::1]:0").is_err());
    }
    assert!(edge.serve_socks("127.0.0.1:0", Some("")).is_err());
    assert!(edge.entrances().is_empty());
}

#[tokio::test]
async fn closed_entrance_takes_nothing_new_and_open_flows_go_on() {
    let edge = edge(&refusing(&[]));
    let destination = Destination::parse("db.internal", 5432, Protocol::Tcp).unwrap();
    let address = edge.forward("127.0.0.1:0", destination).unwrap();
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(b"x").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'x');
    assert!(edge.close_entrance(&address.to_string()));
    assert!(!edge.close_entrance(&address.to_string()) && !edge.close_entrance("nonsense"));
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    open.write_all(b"y").await.unwrap();
    open.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut open).await, b"y<end>");
    assert!(edge.entrances().is_empty());
}

#[tokio::test]
async fn entrances_are_bounded() {
    let edge = edge(&refusing(&[]));
    for _ in 0..MAX_ENTRANCES {
        edge.serve_socks("127.0.0.1:0", None).unwrap();
    }
    assert_eq!(edge.serve_socks("127.0.0.1:0", None).unwrap_err().code, Code::LimitReached);
}
