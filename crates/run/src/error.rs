//! Why a run did not do all that was asked of it.

use secateur_scene::SceneError;
use secateur_sim::SimError;
use secateur_train::TrainError;
use thiserror::Error;

use crate::summary::RunResult;

/// Why a run did not do all that was asked of it.
#[derive(Debug, Error)]
pub enum RunError {
    /// The work itself failed.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// A setting of the [`RunSpec`](crate::RunSpec), or a file that it names, cannot be used. Nothing was written.
    #[error("{0:#}")]
    BadArguments(anyhow::Error),
    /// The scene cannot be run. Nothing was written.
    #[error(transparent)]
    BadScene(#[from] SceneError),
    /// There are results, but not all that were asked for, or one that must not be shipped.
    #[error("{reason}")]
    Incomplete {
        /// What is wrong with them.
        reason: Incomplete,
        /// What there is.
        result: Box<RunResult>,
    },
}

/// What is wrong with the results of a run that came to its end.
#[derive(Debug, Error)]
pub enum Incomplete {
    /// Written networks exceed their budgets.
    #[error("the certificate of {} exceeds its budget; see certificate.json", tasks.join(", "))]
    OverBudget {
        /// The tasks whose certificates do not hold.
        tasks: Vec<String>,
    },
    /// A search stopped before its end. The best candidates that it had found were refitted and written.
    #[error("{}", with_causes(.0))]
    SearchFailed(TrainError),
    /// The observer asked the run to stop. The best candidates found by then were refitted and written.
    #[error("interrupted")]
    Interrupted,
    /// A task whose search found candidates has no network.
    #[error("task '{task}' has no network: every finalist's refit panicked")]
    NoNetwork {
        /// The first such task.
        task: String,
    },
}

fn with_causes(error: &TrainError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl From<anyhow::Error> for RunError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<SimError> for RunError {
    fn from(error: SimError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<std::io::Error> for RunError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}
