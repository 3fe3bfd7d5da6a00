//! One local port that leads to one destination, TCP or UDP.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::associations::{Associations, From, MAX_DATAGRAM};
use super::{Shared, accept_all, reset};
use crate::code::Code;
use crate::flow::Local;
use crate::host::{Destination, Protocol};

/// Accept until the task is aborted.
pub(super) async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener, destination: Destination) {
    accept_all(Arc::clone(&shared), listener, move |shared, stream, peer| carry(shared, stream, peer, destination.clone())).await;
}

async fn carry(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, destination: Destination) {
    if !shared.is_owners_stream(&stream, peer) {
        return reset(&stream);
    }
    open_and_run(&shared, stream, destination, Bytes::new()).await;
}

/// Open the flow, hand the socket over; reset it when there is no flow.
pub(super) async fn open_and_run(shared: &Shared, stream: TcpStream, destination: Destination, early: Bytes) -> Code {
    match shared.flows.open_tcp(destination).await {
        Ok(flow) => flow.run(Local::Tcp(stream), early).await,
        Err(code) => {
            reset(&stream);
            code
        }
    }
}

pub(super) async fn serve_udp(shared: Arc<Shared>, socket: UdpSocket, destination: Destination) {
    let socket = Arc::new(socket);
    let associations = Associations::new(Arc::clone(&shared.flows));
    let Ok(local) = socket.local_addr() else { return };
    let mut buffer = BytesMut::zeroed(MAX_DATAGRAM);
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        if !shared.is_owners(Protocol::Udp, peer, local) {
            continue;
        }
        let datagram = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        associations.pass(peer, destination.clone(), datagram, || Some(From { socket: Arc::clone(&socket), peer }));
    }
}
