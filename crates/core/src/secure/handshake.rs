//! The TLS 1.3 handshake over a carrier: rustls does it, then hands out the traffic keys.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::record::record_length;
use super::{Keys, Secure};
use crate::carrier::Carried;
use crate::code::Code;
use crate::pool::Buffer;
use crate::tls::{PeerAlpn, code_of_tls, peer_identity};

/// From the first byte to the last of a tunnel's handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Never sent (no SNI) and never compared: the peer is recognised by the URI SAN of its leaf.
const NAME: &str = "connector.cloister.invalid";

trait Shake {
    type Data;
    fn common(&self) -> &CommonState;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Shake for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn common(&self) -> &CommonState {
        self
    }
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Shake for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn common(&self) -> &CommonState {
        self
    }
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Secure {
    /// Client side. `config` decides which connector is accepted.
    pub async fn connect(io: Carried, config: Arc<ClientConfig>) -> Result<Secure, Code> {
        let name = ServerName::try_from(NAME).map_err(|_| Code::Internal)?;
        let connection = UnbufferedClientConnection::new(config, name).map_err(|error| code_of_tls(&error))?;
        within(async move {
            let (io, connection, early) = shake(io, connection).await?;
            let (peer, alpn) = agreed(&connection)?;
            let (secrets, kernel) = connection.dangerous_into_kernel_connection().map_err(|_| Code::Internal)?;
            Secure::new(io, secrets, Keys::Client(kernel), peer, alpn, early)
        })
        .await
    }

    /// Connector side.
    pub async fn accept(io: Carried, config: Arc<ServerConfig>) -> Result<Secure, Code> {
        let connection = UnbufferedServerConnection::new(config).map_err(|error| code_of_tls(&error))?;
        within(async move {
            let (io, connection, early) = shake(io, connection).await?;
            let (peer, alpn) = agreed(&connection)?;
            let (secrets, kernel) = connection.dangerous_into_kernel_connection().map_err(|_| Code::Internal)?;
            Secure::new(io, secrets, Keys::Server(kernel), peer, alpn, early)
        })
        .await
    }
}

async fn within(handshake: impl Future<Output = Result<Secure, Code>>) -> Result<Secure, Code> {
    timeout(HANDSHAKE_DEADLINE, handshake).await.map_err(|_| Code::HandshakeTimeout)?
}

fn agreed(connection: &CommonState) -> Result<(crate::tls::PeerIdentity, PeerAlpn), Code> {
    let peer = peer_identity(connection.peer_certificates().ok_or(Code::HandshakeFailed)?)?;
    Ok((peer, PeerAlpn::of(connection)?))
}

enum Next {
    Again,
    Flush,
    Read,
    Done,
}

/// Drive to the end. What was read beyond it comes back: rustls sees one record at a time and none too many.
async fn shake<S: Shake>(mut io: Carried, mut connection: S) -> Result<(Carried, S, (Buffer, usize, usize)), Code> {
    let mut buffer = Buffer::small();
    let (mut start, mut seen, mut filled) = (0, 0, 0);
    let mut out = Vec::new();
    loop {
        let incoming = buffer.get_mut(start..seen).unwrap_or_default();
        let UnbufferedStatus { discard, state } = connection.process(incoming);
        let next = match state {
            Err(error) => {
                send_alert(&mut io, &mut connection).await;
                return Err(code_of_tls(&error));
            }
            Ok(ConnectionState::EncodeTlsData(mut encode)) => {
                let at = out.len();
                if let Err(EncodeError::InsufficientSize(error)) = encode.encode(out.get_mut(at..).unwrap_or_default()) {
                    out.resize(at + error.required_size, 0);
                    encode.encode(out.get_mut(at..).unwrap_or_default()).map_err(|_| Code::Internal)?;
                }
                Next::Again
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                Next::Flush
            }
            Ok(ConnectionState::BlockedHandshake) => Next::Read,
            Ok(ConnectionState::WriteTraffic(_)) => Next::Done,
            Ok(_) => return Err(Code::HandshakeFailed),
        };
        start += discard;
        match next {
            Next::Again => {}
            Next::Flush => {
                io.write_all(&out).await.map_err(|_| Code::TunnelLost)?;
                io.flush().await.map_err(|_| Code::TunnelLost)?;
                out.clear();
            }
            Next::Done if !connection.common().is_handshaking() => return Ok((io, connection, (buffer, seen, filled))),
            // A server may write before the client's part is complete; ours does not.
            Next::Done | Next::Read => {
                if start == filled {
                    (start, seen, filled) = (0, 0, 0);
                }
                loop {
                    let waiting = buffer.get(seen..filled).unwrap_or_default();
                    if let Some(length) = record_length(waiting).map_err(|_| Code::HandshakeFailed)?
                        && length <= waiting.len()
                    {
                        seen += length;
                        break;
                    }
                    let count = io.read(buffer.get_mut(filled..).unwrap_or_default()).await.map_err(|_| Code::TunnelLost)?;
                    if count == 0 {
                        // Either the peer left or its handshake messages exceed what any honest one sends.
                        return Err(Code::HandshakeFailed);
                    }
                    filled += count;
                }
            }
        }
    }
}

/// Tell the peer why, if that takes no waiting.
async fn send_alert<S: Shake>(io: &mut Carried, connection: &mut S) {
    let mut out = vec![0; 256];
    if let Ok(ConnectionState::EncodeTlsData(mut encode)) = connection.process(&mut []).state
        && let Ok(count) = encode.encode(&mut out)
    {
        let _ = io.write_all(out.get(..count).unwrap_or_default()).await;
        let _ = io.flush().await;
    }
}
