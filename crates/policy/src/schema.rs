//! What rules may speak of: the schema that every policy and every question fits, parsed once.
//!
//! Whoever asks is `User` or `Workload`, what is asked for is a `Segment`, the device is `context.device`. Labels and posture are tags.
//! `context.via` is the name of the program that acts for the principal, empty if nobody does; `context.clock` has the weekday and minute of every
//! time zone that a rule names.

use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};

use crate::Error;

/// In Cedar's own syntax.
pub const SCHEMA: &str = "
entity Group;
entity User in [Group] { name: String };
entity Workload in [Group] { name: String };
entity Segment { name: String, protocol: String } tags String;
entity Posture tags String;
entity Device { name: String, posture: Posture, profiles: Set<String> } tags String;
type WallClock = { weekday: String, minute: Long };
entity Clock tags WallClock;
type Risk = { user: Long, device: Long };
type SignIn = { age: Long, strength: Long, issuer: String };
action connect appliesTo {
  principal: [User, Workload],
  resource: [Segment],
  context: {
    now: Long, weekday: String, minute: Long, clock: Clock, sign_in: SignIn, device: Device, networks: Set<String>, places: Long, risk: Risk,
    approvals: Set<String>, via: String, actor?: Workload
  }
};
";

/// The schema's types; their parser is the slow part of a uid.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) schema: Schema,
    pub(crate) user: EntityTypeName,
    pub(crate) workload: EntityTypeName,
    pub(crate) group: EntityTypeName,
    pub(crate) segment: EntityTypeName,
    pub(crate) device: EntityTypeName,
    pub(crate) posture: EntityTypeName,
    pub(crate) clock: EntityUid,
    pub(crate) connect: EntityUid,
}

static VOCABULARY: LazyLock<Result<Vocabulary, Error>> = LazyLock::new(|| {
    Ok(Vocabulary {
        schema: Schema::from_str(SCHEMA).map_err(|error| Error::policy(format!("the schema does not parse: {}", chain(&error))))?,
        user: name("User")?,
        workload: name("Workload")?,
        group: name("Group")?,
        segment: name("Segment")?,
        device: name("Device")?,
        posture: name("Posture")?,
        clock: uid(&name("Clock")?, ""),
        connect: uid(&name("Action")?, "connect"),
    })
});

pub(crate) fn vocabulary() -> Result<&'static Vocabulary, Error> {
    VOCABULARY.as_ref().map_err(Clone::clone)
}

pub(crate) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn name(text: &str) -> Result<EntityTypeName, Error> {
    EntityTypeName::from_str(text).map_err(|error| Error::policy(format!("`{text}` is no type of entity: {error}")))
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
