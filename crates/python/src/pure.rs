//! Functions without state.

use std::collections::HashMap;

use cloister_core::address::{Forbidden, forbidden, forbidden_name};
use cloister_core::host::Host;
use cloister_core::ticket::{LinkState, Thumbprint, Ticket, verify_jws as verify};
use cloister_core::tls::{self, Usage};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::core::ticket_keys;
use crate::error::{OrRefuse, error};

#[pyfunction]
pub fn thumbprint(certificate_pem: &str) -> PyResult<String> {
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok();
    let thumbprint = certificate.and_then(|der| Thumbprint::of_certificate(&der));
    thumbprint.map(|thumbprint| thumbprint.to_string()).or_refuse(|| "not a PEM certificate with a P-256 key".into())
}

#[pyfunction]
pub fn verify_ticket(token: &str, keys: HashMap<String, Vec<u8>>, now: u64) -> PyResult<String> {
    let ticket = Ticket::verify(token, &ticket_keys(&keys)?).or_refuse(|| "the ticket does not verify".into())?;
    ticket.check_time(now, LinkState::Up { since: 0 }).or_refuse(|| "the ticket does not hold now".into())?;
    Ok(ticket.to_json())
}

#[pyfunction]
pub fn verify_jws<'py>(py: Python<'py>, token: &str, key: &[u8], algorithm: &str) -> PyResult<Bound<'py, PyBytes>> {
    if algorithm != "EdDSA" {
        return Err(error("argument_invalid", format!("`{algorithm}` is not verified here: only `EdDSA`")));
    }
    let key = key.try_into().ok().or_refuse(|| "an Ed25519 public key has 32 bytes".into())?;
    let payload = verify(token, key).or_refuse(|| "the signature does not verify".into())?;
    Ok(PyBytes::new(py, &payload))
}

#[pyfunction]
pub fn verify_chain(
    chain_der: Vec<Vec<u8>>,
    roots_der: Vec<Vec<u8>>,
    now: u64,
    peer_name: Option<&str>,
    usage: &str,
) -> PyResult<Option<String>> {
    let usage = match usage {
        "server" => Usage::Server,
        "client" => Usage::Client,
        other => return Err(error("argument_invalid", format!("`{other}` is no usage: `server` or `client`"))),
    };
    tls::verify_chain(&chain_der, &roots_der, now, peer_name, usage, tls::MAX_DEPTH)
        .or_refuse(|| "the chain does not verify".into())
}

#[pyfunction]
pub fn parse_host(text: &str) -> PyResult<String> {
    let host = cloister_core::host::parse_host(text.as_bytes());
    host.map(|host| host.to_string()).map_err(|malformed| error(malformed.code().as_str(), malformed.to_string()))
}

#[pyfunction]
pub fn forbidden_address(text: &str) -> PyResult<Option<&'static str>> {
    let host = cloister_core::host::parse_host(text.as_bytes());
    let forbidden = match host.map_err(|malformed| error(malformed.code().as_str(), malformed.to_string()))? {
        Host::Address(address) => forbidden(address),
        Host::Name(name) => forbidden_name(&name),
    };
    Ok(forbidden.map(Forbidden::as_str))
}
