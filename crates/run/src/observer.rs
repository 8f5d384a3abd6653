//! Who watches a run, and what they see of it.

use std::fmt;

use crate::events::RunEvent;

/// Watches a run and may ask it to stop: a progress bar, a notebook, a data base. All methods do nothing unless they
/// are written; `()` watches nothing. They are called on the thread that called [`run`](crate::run).
///
/// ```
/// use secateur_run::{Observer, RunEvent, Stage};
///
/// /// Counts walks, and stops the run after a thousand.
/// #[derive(Default)]
/// struct AThousandWalks {
///     n_walks: u64,
/// }
///
/// impl Observer for AThousandWalks {
///     fn begin(&mut self, stage: &Stage) {
///         println!("{stage}");
///     }
///     fn event(&mut self, event: &RunEvent<'_>) {
///         self.n_walks += u64::from(matches!(event, RunEvent::Candidate { .. }));
///     }
///     fn should_stop(&mut self) -> bool {
///         self.n_walks >= 1000
///     }
/// }
/// # let watching: &mut dyn Observer = &mut AThousandWalks::default();
/// # assert!(!watching.should_stop());
/// ```
pub trait Observer {
    /// A stage begins; the one before it, if any, is over.
    fn begin(&mut self, _stage: &Stage) {}
    /// So many units of the stage are done.
    fn progress(&mut self, _done: u64) {}
    /// The stage is over.
    fn end(&mut self) {}
    /// A remark or a warning for the user, one sentence.
    fn note(&mut self, _text: &str) {}
    /// Something happened that is written to `metrics.jsonl`.
    fn event(&mut self, _event: &RunEvent<'_>) {}
    /// Whether the run should end with what it has: asked between ticks and between refits. A run that was stopped
    /// writes the best candidates that it has found, and `resume` goes on with it.
    fn should_stop(&mut self) -> bool {
        false
    }
}

impl Observer for () {}

/// Part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What is done.
    pub kind: StageKind,
    /// What is done to what, for people.
    pub name: String,
    /// Units of work; for preparations, per cent.
    pub total: u64,
    /// Units that an earlier process did.
    pub done: u64,
}

/// What is done in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// Images are run through the original network, channels are ranked. There is nothing to keep yet.
    Prepare,
    /// Walks of one agent.
    Search,
    /// Refits of finalists.
    Refit,
    /// Training of winners; units are images.
    Train,
    /// The test split.
    Test,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.name, self.done, self.total)
    }
}
