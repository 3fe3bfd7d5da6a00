//! Who a leaf says it is: read from the one leaf whose key was proved, by two parsers that must agree.

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::code::Code;
use crate::ids::{AgentUri, Id, Role, TrustDomain};
use crate::ticket::Thumbprint;

/// What a verified leaf says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub role: Role,
    pub id: Id,
    pub trust_domain: TrustDomain,
    /// The SPIFFE id in full.
    pub uri: AgentUri,
    /// SHA-256 of the leaf, lower hex.
    pub fingerprint: String,
    /// Of the leaf's P-256 key.
    pub thumbprint: Thumbprint,
    /// End of the leaf's life, Unix seconds; past on a renewal link.
    pub not_after: i64,
}

/// The identity of the peer of a finished handshake. `certificates` is what the peer sent: only the first is its leaf, the rest is never read.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Result<PeerIdentity, Code> {
    read_identity(certificates.first().ok_or(Code::HandshakeFailed)?)
}

/// The identity in one leaf. Whether the leaf is to be believed is the verifier's business.
pub fn read_identity(leaf: &CertificateDer<'_>) -> Result<PeerIdentity, Code> {
    let (rest, parsed) = X509Certificate::from_der(leaf).map_err(|_| Code::HandshakeFailed)?;
    if !rest.is_empty() {
        return Err(Code::HandshakeFailed);
    }
    let text = only_uri(leaf, &parsed)?.ok_or(Code::RoleMismatch)?;
    let uri = AgentUri::parse(&text).ok_or(Code::RoleMismatch)?;
    Ok(PeerIdentity {
        role: uri.role,
        id: uri.id,
        trust_domain: uri.trust_domain,
        uri,
        fingerprint: sha256_hex(leaf),
        thumbprint: Thumbprint::of_certificate(leaf).ok_or(Code::HandshakeFailed)?,
        not_after: parsed.validity().not_after.timestamp(),
    })
}

/// The URI SAN of a leaf, None if it has none; more than one, or parsers that disagree, are refused.
pub(super) fn only_uri(leaf: &CertificateDer<'_>, parsed: &X509Certificate<'_>) -> Result<Option<String>, Code> {
    let names = parsed.subject_alternative_name().map_err(|_| Code::HandshakeFailed)?;
    let mut uris = names.iter().flat_map(|san| &san.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (first, second) = (uris.next(), uris.next());
    if second.is_some() {
        return Err(Code::RoleMismatch);
    }
    let verified = webpki::EndEntityCert::try_from(leaf).map_err(|_| Code::HandshakeFailed)?;
    if !verified.valid_uri_names().eq(first) {
        return Err(Code::HandshakeFailed);
    }
    Ok(first.map(str::to_owned))
}

/// SHA-256 as lower hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
