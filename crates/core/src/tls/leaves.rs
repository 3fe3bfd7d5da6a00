//! What is asked of a peer's leaf on each leg, at the moment of its handshake.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::verify::{ALGORITHMS, Expected, Roots, Usage, tls_error, verify_peer};
use super::{Leg, Present};
use crate::code::Code;
use crate::ids::{Id, Role};

impl Present {
    fn expired_by(&self, leg: Leg, usage: Usage) -> Duration {
        Duration::from_secs(match (leg, usage) {
            (Leg::Link, Usage::Client) => self.renewal_grace.load(Ordering::Relaxed),
            (Leg::Carrier | Leg::Tunnel, _) => self.link_down_leeway.load(Ordering::Relaxed),
            _ => 0,
        })
    }
}

/// Judges the server's leaf on a leg that we dial.
#[derive(Debug)]
pub(super) struct ServerLeaf {
    pub present: Arc<Present>,
    pub leg: Leg,
    pub peer: Option<Id>,
}

/// Judges the client's leaf on a leg that we answer.
#[derive(Debug)]
pub(super) struct ClientLeaf {
    pub present: Arc<Present>,
    pub leg: Leg,
}

/// Judges the server's leaf on first contact, when the root's digest is all that is known.
#[derive(Debug)]
pub(super) struct PinnedRoot {
    pub root_sha256: [u8; 32],
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Present")
    }
}

impl ServerLeaf {
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Code> {
        let state = self.present.state();
        let roles = [self.leg.server_role()];
        let expected = Expected {
            usage: Usage::Server,
            roles: &roles,
            id: self.peer,
            expired_by: self.present.expired_by(self.leg, Usage::Server),
        };
        state.admit(&verify_peer(leaf, others, &state.roots, now, &expected)?)
    }
}

impl ClientLeaf {
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Code> {
        let state = self.present.state();
        let expected = Expected {
            usage: Usage::Client,
            roles: self.leg.client_roles(),
            id: None,
            expired_by: self.present.expired_by(self.leg, Usage::Client),
        };
        state.admit(&verify_peer(leaf, others, &state.roots, now, &expected)?)
    }
}

impl PinnedRoot {
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Code> {
        let pinned =
            |shown: &&CertificateDer<'_>| verify_slices_are_equal(digest(&SHA256, shown).as_ref(), &self.root_sha256).is_ok();
        let root = others.iter().find(pinned).ok_or(Code::RootMismatch)?;
        let roots = Roots::new(std::slice::from_ref(root)).map_err(|_| Code::RootMismatch)?;
        let expected = Expected { usage: Usage::Server, roles: &[Role::Control], id: None, expired_by: Duration::ZERO };
        verify_peer(leaf, others, &roots, now, &expected).map(|_| ())
    }
}

macro_rules! server_verifier {
    ($name:ty) => {
        impl ServerCertVerifier for $name {
            fn verify_server_cert(
                &self,
                leaf: &CertificateDer<'_>,
                others: &[CertificateDer<'_>],
                _name: &ServerName<'_>,
                _ocsp: &[u8],
                now: UnixTime,
            ) -> Result<ServerCertVerified, Error> {
                self.judge(leaf, others, now).map(|()| ServerCertVerified::assertion()).map_err(tls_error)
            }

            fn verify_tls12_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                Err(tls_error(Code::HandshakeFailed))
            }

            fn verify_tls13_signature(
                &self,
                message: &[u8],
                leaf: &CertificateDer<'_>,
                signature: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                verify_tls13_signature(message, leaf, signature, &ALGORITHMS)
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                ALGORITHMS.supported_schemes()
            }
        }
    };
}

server_verifier!(ServerLeaf);
server_verifier!(PinnedRoot);

impl ClientCertVerifier for ClientLeaf {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, others, now).map(|()| ClientCertVerified::assertion()).map_err(tls_error)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls_error(Code::HandshakeFailed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}
