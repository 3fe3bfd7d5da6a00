//! What the kernel captured (TPROXY): transparent sockets on loopback, which see the synthetic address a packet was sent to.
//!
//! The kernel's rules let only the owner's packets to captured pairs through; here the name, the owner and the port are checked again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::associations::{Answer, Associations, MAX_DATAGRAM};
use super::forward::open_and_run;
use super::{Shared, accept_all, reset};
use crate::host::{Destination, Host, Protocol};
use crate::sys::origdst;

const BACKLOG: i32 = 1024;

pub(super) fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = transparent(address, Type::STREAM)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub(super) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = transparent(address, Type::DGRAM)?;
    origdst::want_destination(&socket, address.ip())?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn transparent(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The destination behind an original address: the name of a synthetic address, or an address that a segment names itself.
fn destination(shared: &Shared, original: SocketAddr, protocol: Protocol) -> Option<Destination> {
    if original.ip().is_loopback() {
        // somebody talked to the listener itself
        return None;
    }
    let host = shared.meant(Host::Address(original.ip()))?;
    Destination::new(host, original.port(), protocol).ok()
}

pub(super) async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    accept_all(shared, listener, carry).await;
}

async fn carry(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let original = stream.local_addr().ok().filter(|original| shared.is_owners(Protocol::Tcp, peer, *original));
    match original.and_then(|original| destination(&shared, original, Protocol::Tcp)) {
        Some(destination) => {
            open_and_run(&shared, stream, destination, Bytes::new()).await;
        }
        None => reset(&stream),
    }
}

/// Answers from the original address. Not connected to the peer: a connected socket would get the peer's next datagrams instead of the listener.
struct FromOriginal {
    socket: std::net::UdpSocket,
    peer: SocketAddr,
}

impl FromOriginal {
    fn new(original: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        let socket = transparent(original, Type::DGRAM)?;
        socket.bind(&original.into())?;
        Ok(FromOriginal { socket: socket.into(), peer })
    }
}

impl Answer for FromOriginal {
    fn answer(&self, datagram: &[u8]) {
        let _ = self.socket.send_to(datagram, self.peer);
    }
}

pub(super) async fn serve_udp(shared: Arc<Shared>, socket: UdpSocket) {
    let associations = Associations::new(Arc::clone(&shared.flows));
    let mut buffer = vec![0u8; MAX_DATAGRAM];
    loop {
        let received = socket.async_io(Interest::READABLE, || origdst::receive(&socket, &mut buffer)).await;
        let Ok((length, peer, original)) = received else { continue };
        let Some(destination) = destination(&shared, original, Protocol::Udp) else { continue };
        if !shared.is_owners(Protocol::Udp, peer, original) {
            continue;
        }
        let datagram = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        associations.pass(peer, destination, datagram, || FromOriginal::new(original, peer).ok());
    }
}
