//! Which chains are believed: path building to our own roots, then role, revocation and life of the one proved leaf.

use std::time::Duration;

use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{AlertDescription, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::aws_lc_rs::ECDSA_P256_SHA256;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::identity::{PeerIdentity, only_uri, read_identity};
use super::profile;
use crate::code::Code;
use crate::ids::{Id, Role};

/// Certificates that a peer may send: leaf, issuing, root, and a cross-signed pair while a CA rotates.
pub const MAX_CHAIN: usize = 8;
/// CAs between a leaf and the root of a believed path. Ours have one, the issuing CA.
pub const MAX_DEPTH: usize = 2;

/// Signatures accepted on our own legs.
pub(super) static ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[ECDSA_P256_SHA256],
    mapping: &[(SignatureScheme::ECDSA_NISTP256_SHA256, &[ECDSA_P256_SHA256])],
};

/// What the leaf is used for (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    Server,
    Client,
}

impl Usage {
    fn key_usage(self) -> KeyUsage {
        match self {
            Usage::Server => KeyUsage::server_auth(),
            Usage::Client => KeyUsage::client_auth(),
        }
    }
}

/// What a leg expects of its peer's leaf.
pub(super) struct Expected<'a> {
    pub usage: Usage,
    pub roles: &'a [Role],
    pub id: Option<Id>,
    /// How long after its end a leaf is still accepted.
    pub expired_by: Duration,
}

/// Verifies the leaf to `roots` and reads its identity. `others` only help to build the path.
pub(super) fn verify_peer(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    roots: &Roots<'_>,
    now: UnixTime,
    expected: &Expected<'_>,
) -> Result<PeerIdentity, Code> {
    match verify_path(leaf, others, roots, now, expected.usage, MAX_DEPTH) {
        Ok(()) => {}
        Err(Code::CertificateExpired) => {
            // The leaf's own end is the only one that is forgiven: judged as of that end, the whole path must hold.
            let end = read_identity(leaf)?.not_after.try_into().map(Duration::from_secs).map_err(|_| Code::CertificateExpired)?;
            let since = Duration::from_secs(now.as_secs()).checked_sub(end).ok_or(Code::CertificateExpired)?;
            if since > expected.expired_by {
                return Err(Code::CertificateExpired);
            }
            verify_path(leaf, others, roots, UnixTime::since_unix_epoch(end), expected.usage, MAX_DEPTH)?;
        }
        Err(code) => return Err(code),
    }
    let identity = read_identity(leaf)?;
    if !expected.roles.contains(&identity.role) || expected.id.is_some_and(|id| id != identity.id) {
        return Err(Code::RoleMismatch);
    }
    Ok(identity)
}

fn verify_path(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    roots: &Roots<'_>,
    now: UnixTime,
    usage: Usage,
    depth: usize,
) -> Result<(), Code> {
    if others.len() >= MAX_CHAIN {
        return Err(Code::HandshakeFailed);
    }
    let parsed = EndEntityCert::try_from(leaf).map_err(code_of_path)?;
    // Inside the search: a path that is too long does not hide a shorter one.
    let is_short = |path: &VerifiedPath<'_>| match path.intermediate_certificates().count() {
        count if count <= depth => Ok(()),
        _ => Err(webpki::Error::PathLenConstraintViolated),
    };
    let path = parsed.verify_for_usage(ALGORITHMS.all, &roots.anchors, others, now, usage.key_usage(), None, Some(&is_short));
    let path = path.map_err(code_of_path)?;
    profile::check_leaf(leaf)?;
    for intermediate in path.intermediate_certificates() {
        profile::check_intermediate(&intermediate.der())?;
    }
    let end = roots.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
    profile::check_root(end.and_then(|end| roots.certificates.get(end)).ok_or(Code::RootMismatch)?, now)
}

fn code_of_path(error: webpki::Error) -> Code {
    match error {
        webpki::Error::CertExpired { .. } => Code::CertificateExpired,
        // A CA of the same name and another key is as unknown.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => Code::RootMismatch,
        _ => Code::HandshakeFailed,
    }
}

/// The verification of every leg, for chains of other people: an optional name in place of role and id.
///
/// `now` is Unix seconds, `peer_name` a DNS name or an address, `depth` the most CAs between leaf and root. Returns the leaf's one URI SAN if it has one.
pub fn verify_chain(
    chain: &[Vec<u8>],
    roots: &[Vec<u8>],
    now: u64,
    peer_name: Option<&str>,
    usage: Usage,
    depth: usize,
) -> Result<Option<String>, Code> {
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let roots: Vec<CertificateDer<'_>> = roots.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let roots = Roots::new(&roots)?;
    let (leaf, others) = chain.split_first().ok_or(Code::HandshakeFailed)?;
    verify_path(leaf, others, &roots, UnixTime::since_unix_epoch(Duration::from_secs(now)), usage, depth)?;
    if let Some(name) = peer_name {
        let name = ServerName::try_from(name).map_err(|_| Code::HandshakeFailed)?;
        let parsed = EndEntityCert::try_from(leaf).map_err(code_of_path)?;
        parsed.verify_is_valid_for_subject_name(&name).map_err(code_of_path)?;
        profile::check_named(leaf)?;
    }
    only_uri(leaf, &profile::parse(leaf)?)
}

/// Trust anchors with the certificates that they were read from.
#[derive(Clone, Debug, Default)]
pub(super) struct Roots<'a> {
    pub certificates: Vec<CertificateDer<'a>>,
    anchors: Vec<TrustAnchor<'a>>,
}

impl Roots<'_> {
    pub(super) fn new<'a>(certificates: &'a [CertificateDer<'_>]) -> Result<Roots<'a>, Code> {
        let anchors = certificates.iter().map(|root| webpki::anchor_from_trusted_cert(root).map_err(|_| Code::ArgumentInvalid));
        let anchors = anchors.collect::<Result<_, _>>()?;
        Ok(Roots { certificates: certificates.iter().map(|root| CertificateDer::from(root.as_ref())).collect(), anchors })
    }

    pub(super) fn into_owned(self) -> Roots<'static> {
        Roots {
            certificates: self.certificates.into_iter().map(CertificateDer::into_owned).collect(),
            anchors: self.anchors.iter().map(TrustAnchor::to_owned).collect(),
        }
    }
}

/// How a refusal is told to the TLS stack, which picks the alert that carries it to the peer.
pub(super) fn tls_error(code: Code) -> Error {
    Error::InvalidCertificate(match code {
        Code::CertificateExpired => CertificateError::Expired,
        Code::AgentRevoked => CertificateError::Revoked,
        Code::RoleMismatch => CertificateError::ApplicationVerificationFailure,
        Code::RootMismatch => CertificateError::UnknownIssuer,
        _ => CertificateError::BadEncoding,
    })
}

/// The reason code of a failed handshake, on the side that refused and on the side that was told by an alert.
pub fn code_of_tls(error: &Error) -> Code {
    match error {
        Error::InvalidCertificate(CertificateError::Expired) | Error::AlertReceived(AlertDescription::CertificateExpired) => {
            Code::CertificateExpired
        }
        Error::InvalidCertificate(CertificateError::Revoked) | Error::AlertReceived(AlertDescription::CertificateRevoked) => {
            Code::AgentRevoked
        }
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        | Error::AlertReceived(AlertDescription::AccessDenied) => Code::RoleMismatch,
        Error::InvalidCertificate(CertificateError::UnknownIssuer) | Error::AlertReceived(AlertDescription::UnknownCA) => {
            Code::RootMismatch
        }
        _ => Code::HandshakeFailed,
    }
}

/// The same for an I/O error that may carry a TLS error.
pub fn code_of_io(error: &std::io::Error) -> Code {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(tls) => code_of_tls(tls),
        None if error.kind() == std::io::ErrorKind::TimedOut => Code::HandshakeTimeout,
        None => Code::HandshakeFailed,
    }
}
