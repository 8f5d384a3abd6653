//! Scores that earlier runs left in the history, and those that this one leaves there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bevy_ecs::prelude::World;
use secateur_history::{History, HistoryError, StoredScore};
use secateur_sim::{EarlierScores, Prepared, Score};

/// Scores that are read for a network: those computed last.
const SCORES_MAX: usize = 200_000;

/// A network on a data set, and a hash of all that a score follows from beside the kept channels; none where that
/// cannot be told.
pub(crate) struct Conditioned {
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) conditions: Option<String>,
}

/// The scores of a run's networks under their conditions.
pub(crate) struct KnownScores {
    /// None where scores are not kept, or no longer can be.
    file: Option<PathBuf>,
    /// Of each network.
    conditions: Vec<String>,
    /// While no search has them.
    scores: Option<EarlierScores>,
    n_taken: u64,
}

impl KnownScores {
    /// None are known, and none are kept.
    pub(crate) fn none() -> Self {
        Self { file: None, conditions: Vec::new(), scores: None, n_taken: 0 }
    }

    /// What the history in `file` knows of the networks; `warn` is told where it cannot be read.
    pub(crate) fn read(file: PathBuf, networks: &[Conditioned], warn: &mut dyn FnMut(&str)) -> Self {
        let Some(conditions) = networks.iter().map(|network| network.conditions.clone()).collect::<Option<Vec<_>>>()
        else {
            return Self::none();
        };
        match read(&file, &conditions, networks) {
            Ok(scores) => Self { file: Some(file), conditions, scores: Some(scores), n_taken: 0 },
            Err(error) => {
                warn(&format!("warning: {error}; the run goes on, without scores of earlier runs"));
                Self::none()
            }
        }
    }

    /// Gives a search the scores.
    pub(crate) fn lend(&mut self, world: &mut World) {
        if let Some(scores) = self.scores.take() {
            world.insert_resource(scores);
        }
    }

    /// Takes them back from a search that ends.
    pub(crate) fn take_back(&mut self, world: &mut World, warn: &mut dyn FnMut(&str)) {
        self.keep(world, warn);
        self.scores = world.remove_resource::<EarlierScores>();
    }

    /// Writes down what a search has scored since.
    pub(crate) fn keep(&mut self, world: &mut World, warn: &mut dyn FnMut(&str)) {
        let Some(mut scores) = world.get_resource_mut::<EarlierScores>() else { return };
        self.n_taken += scores.take_count();
        let new = scores.take_new();
        let Some(file) = self.file.as_ref().filter(|_| !new.is_empty()) else { return };
        if let Err(error) = write(file, &self.conditions, &new) {
            warn(&format!("warning: {error}; the run goes on, and keeps no scores for later ones"));
            self.file = None;
        }
    }

    /// Candidates whose score an earlier run had computed.
    pub(crate) fn n_taken(&self) -> u64 {
        self.n_taken
    }
}

fn read(file: &Path, conditions: &[String], networks: &[Conditioned]) -> Result<EarlierScores, HistoryError> {
    let history = History::open(file)?;
    let mut scores = EarlierScores::default();
    for (network, (conditions, of)) in conditions.iter().zip(networks).enumerate() {
        for stored in history.scores(conditions, SCORES_MAX)? {
            let StoredScore { kept, accuracy, divergence, output_error } = stored;
            let score = Score { accuracy, divergence, output_error };
            // The file may be anybody's.
            if score.is_one() && score.known_reward(of.prepared.reward.kind).is_some() {
                scores.insert(network, kept.into(), score);
            }
        }
    }
    Ok(scores)
}

fn write(file: &Path, conditions: &[String], new: &[(usize, Arc<[u8]>, Score)]) -> Result<(), HistoryError> {
    let mut history = History::open(file)?;
    for (network, conditions) in conditions.iter().enumerate() {
        let of_network = new.iter().filter(|(of, ..)| *of == network);
        let stored = of_network.map(|(_, kept, score)| StoredScore {
            kept: kept.to_vec(),
            accuracy: score.accuracy,
            divergence: score.divergence,
            output_error: score.output_error,
        });
        history.add_scores(conditions, &stored.collect::<Vec<_>>())?;
    }
    Ok(())
}
