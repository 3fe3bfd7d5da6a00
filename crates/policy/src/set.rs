//! Policies by id, the segments that they speak of, and decisions.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Authorizer, Decision, Entity, Policy, PolicyId, ValidationMode, Validator};

use crate::Error;
use crate::condition::describe;
use crate::question::{Question, Segment};
use crate::reads::Reads;
use crate::schema::{Vocabulary, chain, vocabulary};

/// Most policies in one set.
pub const MAX_POLICIES: usize = 100_000;
/// Longest text of one policy, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// Parsed policies and segments. Never changes: what changes is another set.
#[derive(Debug)]
pub struct PolicySet {
    policies: HashMap<String, Kept>,
    full: cedar_policy::PolicySet,
    segments: HashMap<String, Entity>,
    words: &'static Vocabulary,
    authorizer: Authorizer,
}

/// A policy with what can matter to it: the groups that its text names, for groups are reached by their literal names alone, and what it reads besides.
#[derive(Debug)]
struct Kept {
    policy: Policy,
    /// Of this policy alone: most questions are about one.
    alone: cedar_policy::PolicySet,
    groups: HashSet<String>,
    reads: Reads,
}

/// What Cedar says: `allowed` only if no policy erred; the policies that determined it, and id and message of each error, sorted. An error of empty
/// id: the question could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    pub determining: Vec<String>,
    pub errors: Vec<(String, String)>,
}

impl Answer {
    /// What cannot be asked cannot be allowed.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self { allowed: false, determining: Vec::new(), errors: vec![(String::new(), message.into())] }
    }
}

impl PolicySet {
    /// Parse policies, id and Cedar text each.
    ///
    /// # Errors
    /// `policy_malformed` naming the id if a text is not exactly one static policy; `limit_reached` beyond [`MAX_POLICIES`].
    pub fn new<'a>(
        policies: impl IntoIterator<Item = (&'a str, &'a str)>,
        segments: impl IntoIterator<Item = Segment>,
    ) -> Result<Self, Error> {
        let words = vocabulary()?;
        let mut set = Self {
            policies: HashMap::new(),
            full: cedar_policy::PolicySet::new(),
            segments: HashMap::new(),
            words,
            authorizer: Authorizer::new(),
        };
        for segment in segments {
            set.segments.insert(segment.id.clone(), segment.into_entity(words)?);
        }
        for (id, text) in policies {
            set.add(id, text)?;
        }
        Ok(set)
    }

    fn add(&mut self, id: &str, text: &str) -> Result<(), Error> {
        if self.policies.len() >= MAX_POLICIES {
            return Err(Error::limit(format!("a policy set holds at most {MAX_POLICIES} policies")));
        }
        if text.len() > MAX_POLICY_BYTES {
            return Err(Error::policy(format!("policy `{id}` has {} bytes; at most {MAX_POLICY_BYTES} are allowed", text.len())));
        }
        let policy = Policy::parse(Some(PolicyId::new(id)), text)
            .map_err(|errors| Error::policy(format!("policy `{id}` is malformed: {}", describe(text, &errors))))?;
        let refused = |error| Error::policy(format!("policy `{id}` is refused: {error}"));
        self.full.add(policy.clone()).map_err(refused)?;
        let alone = cedar_policy::PolicySet::from_policies([policy.clone()]).map_err(refused)?;
        let named = policy.entity_literals().into_iter().filter(|uid| uid.type_name() == &self.words.group);
        let groups = named.map(|uid| uid.id().unescaped().to_owned()).collect();
        let reads = Reads::of(&policy);
        self.policies.insert(id.to_owned(), Kept { policy, alone, groups, reads });
        Ok(())
    }

    /// Decide by the policies with these ids, None for all. What cannot be asked is denied.
    #[must_use]
    pub fn decide(&self, question: Question, ids: Option<&[String]>) -> Answer {
        self.ask(question, ids).unwrap_or_else(|error| Answer::refused(error.message))
    }

    fn ask(&self, mut question: Question, ids: Option<&[String]>) -> Result<Answer, Error> {
        let Some(ids) = ids else {
            return self.ask_of(question, &self.full, Reads::ALL);
        };
        let kept = self.named(ids)?;
        question.keep_groups(|group| kept.iter().any(|one| one.groups.contains(group)));
        let reads = kept.iter().fold(Reads::NOTHING, |reads, one| reads | one.reads);
        match kept[..] {
            [one] => self.ask_of(question, &one.alone, reads),
            _ => self.ask_of(question, &slice_of(&kept)?, reads),
        }
    }

    fn ask_of(&self, question: Question, policies: &cedar_policy::PolicySet, reads: Reads) -> Result<Answer, Error> {
        let (request, entities) = question.into_cedar(&self.segments, self.words, reads, None)?;
        let response = self.authorizer.is_authorized(&request, policies, &entities);
        let diagnostics = response.diagnostics();
        let mut errors: Vec<(String, String)> = diagnostics.errors().map(describe_evaluation).collect();
        errors.sort();
        let mut determining: Vec<String> = diagnostics.reason().map(ToString::to_string).collect();
        determining.sort();
        Ok(Answer { allowed: response.decision() == Decision::Allow && errors.is_empty(), determining, errors })
    }

    fn named(&self, ids: &[String]) -> Result<Vec<&Kept>, Error> {
        let unknown = |id| Error::argument(format!("policy `{id}` is unknown"));
        ids.iter().map(|id| self.policies.get(id).ok_or_else(|| unknown(id))).collect()
    }

    /// Id and message of every violation of the schema, sorted. A warning (a condition that can never hold, look-alike characters) counts: its
    /// author meant something else.
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let result = Validator::new(self.words.schema.clone()).validate(&self.full, ValidationMode::Strict);
        let errors = result.validation_errors().map(|error| (error.policy_id().to_string(), error.to_string()));
        let warnings = result.validation_warnings().map(|warning| (warning.policy_id().to_string(), warning.to_string()));
        let mut found: Vec<(String, String)> = errors.chain(warnings).collect();
        found.sort();
        found
    }
}

fn slice_of(kept: &[&Kept]) -> Result<cedar_policy::PolicySet, Error> {
    let mut slice = cedar_policy::PolicySet::new();
    for one in kept {
        let id = one.policy.id();
        slice.add(one.policy.clone()).map_err(|_| Error::argument(format!("policy `{id}` is named twice")))?;
    }
    Ok(slice)
}

fn describe_evaluation(error: &cedar_policy::AuthorizationError) -> (String, String) {
    match error {
        cedar_policy::AuthorizationError::PolicyEvaluationError(error) => (error.policy_id().to_string(), chain(error.inner())),
    }
}
