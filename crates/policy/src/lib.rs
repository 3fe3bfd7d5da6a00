//! Cedar for Cloister: parsed policies and segments are kept, a question comes as typed facts and names the policies that can matter.
//! No I/O, no clock, no Python.
//!
//! Stricter than Cedar in one point: an error while evaluating any of the named policies denies. Cedar alone would skip an erring forbid.

mod condition;
mod error;
mod question;
mod reads;
mod schema;
mod set;

pub use condition::{MAX_CONDITION_BYTES, MAX_CONDITION_DEPTH, check_condition};
pub use error::Error;
pub use question::{Device, Kind, Principal, Question, Segment, SignIn, WallClock};
pub use schema::SCHEMA;
pub use set::{Answer, MAX_POLICIES, MAX_POLICY_BYTES, PolicySet};
