//! The agent's side: links that are dialled, kept and dialled again.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, sleep};

use super::connection::{Bounds, End, carry};
use super::machine::Backoff;
use super::{Entry, Link, Links, Report};
use crate::code::Code;
use crate::dial::Address;
use crate::frame::{LinkFrame, MAX_LINK_PAYLOAD};
use crate::ids::Role;
use crate::runtime::Runtime;
use crate::tls::{Leg, peer_identity};

impl Links {
    /// Keep a link to the exchange as `role`, for ever; its number.
    ///
    /// Errors: `argument_invalid` (malformed address), `role_mismatch` (control dials nobody).
    pub fn dial(self: &Arc<Self>, runtime: &Runtime, address: &str, role: Role) -> Result<u64, Code> {
        let address = Address::parse(address)?;
        if role == Role::Control {
            return Err(Code::RoleMismatch);
        }
        let mut seed = [0; 8];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| Code::Internal)?;
        let link = self.register(Some(address.clone()));
        let number = link.number;
        let links = self.clone();
        runtime.spawn(async move {
            let _entry = Entry { links: &links, number };
            links.keep(&link, &address, role, Backoff::new(u64::from_ne_bytes(seed))).await;
        });
        Ok(number)
    }

    /// One enrolment link: no certificate of ours, no reconnect. Without `root_sha256` the roots known already must vouch.
    ///
    /// Errors: `argument_invalid`.
    pub fn dial_enrolment(self: &Arc<Self>, runtime: &Runtime, address: &str, root_sha256: Option<[u8; 32]>) -> Result<u64, Code> {
        let address = Address::parse(address)?;
        let config = match root_sha256 {
            Some(root) => self.trust.enrol_config(root),
            None => self.trust.enrol_config_known(),
        }?;
        let link = self.register(Some(address.clone()));
        let number = link.number;
        let links = self.clone();
        runtime.spawn(async move {
            let _entry = Entry { links: &links, number };
            let mut report = Report::new(&links, &link);
            report.end = links.attempt(&link, &address, Leg::Enrol, config).await.0;
        });
        Ok(number)
    }

    async fn keep(&self, link: &Link, address: &Address, role: Role, mut backoff: Backoff) {
        loop {
            let mut report = Report::new(self, link);
            let (end, lasted) = match self.trust.client_config(Leg::Link, role, None) {
                Ok(config) => self.attempt(link, address, Leg::Link, config).await,
                Err(code) => (End::new(code, "no identity to dial with"), None),
            };
            let (over, redial) = link.verdict();
            if let Some(over) = over {
                report.end = over;
                return;
            }
            let delay = if redial { Duration::ZERO } else { backoff.next_delay(lasted) };
            (report.end, report.retry_in) = (end, Some(delay.as_secs_f64()));
            drop(report);
            tokio::select! {
                () = sleep(delay) => {}
                () = link.interrupted() => {}
            }
            if let (Some(over), _) = link.verdict() {
                Report::new(self, link).end = over;
                return;
            }
        }
    }

    /// One connection of a dialled link: why it ended, and how long it was up if it was.
    async fn attempt(&self, link: &Link, address: &Address, leg: Leg, config: Arc<ClientConfig>) -> (End, Option<Duration>) {
        let dialled = tokio::select! {
            dialled = self.dialer.connect_tls(address, leg, config) => dialled,
            () = link.interrupted() => return (End::new(Code::Stopped, "closed while dialling"), None),
        };
        let stream = match dialled {
            Ok(stream) => stream,
            Err(code) => return (End::new(code, "the exchange could not be reached"), None),
        };
        let (tcp, tls) = stream.get_ref();
        let peer = tls.peer_certificates().map(peer_identity);
        let Some(Ok(peer)) = peer else {
            return (End::new(Code::HandshakeFailed, "the exchange showed no identity"), None);
        };
        let from = tcp.peer_addr().map(|from| from.to_string()).unwrap_or_default();
        let begun = Instant::now();
        let (_up, outbox) = self.raise(link, Some(peer), from);
        let bounds = Bounds { frame: MAX_LINK_PAYLOAD + 1, life: None };
        let end = carry(stream, &outbox, bounds, |frame| match frame {
            LinkFrame::Message(body) => self.offer(link, body),
            LinkFrame::RecordsAck { last } => {
                link.records_written(last);
                Ok(())
            }
            _ => Err(End::new(Code::ProtocolError, "a frame that only agents send")),
        })
        .await;
        (end, Some(begun.elapsed()))
    }
}
