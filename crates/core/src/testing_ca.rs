//! What tests of several modules share: an exchange's CA made with rcgen, and TLS pairs in memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;

use crate::ids::{AgentUri, Id, Role, TrustDomain};
use crate::tls::Trust;

pub const DOMAIN: &str = "0123456789abcdef.cloister";
/// When every certificate of these tests begins, Unix seconds.
pub const EPOCH: u64 = 1_700_000_000;
pub const DAY: u64 = 86_400;

pub fn id(number: u64) -> Id {
    Id::from_bytes(number.to_be_bytes())
}

pub fn at(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

/// A clock that tests set.
#[derive(Debug)]
pub struct Clock(std::sync::atomic::AtomicU64);

impl Clock {
    pub fn new(seconds: u64) -> Arc<Clock> {
        Arc::new(Clock(std::sync::atomic::AtomicU64::new(seconds)))
    }

    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, std::sync::atomic::Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(std::sync::atomic::Ordering::Relaxed))))
    }
}

pub struct Ca {
    pub root: Certificate,
    issuing: Certificate,
    issuer: Issuer<'static, KeyPair>,
    pub domain: TrustDomain,
}

/// A leaf with its key, chain PEM leaf first.
pub struct Leaf {
    pub der: Certificate,
    pub chain: String,
    pub key: String,
}

impl Ca {
    pub fn new(domain: &str) -> Ca {
        let (root_key, issuing_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = ca_params("root", 1);
        root.not_after = at(EPOCH + 3650 * DAY);
        let root_certificate = root.self_signed(&root_key).unwrap();
        let mut issuing = ca_params("issuing", 0);
        issuing.not_after = at(EPOCH + 365 * DAY);
        let issuing_certificate = issuing.signed_by(&issuing_key, &Issuer::new(root, root_key)).unwrap();
        Ca {
            root: root_certificate,
            issuing: issuing_certificate,
            issuer: Issuer::new(issuing, issuing_key),
            domain: TrustDomain::parse(domain).unwrap(),
        }
    }

    pub fn root_sha256(&self) -> [u8; 32] {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.root.der()).as_ref().try_into().unwrap()
    }

    /// As `control` issues it: one URI SAN, 24 hours, both usages.
    pub fn leaf(&self, role: Role, id: Id) -> Leaf {
        self.leaf_with(role, id, &KeyPair::generate().unwrap(), |_| {})
    }

    pub fn leaf_with(&self, role: Role, id: Id, key: &KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "agent");
        params.not_before = at(EPOCH);
        params.not_after = at(EPOCH + DAY);
        params.subject_alt_names = vec![uri(&AgentUri { trust_domain: self.domain, role, id }.to_string())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        edit(&mut params);
        let der = params.signed_by(key, &self.issuer).unwrap();
        Leaf { chain: format!("{}{}", der.pem(), self.issuing.pem()), key: key.serialize_pem(), der }
    }

    /// The trust of one process with these identities, by `clock`.
    pub fn trust_at(&self, clock: Arc<Clock>, identities: &[(Role, &Leaf)]) -> Arc<Trust> {
        let trust = Trust::with_clock(clock);
        trust.set_roots(self.root.pem().as_bytes(), []).unwrap();
        for (role, leaf) in identities {
            trust.set_identity(*role, leaf.chain.as_bytes(), leaf.key.as_bytes()).unwrap();
        }
        Arc::new(trust)
    }

    pub fn trust(&self, identities: &[(Role, &Leaf)]) -> Arc<Trust> {
        self.trust_at(Clock::new(EPOCH + 60), identities)
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn ca_params(name: &str, path_length: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = at(EPOCH);
    params
}
