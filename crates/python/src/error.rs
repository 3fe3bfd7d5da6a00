//! `CoreError`: a refused argument or a failed set-up, with its reason code.

use cloister_core::code::Code;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::{PyErr, create_exception};

create_exception!(_core, CoreError, PyValueError, "A refused argument or a failed set-up; `code` is a reason code.");

/// The error that carries `code` and says `message`.
pub fn error(code: &str, message: impl Into<String>) -> PyErr {
    let error = CoreError::new_err(message.into());
    Python::attach(|py| match error.value(py).setattr("code", code) {
        Ok(()) => error,
        Err(failed) => failed,
    })
}

/// Turns a refusal into the error that names what was refused.
pub trait OrRefuse<T> {
    fn or_refuse(self, what: impl FnOnce() -> String) -> PyResult<T>;
}

impl<T> OrRefuse<T> for Result<T, Code> {
    fn or_refuse(self, what: impl FnOnce() -> String) -> PyResult<T> {
        self.map_err(|code| error(code.as_str(), what()))
    }
}

impl<T> OrRefuse<T> for Option<T> {
    fn or_refuse(self, what: impl FnOnce() -> String) -> PyResult<T> {
        self.ok_or_else(|| error(Code::ArgumentInvalid.as_str(), what()))
    }
}
