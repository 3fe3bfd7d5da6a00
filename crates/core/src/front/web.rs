//! The web behind the public port: TLS ends here, plain HTTP/1.1 goes on to a UNIX socket behind a PROXY v2 header.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader, copy_buf, sink, split};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::carrier::RecordIo;

const BUFFER: usize = 16 << 10;
/// How long a client may go on once the web has ended the connection: time for the last bytes, not for holding a place.
const LINGER: Duration = Duration::from_secs(2);

pub(super) async fn forward(tls: TlsStream<RecordIo>, socket: &Path, source: SocketAddr, target: SocketAddr) {
    let Ok(mut web) = UnixStream::connect(socket).await else { return };
    if web.write_all(&proxy_header(source, target)).await.is_err() {
        return;
    }
    let (from_client, mut to_client) = split(tls);
    let (from_web, mut to_web) = web.split();
    let (mut from_client, mut from_web) =
        (BufReader::with_capacity(BUFFER, from_client), BufReader::with_capacity(BUFFER, from_web));
    let mut up = pin!(async {
        let _ = copy_buf(&mut from_client, &mut to_web).await;
        let _ = to_web.shutdown().await;
        // What the web does not want any more is thrown away, so that its last answer is not lost in a reset.
        let _ = copy_buf(&mut from_client, &mut sink()).await;
    });
    let mut down = pin!(async {
        let _ = copy_buf(&mut from_web, &mut to_client).await;
        let _ = to_client.shutdown().await;
    });
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => drop(timeout(LINGER, up).await),
    }
}

/// PROXY protocol version 2, command PROXY, TCP (haproxy's proxy-protocol.txt §2.2).
pub(super) fn proxy_header(source: SocketAddr, target: SocketAddr) -> Vec<u8> {
    const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
    let (family, addresses) = match (source.ip().to_canonical(), target.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => (0x11, [source.octets(), target.octets()].concat()),
        (source, target) => (0x21, [six(source), six(target)].concat()),
    };
    let ports = [source.port().to_be_bytes(), target.port().to_be_bytes()].concat();
    let length = u16::try_from(addresses.len() + ports.len()).unwrap_or_default();
    [SIGNATURE.as_slice(), &[0x21, family], &length.to_be_bytes(), &addresses, &ports].concat()
}

fn six(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_header_carries_the_real_source() {
        let header = proxy_header(SocketAddr::from(([192, 0, 2, 1], 1234)), SocketAddr::from(([192, 0, 2, 2], 443)));
        let expected =
            [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".as_slice(), &[192, 0, 2, 1, 192, 0, 2, 2], &[0x04, 0xd2, 0x01, 0xbb]].concat();
        assert_eq!(header, expected);
        let six = proxy_header(
            "[2001:db8::1]:1".parse().unwrap_or(SocketAddr::from(([0; 4], 0))),
            SocketAddr::from(([192, 0, 2, 2], 443)),
        );
        assert_eq!((six.get(13), six.len()), (Some(&0x21), 16 + 36));
    }
}
