//! Cedar, kept on the Rust side.

use std::collections::HashMap;

use cloister_policy::{Answer, Device, Kind, Principal, Question, Segment, SignIn, WallClock};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::error;

#[pyclass(frozen, module = "cloister._core")]
pub struct PolicySet(cloister_policy::PolicySet);

/// Any collection of texts.
struct Texts(Vec<String>);

impl<'py> FromPyObject<'_, 'py> for Texts {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.try_iter()?.map(|text| text?.extract()).collect::<PyResult<_>>().map(Self)
    }
}

type Pairs = HashMap<String, String>;
type AskedPrincipal = (String, String, String, Texts);
type AskedDevice = (String, String, Pairs, Pairs, Texts);
type AskedClock = (String, i64);

/// The facts of one question, in the order of `policy/cedar.py`.
#[derive(FromPyObject)]
struct Asked(
    AskedPrincipal,
    Option<AskedPrincipal>,
    Option<AskedDevice>,
    String,
    (i64, i64, String),
    i64,
    AskedClock,
    HashMap<String, AskedClock>,
    Texts,
    i64,
    (i64, i64),
    Texts,
);

#[pymethods]
impl PolicySet {
    #[new]
    #[pyo3(signature = (policies, segments = Vec::new()))]
    fn new(
        py: Python<'_>,
        policies: HashMap<String, String>,
        segments: Vec<(String, String, String, Pairs)>,
    ) -> PyResult<PolicySet> {
        let texts = policies.iter().map(|(id, text)| (id.as_str(), text.as_str()));
        let segments = segments.into_iter().map(|(id, name, protocol, labels)| Segment {
            id,
            name,
            protocol,
            labels: labels.into_iter().collect(),
        });
        let set = py.detach(|| cloister_policy::PolicySet::new(texts, segments));
        set.map(PolicySet).map_err(|refusal| error(refusal.code, refusal.message))
    }

    /// The interpreter is not let go of: an answer takes less time than to get it back.
    #[pyo3(signature = (question, policy_ids = None))]
    fn decide(&self, question: Bound<'_, PyAny>, policy_ids: Option<Vec<String>>) -> (bool, Vec<String>, Vec<(String, String)>) {
        let Answer { allowed, determining, errors } = match read(&question) {
            Ok(question) => self.0.decide(question, policy_ids.as_deref()),
            Err(error) => Answer::refused(format!("a question cannot be asked: {error}")),
        };
        (allowed, determining, errors)
    }

    fn validate(&self, py: Python<'_>) -> Vec<(String, String)> {
        py.detach(|| self.0.validate())
    }
}

fn read(question: &Bound<'_, PyAny>) -> PyResult<Question> {
    let Asked(who, by, device, segment, sign_in, now, clock, clocks, networks, places, risk, approvals) = question.extract()?;
    Ok(Question {
        principal: principal(who)?,
        actor: by.map(principal).transpose()?,
        device: device.map(read_device).unwrap_or_default(),
        segment,
        sign_in: SignIn { age: sign_in.0, strength: sign_in.1, issuer: sign_in.2 },
        now,
        clock: read_clock(clock),
        clocks: clocks.into_iter().map(|(zone, clock)| (zone, read_clock(clock))).collect(),
        networks: networks.0,
        places,
        risk,
        approvals: approvals.0,
    })
}

fn principal((kind, id, name, groups): AskedPrincipal) -> PyResult<Principal> {
    let kind = match kind.as_str() {
        "user" => Kind::User,
        "workload" => Kind::Workload,
        _ => return Err(PyValueError::new_err(format!("`{kind}` is neither `user` nor `workload`"))),
    };
    Ok(Principal { kind, id, name, groups: groups.0 })
}

fn read_device((id, name, labels, posture, profiles): AskedDevice) -> Device {
    Device { id, name, labels: labels.into_iter().collect(), posture: posture.into_iter().collect(), profiles: profiles.0 }
}

fn read_clock((weekday, minute): AskedClock) -> WallClock {
    WallClock { weekday, minute }
}

#[pyfunction]
pub fn check_condition(text: &str) -> Option<String> {
    cloister_policy::check_condition(text)
}
