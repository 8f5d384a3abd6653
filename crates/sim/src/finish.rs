//! After the walks: the finalists of a task are refitted sequentially, and the best of them on the reward images wins.

use std::cmp::Ordering;

use secateur_kernels::{Effort, KernelError, Precision, RefitData, SequentialRefit};
use secateur_net::{Cost, KeptChannels, Network};

use crate::components::Candidate;
use crate::error::SimError;
use crate::prepare::{Prepared, Repair};
use crate::score::{RewardKind, Score};

/// A task's result: the network to ship.
#[derive(Clone, Debug)]
pub struct Winner {
    /// The walk whose candidate won.
    pub walk: u64,
    /// Channels kept, after re-selection.
    pub kept: KeptChannels,
    /// The compact network.
    pub network: Network,
    /// Its score on the reward images.
    pub score: Score,
    /// What decides between finalists: the score's reward and what plugins added to the walk's.
    pub reward: f64,
    /// Multiply-accumulates per image.
    pub macs: u64,
}

/// The final refit of one network's finalists, whichever search they come from.
#[derive(Debug)]
pub struct FinalRefit<'a> {
    pool: &'a rayon::ThreadPool,
    prepared: &'a Prepared,
    kind: RewardKind,
    /// None with repair off.
    data: Option<RefitData>,
}

impl<'a> FinalRefit<'a> {
    /// Runs the original network on the first `n_images` of the refit images once, for all finalists. `Effort::Quick` is for those
    /// that will be refitted again.
    ///
    /// # Errors
    /// NaN in activations.
    pub fn new(
        pool: &'a rayon::ThreadPool,
        prepared: &'a Prepared,
        kind: RewardKind,
        (n_images, effort): (usize, Effort),
    ) -> Result<Self, KernelError> {
        let n_values = n_images * prepared.network.graph().input().len();
        let images = &prepared.refit_images[..n_values.min(prepared.refit_images.len())];
        let data = match prepared.repair {
            Repair::Off => None,
            _ => Some(RefitData::new(pool, &prepared.network, &prepared.groups, images, effort)?),
        };
        Ok(Self { pool, prepared, kind, data })
    }

    /// Refits a finalist (or, with repair off, only removes its channels) and scores it.
    ///
    /// # Errors
    /// NaN in activations.
    pub fn run(&self, task: &str, candidate: &Candidate) -> Result<Winner, SimError> {
        let prepared = self.prepared;
        let refitted = || {
            let (network, kept) = match &self.data {
                Some(data) => SequentialRefit::new(self.pool, &prepared.network, &prepared.groups, data)
                    .run(&candidate.kept, prepared.reselect)?,
                None => (prepared.compact(&candidate.kept)?, candidate.kept.clone()),
            };
            let score = prepared.reward.score(self.pool, &network, Precision::F32)?;
            let macs = prepared.model.count(Cost::Macs, &kept.widths());
            // What plugins added to the walk's reward stays with the candidate.
            let added = candidate.score.map_or(0.0, |s| f64::from(candidate.reward) - s.reward(self.kind));
            let reward = score.reward(self.kind) + added;
            Ok(Winner { walk: candidate.walk, kept, network, score, reward, macs })
        };
        refitted().map_err(|source| SimError::Candidate { task: task.into(), walk: candidate.walk, source })
    }
}

impl Winner {
    /// Which one is to be preferred, the better one first: higher reward, then fewer multiply-accumulates, then the earlier walk.
    pub fn best_first(&self, other: &Self) -> Ordering {
        other.reward.total_cmp(&self.reward).then((self.macs, self.walk).cmp(&(other.macs, other.walk)))
    }
}
