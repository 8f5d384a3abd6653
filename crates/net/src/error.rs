//! What can be wrong with a graph, its parameters or a request to prune it.

use thiserror::Error;

/// Errors of this crate: operation or parameter, expected, got.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum NetError {
    /// A graph that breaks a structural rule.
    #[error("node '{node}': {problem}")]
    Malformed {
        /// The offending node's name.
        node: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// Element count and shape disagree.
    #[error("a tensor of shape {shape:?} cannot hold {got} elements")]
    TensorLength {
        /// Claimed shape.
        shape: Vec<usize>,
        /// Elements given.
        got: usize,
    },
    /// A parameter the graph needs is not there.
    #[error("parameter '{name}' {shape:?} is missing{}", nearest.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    MissingParameter {
        /// Full name.
        name: String,
        /// Expected shape.
        shape: Vec<usize>,
        /// A similar name that is there.
        nearest: Option<String>,
    },
    /// A parameter has another shape than its operation.
    #[error("parameter '{name}': expected shape {expected:?}, got {got:?}")]
    ParameterShape {
        /// Full name.
        name: String,
        /// Shape the graph calls for.
        expected: Vec<usize>,
        /// Shape found.
        got: Vec<usize>,
    },
    /// A parameter no operation uses.
    #[error("parameter '{name}' belongs to no operation of the graph; is this the right architecture?")]
    UnusedParameter {
        /// Full name.
        name: String,
    },
    /// NaN or infinity among the parameters.
    #[error("parameter '{name}' holds {value} at element {at}; a network must be finite to be pruned")]
    NotFinite {
        /// Full name.
        name: String,
        /// Flat index.
        at: usize,
        /// NaN or infinity.
        value: String,
    },
    /// A BatchNorm that divides by zero or less, or by too little.
    #[error("parameter '{name}' is {value} at element {at}: {problem}")]
    Statistics {
        /// Full name.
        name: String,
        /// Flat index.
        at: usize,
        /// The value there.
        value: String,
        /// Why no normalisation comes of it.
        problem: String,
    },
    /// A kept set that does not fit its group.
    #[error("group '{group}': {problem}")]
    KeptSet {
        /// Group name.
        group: String,
        /// What is wrong.
        problem: String,
    },
    /// No builder of this name.
    #[error("unknown architecture '{name}'; known: {known}")]
    UnknownArchitecture {
        /// Name asked for.
        name: String,
        /// All names.
        known: String,
    },
}
