//! Other people's certificate chains, through the verification of every leg (cases of x509-limbo, each with its own peer name).
//!
//! No invalid chain is accepted. A valid one is accepted unless it stands in `EXCEPTIONS`, each with its reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use cloister_core::code::Code;
use cloister_core::tls::{Usage, verify_chain};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Valid chains that are refused, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("pathlen::self-issued-certs-pathlen", SELF_ISSUED),
    ("pathlen::max-chain-depth-1-self-issued", SELF_ISSUED),
    ("rfc5280::nc::permitted-self-issued", SELF_ISSUED),
    ("rfc5280::nc::permitted-dn-match", CONSTRAINTS),
    ("rfc5280::nc::nc-permits-email-exact", CONSTRAINTS),
    ("rfc5280::nc::nc-permits-email-literal-mid-asterisk", CONSTRAINTS),
    (
        "webpki::nc::permitted-dns-match-noncritical",
        "RFC 5280 wants name constraints critical; the suite has the same chain as invalid under that rule",
    ),
    ("rfc5280::ca-as-leaf", "a CA's certificate is never a peer's leaf"),
    ("webpki::san::leftmost-wildcard-san", "a peer is one agent: wildcards are refused, as no list of public suffixes is kept"),
    ("webpki::cryptographydotio-chain", "other algorithms than ECDSA with P-256"),
];
const SELF_ISSUED: &str = "self-issued intermediates count like any other (rustls-webpki); our CA makes none";
const CONSTRAINTS: &str = "names of a kind whose constraints rustls-webpki does not judge are refused under a constraint";

/// Cases whose only fault lies in an input that no leg of ours takes.
const NO_SUCH_INPUT: &[(&str, &str)] = &[
    (
        "crl::revoked-certificate-with-crl",
        "the leaf's serial stands in a CRL: revocation is by the agent's id, sent over the link and checked on every leg, not by serial",
    ),
    ("crl::crlnumber-missing", "only the CRL is at fault (no CRL number), and no leg reads one; the chain itself is valid"),
    (
        "crl::crlnumber-critical",
        "only the CRL is at fault (its number is critical), and no leg reads one; the chain itself is valid",
    ),
    (
        "crl::issuer-missing-crlsign",
        "the issuer may not sign CRLs: ours signs none, so the missing right harms nothing; the chain itself is valid",
    ),
];
/// For cases that set no depth of their own.
const DEPTH: usize = 8;

fn ders(pems: &Value) -> Vec<Vec<u8>> {
    pems.as_array().unwrap().iter().map(|pem| der(pem.as_str().unwrap())).collect()
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn judge(case: &Value) -> Result<Option<String>, Code> {
    let mut chain = vec![der(case["peer_certificate"].as_str().unwrap())];
    chain.extend(ders(&case["untrusted_intermediates"]));
    let now = match case["validation_time"].as_str() {
        Some(time) => OffsetDateTime::parse(time, &Rfc3339).unwrap().unix_timestamp(),
        None => OffsetDateTime::now_utc().unix_timestamp(),
    };
    let usage = match case["validation_kind"].as_str().unwrap() {
        "SERVER" => Usage::Server,
        "CLIENT" => Usage::Client,
        other => panic!("unknown kind `{other}`"),
    };
    let name = case["expected_peer_name"]["value"].as_str();
    let depth = case["max_chain_depth"].as_u64().map_or(DEPTH, |depth| usize::try_from(depth).unwrap());
    verify_chain(&chain, &ders(&case["trusted_certs"]), u64::try_from(now).unwrap(), name, usage, depth)
}

#[test]
fn limbo() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/x509-limbo/limbo.json");
    let suite: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (exceptions, no_such_input): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (EXCEPTIONS.iter().copied().collect(), NO_SUCH_INPUT.iter().copied().collect());
    let mut wrong = Vec::new();
    let (mut accepted, mut refused) = (0, 0);
    for case in suite["testcases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let verdict = judge(case);
        let valid = case["expected_result"] == "SUCCESS";
        match (valid, verdict.is_ok()) {
            (true, true) => accepted += 1,
            (false, false) => refused += 1,
            (true, false) if exceptions.contains_key(id) => {}
            (false, true) if no_such_input.contains_key(id) => {}
            _ => wrong.push(format!(
                "{id}: expected {}, got {verdict:?}: {}",
                case["expected_result"],
                case["description"].as_str().unwrap().lines().next().unwrap()
            )),
        }
        if valid == verdict.is_ok() && (exceptions.contains_key(id) || no_such_input.contains_key(id)) {
            wrong.push(format!("{id}: listed as an exception but behaves"));
        }
    }
    assert!(wrong.is_empty(), "accepted {accepted}, refused {refused}\n{}", wrong.join("\n"));
    assert!(accepted > 0 && refused > 0);
}
