//! How a command ends when it does not end well, and the exit code for it.

use std::fmt;

use anyhow::anyhow;
use secateur_run::{Incomplete, RunError};
use secateur_scene::SceneError;
use secateur_sim::SimError;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The work itself failed: exit code 1.
    Failed(anyhow::Error),
    /// Arguments, or files named by arguments, that cannot be used: exit code 2.
    BadArguments(anyhow::Error),
    /// A scene that cannot be run: exit code 2.
    BadScene(SceneError),
    /// A written network exceeds its budget: exit code 3.
    OverBudget(String),
    /// The user asked to stop: exit code 130.
    Interrupted,
}

impl Failure {
    /// The process's exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::BadArguments(_) | Self::BadScene(_) => 2,
            Self::OverBudget(_) => 3,
            Self::Interrupted => 130,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) | Self::BadArguments(error) => write!(f, "error: {}", with_causes(error)),
            Self::BadScene(error) => error.fmt(f),
            Self::OverBudget(what) => write!(f, "error: {what}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// An error and its causes, but for those that the error before them ends with.
fn with_causes(error: &anyhow::Error) -> String {
    let mut told = String::new();
    let mut last = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if last.is_empty() || !last.ends_with(&cause) {
            told.push_str(if last.is_empty() { "" } else { ": " });
            told.push_str(&cause);
            last = cause;
        }
    }
    told
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Failed(error) => Self::Failed(error),
            RunError::BadArguments(error) => Self::BadArguments(error),
            RunError::BadScene(error) => Self::BadScene(error),
            RunError::Incomplete { reason, .. } => match reason {
                Incomplete::OverBudget { .. } => Self::OverBudget(reason.to_string()),
                Incomplete::Interrupted => Self::Interrupted,
                Incomplete::SearchFailed(_) | Incomplete::NoNetwork { .. } => Self::Failed(anyhow!("{reason}")),
            },
        }
    }
}

impl From<SimError> for Failure {
    fn from(error: SimError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SceneError> for Failure {
    fn from(error: SceneError) -> Self {
        Self::BadScene(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_the_error_before_it_tells_is_told_once() {
        let cause = anyhow!("no such file").context("read 'a': no such file").context("give another");
        assert_eq!(Failure::Failed(cause).to_string(), "error: give another: read 'a': no such file");
        let apart = anyhow!("no such file").context("reading 'a'");
        assert_eq!(Failure::BadArguments(apart).to_string(), "error: reading 'a': no such file");
    }
}
