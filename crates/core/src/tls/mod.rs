//! TLS of every leg: who we are, whom we believe, and the rustls configurations made from that.
//!
//! [`Trust`] is the one place that holds keys, roots and revoked agents; they are replaced while connections run. Verifiers read
//! it at the moment of each handshake, so a replaced root or a revoked agent needs no new configuration.

mod configurations;
pub mod identity;
mod leaves;
mod legs;
mod profile;
pub mod verify;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use identity::{PeerIdentity, peer_identity};
pub use legs::{ALPN_CARRIER, ALPN_ENROL, ALPN_H2, ALPN_LINK, ALPN_TUNNEL, Leg, PeerAlpn};
pub use verify::{MAX_DEPTH, Usage, code_of_io, code_of_tls, verify_chain};

use crate::code::Code;
use crate::ids::{Id, Role, TrustDomain};
use crate::ticket::TicketKeys;
use configurations::Configurations;
use identity::read_identity;
use verify::Roots;

/// Our certificate and key in one role.
#[derive(Clone)]
pub struct OwnIdentity {
    pub peer: PeerIdentity,
    key: Arc<CertifiedKey>,
}

#[derive(Clone, Default)]
struct State {
    /// Grows with every change.
    generation: u64,
    own: HashMap<Role, OwnIdentity>,
    roots: Roots<'static>,
    revoked: HashSet<Id>,
    web: Option<Arc<CertifiedKey>>,
    ticket_keys: Arc<TicketKeys>,
}

/// What verifiers read at the moment of each handshake.
#[derive(Default)]
struct Present {
    state: RwLock<Arc<State>>,
    /// Seconds after its end that a leaf is still accepted on carriers and tunnels; non-zero only while our own link is down.
    link_down_leeway: AtomicU64,
    /// Seconds after its end that an agent's leaf is still accepted on the link, to be renewed there.
    renewal_grace: AtomicU64,
}

/// Identities, trust anchors and revoked agents of one process; shared by reference, replaced in place.
pub struct Trust {
    present: Arc<Present>,
    configurations: Configurations,
    clock: Arc<dyn TimeProvider>,
    ours: Arc<CryptoProvider>,
    webs: Arc<CryptoProvider>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

impl Default for Trust {
    fn default() -> Self {
        Trust::with_clock(Arc::new(DefaultTimeProvider))
    }
}

impl Trust {
    pub fn new() -> Trust {
        Trust::default()
    }

    /// As `new`, judging the life of certificates by `clock`.
    pub fn with_clock(clock: Arc<dyn TimeProvider>) -> Trust {
        Trust {
            present: Arc::default(),
            configurations: Configurations::default(),
            clock,
            ours: Arc::new(legs::our_provider()),
            webs: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        }
    }

    /// Sets or replaces who we are in `role`: PEM chain (leaf first) and PKCS#8 key. The leaf must name that role.
    pub fn set_identity(&self, role: Role, chain_pem: &[u8], key_pem: &[u8]) -> Result<PeerIdentity, Code> {
        let key = self.certified_key(&self.ours, chain_pem, key_pem)?;
        if key.key.algorithm() != SignatureAlgorithm::ECDSA
            || key.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).is_none()
        {
            return Err(Code::ArgumentInvalid);
        }
        let peer = read_identity(key.end_entity_cert().map_err(|_| Code::ArgumentInvalid)?).map_err(|_| Code::ArgumentInvalid)?;
        if peer.role != role {
            return Err(Code::RoleMismatch);
        }
        let own = OwnIdentity { peer: peer.clone(), key: Arc::new(key) };
        self.change(|state| {
            state.own.insert(role, own);
        });
        Ok(peer)
    }

    /// Replaces the trust anchors (PEM, one or more) and the agents refused on every leg.
    pub fn set_roots(&self, roots_pem: &[u8], revoked: impl IntoIterator<Item = Id>) -> Result<(), Code> {
        let roots = Roots::new(&certificates_of(roots_pem)?)?.into_owned();
        let revoked = revoked.into_iter().collect();
        self.change(|state| {
            state.roots = roots;
            state.revoked = revoked;
        });
        Ok(())
    }

    /// Sets or replaces the certificate shown to browsers: PEM chain and key, any algorithm that rustls signs with.
    pub fn set_web(&self, chain_pem: &[u8], key_pem: &[u8]) -> Result<(), Code> {
        let key = Arc::new(self.certified_key(&self.webs, chain_pem, key_pem)?);
        self.change(|state| state.web = Some(key));
        Ok(())
    }

    pub fn set_renewal_grace(&self, grace: Duration) {
        self.present.renewal_grace.store(grace.as_secs(), Ordering::Relaxed);
    }

    /// While our own link is down: accept leaves up to this long after their end on carriers and tunnels. Zero when it is up.
    pub fn set_link_down_leeway(&self, leeway: Duration) {
        self.present.link_down_leeway.store(leeway.as_secs(), Ordering::Relaxed);
    }

    pub fn is_revoked(&self, id: Id) -> bool {
        self.state().revoked.contains(&id)
    }

    /// Whether a peer that was accepted before would still be: its leaf not past its end, its id not revoked.
    pub fn still_accepts(&self, peer: &PeerIdentity) -> bool {
        let leeway = self.present.link_down_leeway.load(Ordering::Relaxed);
        let end = u64::try_from(peer.not_after).unwrap_or(0).saturating_add(leeway);
        self.now() <= end && !self.is_revoked(peer.id)
    }

    /// Adds one agent to those refused on every leg.
    pub fn revoke(&self, id: Id) {
        self.change(|state| {
            state.revoked.insert(id);
        });
    }

    /// Replaces the keys that tickets are verified with.
    pub fn set_ticket_keys(&self, keys: TicketKeys) {
        self.change(|state| state.ticket_keys = Arc::new(keys));
    }

    pub fn ticket_keys(&self) -> Arc<TicketKeys> {
        Arc::clone(&self.state().ticket_keys)
    }

    pub fn own(&self, role: Role) -> Option<PeerIdentity> {
        self.state().own.get(&role).map(|own| own.peer.clone())
    }

    pub fn has_web(&self) -> bool {
        self.state().web.is_some()
    }

    /// The trust domain of our own certificates, if we have any yet.
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        self.state().own.values().map(|own| own.peer.trust_domain).next()
    }

    /// Unix seconds by this process's clock.
    pub fn now(&self) -> u64 {
        self.clock.current_time().map_or(0, |now| now.as_secs())
    }

    fn state(&self) -> Arc<State> {
        self.present.state()
    }

    fn change(&self, edit: impl FnOnce(&mut State)) {
        let mut slot = self.present.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = Arc::make_mut(&mut slot);
        state.generation += 1;
        edit(state);
    }

    fn certified_key(&self, provider: &CryptoProvider, chain_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, Code> {
        let chain = certificates_of(chain_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| Code::ArgumentInvalid)?;
        CertifiedKey::from_der(chain, key, provider).map_err(|_| Code::ArgumentInvalid)
    }
}

fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Code> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| Code::ArgumentInvalid)?;
    if certificates.is_empty() || certificates.len() > verify::MAX_CHAIN * 2 {
        return Err(Code::ArgumentInvalid);
    }
    Ok(certificates)
}

impl Present {
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// The last judgement on a leaf that verified: not revoked, and of our own exchange.
    fn admit(&self, peer: &PeerIdentity) -> Result<(), Code> {
        if self.revoked.contains(&peer.id) {
            return Err(Code::AgentRevoked);
        }
        if self.own.values().any(|own| own.peer.trust_domain != peer.trust_domain) {
            return Err(Code::RootMismatch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
