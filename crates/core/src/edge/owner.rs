//! Who is at the other end of a connection on this machine: the kernel's answer (`NETLINK_SOCK_DIAG`), not the peer's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use crate::host::Protocol;

const HEADER: usize = 16; // struct nlmsghdr
const REQUEST: usize = HEADER + 56; // struct inet_diag_req_v2
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;

/// Asks the kernel for owners of sockets.
pub struct Owners {
    /// With the number of the last question.
    socket: Mutex<(OwnedFd, u32)>,
}

impl Owners {
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
        Ok(Owners { socket: Mutex::new((socket, 0)) })
    }

    /// The user id that owns the socket at `peer` which talks to `local`; None if it is closed, elsewhere, or cannot be told.
    pub fn uid(&self, protocol: Protocol, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
        let mut inner = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, number) = &mut *inner;
        *number = number.wrapping_add(1);
        send(&*socket, &write_request(*number, protocol, peer, local)?, SendFlags::empty()).ok()?;
        let mut reply = [0u8; 512];
        loop {
            // the kernel has answered by the time `send` returns
            let (_, length) = recv(&*socket, &mut reply[..], RecvFlags::DONTWAIT).ok()?;
            let reply = reply.get(..length)?;
            // anything else was left behind by an earlier question
            if number_of(reply) == Some(*number) {
                return parse_reply(reply, peer.port());
            }
        }
    }
}

fn write_request(number: u32, protocol: Protocol, peer: SocketAddr, local: SocketAddr) -> Option<[u8; REQUEST]> {
    // the UDP half of the kernel's interface takes the two ends the other way round
    let (source, destination, transport) = match protocol {
        Protocol::Tcp => (peer, local, 6u8),
        Protocol::Udp => (local, peer, 17u8),
    };
    let family = match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => 2u8,
        (SocketAddr::V6(_), SocketAddr::V6(_)) => 10u8,
        _ => return None,
    };
    let mut request = Vec::with_capacity(REQUEST);
    request.extend(u32::try_from(REQUEST).ok()?.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend(number.to_ne_bytes());
    request.extend([0u8; 4]); // port
    request.extend([family, transport, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes()); // all states
    request.extend(source.port().to_be_bytes());
    request.extend(destination.port().to_be_bytes());
    request.extend(write_address(source.ip()));
    request.extend(write_address(destination.ip()));
    request.extend([0u8; 4]); // any interface
    request.extend([0xff; 8]); // no cookie
    request.try_into().ok()
}

fn write_address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// The question that a reply answers (`nlmsg_seq`).
fn number_of(reply: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*reply.get(8..12)?.first_chunk()?))
}

/// Reads `struct inet_diag_msg`: the socket must have the peer's port and still belong to a process (a closed socket's owner reads as 0).
pub fn parse_reply(reply: &[u8], port: u16) -> Option<u32> {
    let kind = u16::from_ne_bytes(*reply.get(4..6)?.first_chunk()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let message = reply.get(HEADER..)?;
    let its_port = u16::from_be_bytes(*message.get(4..6)?.first_chunk()?);
    let uid = u32::from_ne_bytes(*message.get(64..68)?.first_chunk()?);
    let inode = u32::from_ne_bytes(*message.get(68..72)?.first_chunk()?);
    (its_port == port && inode != 0).then_some(uid)
}

#[cfg(test)]
mod test {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn own_uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn kernel_tells_the_owner_of_a_tcp_peer_in_both_families() {
        let owners = Owners::new().unwrap();
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bind).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            let local = accepted.local_addr().unwrap();
            assert_eq!(owners.uid(Protocol::Tcp, peer, local), Some(own_uid()));
            let stranger = SocketAddr::new(peer.ip(), if peer.port() == 1 { 2 } else { 1 });
            assert_eq!(owners.uid(Protocol::Tcp, stranger, local), None);
            drop(client);
            assert_eq!(owners.uid(Protocol::Tcp, peer, local), None, "a closed socket is nobody's, not root's");
        }
    }

    #[test]
    fn kernel_tells_the_owner_of_a_udp_peer() {
        let owners = Owners::new().unwrap();
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = ours.local_addr().unwrap();
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(local).unwrap();
        let unconnected = UdpSocket::bind("0.0.0.0:0").unwrap();
        for peer in [connected.local_addr().unwrap(), SocketAddr::new(local.ip(), unconnected.local_addr().unwrap().port())] {
            assert_eq!(owners.uid(Protocol::Udp, peer, local), Some(own_uid()));
        }
        assert_eq!(owners.uid(Protocol::Udp, SocketAddr::new(local.ip(), 1), local), None);
    }

    #[test]
    fn reply_to_an_earlier_question_is_not_taken_for_this_one() {
        let owners = Owners::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, local) = (client.local_addr().unwrap(), listener.local_addr().unwrap());
        let nobody = SocketAddr::new(peer.ip(), 1);
        send(&owners.socket.lock().unwrap().0, &write_request(7, Protocol::Tcp, nobody, local).unwrap(), SendFlags::empty())
            .unwrap();
        assert_eq!(owners.uid(Protocol::Tcp, peer, local), Some(own_uid()));
        send(&owners.socket.lock().unwrap().0, &write_request(7, Protocol::Tcp, peer, local).unwrap(), SendFlags::empty()).unwrap();
        assert_eq!(owners.uid(Protocol::Tcp, nobody, local), None);
    }

    #[test]
    fn short_replies_are_no_answer() {
        for length in 0..HEADER + 72 {
            assert_eq!(parse_reply(&vec![20; length], 1), None);
        }
        for length in 0..12 {
            assert_eq!(number_of(&vec![0; length]), None);
        }
    }
}
