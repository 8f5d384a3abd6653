//! Secateur from Python: what the package's own Python files are made of. Everything long runs without the
//! interpreter's lock, and looks for Ctrl-C a few times a second.

mod arrays;
mod errors;
mod network;
mod search;
mod spec;
mod watching;

use pyo3::prelude::*;

/// The compiled half of the package `secateur`.
#[pymodule]
mod _secateur {
    #[pymodule_export]
    use crate::network::PyNetwork;
    #[pymodule_export]
    use crate::search::{PyCandidate, PyEvaluator, PyScore, PySearch};
    #[pymodule_export]
    use crate::spec::PySpec;
    #[pymodule_export]
    use crate::spec::{plan, run, template};
}
