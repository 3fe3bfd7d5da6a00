//! Where a datagram that arrived at a transparent socket was sent to: `IP_RECVORIGDSTADDR`, which no safe wrapper at hand offers.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

/// Room for control messages: one `sockaddr_in6` with its header, and as much again.
const CONTROL: usize = 128;
/// `struct cmsghdr` on 64-bit Linux: length, level, type.
const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();

/// Have the original destination come with every datagram.
pub fn want_destination(socket: impl AsFd, address: IpAddr) -> io::Result<()> {
    let (level, option) = match address {
        IpAddr::V4(_) => (libc::SOL_IP, libc::IP_RECVORIGDSTADDR),
        IpAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR),
    };
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the value is one c_int that outlives the call.
    let done = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const on).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One datagram: its length in `buffer`, who sent it, and to whom. Never blocks; a datagram without destination is an error.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)> {
    let mut name = [0u8; size_of::<libc::sockaddr_storage>()];
    // aligned as control messages must be
    let mut control = [0u64; CONTROL / 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data for which all zeros is a valid value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = name.len() as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CONTROL;
    // SAFETY: every pointer in `header` points to memory of the stated length that lives until the call returns, and nothing else uses it.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let used = (header.msg_controllen as usize).min(CONTROL);
    let control: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).take(used).collect();
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "a datagram without sender or destination");
    let peer = parse_address(&name).ok_or_else(missing)?;
    let destination = parse_control(&control).ok_or_else(missing)?;
    Ok((length, peer, destination))
}

/// The destination among control messages.
fn parse_control(mut control: &[u8]) -> Option<SocketAddr> {
    loop {
        let length = usize::from_ne_bytes(*control.first_chunk()?);
        let level = i32::from_ne_bytes(*control.get(size_of::<usize>()..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*control.get(size_of::<usize>() + 4..)?.first_chunk()?);
        let body = control.get(CMSG_HEADER..length)?;
        if (level, kind) == (libc::SOL_IP, libc::IP_RECVORIGDSTADDR)
            || (level, kind) == (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR)
        {
            return parse_address(body);
        }
        control = control.get(length.next_multiple_of(size_of::<usize>())..)?;
    }
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn parse_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let ip: IpAddr = match family {
        libc::AF_INET => Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod test {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn datagram_comes_with_its_sender_and_its_destination_in_both_families() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(bind).unwrap();
            let address = socket.local_addr().unwrap();
            want_destination(&socket, address.ip()).unwrap();
            let sender = UdpSocket::bind(bind).unwrap();
            sender.send_to(b"hello", address).unwrap();
            let mut buffer = [0u8; 16];
            assert_eq!(receive(&socket, &mut buffer).unwrap(), (5, sender.local_addr().unwrap(), address));
            assert_eq!(&buffer[..5], b"hello");
            assert_eq!(receive(&socket, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn datagram_without_destination_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
        assert_eq!(receive(&socket, &mut [0u8; 16]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn cut_control_messages_are_no_destination() {
        for length in 0..64 {
            assert_eq!(parse_control(&vec![0u8; length]), None);
            assert_eq!(parse_control(&vec![0xff; length]), None);
        }
    }
}
