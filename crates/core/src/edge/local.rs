//! What the entrances of one client share, and how they accept.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::names::Names;
use super::owner::Owners;
use crate::flow::Flows;
use crate::host::{Host, Name, Protocol};
use crate::segment::{Segments, Visible};

/// Connections of one entrance that are open or being opened.
pub const MAX_CONNECTIONS: usize = 16_384;

/// What all entrances of one client share.
pub(crate) struct Shared {
    pub(crate) flows: Arc<dyn Flows>,
    pub(super) owner: u32,
    pub(super) owners: Owners,
    pub(super) catalogue: Mutex<Arc<Segments<Visible>>>,
    pub(super) names: Mutex<Option<Names>>,
    pub(super) suffixes: Mutex<Vec<Name>>,
    pub(super) upstreams: Mutex<Vec<SocketAddr>>,
}

impl Shared {
    /// Whether the socket at `peer` belongs to the owner of this client.
    pub(crate) fn is_owners(&self, protocol: Protocol, peer: SocketAddr, local: SocketAddr) -> bool {
        self.owners.uid(protocol, peer, local) == Some(self.owner)
    }

    pub(crate) fn is_owners_stream(&self, stream: &TcpStream, peer: SocketAddr) -> bool {
        stream.local_addr().is_ok_and(|local| self.is_owners(Protocol::Tcp, peer, local))
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Option<Names>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn suffixes(&self) -> Vec<Name> {
        self.suffixes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn upstreams(&self) -> Vec<SocketAddr> {
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The host an application means: a synthetic address stands for its name. None for an address of the pool that is nobody's.
    pub(crate) fn meant(&self, host: Host) -> Option<Host> {
        let Host::Address(address) = host else { return Some(host) };
        match self.names().as_mut() {
            Some(names) if names.pools().contains(address) => names.name_of(address, Instant::now()).map(Host::Name),
            _ => Some(host),
        }
    }
}

/// Accept connections until the task is aborted, each with its peer and in its own task, at most `MAX_CONNECTIONS` at once; more are reset.
pub(crate) async fn accept_all<F, T>(shared: Arc<Shared>, listener: TcpListener, carry: F)
where
    F: Fn(Arc<Shared>, TcpStream, SocketAddr) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // What is accepted inherits it (tcp(7)).
    let _ = SockRef::from(&listener).set_tcp_nodelay(true);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // out of descriptors: those that close make room
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            reset(&stream);
            continue;
        };
        let carried = carry(Arc::clone(&shared), stream, peer);
        tokio::spawn(async move {
            carried.await;
            drop(place);
        });
    }
}

/// Make the coming close a reset, so that the peer does not take it for an ordinary end.
pub(crate) fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
