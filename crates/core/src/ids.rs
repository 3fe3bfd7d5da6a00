//! Names of agents: bare ids, roles, and the SPIFFE ids that certificates carry.

use std::fmt;

use crate::code::Code;

/// The bare id of an agent (also of sessions and segments): 8 bytes, written as 16 lower hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 8]);

impl Id {
    pub const TEXT_LEN: usize = 16;

    pub const fn from_bytes(bytes: [u8; 8]) -> Id {
        Id(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// Exactly 16 of `[0-9a-f]`; nothing else is an id.
    pub fn parse(text: &str) -> Option<Id> {
        let mut bytes = [0u8; 8];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Id(bytes))
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Id {
    type Err = Code;

    fn from_str(text: &str) -> Result<Id, Code> {
        Id::parse(text).ok_or(Code::ArgumentInvalid)
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("16 lower hex digits")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
                Id::parse(text).ok_or_else(|| E::custom("not 16 lower hex digits"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// What an agent's certificate lets it be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Control,
    Relay,
    Connector,
    Client,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Control, Role::Relay, Role::Connector, Role::Client];

    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Control => "control",
            Role::Relay => "relay",
            Role::Connector => "connector",
            Role::Client => "client",
        }
    }

    pub fn parse(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One exchange's trust domain: `<16 hex>.cloister`, kept as its 16 hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrustDomain(Id);

const DOMAIN_SUFFIX: &str = ".cloister";

impl TrustDomain {
    pub fn parse(text: &str) -> Option<TrustDomain> {
        text.strip_suffix(DOMAIN_SUFFIX).and_then(Id::parse).map(TrustDomain)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{DOMAIN_SUFFIX}", self.0)
    }
}

/// The SPIFFE id of an agent: `spiffe://<16 hex>.cloister/<role>/<16 hex>`, and no other spelling of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgentUri {
    pub trust_domain: TrustDomain,
    pub role: Role,
    pub id: Id,
}

impl AgentUri {
    pub fn parse(text: &str) -> Option<AgentUri> {
        let (domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
        let (role, id) = path.split_once('/')?;
        Some(AgentUri { trust_domain: TrustDomain::parse(domain)?, role: Role::parse(role)?, id: Id::parse(id)? })
    }
}

impl fmt::Display for AgentUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.trust_domain, self.role, self.id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_one_spelling_of_an_agent_is_read() {
        let good = "spiffe://0123456789abcdef.cloister/connector/00000000000000ff";
        assert_eq!(AgentUri::parse(good).unwrap().to_string(), good);
        for bad in [
            "",
            "spiffe://",
            "SPIFFE://0123456789abcdef.cloister/connector/00000000000000ff",
            "spiffe://0123456789ABCDEF.cloister/connector/00000000000000ff",
            "spiffe://0123456789abcdef.cloister/connector/00000000000000FF",
            "spiffe://0123456789abcdef.cloister/connector/00000000000000ff/",
            "spiffe://0123456789abcdef.cloister/connector//00000000000000ff",
            "spiffe://0123456789abcdef.cloister//connector/00000000000000ff",
            "spiffe://0123456789abcdef.cloister/Connector/00000000000000ff",
            "spiffe://0123456789abcdef.cloister/admin/00000000000000ff",
            "spiffe://0123456789abcdef.cloister/connector/00000000000000f",
            "spiffe://0123456789abcdef.cloister/connector/00000000000000fff",
            "spiffe://0123456789abcdef.cloister/connector/00000000000000ff?x",
            "spiffe://0123456789abcdef.cloister/connector/%30000000000000ff",
            "spiffe://0123456789abcdef.cloister:443/connector/00000000000000ff",
            "spiffe://a@0123456789abcdef.cloister/connector/00000000000000ff",
            "spiffe://0123456789abcdef.cloister.evil/connector/00000000000000ff",
            "spiffe://x.0123456789abcdef.cloister/connector/00000000000000ff",
            "spiffe://0123456789abcdef.cloister/connector/00000000000000ff ",
            "spiffe://0123456789abcdef.cloister/connector/00000000000000ff\0",
        ] {
            assert_eq!(AgentUri::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_print_what_they_parse(bytes: [u8; 8]) {
            let id = Id::from_bytes(bytes);
            prop_assert_eq!(Id::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn what_parses_prints_the_same(text in "[0-9a-fA-F]{15,17}") {
            if let Some(id) = Id::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
