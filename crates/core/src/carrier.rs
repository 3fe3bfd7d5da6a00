//! One end of a carrier: a client joins, a connector parks; both end with a bare byte stream to the other (ARCHITECTURE.md, "Carriers").

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsStream;

use crate::code::Code;
use crate::dial::{Address, DIAL_DEADLINE, Dialer, handshake};
use crate::frame::{CarrierFrame, FromClient, FromConnector, ToClient, ToConnector, carrier_length};
use crate::ids::{Id, Role};
use crate::tls::{Leg, PeerIdentity, Trust, code_of_io, code_of_tls, peer_identity};

/// A client's wait for `go`: the relay's own deadlines end before.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// A connector's wait for the relay's next ping (every 10 s) or `go`.
const PARK_SILENCE: Duration = Duration::from_secs(15);

/// TCP under the outer TLS, read at most one TLS record at a time: at the hand-over the next layer's bytes are still in the kernel.
#[derive(Debug)]
pub struct RecordIo {
    tcp: TcpStream,
    pace: Pace,
}

#[derive(Debug)]
enum Pace {
    /// In a record's 5-byte header (RFC 8446 §5.1), so many bytes of it seen.
    Header([u8; 5], usize),
    /// So many bytes of the record left.
    Body(usize),
    /// No hand-over to come: read what there is.
    Free,
}

impl RecordIo {
    pub fn new(tcp: TcpStream) -> RecordIo {
        RecordIo { tcp, pace: Pace::Header([0; 5], 0) }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// No hand-over will come.
    pub fn read_freely(&mut self) {
        self.pace = Pace::Free;
    }
}

impl AsyncRead for RecordIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let most = match this.pace {
            Pace::Free => return Pin::new(&mut this.tcp).poll_read(cx, buf),
            Pace::Header(_, seen) => 5usize.saturating_sub(seen),
            Pace::Body(left) => left,
        };
        let most = most.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut part))?;
        let got = part.filled();
        let count = got.len();
        this.pace = match this.pace {
            Pace::Free => Pace::Free,
            Pace::Body(left) if left > count => Pace::Body(left - count),
            Pace::Body(_) => Pace::Header([0; 5], 0),
            Pace::Header(mut header, seen) => {
                header.iter_mut().skip(seen).zip(got).for_each(|(slot, byte)| *slot = *byte);
                match (header, seen + count) {
                    ([_, _, _, 0, 0], 5) => Pace::Header([0; 5], 0),
                    ([_, _, _, high, low], 5) => Pace::Body(usize::from(u16::from_be_bytes([high, low]))),
                    (header, seen) => Pace::Header(header, seen),
                }
            }
        };
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RecordIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, data)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A carrier between its outer handshake and the hand-over: frames inside the outer TLS.
#[derive(Debug)]
pub struct Framed {
    tls: Box<TlsStream<RecordIo>>,
    /// A frame read so far.
    partial: Vec<u8>,
}

impl Framed {
    pub fn new(tls: impl Into<TlsStream<RecordIo>>) -> Framed {
        Framed { tls: Box::new(tls.into()), partial: Vec::new() }
    }

    /// Who the peer proved to be.
    pub fn peer(&self) -> Result<PeerIdentity, Code> {
        peer_identity(self.tls.get_ref().1.peer_certificates().ok_or(Code::HandshakeFailed)?)
    }

    pub fn tcp(&self) -> &TcpStream {
        self.tls.get_ref().0.tcp()
    }

    /// The next frame. May be dropped half-way and called again: what was read stays.
    pub async fn read<F: CarrierFrame>(&mut self) -> Result<F, Code> {
        loop {
            let want = match self.partial.split_first_chunk::<2>() {
                None => 2,
                Some((head, json)) => {
                    let length = carrier_length(*head)?;
                    if json.len() == length {
                        let frame = F::parse(json);
                        self.partial.clear();
                        return frame;
                    }
                    2 + length
                }
            };
            let mut rest = (&mut self.tls).take((want - self.partial.len()) as u64);
            if rest.read_buf(&mut self.partial).await.map_err(|error| code_of_read(&error))? == 0 {
                return Err(Code::TunnelLost);
            }
        }
    }

    pub async fn write<F: CarrierFrame>(&mut self, frame: &F) -> Result<(), Code> {
        self.write_bytes(&frame.to_bytes()?).await
    }

    pub(crate) async fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Code> {
        self.tls.write_all(bytes).await.map_err(|_| Code::TunnelLost)?;
        self.tls.flush().await.map_err(|_| Code::TunnelLost)
    }

    #[cfg(test)]
    pub(crate) async fn half_close(&mut self) {
        let _ = self.tls.shutdown().await;
    }

    /// Ends the outer TLS in order, as far as the peer lets us.
    pub async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.tls.shutdown()).await;
    }

    /// Leaves the frames behind. Raw: the connection must stand exactly between two TLS records, with nothing read ahead.
    pub fn hand_over(mut self, wrapped: bool) -> Result<Carried, Code> {
        let waiting = match &mut *self.tls {
            TlsStream::Client(stream) => stream.get_mut().1.process_new_packets(),
            TlsStream::Server(stream) => stream.get_mut().1.process_new_packets(),
        };
        let waiting = waiting.map_err(|error| code_of_tls(&error))?.plaintext_bytes_to_read();
        let (io, connection) = self.tls.get_mut();
        let between_records = matches!(io.pace, Pace::Header(_, 0));
        if waiting != 0 || !self.partial.is_empty() || connection.wants_write() || !between_records {
            return Err(Code::ProtocolError);
        }
        if wrapped {
            io.read_freely();
            return Ok(Carried::Wrapped(self.tls));
        }
        Ok(Carried::Raw(match *self.tls {
            TlsStream::Client(stream) => stream.into_inner().0.tcp,
            TlsStream::Server(stream) => stream.into_inner().0.tcp,
        }))
    }
}

/// What carries a tunnel's bytes after the hand-over.
#[derive(Debug)]
pub enum Carried {
    Raw(TcpStream),
    /// Inside the outer TLS, for networks that break what they cannot parse.
    Wrapped(Box<TlsStream<RecordIo>>),
}

impl Carried {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Carried::Raw(tcp) => tcp,
            Carried::Wrapped(tls) => tls.get_ref().0.tcp(),
        }
    }
}

impl AsyncRead for Carried {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Carried::Raw(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Carried::Wrapped(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Carried::Raw(tcp) => Pin::new(tcp).poll_write(cx, data),
            Carried::Wrapped(tls) => Pin::new(tls).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Carried::Raw(tcp) => Pin::new(tcp).poll_write_vectored(cx, data),
            Carried::Wrapped(tls) => Pin::new(tls).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Carried::Raw(tcp) => tcp.is_write_vectored(),
            Carried::Wrapped(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Carried::Raw(tcp) => Pin::new(tcp).poll_flush(cx),
            Carried::Wrapped(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Carried::Raw(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Carried::Wrapped(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Where a relay is: its id (the only leaf accepted there, if known) and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPlace {
    pub id: Option<Id>,
    pub address: Address,
}

/// What a client asks of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    pub ticket: String,
    /// None: the relay picks among the ticket's connectors.
    pub connector: Option<Id>,
    pub wrapped: bool,
}

/// A joined carrier, client side: the connector it leads to, as the relay says. The client speaks first.
#[derive(Debug)]
pub struct Joined {
    pub io: Carried,
    pub connector: Id,
}

/// Dials a relay and joins; the error is the relay's own reason code where it gave one.
pub async fn join(trust: &Arc<Trust>, dialer: &Dialer, relay: &RelayPlace, request: JoinRequest) -> Result<Joined, Code> {
    let mut framed = dial(trust, dialer, relay, Role::Client).await?;
    let JoinRequest { ticket, connector, wrapped } = request;
    let answer = async {
        framed.write(&FromClient::Join { ticket, connector, wrapped }).await?;
        framed.read().await
    };
    match timeout(JOIN_DEADLINE, answer).await.map_err(|_| Code::HandshakeTimeout)?? {
        ToClient::Refuse { code } => Err(code),
        ToClient::Go { connector: other } if connector.is_some_and(|asked| asked != other) => Err(Code::ProtocolError),
        ToClient::Go { connector } => Ok(Joined { io: framed.hand_over(wrapped)?, connector }),
    }
}

/// A carrier that waits at a relay for a client.
#[derive(Debug)]
pub struct Parked {
    framed: Framed,
}

/// Dials a relay as a connector and parks.
pub async fn park(trust: &Arc<Trust>, dialer: &Dialer, relay: &RelayPlace) -> Result<Parked, Code> {
    let mut framed = dial(trust, dialer, relay, Role::Connector).await?;
    framed.write(&FromConnector::Park {}).await?;
    Ok(Parked { framed })
}

impl Parked {
    /// Answers pings until the relay says `go`, then the client's bytes follow. A relay silent for 15 s is gone.
    pub async fn wait(mut self) -> Result<Carried, Code> {
        loop {
            let frame = timeout(PARK_SILENCE, self.framed.read()).await.map_err(|_| Code::PeerSilent)??;
            match frame {
                ToConnector::Ping { n } => self.framed.write(&FromConnector::Pong { n }).await?,
                ToConnector::Go { wrapped } => {
                    self.framed.write(&FromConnector::Ready {}).await?;
                    return self.framed.hand_over(wrapped);
                }
            }
        }
    }
}

async fn dial(trust: &Arc<Trust>, dialer: &Dialer, relay: &RelayPlace, role: Role) -> Result<Framed, Code> {
    let deadline = Instant::now() + DIAL_DEADLINE;
    let config = trust.client_config(Leg::Carrier, role, relay.id)?;
    let tcp = dialer.connect(&relay.address, deadline).await?;
    let tls = handshake(RecordIo::new(tcp), &relay.address.host, Leg::Carrier, config, deadline).await?;
    Ok(Framed::new(tls))
}

fn code_of_read(error: &io::Error) -> Code {
    match code_of_io(error) {
        Code::HandshakeFailed => Code::TunnelLost,
        code => code,
    }
}
