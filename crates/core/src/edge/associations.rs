//! UDP associations of a local entrance: one per (peer, destination), bounded, each with an idle limit.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::code::Code;
use crate::flow::{Flows, UdpFlow};
use crate::host::Destination;

/// Associations of one entrance.
pub const MAX_ASSOCIATIONS: usize = 4096;
/// Datagrams kept while the flow opens; more are dropped.
pub const MAX_WAITING: usize = 32;
/// Without a datagram either way (RFC 4787 REQ-5 recommends 5 minutes; never below 2).
pub const IDLE: Duration = Duration::from_secs(300);
/// Longest UDP payload over IPv4 or IPv6 without jumbograms.
pub const MAX_DATAGRAM: usize = 65_527;

/// Sends datagrams back to the peer of an association.
pub trait Answer: Send + Sync + 'static {
    /// Best effort: what does not fit is lost, as datagrams are.
    fn answer(&self, datagram: &[u8]);
}

/// Answers from a socket that is shared by all peers.
pub struct From {
    pub socket: Arc<UdpSocket>,
    pub peer: SocketAddr,
}

impl Answer for From {
    fn answer(&self, datagram: &[u8]) {
        let _ = self.socket.try_send_to(datagram, self.peer);
    }
}

type Key = (SocketAddr, Destination);

/// The associations of one entrance. Dropping it ends them.
pub struct Associations {
    flows: Arc<dyn Flows>,
    table: Arc<Mutex<HashMap<Key, mpsc::Sender<Bytes>>>>,
    bound: usize,
    idle: Duration,
}

impl Associations {
    pub fn new(flows: Arc<dyn Flows>) -> Self {
        Associations::bounded(flows, MAX_ASSOCIATIONS, IDLE)
    }

    pub fn bounded(flows: Arc<dyn Flows>, bound: usize, idle: Duration) -> Self {
        Associations { flows, table: Arc::default(), bound, idle }
    }

    pub fn len(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pass a datagram of a peer on, opening an association if there is none; `answer` makes its way back. False if the table is full or `answer` fails.
    pub fn pass<A: Answer>(
        &self,
        peer: SocketAddr,
        destination: Destination,
        datagram: Bytes,
        answer: impl FnOnce() -> Option<A>,
    ) -> bool {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer, destination);
        if let Some(inbox) = table.get(&key) {
            // a full inbox loses the datagram, as a full socket buffer would
            let _ = inbox.try_send(datagram);
            return true;
        }
        if table.len() >= self.bound {
            return false;
        }
        let Some(answer) = answer() else { return false };
        let (inbox, outbox) = mpsc::channel(MAX_WAITING);
        let _ = inbox.try_send(datagram);
        table.insert(key.clone(), inbox);
        let (flows, table, idle) = (Arc::clone(&self.flows), Arc::downgrade(&self.table), self.idle);
        tokio::spawn(async move {
            let code = carry(flows, key.1.clone(), outbox, answer, idle).await;
            tracing::debug!(code = code.as_str(), "udp association ended");
            if let Some(table) = table.upgrade() {
                table.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
        });
        true
    }
}

/// Move datagrams both ways until the flow ends, nothing moved for `idle`, or the entrance closed.
async fn carry(
    flows: Arc<dyn Flows>,
    destination: Destination,
    mut outbox: mpsc::Receiver<Bytes>,
    answer: impl Answer,
    idle: Duration,
) -> Code {
    let flow: Box<dyn UdpFlow> = match flows.open_udp(destination).await {
        Ok(flow) => flow,
        Err(code) => return code,
    };
    drop(flows);
    let mut until = Instant::now() + idle;
    loop {
        tokio::select! {
            datagram = outbox.recv() => match datagram {
                Some(datagram) => {
                    flow.send(datagram);
                }
                None => return Code::Ok,
            },
            datagram = flow.receive() => match datagram {
                Ok(datagram) => answer.answer(&datagram),
                Err(code) => return code,
            },
            () = sleep_until(until) => return Code::Ok,
        }
        until = Instant::now() + idle;
    }
}

#[cfg(test)]
#[path = "associations_test.rs"]
mod test;
