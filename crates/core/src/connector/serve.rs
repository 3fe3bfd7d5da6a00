//! One request inside a tunnel, from its headers to the record of its end.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::net::UdpSocket;

use super::Plane;
use super::authority::{Admission, Asking, Peer};
use crate::code::Code;
use crate::flow::Local;
use crate::flow::datagrams::Datagrams;
use crate::flow::live::{Endable, Live};
use crate::flow::pump::{End, Moved, Pump};
use crate::host::{Destination, Protocol};
use crate::ids::Id;
use crate::pool::Buffer;
use crate::record::{Kind, Record, Stages};
use crate::ticket::Ticket;
use crate::tunnel::request::{self, Asked, Proof};
use crate::tunnel::stream::{Handle, code_of_end};
use crate::tunnel::windows::Load;

/// Flows of one tunnel that are being opened; more are turned away.
pub const MAX_OPENING: usize = 512;
/// Sessions that one tunnel has shown a ticket of.
pub const MAX_TUNNEL_SESSIONS: usize = 1024;
/// An association that carries nothing for this long is over (RFC 9298 §6.3: two minutes at least).
const UDP_IDLE: Duration = Duration::from_secs(180);
/// One tunnel as its requests see it.
pub struct Tunnel {
    pub peer: Peer,
    pub load: Arc<Load>,
    pub opening: AtomicUsize,
    /// Requests that the client took back while they were being opened; too many of them end the tunnel.
    pub abandoned: AtomicUsize,
    pub changed: tokio::sync::Notify,
    /// Of a tunnel that can be resumed.
    handle: Option<Handle>,
    sessions: Mutex<HashSet<Id>>,
}

impl Tunnel {
    pub fn new(peer: Peer, handle: Option<Handle>) -> Self {
        Self {
            peer,
            load: Arc::default(),
            opening: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
            changed: tokio::sync::Notify::new(),
            handle,
            sessions: Mutex::default(),
        }
    }

    /// Count a session that this tunnel shows a ticket of; those that are over make room. Errors: `limit_reached`.
    fn show(&self, session: Id, is_held: impl Fn(Id) -> bool) -> Result<(), Code> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_TUNNEL_SESSIONS && !sessions.contains(&session) {
            sessions.retain(|&session| is_held(session));
            if sessions.len() >= MAX_TUNNEL_SESSIONS {
                return Err(Code::LimitReached);
            }
        }
        sessions.insert(session);
        Ok(())
    }
}

struct Opening<'a>(&'a Tunnel);

impl<'a> Opening<'a> {
    fn new(tunnel: &'a Tunnel) -> Self {
        tunnel.opening.fetch_add(1, Ordering::Relaxed);
        Self(tunnel)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the records of one flow share.
struct Entry {
    id: Id,
    destination: Destination,
    ticket: Option<Ticket>,
    started: Instant,
    stages: Stages,
}

impl Plane {
    /// Serve one request to its end.
    pub async fn serve(self: Arc<Self>, tunnel: Arc<Tunnel>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        match request::read(&parts) {
            Ok(Asked::Renew { session, ticket }) => self.renew(&tunnel, session, ticket, respond),
            Ok(Asked::Flow { destination, proof }) => {
                let entry = Entry {
                    id: self.next_flow_id(),
                    destination,
                    ticket: None,
                    started: Instant::now(),
                    stages: Stages::default(),
                };
                match entry.destination.protocol() {
                    Protocol::Tcp => {
                        // The opening is boxed, so that a flow at rest does not keep its memory.
                        let opened = Box::pin(self.open_tcp(&tunnel, entry, proof, body, respond)).await;
                        drop(parts);
                        if let Some((entry, live, number)) = opened {
                            let (code, moved) = live.run(&tunnel.load).await;
                            let code = code_of_end(code, tunnel.handle.as_ref());
                            self.close(&tunnel, &entry, number, code, moved);
                        }
                    }
                    Protocol::Udp => Box::pin(self.serve_udp(&tunnel, entry, proof, body, respond)).await,
                }
            }
            Err(code) => refuse(respond, code),
        }
    }

    fn renew(&self, tunnel: &Tunnel, session: Id, ticket: &str, mut respond: SendResponse<Bytes>) {
        let renewed = Ticket::verify(ticket, &self.trust.ticket_keys())
            .and_then(|ticket| self.lock().renew(&tunnel.peer, session, &ticket, self.trust.now()));
        match renewed {
            Ok(()) => drop(respond.send_response(Response::new(()), true)),
            Err(code) => refuse(respond, code),
        }
    }

    /// Judge, and enter the flow among those that its session ends.
    fn admit(
        &self,
        tunnel: &Tunnel,
        entry: &mut Entry,
        proof: Proof<'_>,
        flow: Arc<dyn Endable>,
    ) -> Result<(Admission, u64), Code> {
        let begun = Instant::now();
        let verified = proof.ticket.map(|ticket| Ticket::verify(ticket, &self.trust.ticket_keys())).transpose()?;
        if let Some(ticket) = &verified {
            tunnel.show(ticket.session, |session| self.lock().grants.holds(session))?;
        }
        let full = self.spool.as_ref().is_some_and(|spool| spool.full());
        let asked = Asking { destination: &entry.destination, proof, verified: verified.as_ref() };
        let judged = self.lock().admit(&tunnel.peer, &asked, full, flow, self.trust.now());
        entry.stages.ticket_us = micros(begun.elapsed());
        match judged {
            Ok((admission, number)) => {
                entry.ticket = Some(admission.ticket.clone());
                Ok((admission, number))
            }
            Err((code, ticket)) => {
                entry.ticket = ticket;
                Err(code)
            }
        }
    }

    async fn open_tcp(
        &self,
        tunnel: &Tunnel,
        mut entry: Entry,
        proof: Proof<'_>,
        body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) -> Option<(Entry, Arc<Live>, u64)> {
        let _opening = Opening::new(tunnel);
        let live = Live::new();
        let (admission, number) = match self.admit(tunnel, &mut entry, proof, live.clone()) {
            Ok(admitted) => admitted,
            Err(code) => {
                self.refused(tunnel, &entry, code);
                refuse(respond, code);
                return None;
            }
        };
        let attempt = tokio::select! {
            biased;
            code = live.ended() => Err(code),
            _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
                tunnel.abandoned.fetch_add(1, Ordering::Relaxed);
                tunnel.changed.notify_one();
                Err(Code::ClientReset)
            }
            attempt = async {
                let attempt = self.last_hop.dial_tcp(&entry.destination, &admission.allow).await;
                tunnel.load.borne().await;
                attempt
            } => Ok(attempt),
        };
        let opened = attempt.and_then(|attempt| {
            (entry.stages.resolve_us, entry.stages.dial_us) = (micros(attempt.resolve), micros(attempt.dial));
            attempt.result
        });
        let started = opened.and_then(|tcp| {
            let send = respond.send_response(Response::new(()), false).map_err(|_| Code::TunnelLost)?;
            live.start(Pump::new(End::Connector, Local::Tcp(tcp), send, body, Bytes::new()))
        });
        match started {
            Ok(()) => {
                self.opened(tunnel, &entry);
                Some((entry, live, number))
            }
            Err(code) => {
                if let Some(ticket) = &entry.ticket {
                    self.lock().leave(ticket.session, number);
                }
                self.refused(tunnel, &entry, code);
                refuse(respond, code);
                None
            }
        }
    }

    async fn serve_udp(
        &self,
        tunnel: &Tunnel,
        mut entry: Entry,
        proof: Proof<'_>,
        body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) {
        let live = Live::new();
        let (admission, number) = match self.admit(tunnel, &mut entry, proof, live.clone()) {
            Ok(admitted) => admitted,
            Err(code) => {
                self.refused(tunnel, &entry, code);
                return refuse(respond, code);
            }
        };
        let session = admission.ticket.session;
        let attempt = tokio::select! {
            biased;
            code = live.ended() => Err(code),
            attempt = async {
                let attempt = self.last_hop.dial_udp(&entry.destination, &admission.allow).await;
                tunnel.load.borne().await;
                attempt
            } => Ok(attempt),
        };
        let opened = attempt.and_then(|attempt| {
            (entry.stages.resolve_us, entry.stages.dial_us) = (micros(attempt.resolve), micros(attempt.dial));
            attempt.result
        });
        let accepted = opened.and_then(|socket| {
            let mut response = Response::new(());
            response.headers_mut().insert("capsule-protocol", http::HeaderValue::from_static("?1"));
            let send = respond.send_response(response, false).map_err(|_| Code::TunnelLost)?;
            let datagrams = Arc::new(Datagrams::new(End::Connector, send, body, Arc::clone(&tunnel.load)));
            // From here on the session ends the association itself; if the session is over by now, so is this.
            if self.lock().replace(session, number, datagrams.clone()) {
                Ok((socket, datagrams))
            } else {
                datagrams.end(Code::SessionRevoked);
                Err(Code::SessionRevoked)
            }
        });
        match accepted {
            Ok((socket, datagrams)) => {
                self.opened(tunnel, &entry);
                let code = code_of_end(relay_datagrams(&socket, &datagrams).await, tunnel.handle.as_ref());
                self.stats.datagrams_dropped.add(datagrams.dropped());
                self.close(tunnel, &entry, number, code, datagrams.moved());
            }
            Err(code) => {
                self.lock().leave(session, number);
                self.refused(tunnel, &entry, code);
                refuse(respond, code);
            }
        }
    }

    fn opened(&self, tunnel: &Tunnel, entry: &Entry) {
        self.stats.flows.add(1);
        self.stats.flows_opened.add(1);
        self.record(tunnel, entry, Kind::Open, Code::Ok, Moved::default());
    }

    fn refused(&self, tunnel: &Tunnel, entry: &Entry, code: Code) {
        self.stats.flows_refused.add(1);
        self.record(tunnel, entry, Kind::Refused, code, Moved::default());
    }

    fn close(&self, tunnel: &Tunnel, entry: &Entry, number: u64, code: Code, moved: Moved) {
        if let Some(ticket) = &entry.ticket {
            self.lock().leave(ticket.session, number);
        }
        self.stats.flows.sub(1);
        self.stats.bytes_in.add(moved.received);
        self.stats.bytes_out.add(moved.sent);
        if code != Code::Ok {
            self.stats.flows_reset.add(1);
        }
        self.record(tunnel, entry, Kind::Close, code, moved);
    }

    fn record(&self, tunnel: &Tunnel, entry: &Entry, kind: Kind, code: Code, moved: Moved) {
        let Some(spool) = &self.spool else { return };
        let mut stages = entry.stages;
        stages.first_byte_us = moved.first_byte_us;
        spool.push(&Record {
            at: unix_millis(),
            kind,
            flow: entry.id,
            ticket: entry.ticket.as_ref(),
            device: tunnel.peer.client,
            protocol: entry.destination.protocol(),
            host: &entry.destination.host().to_string(),
            port: entry.destination.port(),
            bytes_in: moved.received,
            bytes_out: moved.sent,
            stages,
            duration_us: micros(entry.started.elapsed()),
            code,
            leaf: &tunnel.peer.leaf,
        });
    }
}

/// Until either side ends or both are silent for long.
async fn relay_datagrams(socket: &UdpSocket, datagrams: &Datagrams) -> Code {
    loop {
        tokio::select! {
            from_client = datagrams.receive() => match from_client {
                // A full socket buffer or an ICMP error of an earlier datagram: UDP loses this one.
                Ok(datagram) => drop(socket.try_send(&datagram)),
                Err(code) => return code,
            },
            readable = socket.readable() => {
                let mut buffer = Buffer::small();
                match readable.and_then(|()| socket.try_recv(&mut buffer)) {
                    Ok(count) => drop(datagrams.send(buffer.get(..count).unwrap_or_default())),
                    // The service's port is closed at the moment; the association is not.
                    Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::WouldBlock) => {}
                    Err(_) => return Code::ServiceReset,
                }
            }
            () = tokio::time::sleep(UDP_IDLE) => {
                datagrams.end(Code::Ok);
                return Code::Ok;
            }
        }
    }
}

fn refuse(mut respond: SendResponse<Bytes>, code: Code) {
    if respond.send_response(request::refusal(code), true).is_err() {
        respond.send_reset(Reason::CANCEL);
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

fn unix_millis() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
