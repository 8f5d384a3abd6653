//! After the walks: the finalists of a task are refitted sequentially, and the best of them on the reward images wins.

use std::cmp::Ordering;

use secateur_kernels::{Effort, KernelError, Precision, RefitData, SequentialRefit};
use secateur_net::{Cost, KeptChannels, Network, drop_zero_biases};
use serde::{Deserialize, Serialize};

use crate::caught::{Caught, guarded};
use crate::components::Finalist;
use crate::error::SimError;
use crate::network::Prepared;
use crate::score::{RewardKind, Score};
use crate::tournament::Round;

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

/// What decides between the finalists of a task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rank {
    /// Higher is better.
    pub reward: f64,
    /// Multiply-accumulates per image: of equal rewards, fewer.
    pub macs: u64,
    /// The walk: of equals, the earlier.
    pub walk: u64,
}

/// Times a refit is tried that panics.
const N_TRIES_OF_REFIT: u32 = 2;

/// The final refit of one network's finalists, whichever search they come from.
#[derive(Debug)]
pub struct FinalRefit<'a> {
    pool: &'a rayon::ThreadPool,
    prepared: &'a Prepared,
    kind: RewardKind,
    round: Round,
    /// None with repair off.
    data: Option<RefitData>,
}

impl<'a> FinalRefit<'a> {
    /// Runs the original network on the first `n_images` of the refit images once, for all finalists of a round.
    ///
    /// # Errors
    /// [`SimError::Preparing`]: NaN in activations, a panic that came again.
    pub fn new(
        pool: &'a rayon::ThreadPool,
        prepared: &'a Prepared,
        kind: RewardKind,
        (n_images, round): (usize, Round),
    ) -> Result<Self, SimError> {
        let effort = match round {
            Round::First => Effort::Quick,
            Round::Last | Round::InPairs => Effort::Thorough,
        };
        let n_values = n_images * prepared.network.graph().input().len();
        let images = &prepared.refit_images[..n_values.min(prepared.refit_images.len())];
        let run = || RefitData::new(pool, &prepared.network, &prepared.groups, images, prepared.refit_aim(effort));
        let data = match prepared.repairs() {
            false => None,
            true => Some(try_again(run).map_err(|fault| SimError::Preparing {
                network: prepared.network_name.clone(),
                what: match fault {
                    Caught::Error(error) => error.to_string(),
                    Caught::Panic(message) => {
                        format!("panicked {N_TRIES_OF_REFIT} times, last with: {message}")
                    }
                },
            })?),
        };
        Ok(Self { pool, prepared, kind, round, data })
    }

    /// Refits a finalist (or, with repair off, only removes its channels) and scores it.
    ///
    /// # Errors
    /// NaN in activations; [`SimError::Panicked`] if it panicked, and again when tried again: other finalists may do
    /// better.
    pub fn run(&self, task: &str, finalist: &Finalist) -> Result<Winner, SimError> {
        let (task, walk) = (task.to_owned(), finalist.walk);
        try_again(|| self.refit(finalist)).map_err(|fault| match fault {
            Caught::Error(source) => SimError::Candidate { task, walk, source },
            Caught::Panic(message) => SimError::Panicked { task, walk, n_times: N_TRIES_OF_REFIT, message },
        })
    }

    fn refit(&self, finalist: &Finalist) -> Result<Winner, KernelError> {
        let prepared = self.prepared;
        let (network, in_pairs, kept) = match &self.data {
            Some(data) => {
                let refit = SequentialRefit::new(self.pool, &prepared.network, &prepared.groups, data);
                match self.round {
                    Round::InPairs => refit.run_in_pairs(&finalist.kept, prepared.reselect)?,
                    Round::First | Round::Last => {
                        let (network, kept) = refit.run(&finalist.kept, prepared.reselect)?;
                        (network, None, kept)
                    }
                }
            }
            None => (prepared.compact(&finalist.kept)?, None, finalist.kept.clone()),
        };
        let scored = |network: Network| {
            let score = prepared.reward.score(self.pool, &network, Precision::F32)?;
            Ok::<_, KernelError>((network, score))
        };
        let (mut network, mut score) = scored(network)?;
        if let Some(in_pairs) = in_pairs.map(scored).transpose()?
            && in_pairs.1.reward(self.kind) > score.reward(self.kind)
        {
            (network, score) = in_pairs;
        }
        let macs = prepared.model.count(Cost::Macs, &kept.widths());
        // What plugins added to the walk's reward stays with the candidate.
        let added = f64::from(finalist.reward) - finalist.score.reward(self.kind);
        let reward = score.reward(self.kind) + added;
        Ok(Winner { walk: finalist.walk, kept, network, score, reward, macs })
    }
}

/// Tries what panics again; errors would come again.
fn try_again<T>(work: impl Fn() -> Result<T, KernelError>) -> Result<T, Caught<KernelError>> {
    let mut tried = guarded(&work);
    for _ in 1..N_TRIES_OF_REFIT {
        if !matches!(tried, Err(Caught::Panic(_))) {
            break;
        }
        tried = guarded(&work);
    }
    tried
}

impl Winner {
    /// The whole `network`, which `prepared` is of: as given or folded, of the same function and hence the same score.
    pub fn whole(prepared: &Prepared, network: Network, kind: RewardKind) -> Self {
        let score = prepared.original_score;
        Self {
            walk: 0,
            kept: KeptChannels::all(&prepared.groups),
            network,
            score,
            reward: score.reward(kind),
            macs: prepared.macs_full,
        }
    }

    /// The network to write: a bias that stands there only for a refit to write to, and stayed zero, costs parameters
    /// for nothing.
    pub fn emitted(&self) -> Network {
        drop_zero_biases(&self.network)
    }

    /// Its place among others.
    pub fn rank(&self) -> Rank {
        Rank { reward: self.reward, macs: self.macs, walk: self.walk }
    }
}

impl Finalist {
    /// Its place among others before any refit.
    pub fn rank(&self) -> Rank {
        Rank { reward: f64::from(self.reward), macs: self.macs, walk: self.walk }
    }
}

impl Rank {
    /// Which one is to be preferred, the better one first: higher reward, then fewer multiply-accumulates, then the
    /// earlier walk.
    pub fn best_first(&self, other: &Self) -> Ordering {
        other.reward.total_cmp(&self.reward).then((self.macs, self.walk).cmp(&(other.macs, other.walk)))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_panic_is_tried_again_once_and_an_error_is_not() {
        let n_tries = Cell::new(0);
        let run = |n_panics: u32, then: Result<u8, KernelError>| {
            n_tries.set(0);
            try_again(|| {
                n_tries.set(n_tries.get() + 1);
                assert!(n_tries.get() > n_panics, "injected");
                then.clone()
            })
        };
        let error = KernelError::NanLogits { image: 3 };
        assert_eq!((run(0, Ok(5)), n_tries.get()), (Ok(5), 1));
        assert_eq!((run(1, Ok(5)), n_tries.get()), (Ok(5), 2));
        assert_eq!((run(2, Ok(5)), n_tries.get()), (Err(Caught::Panic("injected".into())), 2));
        assert_eq!((run(0, Err(error.clone())), n_tries.get()), (Err(Caught::Error(error.clone())), 1));
        assert_eq!((run(1, Err(error.clone())), n_tries.get()), (Err(Caught::Error(error)), 2));
    }

    #[test]
    fn of_two_finalists_the_higher_reward_then_the_smaller_then_the_earlier_comes_first() {
        let rank = |reward, macs, walk| Rank { reward, macs, walk };
        let mut ranks = [rank(0.5, 10, 0), rank(0.7, 20, 9), rank(0.7, 10, 8), rank(0.7, 10, 3)];
        ranks.sort_by(Rank::best_first);
        assert_eq!(ranks.map(|r| r.walk), [3, 8, 9, 0]);
    }
}
