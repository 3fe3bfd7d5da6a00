//! Events as frozen classes, made here and matched in Python.

use cloister_core::runtime::Event;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

macro_rules! events {
    ($($name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            #[pyclass(frozen, get_all, module = "cloister._core")]
            pub struct $name { $($field: $type,)* }

            #[pymethods]
            impl $name {
                #[classattr]
                fn __match_args__() -> ($(events!(@str $field),)*) {
                    ($(stringify!($field),)*)
                }

                fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                    let mut text = String::from(concat!(stringify!($name), "("));
                    $(
                        if !text.ends_with('(') {
                            text.push_str(", ");
                        }
                        text.push_str(concat!(stringify!($field), "="));
                        text.push_str(&slf.getattr(stringify!($field))?.repr()?.to_string());
                    )*
                    text.push(')');
                    Ok(text)
                }
            }
        )*

        pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_class::<$name>()?;)*
            let mut union: Option<Bound<'_, PyAny>> = None;
            for class in [$(module.getattr(stringify!($name))?,)*] {
                union = Some(match union {
                    Some(union) => union.bitor(class)?,
                    None => class,
                });
            }
            module.add("Event", union)
        }
    };
    (@str $field:ident) => { &'static str };
}

events! {
    LinkUp {
        link: u64,
        agent: Option<String>,
        fingerprint: Option<String>,
        not_after: Option<i64>,
        thumbprint: Option<String>,
        address: String,
    }
    LinkMessage { link: u64, body: Py<PyBytes>, }
    LinkDown { link: u64, reason: &'static str, detail: String, retry_in: Option<f64>, }
    CarrierWanted { connector: String, }
    SessionWanted { request: u64, host: String, port: u16, protocol: &'static str, }
    TunnelChanged { connector: String, relay: String, state: &'static str, detail: String, }
    TicketRefused { session: String, code: &'static str, }
    RecordsWritten { connector: String, last: u64, count: u64, }
    ProbeDone { segment: String, healthy: bool, rtt_us: u64, code: &'static str, }
    SessionsIdle { sessions: Vec<String>, }
    FlowEnded { flow: u64, code: &'static str, }
}

pub fn to_python(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    match event {
        Event::LinkUp { link, peer, address } => {
            let (mut agent, mut fingerprint, mut not_after, mut thumbprint) = (None, None, None, None);
            if let Some(peer) = peer {
                agent = Some(peer.uri.to_string());
                fingerprint = Some(peer.fingerprint);
                not_after = Some(peer.not_after);
                thumbprint = Some(peer.thumbprint.to_string());
            }
            LinkUp { link, agent, fingerprint, not_after, thumbprint, address }.into_py_any(py)
        }
        Event::LinkMessage { link, body } => LinkMessage { link, body: PyBytes::new(py, &body).unbind() }.into_py_any(py),
        Event::LinkDown { link, reason, detail, retry_in } => {
            LinkDown { link, reason: reason.as_str(), detail, retry_in }.into_py_any(py)
        }
        Event::CarrierWanted { connector } => CarrierWanted { connector: connector.to_string() }.into_py_any(py),
        Event::SessionWanted { request, host, port, protocol } => {
            SessionWanted { request, host, port, protocol: protocol.as_str() }.into_py_any(py)
        }
        Event::TunnelChanged { connector, relay, state, detail } => {
            let relay = relay.map(|relay| relay.to_string()).unwrap_or_default();
            TunnelChanged { connector: connector.to_string(), relay, state, detail }.into_py_any(py)
        }
        Event::TicketRefused { session, code } => {
            TicketRefused { session: session.to_string(), code: code.as_str() }.into_py_any(py)
        }
        Event::RecordsWritten { connector, last, count } => {
            RecordsWritten { connector: connector.to_string(), last, count }.into_py_any(py)
        }
        Event::ProbeDone { segment, healthy, rtt_us, code } => {
            ProbeDone { segment: segment.to_string(), healthy, rtt_us, code: code.as_str() }.into_py_any(py)
        }
        Event::SessionsIdle { sessions } => {
            SessionsIdle { sessions: sessions.iter().map(ToString::to_string).collect() }.into_py_any(py)
        }
        Event::FlowEnded { flow, code } => FlowEnded { flow, code: code.as_str() }.into_py_any(py),
    }
}
