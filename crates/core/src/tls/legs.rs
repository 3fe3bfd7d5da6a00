//! One rustls configuration per leg.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, CommonState, ServerConfig, SignatureScheme};
use rustls_pki_types::CertificateDer;

use super::configurations::{Answering, Dialling};
use super::leaves::{ClientLeaf, PinnedRoot, ServerLeaf};
use super::verify::ALGORITHMS;
use super::{State, Trust};
use crate::code::Code;
use crate::ids::{Id, Role};

pub const ALPN_LINK: &[u8] = b"cloister-link/1";
pub const ALPN_ENROL: &[u8] = b"cloister-enrol/1";
pub const ALPN_CARRIER: &[u8] = b"cloister-carrier/1";
pub const ALPN_TUNNEL: &[u8] = b"cloister-tunnel/1";
pub const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A kind of TLS connection of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    Link,
    Enrol,
    Carrier,
    Tunnel,
}

impl Leg {
    const fn alpn(self) -> &'static [u8] {
        match self {
            Leg::Link => ALPN_LINK,
            Leg::Enrol => ALPN_ENROL,
            Leg::Carrier => ALPN_CARRIER,
            Leg::Tunnel => ALPN_TUNNEL,
        }
    }

    pub(super) const fn server_role(self) -> Role {
        match self {
            Leg::Link | Leg::Enrol => Role::Control,
            Leg::Carrier => Role::Relay,
            Leg::Tunnel => Role::Connector,
        }
    }

    pub(super) const fn client_roles(self) -> &'static [Role] {
        match self {
            Leg::Link => &[Role::Connector, Role::Client, Role::Relay],
            Leg::Enrol => &[],
            Leg::Carrier => &[Role::Connector, Role::Client],
            Leg::Tunnel => &[Role::Client],
        }
    }
}

/// What was agreed with the peer of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAlpn {
    Resumable,
    PlainH2,
}

impl PeerAlpn {
    /// What a finished tunnel handshake agreed on; a peer that agreed on nothing is refused.
    pub fn of(connection: &CommonState) -> Result<PeerAlpn, Code> {
        match connection.alpn_protocol() {
            Some(ALPN_TUNNEL) => Ok(PeerAlpn::Resumable),
            Some(ALPN_H2) => Ok(PeerAlpn::PlainH2),
            _ => Err(Code::HandshakeFailed),
        }
    }
}

impl Leg {
    /// Refuses a finished handshake in which the peer did not agree on this leg's ALPN.
    pub fn require_alpn(self, connection: &CommonState) -> Result<(), Code> {
        match connection.alpn_protocol() {
            Some(alpn) if alpn == self.alpn() => Ok(()),
            _ => Err(Code::HandshakeFailed),
        }
    }
}

/// TLS 1.3 with AES-128-GCM preferred; key exchange is post-quantum hybrid where the peer can, since a relay may keep what it carries.
pub(super) fn our_provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
            provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
            provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![provider::kx_group::X25519MLKEM768, provider::kx_group::X25519, provider::kx_group::SECP256R1],
        signature_verification_algorithms: ALGORITHMS,
        ..provider::default_provider()
    }
}

impl Trust {
    /// Dialling `leg` as `role`; the peer must be the leg's server and, if given, the very agent `peer`.
    pub fn client_config(&self, leg: Leg, role: Role, peer: Option<Id>) -> Result<Arc<ClientConfig>, Code> {
        let state = self.state();
        let own = state.own.get(&role).ok_or(Code::ArgumentInvalid)?;
        if !leg.client_roles().contains(&role) {
            return Err(Code::RoleMismatch);
        }
        self.configurations.dialling(Dialling { leg, role, peer }, &state, || {
            let verifier = ServerLeaf { present: Arc::clone(&self.present), leg, peer };
            self.client(leg, Arc::new(verifier), Some(Arc::clone(&own.key)))
        })
    }

    /// Dialling for enrolment: no certificate of ours, the peer's chain must hold the pinned root and verify to it.
    pub fn enrol_config(&self, root_sha256: [u8; 32]) -> Result<Arc<ClientConfig>, Code> {
        self.client(Leg::Enrol, Arc::new(PinnedRoot { root_sha256 }), None)
    }

    /// Dialling for enrolment at an exchange whose roots are known already.
    pub fn enrol_config_known(&self) -> Result<Arc<ClientConfig>, Code> {
        self.client(Leg::Enrol, Arc::new(ServerLeaf { present: Arc::clone(&self.present), leg: Leg::Enrol, peer: None }), None)
    }

    fn client(
        &self,
        leg: Leg,
        verifier: Arc<dyn ServerCertVerifier>,
        own: Option<Arc<CertifiedKey>>,
    ) -> Result<Arc<ClientConfig>, Code> {
        let builder = ClientConfig::builder_with_details(Arc::clone(&self.ours), Arc::clone(&self.clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| Code::Internal)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = builder.with_client_cert_resolver(Arc::new(Shown(own)));
        config.alpn_protocols = vec![leg.alpn().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = leg != Leg::Tunnel;
        config.enable_secret_extraction = leg == Leg::Tunnel;
        Ok(Arc::new(config))
    }

    /// Answering `leg`: link and enrolment as control, carriers as relay, tunnels as connector.
    pub fn server_config(&self, leg: Leg) -> Result<Arc<ServerConfig>, Code> {
        let state = self.state();
        self.configurations.answering(Answering::Leg(leg), &state, || self.make_server(leg, &state))
    }

    fn make_server(&self, leg: Leg, state: &State) -> Result<Arc<ServerConfig>, Code> {
        let own = state.own.get(&leg.server_role()).map(|own| Arc::clone(&own.key)).ok_or(Code::ArgumentInvalid)?;
        let builder = self.server_builder(&self.ours)?;
        let mut config = match leg {
            Leg::Enrol => {
                builder.with_no_client_auth().with_cert_resolver(Arc::new(Shown(Some(Arc::new(with_root(&own, state)?)))))
            }
            Leg::Link | Leg::Carrier | Leg::Tunnel => {
                let verifier = ClientLeaf { present: Arc::clone(&self.present), leg };
                builder.with_client_cert_verifier(Arc::new(verifier)).with_cert_resolver(Arc::new(Shown(Some(own))))
            }
        };
        config.alpn_protocols = vec![leg.alpn().to_vec()];
        if leg == Leg::Tunnel {
            config.alpn_protocols.push(ALPN_H2.to_vec());
            config.enable_secret_extraction = true;
        }
        Ok(Arc::new(without_resumption(config)))
    }

    /// Answering browsers and API callers: server certificate only, HTTP/1.1.
    pub fn web_config(&self) -> Result<Arc<ServerConfig>, Code> {
        let state = self.state();
        let key = state.web.as_ref().ok_or(Code::ArgumentInvalid)?;
        self.configurations.answering(Answering::Web, &state, || {
            let builder = self.server_builder(&self.webs)?.with_no_client_auth();
            let mut config = builder.with_cert_resolver(Arc::new(Shown(Some(Arc::clone(key)))));
            config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
            Ok(Arc::new(without_resumption(config)))
        })
    }

    fn server_builder(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, Code> {
        ServerConfig::builder_with_details(Arc::clone(provider), Arc::clone(&self.clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| Code::Internal)
    }
}

fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// Our chain with the root that it verifies to, so that a first contact can pin it.
fn with_root(own: &CertifiedKey, state: &State) -> Result<CertifiedKey, Code> {
    let mut shown = own.clone();
    let root = state
        .roots
        .certificates
        .iter()
        .find(|root| own.cert.last().is_some_and(|last| issued_by(last, root)))
        .ok_or(Code::RootMismatch)?;
    shown.cert.push(root.clone());
    Ok(shown)
}

fn issued_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    use x509_parser::prelude::{FromDer, X509Certificate};
    match (X509Certificate::from_der(certificate), X509Certificate::from_der(issuer)) {
        (Ok((_, certificate)), Ok((_, issuer))) => {
            certificate.issuer().as_raw() == issuer.subject().as_raw()
                && certificate.tbs_certificate.issuer_uid == issuer.tbs_certificate.subject_uid
                && key_matches(&certificate, &issuer)
        }
        _ => false,
    }
}

/// Roots share a subject over rotations: the signature tells which one it is.
fn key_matches(
    certificate: &x509_parser::prelude::X509Certificate<'_>,
    issuer: &x509_parser::prelude::X509Certificate<'_>,
) -> bool {
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1,
        &issuer.public_key().subject_public_key.data,
    );
    key.verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data).is_ok()
}

/// The one certificate of ours that a leg shows.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _sigschemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}
