//! The messages of SOCKS5 (RFC 1928, RFC 1929): codec only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::code::Code;
use crate::host::{Host, Malformed, parse_host};

pub(super) const VERSION: u8 = 5;

/// What a SOCKS client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Connect(Host, u16),
    /// Where the client says its datagrams will come from; not believed.
    Associate,
}

/// Why a message is no SOCKS message that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More bytes are needed.
    Short,
    Version,
    Command,
    AddressType,
    Host(Malformed),
    /// Fragments of UDP datagrams are not put together (RFC 1928 §7 allows to drop them).
    Fragment,
}

/// The methods a client offers, and how many bytes that took.
pub fn parse_greeting(bytes: &[u8]) -> Result<(&[u8], usize), Refused> {
    match bytes {
        [VERSION, count, rest @ ..] => {
            let methods = rest.get(..usize::from(*count)).ok_or(Refused::Short)?;
            Ok((methods, 2 + methods.len()))
        }
        [VERSION] | [] => Err(Refused::Short),
        _ => Err(Refused::Version),
    }
}

/// The password of RFC 1929 (the user name is not looked at), and how many bytes it took.
pub fn parse_password(bytes: &[u8]) -> Result<(&[u8], usize), Refused> {
    let [1, user_length, rest @ ..] = bytes else {
        return Err(if matches!(bytes, [] | [1]) { Refused::Short } else { Refused::Version });
    };
    let user_length = usize::from(*user_length);
    let password_length = usize::from(*rest.get(user_length).ok_or(Refused::Short)?);
    let password = rest.get(user_length + 1..user_length + 1 + password_length).ok_or(Refused::Short)?;
    Ok((password, 3 + user_length + password_length))
}

/// A request, and how many bytes it took.
pub fn parse_request(bytes: &[u8]) -> Result<(Request, usize), Refused> {
    let [VERSION, command, _reserved, rest @ ..] = bytes else {
        return Err(if bytes.len() < 3 && bytes.first().is_none_or(|version| *version == VERSION) {
            Refused::Short
        } else {
            Refused::Version
        });
    };
    if !matches!(command, 1 | 3) {
        return Err(Refused::Command);
    }
    let (address, port, used) = parse_address(rest)?;
    if *command == 3 {
        return Ok((Request::Associate, 3 + used));
    }
    let host = address.host()?;
    if port == 0 {
        return Err(Refused::Host(Malformed::Port));
    }
    Ok((Request::Connect(host, port), 3 + used))
}

/// The destination of a UDP datagram, and how many bytes its header took (RFC 1928 §7).
pub fn parse_datagram(bytes: &[u8]) -> Result<(Host, u16, usize), Refused> {
    let [_, _, fragment, rest @ ..] = bytes else { return Err(Refused::Short) };
    if *fragment != 0 {
        return Err(Refused::Fragment);
    }
    let (address, port, used) = parse_address(rest)?;
    Ok((address.host()?, port, 3 + used))
}

enum Address<'a> {
    Ip(IpAddr),
    Name(&'a [u8]),
}

impl Address<'_> {
    fn host(&self) -> Result<Host, Refused> {
        match self {
            Address::Ip(address) => Ok(Host::Address(*address)),
            // some clients put literals here
            Address::Name(text) => parse_host(text).map_err(Refused::Host),
        }
    }
}

fn parse_address(bytes: &[u8]) -> Result<(Address<'_>, u16, usize), Refused> {
    let (kind, rest) = bytes.split_first().ok_or(Refused::Short)?;
    let (address, length) = match kind {
        1 => (Address::Ip(Ipv4Addr::from(*rest.first_chunk::<4>().ok_or(Refused::Short)?).into()), 4),
        4 => (Address::Ip(Ipv6Addr::from(*rest.first_chunk::<16>().ok_or(Refused::Short)?).into()), 16),
        3 => {
            let length = usize::from(*rest.first().ok_or(Refused::Short)?);
            (Address::Name(rest.get(1..=length).ok_or(Refused::Short)?), 1 + length)
        }
        _ => return Err(Refused::AddressType),
    };
    let port = *rest.get(length..).and_then(<[u8]>::first_chunk::<2>).ok_or(Refused::Short)?;
    Ok((address, u16::from_be_bytes(port), 1 + length + 2))
}

/// The reply field of RFC 1928 §6 for the end of an attempt. What is not visible looks like a name that does not exist.
pub fn reply_code(code: Code) -> u8 {
    match code {
        Code::Ok => 0,
        Code::DeniedByDefault
        | Code::ForbiddenByRule
        | Code::ConditionFailed
        | Code::StepUpRequired
        | Code::NotInSegment
        | Code::AddressForbidden
        | Code::SessionRevoked
        | Code::SessionExpired
        | Code::KillSwitch => 2,
        Code::ExchangeUnreachable | Code::NoConnector | Code::NoCarrier | Code::DialUnreachable => 3,
        Code::NotFound | Code::NameUnresolved | Code::HostMalformed => 4,
        Code::DialRefused | Code::SegmentUnhealthy => 5,
        Code::DialTimeout => 6,
        _ => 1,
    }
}

pub(in crate::edge) fn write_reply(reply: u8, bound: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION, reply, 0];
    write_address(&mut bytes, &Host::Address(bound.ip()), bound.port());
    bytes
}

pub(in crate::edge) fn write_address(bytes: &mut Vec<u8>, host: &Host, port: u16) {
    match host {
        Host::Address(IpAddr::V4(address)) => {
            bytes.push(1);
            bytes.extend(address.octets());
        }
        Host::Address(IpAddr::V6(address)) => {
            bytes.push(4);
            bytes.extend(address.octets());
        }
        Host::Name(name) => {
            bytes.push(3);
            // a name is at most 253 bytes long
            bytes.push(u8::try_from(name.as_str().len()).unwrap_or(u8::MAX));
            bytes.extend(name.as_str().as_bytes());
        }
    }
    bytes.extend(port.to_be_bytes());
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_need_all_their_bytes_and_take_no_more() {
        let greeting = [5, 2, 0, 2, 0xaa];
        let password = [1, 2, b'u', b'v', 3, b'a', b'b', b'c', 0xaa];
        let request = [5, 1, 0, 3, 1, b'a', 0, 80, 0xaa];
        let datagram = [0, 0, 0, 1, 192, 0, 2, 1, 0, 53, 0xaa];
        for length in 0..4 {
            assert_eq!(parse_greeting(&greeting[..length]).unwrap_err(), Refused::Short);
        }
        for length in 0..8 {
            assert_eq!(parse_password(&password[..length]).unwrap_err(), Refused::Short);
            assert_eq!(parse_request(&request[..length]).unwrap_err(), Refused::Short, "{length}");
        }
        assert_eq!(parse_greeting(&greeting).unwrap(), (&[0u8, 2][..], 4));
        assert_eq!(parse_password(&password).unwrap(), (&b"abc"[..], 8));
        assert_eq!(parse_request(&request).unwrap(), (Request::Connect("a".parse().unwrap(), 80), 8));
        assert_eq!(parse_datagram(&datagram).unwrap(), ("192.0.2.1".parse().unwrap(), 53, 10));
    }

    #[test]
    fn other_versions_commands_and_fragments_are_refused() {
        assert_eq!(parse_greeting(&[4, 1, 0]).unwrap_err(), Refused::Version);
        assert_eq!(parse_password(&[2, 0, 0]).unwrap_err(), Refused::Version);
        assert_eq!(parse_request(&[5, 2, 0, 1]).unwrap_err(), Refused::Command);
        assert_eq!(parse_request(&[5, 1, 0, 2]).unwrap_err(), Refused::AddressType);
        assert_eq!(parse_request(&[5, 1, 0, 1, 1, 2, 3, 4, 0, 0]).unwrap_err(), Refused::Host(Malformed::Port));
        assert!(matches!(parse_request(&[5, 1, 0, 3, 3, b'1', b'.', b'2', 0, 80]), Err(Refused::Host(_))));
        assert_eq!(parse_datagram(&[0, 0, 1, 1]).unwrap_err(), Refused::Fragment);
    }

    #[test]
    fn case_68_not_visible_and_not_existing_have_one_reply() {
        assert_eq!(reply_code(Code::NotFound), reply_code(Code::NameUnresolved));
        assert_eq!(reply_code(Code::ForbiddenByRule), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            let _ = (parse_greeting(&bytes), parse_password(&bytes), parse_request(&bytes), parse_datagram(&bytes));
        }

        #[test]
        fn written_address_reads_back(host in "[a-z]{1,20}(\\.[a-z]{1,20}){0,3}", port in 1u16..) {
            let host: Host = host.parse().unwrap();
            let mut bytes = vec![0, 0, 0];
            write_address(&mut bytes, &host, port);
            let used = bytes.len();
            prop_assert_eq!(parse_datagram(&bytes), Ok((host, port, used)));
        }
    }
}
