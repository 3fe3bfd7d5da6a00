//! What tests of several modules share: tickets signed by a key of their own.
#![allow(clippy::unwrap_used)]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::ticket::TicketKeys;

pub struct Issuer {
    kid: String,
    key: Ed25519KeyPair,
}

impl Issuer {
    pub fn new(kid: &str) -> Issuer {
        Issuer { kid: kid.to_owned(), key: Ed25519KeyPair::generate().unwrap() }
    }

    pub fn public(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    pub fn keys(&self) -> TicketKeys {
        TicketKeys::new([(self.kid.clone(), self.public())]).unwrap()
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "EdDSA", "typ": "cloister-ticket+jwt", "kid": self.kid});
        self.sign_with(&header.to_string(), &claims.to_string())
    }

    pub fn sign_with(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Claims of a good ticket: session …51, device …d1, segment …a1, connectors …c1 and …c2, made at 1000, generation 5, strict.
pub fn claims() -> Value {
    json!({
        "iss": "0123456789abcdef.cloister", "jti": "j1", "sid": "0000000000000051", "sub": "user:alice", "dev": "00000000000000d1",
        "seg": "00000000000000a1", "con": ["00000000000000c1", "00000000000000c2"],
        "aud": ["segment:00000000000000a1", "connector:00000000000000c1", "connector:00000000000000c2"],
        "cnf": {"jkt": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "iat": 1000, "exp": 1300, "gen": 5, "cty": 0, "rul": ["r1"],
    })
}
