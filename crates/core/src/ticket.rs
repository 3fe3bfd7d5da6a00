//! Tickets: compact JWS (RFC 7515) with Ed25519 (RFC 8037), one parse for what is verified and what is acted upon.
//!
//! The algorithm is this file's, never the token's. A [`Ticket`] exists only if its signature held; who may use it, where and until
//! when is judged from its claims by [`Ticket::judge_join`] (relay) and `grants` (connector).

mod jws;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::code::Code;
use crate::ids::{Id, TrustDomain};
use jws::{Object, Parts, parse_object};
pub use jws::{verify_ed25519, verify_jws};

/// Longest compact form that is looked at, bytes.
pub const MAX_TOKEN_BYTES: usize = 8192;
/// Longest life of a ticket, `exp - iat`, seconds.
pub const MAX_LIFE: u64 = 300;
/// Tolerated difference between clocks, seconds.
pub const LEEWAY: u64 = 30;
/// Longest continuity a ticket may carry, seconds.
pub const MAX_CONTINUITY: u64 = 7 * 86400;
/// Most connectors in one ticket.
pub const MAX_CONNECTORS: usize = 16;
/// Most verification keys held at once.
pub const MAX_KEYS: usize = 16;
const MAX_RULES: usize = 64;
const MAX_TEXT: usize = 256;
const TICKET_TYPE: &str = "cloister-ticket+jwt";

/// Whether the judging side's own link to the exchange is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Up since this Unix second.
    Up {
        since: u64,
    },
    Down,
}

/// RFC 7638 SHA-256 thumbprint of a P-256 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// Of an uncompressed P-256 point (65 bytes, first 0x04).
    pub fn of_point(point: &[u8]) -> Option<Thumbprint> {
        let [4, xy @ ..] = point else { return None };
        if xy.len() != 64 {
            return None;
        }
        let (x, y) = xy.split_at(32);
        let jwk =
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, jwk.as_bytes()).as_ref());
        Some(Thumbprint(out))
    }

    /// Of the key of an X.509 certificate (DER); None unless it is a P-256 key.
    pub fn of_certificate(der: &[u8]) -> Option<Thumbprint> {
        let (rest, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let key = certificate.public_key();
        let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
        if key.algorithm.algorithm != x509_parser::oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY
            || curve != x509_parser::oid_registry::OID_EC_P256
        {
            return None;
        }
        Thumbprint::of_point(&key.subject_public_key.data)
    }

    /// From base64url without padding, canonical.
    pub fn parse(text: &str) -> Option<Thumbprint> {
        Some(Thumbprint(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The ticket verification keys in force: kid → raw Ed25519 public key.
#[derive(Clone, Debug, Default)]
pub struct TicketKeys(HashMap<String, [u8; 32]>);

impl TicketKeys {
    /// At most [`MAX_KEYS`] keys of 32 bytes, kids of 1 to 256 bytes; else `argument_invalid`.
    pub fn new<'a>(keys: impl IntoIterator<Item = (String, &'a [u8])>) -> Result<TicketKeys, Code> {
        let mut map = HashMap::new();
        for (kid, key) in keys {
            let key = <[u8; 32]>::try_from(key).map_err(|_| Code::ArgumentInvalid)?;
            if kid.is_empty() || kid.len() > MAX_TEXT || map.len() == MAX_KEYS || map.insert(kid, key).is_some() {
                return Err(Code::ArgumentInvalid);
            }
        }
        Ok(TicketKeys(map))
    }

    pub fn contains(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }
}

/// What a ticket says (ARCHITECTURE.md, "Tickets"). Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub issuer: TrustDomain,
    pub jti: String,
    pub session: Id,
    pub principal: String,
    /// The client's agent id.
    pub device: Id,
    pub segment: Id,
    /// Preferred first; the very ones that `aud` names.
    pub connectors: Vec<Id>,
    pub jkt: Thumbprint,
    pub iat: u64,
    pub exp: u64,
    pub generation: u64,
    /// Seconds after `exp` while the judging side's own link is down; 0 = strict.
    pub continuity: u64,
    pub rules: Vec<String>,
}

/// A ticket whose signature held. Only [`Ticket::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    claims: Arc<Claims>,
    kid: Arc<str>,
}

impl Deref for Ticket {
    type Target = Claims;
    fn deref(&self) -> &Claims {
        &self.claims
    }
}

impl Ticket {
    /// Parse and verify. Says nothing of time, audience or key.
    ///
    /// Errors: `ticket_malformed`, `ticket_key_unknown`, `ticket_signature`.
    pub fn verify(token: &str, keys: &TicketKeys) -> Result<Ticket, Code> {
        let parts = Parts::split(token)?;
        let header: TicketHeader = parse_object(&parts.header)?;
        if header.alg != "EdDSA" || header.typ != TICKET_TYPE {
            return Err(Code::TicketMalformed);
        }
        let key = keys.0.get(&header.kid).ok_or(Code::TicketKeyUnknown)?;
        let payload = parts.verified(key)?;
        Ok(Ticket { claims: Arc::new(parse_object::<RawClaims>(&payload)?.check()?), kid: header.kid.into() })
    }

    /// Id of the key that signed it.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The last second at which this ticket carries anything, given the judging side's link.
    ///
    /// While the link is down: `exp` + continuity. When it returns, continuity holds for one more leeway, so that the
    /// client, whose link returns at another moment, can renew before its flows end.
    pub fn valid_until(&self, link: LinkState) -> u64 {
        let strict = self.exp + LEEWAY;
        match link {
            LinkState::Down => strict + self.continuity,
            LinkState::Up { since } => strict.max((strict + self.continuity).min(since.saturating_add(LEEWAY))),
        }
    }

    /// Errors: `ticket_expired`, `ticket_malformed` (made in the future).
    pub fn check_time(&self, now: u64, link: LinkState) -> Result<(), Code> {
        if self.iat > now.saturating_add(LEEWAY) {
            return Err(Code::TicketMalformed);
        }
        if now > self.valid_until(link) {
            return Err(Code::TicketExpired);
        }
        Ok(())
    }

    /// Errors: `ticket_not_yours` unless this is the client and the key that the connection proved.
    pub fn check_holder(&self, client: Id, key: Thumbprint) -> Result<(), Code> {
        if self.device == client && self.jkt == key { Ok(()) } else { Err(Code::TicketNotYours) }
    }

    /// The relay's whole judgement at a join. `connector`: the one asked for, if any.
    ///
    /// Errors: those of `check_time` and `check_holder`, `ticket_audience` (another exchange's, or a connector it does not name).
    pub fn judge_join(
        &self,
        issuer: TrustDomain,
        client: Id,
        key: Thumbprint,
        connector: Option<Id>,
        now: u64,
        link: LinkState,
    ) -> Result<(), Code> {
        if self.issuer != issuer || connector.is_some_and(|id| !self.connectors.contains(&id)) {
            return Err(Code::TicketAudience);
        }
        self.check_holder(client, key)?;
        self.check_time(now, link)
    }

    /// The claims as JSON, names as in the token.
    pub fn to_json(&self) -> String {
        let c = &self.claims;
        serde_json::json!({
            "iss": c.issuer.to_string(), "jti": c.jti, "sid": c.session.to_string(), "sub": c.principal, "dev": c.device.to_string(),
            "seg": c.segment.to_string(), "con": c.connectors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "aud": std::iter::once(format!("segment:{}", c.segment))
                .chain(c.connectors.iter().map(|id| format!("connector:{id}"))).collect::<Vec<_>>(),
            "cnf": {"jkt": c.jkt.to_string()}, "iat": c.iat, "exp": c.exp, "gen": c.generation, "cty": c.continuity, "rul": c.rules,
        })
        .to_string()
    }
}

// `deny_unknown_fields` refuses `crit`, `jku`, `jwk`, `x5u` and all else; derived structs refuse duplicate keys.

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketHeader {
    alg: String,
    typ: String,
    kid: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    jkt: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClaims {
    iss: String,
    jti: String,
    sid: String,
    sub: String,
    dev: String,
    seg: String,
    con: Vec<String>,
    aud: Vec<String>,
    cnf: Object<Confirmation>,
    iat: u64,
    exp: u64,
    #[serde(rename = "gen")]
    generation: u64,
    cty: u64,
    rul: Vec<String>,
}

impl RawClaims {
    fn check(self) -> Result<Claims, Code> {
        self.checked().ok_or(Code::TicketMalformed)
    }

    fn checked(self) -> Option<Claims> {
        let segment = Id::parse(&self.seg)?;
        let connectors = self.con.iter().map(|text| Id::parse(text)).collect::<Option<Vec<_>>>()?;
        let distinct: HashSet<Id> = connectors.iter().copied().collect();
        let texts = [&self.jti, &self.sub];
        let in_bounds = texts.iter().all(|text| (1..=MAX_TEXT).contains(&text.len()))
            && (1..=MAX_CONNECTORS).contains(&connectors.len())
            && distinct.len() == connectors.len()
            && self.rul.len() <= MAX_RULES
            && self.rul.iter().all(|rule| rule.len() <= MAX_TEXT)
            && self.exp > self.iat
            && self.exp - self.iat <= MAX_LIFE
            && self.exp < 1 << 40
            && self.generation < 1 << 62
            && self.cty <= MAX_CONTINUITY
            && audience_names(&self.aud, segment, &distinct);
        in_bounds.then_some(())?;
        Some(Claims {
            session: Id::parse(&self.sid)?,
            device: Id::parse(&self.dev)?,
            segment,
            connectors,
            jkt: Thumbprint::parse(&self.cnf.0.jkt)?,
            issuer: TrustDomain::parse(&self.iss)?,
            jti: self.jti,
            principal: self.sub,
            iat: self.iat,
            exp: self.exp,
            generation: self.generation,
            continuity: self.cty,
            rules: self.rul,
        })
    }
}

/// `aud` must say exactly what `seg` and `con` say, so that no later reader can follow another of the two.
fn audience_names(audience: &[String], segment: Id, connectors: &HashSet<Id>) -> bool {
    let segments: Vec<_> = audience.iter().filter_map(|entry| entry.strip_prefix("segment:")).collect();
    let named: Vec<_> = audience.iter().filter_map(|entry| entry.strip_prefix("connector:")).collect();
    audience.len() == connectors.len() + 1
        && matches!(segments.as_slice(), [only] if Id::parse(only) == Some(segment))
        && named.iter().filter_map(|text| Id::parse(text)).collect::<HashSet<_>>() == *connectors
}

#[cfg(test)]
mod tests;
