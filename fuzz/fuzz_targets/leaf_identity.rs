//! The identity in a leaf: read from whatever DER a peer sends before its chain is judged.
#![no_main]

use cloister_core::tls::identity::read_identity;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

fuzz_target!(|data: &[u8]| {
    let _ = read_identity(&CertificateDer::from(data));
});
