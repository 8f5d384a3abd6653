//! What can go wrong in this crate.

/// Errors of agents, losses and optimisers.
#[derive(Debug, thiserror::Error)]
pub enum RlError {
    /// Two arrays that must have equal lengths do not.
    #[error("{op}: {what} has {got} elements, expected {expected}")]
    Length {
        /// The operation that refused.
        op: &'static str,
        /// The array.
        what: String,
        /// Elements it must have.
        expected: usize,
        /// Elements it has.
        got: usize,
    },
    /// A number that must be finite is NaN or infinite.
    #[error("{op}: {what} is {value}, expected a finite number")]
    NotFinite {
        /// The operation that refused.
        op: &'static str,
        /// The number, with its position.
        what: String,
        /// Its value.
        value: f64,
    },
    /// A value lies outside the range it must be in.
    #[error("{op}: {what} is {got}, expected {expected}")]
    OutOfRange {
        /// The operation that refused.
        op: &'static str,
        /// The value's name, with its position.
        what: String,
        /// The range, in words.
        expected: String,
        /// Its value.
        got: String,
    },
    /// A setting of an agent is out of its range.
    #[error("build agent: `{path}` {problem}")]
    Setting {
        /// Path of the setting.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A task's budget cannot be allocated.
    #[error("plan task {task}: {what}")]
    Plan {
        /// Name of the task.
        task: String,
        /// What is wrong.
        what: String,
    },
    /// Saved learner state cannot be read.
    #[error("load learner state: {what}")]
    State {
        /// What is wrong, with both sides of the mismatch.
        what: String,
    },
    /// candle refused an operation.
    #[error("{op}: {source}")]
    Tensor {
        /// The operation.
        op: &'static str,
        /// candle's own message.
        source: candle_core::Error,
    },
}

impl RlError {
    /// Saved learner state that cannot be written or read, and why.
    pub fn state(cause: impl std::fmt::Display) -> Self {
        Self::State { what: cause.to_string() }
    }
}

/// Adds the operation's name to candle's errors.
pub(crate) trait During<T> {
    /// Names the operation that failed.
    fn during(self, op: &'static str) -> Result<T, RlError>;
}

impl<T> During<T> for candle_core::Result<T> {
    fn during(self, op: &'static str) -> Result<T, RlError> {
        self.map_err(|source| RlError::Tensor { op, source })
    }
}

/// Refuses an array of another length than `expected`.
pub(crate) fn check_length(op: &'static str, what: &str, expected: usize, got: usize) -> Result<(), RlError> {
    if expected == got {
        return Ok(());
    }
    Err(RlError::Length { op, what: what.to_owned(), expected, got })
}

/// Refuses NaN and infinities, naming the first.
pub(crate) fn check_finite<V: Copy + Into<f64>>(op: &'static str, what: &str, values: &[V]) -> Result<(), RlError> {
    match values.iter().position(|&value| !value.into().is_finite()) {
        None => Ok(()),
        Some(index) => Err(RlError::NotFinite { op, what: format!("{what}[{index}]"), value: values[index].into() }),
    }
}
