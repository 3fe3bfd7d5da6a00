//! SOCKS5 (RFC 1928: CONNECT and UDP ASSOCIATE; RFC 1929) on the port that also speaks HTTP CONNECT; the first byte tells which.
//!
//! Names stay names. Only the owner may come in, or, where a secret is set, whoever presents it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::associations::{Answer, Associations, IDLE, MAX_DATAGRAM};
use super::http_connect;
use super::{Shared, accept_all, reset};
use crate::code::Code;
use crate::flow::Local;
use crate::host::{Destination, Host, Malformed, Protocol};

mod message;

pub use message::{Refused, Request, parse_datagram, parse_greeting, parse_password, parse_request, reply_code};
use message::{VERSION, write_address, write_reply};

/// RFC 1929 passwords are at most this long.
pub const MAX_SECRET: usize = 255;
/// From accept to a complete request.
pub(super) const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Clients with a UDP association at one entrance; each holds a datagram's buffer.
pub const MAX_UDP_CLIENTS: usize = 256;
/// UDP destinations of one association.
const MAX_UDP_DESTINATIONS: usize = 256;

const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Accept until the task is aborted.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, secret: Option<Arc<[u8]>>) {
    let places = Arc::new(Semaphore::new(MAX_UDP_CLIENTS));
    accept_all(shared, listener, move |shared, stream, peer| carry(shared, (stream, peer), secret.clone(), Arc::clone(&places)))
        .await;
}

/// Who is at the other end, before a word was said.
#[derive(Clone)]
pub(super) enum Caller {
    Owner,
    /// Must present this secret.
    Stranger(Arc<[u8]>),
}

impl Caller {
    /// Compares in constant time.
    pub(super) fn proves(&self, secret: &[u8]) -> bool {
        match self {
            Caller::Owner => true,
            Caller::Stranger(expected) => aws_lc_rs::constant_time::verify_slices_are_equal(expected, secret).is_ok(),
        }
    }
}

/// What was asked for, once it is open.
pub(super) enum Opened {
    Tcp(Box<dyn crate::flow::TcpFlow>, Bytes),
    Udp(UdpSocket),
    Refused,
}

async fn carry(shared: Arc<Shared>, accepted: (TcpStream, SocketAddr), secret: Option<Arc<[u8]>>, places: Arc<Semaphore>) {
    let (mut stream, peer) = accepted;
    let caller = match (shared.is_owners_stream(&stream, peer), secret) {
        (true, _) => Caller::Owner,
        (false, Some(secret)) => Caller::Stranger(secret),
        (false, None) => return reset(&stream),
    };
    let opened = Box::pin(negotiate(&shared, &mut stream, &caller)).await;
    match opened {
        Ok(Opened::Tcp(flow, early)) => {
            drop(shared);
            flow.run(Local::Tcp(stream), early).await;
        }
        Ok(Opened::Udp(socket)) => match places.try_acquire() {
            Ok(_place) => associate(&shared, stream, socket, &caller).await,
            Err(_) => reset(&stream),
        },
        Ok(Opened::Refused) => {
            // let the refusal arrive before the close: a reset would take it away
            let _ = stream.shutdown().await;
            let _ = timeout(Duration::from_secs(1), tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
        }
        Err(_) => reset(&stream),
    }
}

async fn negotiate(shared: &Shared, stream: &mut TcpStream, caller: &Caller) -> io::Result<Opened> {
    let mut buffer = BytesMut::with_capacity(512);
    let first = timeout(REQUEST_DEADLINE, async {
        stream.read_buf(&mut buffer).await?;
        Ok::<_, io::Error>(buffer.first().copied())
    });
    match first.await?? {
        Some(VERSION) => match timeout(REQUEST_DEADLINE, read_socks(stream, &mut buffer, caller)).await?? {
            Some(request) => open(shared, stream, request, buffer.freeze()).await,
            None => Ok(Opened::Refused),
        },
        Some(byte) if byte.is_ascii_uppercase() => http_connect::negotiate(shared, stream, buffer, caller).await,
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Greeting, authentication, request; what follows them stays in `buffer`. None: refused, and the client has been told.
async fn read_socks(stream: &mut TcpStream, buffer: &mut BytesMut, caller: &Caller) -> io::Result<Option<Request>> {
    let methods = take(stream, buffer, |bytes| parse_greeting(bytes).map(|(methods, used)| (methods.to_vec(), used))).await?;
    let Ok(methods) = methods else { return Ok(None) };
    let method = match caller {
        Caller::Owner if methods.contains(&NO_AUTHENTICATION) => NO_AUTHENTICATION,
        _ if methods.contains(&PASSWORD) => PASSWORD,
        _ => NO_METHOD,
    };
    stream.write_all(&[VERSION, method]).await?;
    match method {
        NO_METHOD => return Ok(None),
        PASSWORD => {
            let password =
                take(stream, buffer, |bytes| parse_password(bytes).map(|(password, used)| (password.to_vec(), used))).await?;
            let proved = password.is_ok_and(|password| caller.proves(&password));
            stream.write_all(&[1, u8::from(!proved)]).await?;
            if !proved {
                return Ok(None);
            }
        }
        _ => {}
    }
    match take(stream, buffer, parse_request).await? {
        Ok(request) => Ok(Some(request)),
        Err(refused) => {
            let reply = match refused {
                Refused::Command => 7,
                Refused::AddressType => 8,
                Refused::Host(_) => 4,
                Refused::Short | Refused::Version | Refused::Fragment => 1,
            };
            stream.write_all(&write_reply(reply, NOWHERE)).await?;
            Ok(None)
        }
    }
}

/// Read until `parse` has enough, and drop what it used.
async fn take<T>(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    parse: impl Fn(&[u8]) -> Result<(T, usize), Refused>,
) -> io::Result<Result<T, Refused>> {
    loop {
        match parse(buffer) {
            Ok((value, used)) => {
                let _ = buffer.split_to(used);
                return Ok(Ok(value));
            }
            Err(Refused::Short) => {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(refused) => return Ok(Err(refused)),
        }
    }
}

async fn open(shared: &Shared, stream: &mut TcpStream, request: Request, early: Bytes) -> io::Result<Opened> {
    match request {
        Request::Connect(host, port) => match open_tcp(shared, host, port).await {
            Ok(flow) => {
                stream.write_all(&write_reply(0, NOWHERE)).await?;
                Ok(Opened::Tcp(flow, early))
            }
            Err(code) => {
                stream.write_all(&write_reply(reply_code(code), NOWHERE)).await?;
                Ok(Opened::Refused)
            }
        },
        Request::Associate => {
            let socket = UdpSocket::bind((stream.local_addr()?.ip(), 0)).await?;
            stream.write_all(&write_reply(0, socket.local_addr()?)).await?;
            Ok(Opened::Udp(socket))
        }
    }
}

/// Open a flow to what the application means.
pub(super) async fn open_tcp(shared: &Shared, host: Host, port: u16) -> Result<Box<dyn crate::flow::TcpFlow>, Code> {
    let host = shared.meant(host).ok_or(Code::NotFound)?;
    let destination = Destination::new(host, port, Protocol::Tcp).map_err(Malformed::code)?;
    shared.flows.open_tcp(destination).await
}

/// Puts the header back in front of every datagram.
struct Wrapped {
    socket: Arc<UdpSocket>,
    peer: SocketAddr,
    header: Vec<u8>,
}

impl Answer for Wrapped {
    fn answer(&self, datagram: &[u8]) {
        let mut bytes = self.header.clone();
        bytes.extend_from_slice(datagram);
        let _ = self.socket.try_send_to(&bytes, self.peer);
    }
}

/// Serve datagrams until the control connection ends (RFC 1928 §7).
async fn associate(shared: &Arc<Shared>, mut stream: TcpStream, socket: UdpSocket, caller: &Caller) {
    let socket = Arc::new(socket);
    let associations = Associations::bounded(Arc::clone(&shared.flows), MAX_UDP_DESTINATIONS, IDLE);
    let Ok(local) = socket.local_addr() else { return };
    let mut client: Option<SocketAddr> = None;
    let mut buffer = vec![0u8; MAX_DATAGRAM];
    let mut control = [0u8; 64];
    loop {
        tokio::select! {
            read = stream.read(&mut control) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, peer)) = received else { continue };
                // the first sender is the client, if it is who opened the association
                let known = client == Some(peer);
                if !known && (client.is_some() || !may_send(shared, caller, peer, local)) {
                    continue;
                }
                client = Some(peer);
                let bytes = buffer.get(..length).unwrap_or_default();
                let Ok((host, port, used)) = parse_datagram(bytes) else { continue };
                let mut header = vec![0, 0, 0];
                write_address(&mut header, &host, port);
                let Some(host) = shared.meant(host) else { continue };
                let Ok(destination) = Destination::new(host, port, Protocol::Udp) else { continue };
                let datagram = Bytes::copy_from_slice(bytes.get(used..).unwrap_or_default());
                associations.pass(peer, destination, datagram, || Some(Wrapped { socket: Arc::clone(&socket), peer, header }));
            }
        }
    }
}

/// The owner's datagrams come from the owner's socket; who proved the secret is known by the association alone.
fn may_send(shared: &Shared, caller: &Caller, peer: SocketAddr, local: SocketAddr) -> bool {
    match caller {
        Caller::Owner => shared.is_owners(Protocol::Udp, peer, local),
        Caller::Stranger(_) => peer.ip().is_loopback(),
    }
}
