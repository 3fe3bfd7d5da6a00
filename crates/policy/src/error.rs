//! What is refused: a stable code of `model/reasons.py` and one sentence.

/// A refused argument. What a request may do is never an error of this kind: it is a decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: &'static str,
    pub message: String,
}

impl Error {
    pub(crate) fn policy(message: impl Into<String>) -> Self {
        Self { code: "policy_malformed", message: message.into() }
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self { code: "argument_invalid", message: message.into() }
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self { code: "limit_reached", message: message.into() }
    }
}
