//! `cloister._core`: the Python face of the Rust core. Exactly `src/cloister/_core.pyi`, and nothing else.

mod client;
mod connector;
mod core;
mod error;
mod events;
mod policy;
mod pure;
mod server;
mod watch;

use pyo3::pymodule;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::connector::Connector;
    #[pymodule_export]
    use super::core::Core;
    #[pymodule_export]
    use super::error::CoreError;
    #[pymodule_export]
    use super::policy::{PolicySet, check_condition};
    #[pymodule_export]
    use super::pure::{forbidden_address, parse_host, thumbprint, verify_chain, verify_jws, verify_ticket};
    #[pymodule_export]
    use super::server::Server;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // An extension older than the sources beside it refuses to be imported; whoever needs no core never pays for the look.
        module.py().import("cloister._stale")?.call_method1("refuse_stale", (env!("CLOISTER_SOURCE_DIGEST"),))?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("SOURCE_DIGEST", env!("CLOISTER_SOURCE_DIGEST"))?;
        module.add("POLICY_SCHEMA", cloister_policy::SCHEMA)?;
        super::events::register(module)
    }
}
