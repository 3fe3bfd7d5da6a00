//! The connector's end of tunnels: handshake, first HELLO or resumption, and HTTP/2 on top.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use h2::{Reason, RecvStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::request::MAX_HEADER_LIST;
use super::stream::{Flusher, Handle, State, Stream};
use super::windows::{CONNECTION_WINDOW, FIRST_WINDOW, MAX_FLOWS, MAX_FRAME, Windows, measure};
use crate::carrier::Carried;
use crate::code::Code;
use crate::connector::Plane;
use crate::connector::authority::Peer;
use crate::connector::serve::{MAX_OPENING, Tunnel};
use crate::ids::Id;
use crate::resume::{HELLO_BYTES, Hello, Refusal, TunnelId};
use crate::secure::Secure;
use crate::tls::{Leg, PeerAlpn};

/// Tunnels of one connector, suspended ones included.
pub const MAX_TUNNELS: usize = 8192;
/// Tunnels of one client.
pub const MAX_CLIENT_TUNNELS: usize = 16;
/// From the end of the TLS handshake to the first HELLO and to HTTP/2's preface.
const PREFACE_DEADLINE: Duration = Duration::from_secs(5);
/// Requests of one tunnel that the client may take back while they are opened, per `CHURN_TIME`: more is an attack (CVE-2023-44487).
const MAX_CHURN: usize = 1000;
const CHURN_TIME: Duration = Duration::from_secs(10);
/// Bytes of one flow that HTTP/2 holds for the carrier.
const SEND_BUFFER: usize = 256 << 10;

/// Streams that were reset here and whose late frames are still expected.
pub const REMEMBERED_RESETS: usize = 1024;
pub const REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// Frames for forgotten streams, and other faults of single streams, after which a tunnel ends.
pub const MAX_STRAY: usize = 65_536;

/// What a tunnel has that is more than plain HTTP/2.
struct Resumable {
    handle: Handle,
    flusher: Flusher,
}

/// A tunnel that can be resumed.
struct Entry {
    peer: Peer,
    handle: Handle,
}

/// The tunnels of one connector.
#[derive(Default)]
pub struct Tunnels {
    resumable: HashMap<TunnelId, Entry>,
    /// How many of the others each client has.
    plain: HashMap<Id, usize>,
}

impl Tunnels {
    fn room_for(&self, client: Id) -> bool {
        let own = self.resumable.values().filter(|entry| entry.peer.client == client).count();
        self.len() < MAX_TUNNELS && own + self.plain.get(&client).copied().unwrap_or_default() < MAX_CLIENT_TUNNELS
    }

    /// End the tunnels of these clients; how many.
    pub fn end_clients(&self, over: impl Fn(Id) -> bool, code: Code) -> usize {
        let ended = self.resumable.values().filter(|entry| over(entry.peer.client));
        ended.map(|entry| entry.handle.end(code)).count()
    }

    /// End without a word, as a process that dies.
    #[cfg(test)]
    pub(crate) fn vanish(&mut self) {
        self.resumable.drain().for_each(|(_, entry)| entry.handle.vanish());
    }

    pub fn len(&self) -> usize {
        self.resumable.len() + self.plain.values().sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Plane {
    /// Serve a carrier from its hand-over to its end, or hand it to the tunnel that it resumes.
    pub async fn accept(self: Arc<Self>, io: Carried) {
        self.stats.handshakes.add(1);
        let Ok(config) = self.trust.server_config(Leg::Tunnel) else { return };
        let secure = match Secure::accept(io, config).await {
            Ok(secure) => secure,
            Err(code) => {
                self.stats.handshakes_failed.add(1);
                tracing::debug!(code = code.as_str(), "tunnel handshake failed");
                return;
            }
        };
        let proved = secure.peer();
        let peer = Peer { client: proved.id, key: proved.thumbprint, leaf: proved.fingerprint.as_str().into() };
        match secure.alpn() {
            PeerAlpn::PlainH2 => {
                let Some(_entered) = EnteredPlain::new(&self, peer.client) else { return };
                self.serve_tunnel(peer, secure, None).await;
            }
            PeerAlpn::Resumable => self.greet(peer, secure).await,
        }
    }

    async fn greet(self: Arc<Self>, peer: Peer, mut secure: Secure) {
        let mut frame = [0; HELLO_BYTES];
        let Ok(Ok(_)) = timeout(PREFACE_DEADLINE, secure.read_exact(&mut frame)).await else { return };
        let Ok(hello) = Hello::decode(&frame) else { return };
        let refused = {
            let mut tunnels = self.tunnels();
            match tunnels.resumable.get(&hello.tunnel) {
                // Only the same client with the same key goes on with a tunnel.
                Some(entry) if entry.peer.client == peer.client && entry.peer.key == peer.key => {
                    self.stats.tunnels_resumed.add(1);
                    entry.handle.resume(secure, hello);
                    return;
                }
                Some(_) => Err(secure),
                None if !tunnels.room_for(peer.client) => Err(secure),
                None => match Stream::accept(secure, &hello) {
                    Ok((stream, handle)) => {
                        tunnels.resumable.insert(hello.tunnel, Entry { peer: peer.clone(), handle: handle.clone() });
                        Ok((stream, handle))
                    }
                    Err(secure) => Err(*secure),
                },
            }
        };
        match refused {
            Ok((stream, handle)) => {
                let _entered = Entered { plane: Arc::clone(&self), tunnel: hello.tunnel };
                let resumable = Resumable { handle, flusher: stream.flusher() };
                self.serve_tunnel(peer, stream, Some(resumable)).await;
            }
            Err(mut secure) => {
                let mut frame = Vec::new();
                Refusal::UnknownTunnel.encode(&mut frame);
                let _ = timeout(PREFACE_DEADLINE, async {
                    secure.write_all(&frame).await?;
                    secure.shutdown().await
                })
                .await;
            }
        }
    }

    async fn serve_tunnel(self: &Arc<Self>, peer: Peer, io: impl AsyncRead + AsyncWrite + Unpin, resumable: Option<Resumable>) {
        let builder = server();
        let handshake = builder.handshake(io);
        let Ok(Ok(mut connection)) = timeout(PREFACE_DEADLINE, handshake).await else { return };
        self.stats.tunnels.add(1);
        self.stats.tunnels_opened.add(1);
        let tunnel = Arc::new(Tunnel::new(peer, resumable.as_ref().map(|resumable| resumable.handle.clone())));
        if let Some(pings) = connection.ping_pong() {
            tokio::spawn(measure(pings, Arc::downgrade(&tunnel.load)));
        }
        let end = self.serve_requests(&tunnel, &mut connection, resumable).await;
        self.stats.tunnels.sub(1);
        if let Err(error) = end {
            tracing::debug!(%error, "tunnel ended");
        }
    }

    async fn serve_requests<IO: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        tunnel: &Arc<Tunnel>,
        connection: &mut Connection<IO, Bytes>,
        resumable: Option<Resumable>,
    ) -> Result<(), h2::Error> {
        let mut windows = Windows::default();
        let mut churn_since = tokio::time::Instant::now();
        let (handle, flusher) = resumable.map(|resumable| (resumable.handle, resumable.flusher)).unzip();
        let mut given_up = Box::pin(abandoned_while_idle(Arc::clone(tunnel), handle));
        loop {
            let accepted = tokio::select! {
                biased;
                () = tunnel.changed.notified() => None,
                () = &mut given_up => return Ok(()),
                accepted = poll_fn(|cx| {
                    windows.change(cx, &tunnel.load, |window| connection.set_initial_window_size(window).is_ok());
                    let mut accepted = connection.poll_accept(cx);
                    while accepted.is_pending()
                        && windows.change(cx, &tunnel.load, |window| connection.set_initial_window_size(window).is_ok())
                    {
                        accepted = connection.poll_accept(cx);
                    }
                    if let (Poll::Pending, Some(flusher)) = (&accepted, &flusher) {
                        flusher.flush(cx);
                    }
                    accepted
                }) => match accepted {
                    Some(accepted) => Some(accepted?),
                    None => return Ok(()),
                },
            };
            if churn_since.elapsed() > CHURN_TIME {
                churn_since = tokio::time::Instant::now();
                tunnel.abandoned.store(0, Ordering::Relaxed);
            } else if tunnel.abandoned.load(Ordering::Relaxed) > MAX_CHURN {
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let _ = timeout(PREFACE_DEADLINE, poll_fn(|cx| connection.poll_closed(cx))).await;
                return Ok(());
            }
            if let Some((request, respond)) = accepted {
                self.spawn_flow(tunnel, request, respond);
            }
        }
    }

    fn spawn_flow(
        self: &Arc<Self>,
        tunnel: &Arc<Tunnel>,
        request: http::Request<RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) {
        if tunnel.opening.load(Ordering::Relaxed) >= MAX_OPENING {
            let _ = respond.send_response(super::request::refusal(Code::TooManyFlows), true);
            return;
        }
        tunnel.load.flows.fetch_add(1, Ordering::Relaxed);
        let (plane, guard) = (Arc::clone(self), FlowGuard(Arc::clone(tunnel)));
        tokio::spawn(async move {
            plane.serve(Arc::clone(&guard.0), request, respond).await;
            drop(guard);
        });
    }
}

/// Counts a flow out.
struct FlowGuard(Arc<Tunnel>);

impl Drop for FlowGuard {
    fn drop(&mut self) {
        self.0.load.leave();
    }
}

/// Takes the tunnel out of the table when it is over.
struct Entered {
    plane: Arc<Plane>,
    tunnel: TunnelId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.plane.tunnels().resumable.remove(&self.tunnel);
    }
}

/// Counts a tunnel that cannot be resumed, and counts it out.
struct EnteredPlain {
    plane: Arc<Plane>,
    client: Id,
}

impl EnteredPlain {
    /// None at the bound.
    fn new(plane: &Arc<Plane>, client: Id) -> Option<EnteredPlain> {
        let mut tunnels = plane.tunnels();
        if !tunnels.room_for(client) {
            return None;
        }
        *tunnels.plain.entry(client).or_default() += 1;
        Some(EnteredPlain { plane: Arc::clone(plane), client })
    }
}

impl Drop for EnteredPlain {
    fn drop(&mut self) {
        let mut tunnels = self.plane.tunnels();
        if let Some(count) = tunnels.plain.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                tunnels.plain.remove(&self.client);
            }
        }
    }
}

/// A suspended tunnel without flows has nothing to wait for.
async fn abandoned_while_idle(tunnel: Arc<Tunnel>, handle: Option<Handle>) {
    /// Long enough for a client to come back that has just lost its carrier.
    const GRACE: Duration = Duration::from_secs(10);
    let Some(mut handle) = handle else { return std::future::pending().await };
    loop {
        handle.changed_from(State::Up).await;
        tokio::time::sleep(GRACE).await;
        if handle.state() != State::Up && tunnel.load.flows() == 0 {
            return;
        }
    }
}

fn server() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(FIRST_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(MAX_FLOWS as u32)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(REMEMBERED_FOR)
        .max_pending_accept_reset_streams(MAX_OPENING)
        .max_local_error_reset_streams(Some(MAX_STRAY))
        .enable_connect_protocol();
    builder
}
