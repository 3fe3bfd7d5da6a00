//! What every certificate of a believed path must look like beyond what path building checks.
//!
//! Our CA writes exactly this profile (RFC 5280 and, where it says less, the CA/Browser Forum's baseline); whatever else verifies
//! to one of our roots was not written by it as we mean it, and is refused.

use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::{AuthorityKeyIdentifier, GeneralName, KeyIdentifier, ParsedExtension};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::code::Code;

/// Longest serial number (RFC 5280 §4.1.2.2).
const MAX_SERIAL: usize = 20;

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Code> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Code::HandshakeFailed),
    }
}

/// The leaf whose key was proved.
pub(super) fn check_leaf(der: &CertificateDer<'_>) -> Result<(), Code> {
    let leaf = parse(der)?;
    let found = Found::read(&leaf)?;
    let subject_empty = leaf.subject().iter().next().is_none();
    let key = leaf.public_key();
    let p256 = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok()).is_some_and(|curve| curve == OID_EC_P256);
    let names =
        leaf.subject_alternative_name().map_err(|_| Code::HandshakeFailed)?.is_some_and(|names| names.critical == subject_empty);
    let usages = match leaf.extended_key_usage().map_err(|_| Code::HandshakeFailed)? {
        Some(usages) => !usages.critical && !usages.value.any,
        None => false,
    };
    let signs = leaf.key_usage().map_err(|_| Code::HandshakeFailed)?.is_some_and(|usage| usage.value.key_cert_sign());
    let constrains = leaf.name_constraints().map_err(|_| Code::HandshakeFailed)?.is_some();
    demand(p256 && names && usages && !signs && !constrains && found.authority.is_some())
}

/// A CA between the leaf and the root.
pub(super) fn check_intermediate(der: &[u8]) -> Result<(), Code> {
    let der = CertificateDer::from(der);
    let ca = parse(&der)?;
    let found = Found::read(&ca)?;
    demand(is_authority(&ca)? && found.subject.is_some() && found.authority.is_some())
}

/// The root that a path ends at; unlike the path building, which knows only its name and key, all of it is looked at.
pub(super) fn check_root(der: &CertificateDer<'_>, now: UnixTime) -> Result<(), Code> {
    let root = parse(der)?;
    let found = Found::read(&root)?;
    let subject = found.subject.ok_or(Code::HandshakeFailed)?;
    let self_issued = root.subject().as_raw() == root.issuer().as_raw();
    let authority = match found.authority {
        Some(authority) => !self_issued || authority == subject,
        None => self_issued,
    };
    let known = root.extensions().iter().all(|extension| {
        !extension.critical || !matches!(extension.parsed_extension(), ParsedExtension::UnsupportedExtension { .. })
    });
    let usages = root.extended_key_usage().map_err(|_| Code::HandshakeFailed)?.is_some();
    demand(is_authority(&root)? && authority && known && !usages)?;
    let now = i64::try_from(now.as_secs()).map_err(|_| Code::CertificateExpired)?;
    if now > root.validity().not_after.timestamp() {
        return Err(Code::CertificateExpired);
    }
    demand(now >= root.validity().not_before.timestamp())
}

/// For a peer known by a name: no wildcards, and a common name that can be spelled in several ways (an address, punycode) is
/// repeated exactly among the alternative names.
pub(super) fn check_named(der: &CertificateDer<'_>) -> Result<(), Code> {
    let leaf = parse(der)?;
    let names = leaf.subject_alternative_name().map_err(|_| Code::HandshakeFailed)?.ok_or(Code::HandshakeFailed)?;
    let names: Vec<String> = names.value.general_names.iter().map(text_of).collect();
    let ambiguous =
        |name: &str| name.contains("xn--") || name.contains(':') || name.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
    let mut commons = leaf.subject().iter_common_name().map(|name| name.as_str());
    let repeats = commons.all(|name| name.is_ok_and(|name| !ambiguous(name) || names.iter().any(|other| other == name)));
    demand(repeats && !names.iter().any(|name| name.contains('*')))
}

fn text_of(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(four), _) => std::net::Ipv4Addr::from(four).to_string(),
            (_, Ok(six)) => std::net::Ipv6Addr::from(six).to_string(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

fn is_authority(ca: &X509Certificate<'_>) -> Result<bool, Code> {
    let constraints =
        ca.basic_constraints().map_err(|_| Code::HandshakeFailed)?.is_some_and(|basic| basic.critical && basic.value.ca);
    let names = ca.name_constraints().map_err(|_| Code::HandshakeFailed)?.is_none_or(|names| names.critical);
    let policies = ca.policy_constraints().map_err(|_| Code::HandshakeFailed)?.is_none_or(|policies| policies.critical);
    Ok(constraints && names && policies && ca.subject().iter().next().is_some())
}

/// Key identifiers of a certificate.
struct Found<'a> {
    subject: Option<&'a KeyIdentifier<'a>>,
    authority: Option<&'a KeyIdentifier<'a>>,
}

impl<'a> Found<'a> {
    /// Also checks what holds for every certificate: serial number, readable extensions, key identifiers in their proper form.
    fn read(certificate: &'a X509Certificate<'_>) -> Result<Found<'a>, Code> {
        let serial = certificate.raw_serial();
        let positive = serial.first().is_some_and(|first| first & 0x80 == 0) && serial.iter().any(|byte| *byte != 0);
        demand(positive && serial.len() <= MAX_SERIAL)?;
        let mut found = Found { subject: None, authority: None };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::ParseError { .. } => return Err(Code::HandshakeFailed),
                ParsedExtension::SubjectKeyIdentifier(key) => {
                    demand(!extension.critical && found.subject.replace(key).is_none())?;
                }
                ParsedExtension::AuthorityKeyIdentifier(AuthorityKeyIdentifier {
                    key_identifier: Some(key),
                    authority_cert_issuer: None,
                    authority_cert_serial: None,
                }) => demand(!extension.critical && found.authority.replace(key).is_none())?,
                ParsedExtension::AuthorityKeyIdentifier(_) => return Err(Code::HandshakeFailed),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn demand(holds: bool) -> Result<(), Code> {
    if holds { Ok(()) } else { Err(Code::HandshakeFailed) }
}
