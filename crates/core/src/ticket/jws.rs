//! The compact form of JWS (RFC 7515): taken apart once, verified as Ed25519 (RFC 8037) and nothing else.

use std::fmt;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};

use super::MAX_TOKEN_BYTES;
use crate::code::Code;

/// The payload of a compact JWS whose header says exactly `alg: EdDSA` and whose signature holds under `key`.
///
/// `typ` and `kid` may stand in the header and are not looked at; any other parameter, `crit` among them, refuses.
/// Errors: `ticket_malformed`, `ticket_signature`.
pub fn verify_jws(token: &str, key: &[u8; 32]) -> Result<Vec<u8>, Code> {
    let parts = Parts::split(token)?;
    let header: JwsHeader = parse_object(&parts.header)?;
    if header.alg != "EdDSA" {
        return Err(Code::TicketMalformed);
    }
    parts.verified(key)
}

/// One Ed25519 verification (RFC 8032, strict about the encoding of `S`).
pub fn verify_ed25519(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

/// A compact JWS taken apart once: header and payload are decoded from the very bytes that the signature covers.
pub(super) struct Parts<'a> {
    signed: &'a [u8],
    pub(super) header: Vec<u8>,
    payload: &'a str,
    signature: [u8; 64],
}

impl<'a> Parts<'a> {
    pub(super) fn split(token: &'a str) -> Result<Parts<'a>, Code> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Code::TicketMalformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Code::TicketMalformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Code::TicketMalformed)?;
        if payload.contains('.') {
            return Err(Code::TicketMalformed);
        }
        Ok(Parts {
            signed: signed.as_bytes(),
            header: decode(header)?,
            payload,
            signature: decode(signature)?.try_into().map_err(|_| Code::TicketSignature)?,
        })
    }

    pub(super) fn verified(&self, key: &[u8; 32]) -> Result<Vec<u8>, Code> {
        if !verify_ed25519(key, self.signed, &self.signature) {
            return Err(Code::TicketSignature);
        }
        decode(self.payload)
    }
}

/// Base64url, unpadded, canonical: the engine refuses padding and loose trailing bits.
fn decode(text: &str) -> Result<Vec<u8>, Code> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Code::TicketMalformed)
}

pub(super) fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Code> {
    serde_json::from_slice::<Object<T>>(bytes).map(|object| object.0).map_err(|_| Code::TicketMalformed)
}

/// A JSON object and nothing else: derived structs alone would also take an array of their fields.
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(std::marker::PhantomData))
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct JwsHeader {
    alg: String,
    #[serde(rename = "typ")]
    _typ: Option<String>,
    #[serde(rename = "kid")]
    _kid: Option<String>,
}
