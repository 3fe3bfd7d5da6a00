//! The sockets of the DNS server: UDP and TCP towards applications, a socket of its own per question towards upstreams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::dns::{self, MAX_QUERY, Reply};
use super::{Shared, accept_all};

/// Questions under way at upstreams; more are answered with SERVFAIL.
pub(super) const MAX_FORWARDED: usize = 256;
/// Waited for one upstream, then the next is asked.
pub(super) const UPSTREAM_DEADLINE: Duration = Duration::from_secs(2);
/// Between two queries on one TCP connection (RFC 7766 §6.2.3).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Queries on one TCP connection.
const MAX_TCP_QUERIES: usize = 256;

/// The same port for UDP and TCP.
pub(super) fn bind(address: SocketAddr) -> io::Result<(TcpListener, Arc<UdpSocket>, SocketAddr)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    // a port picked for UDP may be taken for TCP
    for _ in 0..16 {
        let socket = std::net::UdpSocket::bind(address)?;
        let bound = socket.local_addr()?;
        match std::net::TcpListener::bind(bound) {
            Ok(listener) => {
                socket.set_nonblocking(true)?;
                listener.set_nonblocking(true)?;
                return Ok((TcpListener::from_std(listener)?, Arc::new(UdpSocket::from_std(socket)?), bound));
            }
            Err(error) => last = error,
        }
        if address.port() != 0 {
            break;
        }
    }
    Err(last)
}

struct Server {
    shared: Arc<Shared>,
    bound: SocketAddr,
    forwards: Arc<Semaphore>,
}

pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, socket: Arc<UdpSocket>, bound: SocketAddr) {
    let server = Arc::new(Server { shared: Arc::clone(&shared), bound, forwards: Arc::new(Semaphore::new(MAX_FORWARDED)) });
    let over_tcp = Arc::clone(&server);
    let accept = accept_all(shared, listener, move |_, stream, _| {
        let server = Arc::clone(&over_tcp);
        async move {
            let _ = answer_stream(&server, stream).await;
        }
    });
    tokio::join!(accept, answer_datagrams(server, socket));
}

async fn answer_datagrams(server: Arc<Server>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0u8; MAX_QUERY + 1];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let query = buffer.get(..length).unwrap_or_default();
        match server.decide(query) {
            Reply::Local(reply) => {
                let _ = socket.try_send_to(&reply, peer);
            }
            Reply::Drop => {}
            Reply::Forward(question) => {
                let Ok(place) = Arc::clone(&server.forwards).try_acquire_owned() else {
                    if let Some(failure) = dns::failure(&question) {
                        let _ = socket.try_send_to(&failure, peer);
                    }
                    continue;
                };
                let (server, socket) = (Arc::clone(&server), Arc::clone(&socket));
                tokio::spawn(async move {
                    if let Some(reply) = server.ask(&question, Transport::Datagram).await {
                        let _ = socket.send_to(&reply, peer).await;
                    }
                    drop(place);
                });
            }
        }
    }
}

async fn answer_stream(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    for _ in 0..MAX_TCP_QUERIES {
        let length = usize::from(timeout(TCP_IDLE, stream.read_u16()).await??);
        if length > MAX_QUERY {
            return Ok(());
        }
        let mut query = vec![0u8; length];
        timeout(TCP_IDLE, stream.read_exact(&mut query)).await??;
        let reply = match server.decide(&query) {
            Reply::Local(reply) => Some(reply),
            Reply::Drop => None,
            Reply::Forward(question) => match server.forwards.try_acquire() {
                Ok(_place) => server.ask(&question, Transport::Stream).await,
                Err(_) => dns::failure(&question),
            },
        };
        let Some(reply) = reply else { return Ok(()) };
        timeout(TCP_IDLE, write_framed(&mut stream, &reply)).await??;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Transport {
    Datagram,
    Stream,
}

impl Server {
    fn decide(&self, query: &[u8]) -> Reply {
        let suffixes = self.shared.suffixes();
        match self.shared.names().as_mut() {
            Some(names) => dns::answer(query, names, &suffixes, Instant::now()),
            None => Reply::Drop,
        }
    }

    /// Ask one upstream after the other; SERVFAIL if none answers.
    async fn ask(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let id = question.get(..2)?;
        // asking oneself would never end
        for upstream in self.shared.upstreams().into_iter().filter(|upstream| *upstream != self.bound) {
            let mut asked = question.to_vec();
            // an identifier of our own, so that nobody who knows the application's can answer for the upstream
            aws_lc_rs::rand::fill(asked.get_mut(..2)?).ok()?;
            let exchange = async {
                match transport {
                    Transport::Datagram => self.ask_datagram(upstream, &asked).await,
                    Transport::Stream => self.ask_stream(upstream, &asked).await,
                }
            };
            if let Ok(Ok(mut reply)) = timeout(UPSTREAM_DEADLINE, exchange).await {
                reply.get_mut(..2)?.copy_from_slice(id);
                return Some(reply);
            }
        }
        dns::failure(question)
    }

    async fn ask_datagram(&self, upstream: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let any: IpAddr = if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(upstream).await?;
        socket.send(question).await?;
        let mut buffer = vec![0u8; usize::from(u16::MAX)];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let reply = buffer.get(..length).unwrap_or_default();
            // a forged or late answer is passed over, the right one may still come
            if reply.get(..2) == question.get(..2) {
                return self.checked(reply, question);
            }
        }
    }

    async fn ask_stream(&self, upstream: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(upstream).await?;
        write_framed(&mut stream, question).await?;
        let mut reply = vec![0u8; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await?;
        self.checked(&reply, question)
    }

    fn checked(&self, reply: &[u8], question: &[u8]) -> io::Result<Vec<u8>> {
        let passes = self.shared.names().as_ref().is_some_and(|names| dns::passes(reply, question, names));
        if passes { Ok(reply.to_vec()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
