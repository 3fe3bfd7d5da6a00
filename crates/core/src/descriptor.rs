//! A stream socket that another part of the process gives away, as the local end of a flow: what `cloister connect` passes on.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::SocketType;
use tokio::net::UnixStream;

use crate::flow::Local;

/// A connected stream socket, whatever its family. Call it inside a runtime. Errors: anything else, such as a file or a terminal, whose
/// reads would wait on a thread each.
pub fn local(socket: OwnedFd) -> io::Result<Local> {
    if rustix::net::sockopt::socket_type(&socket)? != SocketType::STREAM {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    // The end of the writing half shuts the socket down: the other side sees it while it still may send.
    let (read, write) = UnixStream::from_std(socket)?.into_split();
    Ok(Local::Pair(Box::new(read), Box::new(write)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn carries_bytes_and_the_end_both_ways(ours: OwnedFd, theirs: &mut (impl Read + Write)) {
        let Local::Pair(mut reader, mut writer) = local(ours).unwrap() else { panic!() };
        theirs.write_all(b"in").unwrap();
        let mut got = [0; 2];
        reader.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"in");
        writer.write_all(b"out").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"out");
        assert!(writer.write_all(b"more").await.is_err());
        theirs.write_all(b"still").unwrap();
        let mut got = [0; 5];
        reader.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"still");
    }

    #[tokio::test]
    async fn sockets_of_either_family_carry_bytes_and_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        carries_bytes_and_the_end_both_ways(ours.into(), &mut theirs).await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        carries_bytes_and_the_end_both_ways(ours.into(), &mut listener.accept().unwrap().0).await;
    }

    #[tokio::test]
    async fn what_is_no_stream_socket_is_refused() {
        assert!(local(std::fs::File::open("/dev/null").unwrap().into()).is_err());
        assert!(local(std::io::pipe().unwrap().0.into()).is_err());
        assert!(local(std::os::unix::net::UnixDatagram::pair().unwrap().0.into()).is_err());
    }

    #[test]
    fn what_is_not_open_is_not_adopted() {
        assert!(crate::sys::adopt::adopt(-1).is_err());
        assert!(crate::sys::adopt::adopt(1 << 20).is_err());
    }
}
