//! One TCP connection or UDP association inside a tunnel, as the local entrances see it.
//!
//! An entrance (SOCKS, forward, capture) asks `Flows` for a flow to a destination, answers its own peer once the flow is open,
//! and then hands the local socket over. Nothing here knows of sessions, tickets or tunnels.

pub mod datagrams;
pub mod live;
pub mod pump;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::code::Code;
use crate::host::Destination;

/// A boxed future, because `Flows` is used behind `Arc<dyn Flows>`.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The client's data plane as its entrances see it.
pub trait Flows: Send + Sync + 'static {
    /// Open a TCP flow. Waits for a session if there is none, for a tunnel, and for the connector's dial; bounded by the data plane's own
    /// deadlines (an open never hangs). `NotFound` for anything that is not visible. Dropping the future gives the flow up.
    fn open_tcp(&self, destination: Destination) -> Waiting<'_, Result<Box<dyn TcpFlow>, Code>>;

    /// Open a UDP flow; same rules.
    fn open_udp(&self, destination: Destination) -> Waiting<'_, Result<Box<dyn UdpFlow>, Code>>;
}

/// The local end of a TCP flow.
pub enum Local {
    Tcp(TcpStream),
    /// Two halves that end apart.
    Pair(Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>),
}

/// An open TCP flow. Dropping it without `run` resets it.
pub trait TcpFlow: Send {
    /// Move bytes until both directions ended or the flow was reset. Half-close passes through each way; a reset from the far side resets
    /// the local socket. `early` are bytes that the entrance already read from its peer. Returns `Code::Ok` for a normal end.
    fn run(self: Box<Self>, local: Local, early: Bytes) -> Waiting<'static, Code>;
}

/// An open UDP flow. Dropping it ends it.
pub trait UdpFlow: Send + Sync {
    /// Send one datagram (≤ 65,527 bytes); it is dropped, and false returned, when there is no window or the flow has ended.
    fn send(&self, datagram: Bytes) -> bool;

    /// The next datagram from the far side, or why the flow ended. Cancel safe. One caller at a time.
    fn receive(&self) -> Waiting<'_, Result<Bytes, Code>>;
}
