//! The client's end of one tunnel: HTTP/2 over the resumable stream, redialled when its carrier is lost.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderValue, StatusCode};
use tokio::time::{sleep, timeout};

use super::connector::{MAX_STRAY, REMEMBERED_FOR, REMEMBERED_RESETS};
use super::request::{self, MAX_HEADER_LIST};
use super::stream::{Handle, State, Stream};
use super::windows::{CONNECTION_WINDOW, FIRST_WINDOW, Load, MAX_FLOWS, MAX_FRAME, Windows, measure};
use crate::code::Code;
use crate::connector::parking::jitter;
use crate::flow::Waiting;
use crate::flow::pump::End;
use crate::host::{Destination, Protocol};
use crate::ids::Id;
use crate::resume::TunnelId;
use crate::secure::Secure;

/// Streams after which a tunnel takes no new flows and another is made; HTTP/2 has ids for 2^30.
pub const MAX_STREAMS: u64 = 1 << 29;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
const SEND_BUFFER: usize = 256 << 10;
const REDIAL_FIRST: Duration = Duration::from_millis(100);
const REDIAL_MOST: Duration = Duration::from_secs(5);
/// From a new carrier to its acceptance by the connector.
const RESUME_PATIENCE: Duration = Duration::from_secs(6);

/// Brings carriers to one connector, by whatever relay.
pub trait Route: Send + Sync + 'static {
    /// A fresh carrier with the inner handshake done, and the relay it goes through.
    fn carrier(&self) -> Waiting<'_, Result<(Secure, Id), Code>>;

    /// The tunnel's state has changed.
    fn changed(&self, state: State, relay: Id);
}

/// A tunnel to one connector.
pub struct Tunnel {
    send: SendRequest<Bytes>,
    handle: Handle,
    /// Sessions whose ticket the connector has.
    announced: Mutex<HashSet<Id>>,
    streams: AtomicU64,
    max_streams: u64,
    load: Arc<Load>,
}

/// Both directions of an accepted stream.
pub struct Opened {
    pub send: SendStream<Bytes>,
    pub receive: RecvStream,
}

impl Tunnel {
    /// Dial the first carrier and start HTTP/2 on it.
    pub async fn open(route: Arc<dyn Route>, max_streams: u64) -> Result<Arc<Tunnel>, Code> {
        let (secure, relay) = route.carrier().await?;
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| Code::Internal)?;
        let (stream, handle) = Stream::dial(secure, TunnelId(id));
        let flusher = stream.flusher();
        let builder = client();
        let handshake = timeout(HANDSHAKE_DEADLINE, builder.handshake::<_, Bytes>(stream)).await;
        let (send, mut connection) = handshake.map_err(|_| Code::TunnelLost)?.map_err(|_| Code::TunnelLost)?;
        let load = Arc::new(Load::default());
        let tunnel = Arc::new(Tunnel {
            send,
            handle: handle.clone(),
            announced: Mutex::default(),
            streams: AtomicU64::new(0),
            max_streams,
            load: Arc::clone(&load),
        });
        if let Some(pings) = connection.ping_pong() {
            tokio::spawn(measure(pings, Arc::downgrade(&load)));
        }
        // Holds no tunnel: once nobody else does, and its streams are through, the connection ends in order.
        tokio::spawn(async move {
            let mut windows = Windows::default();
            let end = poll_fn(|cx| {
                windows.change(cx, &load, |window| connection.set_initial_window_size(window).is_ok());
                let mut end = Pin::new(&mut connection).poll(cx);
                while end.is_pending() && windows.change(cx, &load, |window| connection.set_initial_window_size(window).is_ok()) {
                    end = Pin::new(&mut connection).poll(cx);
                }
                flusher.flush(cx);
                end
            });
            if let Err(error) = end.await {
                tracing::debug!(%error, "tunnel ended");
            }
        });
        route.changed(State::Up, relay);
        tokio::spawn(redial(route, handle, relay));
        Ok(tunnel)
    }

    fn announced(&self) -> MutexGuard<'_, HashSet<Id>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> State {
        self.handle.state()
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether it takes new flows, now or after its carrier is replaced.
    pub fn is_usable(&self) -> bool {
        !matches!(self.state(), State::Ended(_))
            && self.streams.load(Ordering::Relaxed) < self.max_streams
            && self.load.flows() < MAX_FLOWS
    }

    pub fn flows(&self) -> usize {
        self.load.flows()
    }

    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    pub fn knows(&self, session: Id) -> bool {
        self.announced().contains(&session)
    }

    pub fn forget(&self, session: Id) {
        self.announced().remove(&session);
    }

    /// Open a flow under a session. The ticket goes along until the connector has accepted it once.
    pub async fn flow(&self, destination: &Destination, session: Id, ticket: &HeaderValue) -> Result<Opened, Code> {
        let known = self.knows(session);
        match self.ask(destination, session, (!known).then_some(ticket)).await {
            // The connector has lost what it knew, or what it knew has expired.
            Err(Code::TicketMissing | Code::TicketExpired) if known => {
                self.forget(session);
                self.ask(destination, session, Some(ticket)).await
            }
            result => result,
        }
    }

    async fn ask(&self, destination: &Destination, session: Id, ticket: Option<&HeaderValue>) -> Result<Opened, Code> {
        self.load.borne().await;
        let mut send = self.send.clone().ready().await.map_err(|_| Code::TunnelLost)?;
        if destination.protocol() == Protocol::Udp && !send.is_extended_connect_protocol_enabled() {
            // The connector's first SETTINGS are still under way.
            self.settled().await;
        }
        self.streams.fetch_add(1, Ordering::Relaxed);
        let request = request::flow(destination, session, ticket)?;
        let (response, stream) = send.send_request(request, false).map_err(|error| lost(&error))?;
        let response = response.await.map_err(|error| lost(&error))?;
        if response.status() != StatusCode::OK {
            return Err(request::reason(response.headers()));
        }
        if ticket.is_some() {
            self.announced().insert(session);
        }
        Ok(Opened { send: stream, receive: response.into_body() })
    }

    /// Wait, but not for ever, until the connector has said that it takes extended CONNECT.
    async fn settled(&self) {
        for _ in 0..100 {
            if self.send.is_extended_connect_protocol_enabled() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Bring a renewed ticket.
    pub async fn renew(&self, session: Id, ticket: &HeaderValue) -> Result<(), Code> {
        let mut send = self.send.clone().ready().await.map_err(|_| Code::TunnelLost)?;
        self.streams.fetch_add(1, Ordering::Relaxed);
        let (response, _) = send.send_request(request::renewal(session, ticket)?, true).map_err(|error| lost(&error))?;
        let response = response.await.map_err(|error| lost(&error))?;
        if response.status().is_success() { Ok(()) } else { Err(request::reason(response.headers())) }
    }

    pub fn enter(self: &Arc<Self>) -> FlowGuard {
        self.load.flows.fetch_add(1, Ordering::Relaxed);
        FlowGuard(Arc::clone(self))
    }
}

/// One flow of a tunnel; the tunnel lives at least as long.
pub struct FlowGuard(Arc<Tunnel>);

impl FlowGuard {
    pub fn tunnel(&self) -> &Tunnel {
        &self.0
    }
}

impl Drop for FlowGuard {
    fn drop(&mut self) {
        self.0.load.leave();
    }
}

fn lost(error: &h2::Error) -> Code {
    End::Client.code_of(error)
}

fn client() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(FIRST_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(REMEMBERED_FOR)
        .max_local_error_reset_streams(Some(MAX_STRAY))
        .enable_push(false);
    builder
}

/// Bring a new carrier whenever one is lost, until the tunnel has ended.
async fn redial(route: Arc<dyn Route>, mut handle: Handle, mut relay: Id) {
    loop {
        let state = handle.changed_from(State::Up).await;
        route.changed(state, relay);
        let mut pause = REDIAL_FIRST;
        while handle.state() == State::Suspended {
            match route.carrier().await {
                Ok((secure, by)) => {
                    relay = by;
                    handle.attach(secure);
                    let _ = timeout(RESUME_PATIENCE, handle.changed_from(State::Suspended)).await;
                }
                Err(code) => {
                    tracing::debug!(code = code.as_str(), "redial failed");
                    sleep(jitter(pause)).await;
                    pause = (pause * 2).min(REDIAL_MOST);
                }
            }
        }
        let state = handle.state();
        if state != State::Suspended {
            route.changed(state, relay);
        }
        if matches!(state, State::Ended(_)) {
            return;
        }
    }
}
