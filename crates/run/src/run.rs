//! A run on its way: what it works on, what it leaves behind, and how far it is.

use std::path::PathBuf;
use std::sync::Arc;

use secateur_sim::{PluginList, Pool, Prepared, TaskSetup};

use crate::ask_tell::exchange::ToldScores;
use crate::card::Card;
use crate::history::scores::KnownScores;
use crate::history::sources::EarlierRuns;
use crate::inputs::memory::MemoryBound;
use crate::inputs::resolve::Resolved;
use crate::journal::Journal;
use crate::learned_policy::LearnedPolicy;
use crate::plan::task_plans::ProbedWeights;
use crate::refits::Refits;
use crate::scene::Scene;
use crate::training::trained::Trainings;

/// What all searches of a run work on.
pub(crate) struct Job<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) resolved: &'a Resolved,
    pub(crate) plugins: &'a PluginList,
    /// Where walks are scored, if not on the processor.
    pub(crate) card: Option<Card>,
    pub(crate) pool: Pool,
    pub(crate) networks: Vec<Arc<Prepared>>,
    pub(crate) tasks: Vec<TaskSetup>,
    pub(crate) probed: ProbedWeights,
    pub(crate) memory: MemoryBound,
    /// What acts in place of the scene's agent, and does not learn.
    pub(crate) policy: Option<LearnedPolicy>,
    /// What the scene's agent learns of earlier runs.
    pub(crate) earlier: EarlierRuns,
    /// Scores of the candidates of the scene's agent that are known, or where they come from.
    pub(crate) told: Option<ToldScores>,
}

/// A run on its way.
pub(crate) struct Run<'a> {
    pub(crate) job: Job<'a>,
    pub(crate) journal: Journal<'a>,
    /// The history that is learned from, if one is.
    pub(crate) history: Option<PathBuf>,
    /// What earlier runs scored.
    pub(crate) scores: KnownScores,
    /// Refits of finalists, those of earlier processes included.
    pub(crate) refits: Refits,
    /// Trainings of winners, likewise.
    pub(crate) trainings: Trainings,
    /// Whether every search came to its end, so that a checkpoint may go on behind them.
    pub(crate) searched_all: bool,
    /// Whether the observer asked the run to stop.
    pub(crate) is_stopping: bool,
}

impl Run<'_> {
    /// Whether the observer asked the run to stop, now or earlier.
    pub(crate) fn must_stop(&mut self) -> bool {
        self.is_stopping |= self.journal.reporter.should_stop();
        self.is_stopping
    }
}
