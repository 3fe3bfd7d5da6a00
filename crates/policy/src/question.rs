//! From the facts of one question to Cedar's request and entities. Values are made from typed facts and fit the schema by construction, so that no
//! question is checked against it again; that they do is a property test.

use std::collections::HashMap;

use cedar_policy::{Context, Entities, Entity, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema};

use crate::Error;
use crate::reads::Reads;
use crate::schema::{Vocabulary, chain, uid};

/// Who a principal or a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    User,
    Workload,
}

/// A user or workload with the names of all its groups.
#[derive(Debug, Clone)]
pub struct Principal {
    pub kind: Kind,
    pub id: String,
    pub name: String,
    pub groups: Vec<String>,
}

/// The device that asks; empty if there is none.
#[derive(Debug, Clone, Default)]
pub struct Device {
    pub id: String,
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub posture: Vec<(String, String)>,
    pub profiles: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct SignIn {
    /// Seconds.
    pub age: i64,
    pub strength: i64,
    pub issuer: String,
}

/// What a wall clock shows: weekday, and minute of the day.
#[derive(Debug, Clone, Default)]
pub struct WallClock {
    pub weekday: String,
    pub minute: i64,
}

/// Everything that one decision reads, besides the segment's own document.
#[derive(Debug, Clone)]
pub struct Question {
    pub principal: Principal,
    /// The program that acts for the principal.
    pub actor: Option<Principal>,
    pub device: Device,
    /// Id of the segment that is asked for.
    pub segment: String,
    pub sign_in: SignIn,
    /// Unix seconds.
    pub now: i64,
    pub clock: WallClock,
    /// By time zone.
    pub clocks: Vec<(String, WallClock)>,
    pub networks: Vec<String>,
    pub places: i64,
    /// Of the user and of the device.
    pub risk: (i64, i64),
    /// Ids of the rules that are approved for this principal and segment.
    pub approvals: Vec<String>,
}

/// A segment's document, as rules read it.
#[derive(Debug, Clone)]
pub struct Segment {
    pub id: String,
    pub name: String,
    pub protocol: String,
    pub labels: Vec<(String, String)>,
}

impl Segment {
    pub(crate) fn into_entity(self, words: &Vocabulary) -> Result<Entity, Error> {
        let attributes = [("name", text(self.name)), ("protocol", text(self.protocol))];
        entity(uid(&words.segment, &self.id), attributes, Vec::new(), texts_by_name(self.labels))
    }
}

impl Question {
    /// Leave out the groups that nothing in question names: somebody may be in hundreds.
    pub(crate) fn keep_groups(&mut self, is_named: impl Fn(&str) -> bool) {
        self.principal.groups.retain(|group| is_named(group));
        if let Some(actor) = &mut self.actor {
            actor.groups.retain(|group| is_named(group));
        }
    }

    /// The request, and every entity that a policy can reach from it by what it reads. `schema` only for the test that nothing here needs one.
    pub(crate) fn into_cedar(
        self,
        segments: &HashMap<String, Entity>,
        words: &Vocabulary,
        reads: Reads,
        schema: Option<&Schema>,
    ) -> Result<(Request, Entities), Error> {
        let principal = self.principal.uid(words);
        let resource = uid(&words.segment, &self.segment);
        let mut context = Vec::with_capacity(4);
        let mut entities = Vec::with_capacity(4);
        entities.push(self.principal.into_entity(words)?);
        if reads.has(Reads::SEGMENT) {
            entities.extend(segments.get(&self.segment).cloned());
        }
        if reads.has(Reads::NOW) {
            context.push(pair("now", long(self.now)));
        }
        if reads.has(Reads::WEEKDAY) {
            context.push(pair("weekday", text(self.clock.weekday)));
        }
        if reads.has(Reads::MINUTE) {
            context.push(pair("minute", long(self.clock.minute)));
        }
        if reads.has(Reads::CLOCK) {
            context.push(pair("clock", RestrictedExpression::new_entity_uid(words.clock.clone())));
            entities.push(clocks(self.clocks, words)?);
        }
        if reads.has(Reads::SIGN_IN) {
            context.push(pair("sign_in", self.sign_in.into_record()?));
        }
        if reads.has(Reads::DEVICE) {
            let device = uid(&words.device, &self.device.id);
            context.push(pair("device", RestrictedExpression::new_entity_uid(device.clone())));
            entities.extend(self.device.into_entities(device, words)?);
        }
        if reads.has(Reads::NETWORKS) {
            context.push(pair("networks", texts(self.networks)));
        }
        if reads.has(Reads::PLACES) {
            context.push(pair("places", long(self.places)));
        }
        if reads.has(Reads::RISK) {
            context.push(pair("risk", record([pair("user", long(self.risk.0)), pair("device", long(self.risk.1))])?));
        }
        if reads.has(Reads::APPROVALS) {
            context.push(pair("approvals", texts(self.approvals)));
        }
        if reads.has(Reads::VIA) {
            context.push(pair("via", text(self.actor.as_ref().map_or_else(String::new, |actor| actor.name.clone()))));
        }
        // An actor that calls itself the principal is made whether or not it is read: two entities of one name that differ are refused.
        if let Some(actor) = self.actor.filter(|actor| reads.has(Reads::ACTOR) || actor.uid(words) == principal) {
            context.push(pair("actor", RestrictedExpression::new_entity_uid(actor.uid(words))));
            entities.push(actor.into_entity(words)?);
        }
        let context = Context::from_pairs(context).map_err(|error| refused(&error))?;
        let request = Request::new(principal, words.connect.clone(), resource, context, schema).map_err(|error| refused(&error))?;
        let entities = Entities::from_entities(entities, schema).map_err(|error| refused(&error))?;
        Ok((request, entities))
    }
}

impl SignIn {
    fn into_record(self) -> Result<RestrictedExpression, Error> {
        record([pair("age", long(self.age)), pair("strength", long(self.strength)), pair("issuer", text(self.issuer))])
    }
}

impl Principal {
    fn uid(&self, words: &Vocabulary) -> EntityUid {
        let kind: &EntityTypeName = match self.kind {
            Kind::User => &words.user,
            Kind::Workload => &words.workload,
        };
        uid(kind, &self.id)
    }

    fn into_entity(self, words: &Vocabulary) -> Result<Entity, Error> {
        let own = self.uid(words);
        let groups = self.groups.iter().map(|group| uid(&words.group, group)).collect();
        entity(own, [("name", text(self.name))], groups, Vec::new())
    }
}

impl Device {
    fn into_entities(self, own: EntityUid, words: &Vocabulary) -> Result<[Entity; 2], Error> {
        let posture = uid(&words.posture, &self.id);
        let attributes = [
            ("name", text(self.name)),
            ("posture", RestrictedExpression::new_entity_uid(posture.clone())),
            ("profiles", texts(self.profiles)),
        ];
        Ok([
            entity(own, attributes, Vec::new(), texts_by_name(self.labels))?,
            entity(posture, [], Vec::new(), texts_by_name(self.posture))?,
        ])
    }
}

fn clocks(shown: Vec<(String, WallClock)>, words: &Vocabulary) -> Result<Entity, Error> {
    let mut tags = Vec::with_capacity(shown.len());
    for (zone, clock) in shown {
        tags.push((zone, record([pair("weekday", text(clock.weekday)), pair("minute", long(clock.minute))])?));
    }
    entity(words.clock.clone(), [], Vec::new(), tags)
}

fn entity<const N: usize>(
    uid: EntityUid,
    attributes: [(&str, RestrictedExpression); N],
    parents: Vec<EntityUid>,
    tags: Vec<(String, RestrictedExpression)>,
) -> Result<Entity, Error> {
    let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
    Entity::new_with_tags(uid, attributes, parents, tags).map_err(|error| refused(&error))
}

fn pair(key: &str, value: RestrictedExpression) -> (String, RestrictedExpression) {
    (key.to_owned(), value)
}

fn long(value: i64) -> RestrictedExpression {
    RestrictedExpression::new_long(value)
}

fn text(value: String) -> RestrictedExpression {
    RestrictedExpression::new_string(value)
}

fn texts(values: Vec<String>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.into_iter().map(text))
}

fn texts_by_name(values: Vec<(String, String)>) -> Vec<(String, RestrictedExpression)> {
    values.into_iter().map(|(key, value)| (key, text(value))).collect()
}

fn record<const N: usize>(pairs: [(String, RestrictedExpression); N]) -> Result<RestrictedExpression, Error> {
    RestrictedExpression::new_record(pairs).map_err(|error| refused(&error))
}

fn refused(error: &dyn std::error::Error) -> Error {
    Error::argument(format!("a question cannot be asked: {}", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::vocabulary;
    use proptest::prelude::*;

    fn word() -> impl Strategy<Value = String> {
        "[a-z_\"\\\\{}é\u{0}]{0,6}"
    }

    fn words() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(word(), 0..4)
    }

    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::hash_map(word(), word(), 0..4).prop_map(|map| map.into_iter().collect())
    }

    fn principal(kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Principal> {
        (kind, word(), word(), words()).prop_map(|(kind, id, name, groups)| Principal { kind, id, name, groups })
    }

    fn clock() -> impl Strategy<Value = WallClock> {
        (word(), any::<i64>()).prop_map(|(weekday, minute)| WallClock { weekday, minute })
    }

    prop_compose! {
        fn questions()(
            principal in principal(prop_oneof![Just(Kind::User), Just(Kind::Workload)]),
            actor in prop::option::of(principal(Just(Kind::Workload))),
            (id, name, labels, posture, profiles) in (word(), word(), pairs(), pairs(), words()),
            (age, strength, issuer) in (any::<i64>(), any::<i64>(), word()),
            (now, places, risk, clock) in (any::<i64>(), any::<i64>(), any::<(i64, i64)>(), clock()),
            clocks in prop::collection::hash_map(word(), clock(), 0..3),
            (networks, approvals) in (words(), words()),
        ) -> Question {
            Question {
                principal,
                actor,
                device: Device { id, name, labels, posture, profiles },
                segment: "s".to_owned(),
                sign_in: SignIn { age, strength, issuer },
                now,
                clock,
                clocks: clocks.into_iter().collect(),
                networks,
                places,
                risk,
                approvals,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_made_of_facts_fits_the_schema(question in questions(), labels in pairs()) {
            let words = vocabulary().map_err(|error| TestCaseError::fail(error.message))?;
            let segment = Segment { id: "s".to_owned(), name: "jupyter".to_owned(), protocol: "tcp".to_owned(), labels };
            let segment = segment.into_entity(words).map_err(|error| TestCaseError::fail(error.message))?;
            let segments = HashMap::from([("s".to_owned(), segment)]);
            let actor_is_principal = question.actor.as_ref().is_some_and(|actor| actor.uid(words) == question.principal.uid(words));
            let made = question.into_cedar(&segments, words, Reads::ALL, Some(&words.schema));
            prop_assert!(made.is_ok() || actor_is_principal, "{:?}", made.err());
        }
    }

    #[test]
    fn a_program_that_is_a_user_would_not_fit() {
        // Negative control: the schema does refuse.
        let words = vocabulary().map_err(|error| error.message);
        let user = || Principal { kind: Kind::User, id: "u".to_owned(), name: "u".to_owned(), groups: Vec::new() };
        let question = Question {
            principal: Principal { id: "p".to_owned(), ..user() },
            actor: Some(user()),
            device: Device::default(),
            segment: "s".to_owned(),
            sign_in: SignIn::default(),
            now: 0,
            clock: WallClock::default(),
            clocks: Vec::new(),
            networks: Vec::new(),
            places: 1,
            risk: (0, 0),
            approvals: Vec::new(),
        };
        let refused = words.map(|words| question.into_cedar(&HashMap::new(), words, Reads::ALL, Some(&words.schema)).is_err());
        assert_eq!(refused, Ok(true));
    }
}
