//! What is known of the finalists' refits. Checkpoints hold it, so that no finished refit is done again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use secateur_net::{Network, Tensor, Weights, prune};
use secateur_sim::{Prepared, Rank, RefitKey, RefitRanks, Round, Score, TaskSetup, Winner};
use secateur_train::{SearchRules, check_score};
use serde::{Deserialize, Serialize};

use crate::saved_search::FinishedSearch;

/// All refits so far.
#[derive(Debug, Default)]
pub(crate) struct Refits {
    pub(crate) ranks: RefitRanks,
    /// The best behind the first round so far, by search and task.
    best: BTreeMap<(usize, usize), Winner>,
    /// Tasks whose result is in `metrics.jsonl`.
    pub(crate) recorded: BTreeSet<usize>,
    /// What went wrong.
    pub(crate) warnings: Vec<String>,
}

/// The plain form of [`Refits`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SavedRefits {
    ranks: Vec<(RefitKey, Option<Rank>)>,
    best: Vec<((usize, usize), SavedWinner)>,
    recorded: BTreeSet<usize>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedWinner {
    walk: u64,
    kept: Vec<Vec<usize>>,
    /// Name, shape and elements of every parameter.
    parameters: Vec<(String, Vec<usize>, Vec<f32>)>,
    score: Score,
    reward: f64,
    macs: u64,
}

impl Refits {
    /// Remembers that a finalist cannot be refitted.
    pub(crate) fn give_up(&mut self, key: RefitKey) {
        self.ranks.insert(key, None);
    }

    /// Remembers a refit; behind the first round, also the best network of each search and task.
    pub(crate) fn note(&mut self, key: RefitKey, winner: Winner) {
        let rank = winner.rank();
        self.ranks.insert(key, Some(rank));
        let (of, is_best) = ((key.search, key.task), |known: &Winner| rank.best_first(&known.rank()).is_lt());
        if key.round != Round::First && self.best.get(&of).is_none_or(is_best) {
            self.best.insert(of, winner);
        }
    }

    /// The network of the best finalist behind the first round.
    pub(crate) fn best(&self, search: usize, task: usize) -> Option<&Winner> {
        self.best.get(&(search, task))
    }

    /// The plain form.
    pub(crate) fn save(&self) -> SavedRefits {
        SavedRefits {
            ranks: self.ranks.iter().map(|(&key, &rank)| (key, rank)).collect(),
            best: self.best.iter().map(|(&of, winner)| (of, SavedWinner::of(winner))).collect(),
            recorded: self.recorded.clone(),
            warnings: self.warnings.clone(),
        }
    }

    /// What `saved` was of, on these networks.
    ///
    /// # Errors
    /// Networks that do not fit.
    pub(crate) fn restore(saved: SavedRefits, networks: &[Arc<Prepared>], tasks: &[TaskSetup]) -> anyhow::Result<Self> {
        let mut best = BTreeMap::new();
        for ((search, task), winner) in saved.best {
            let setup = tasks.get(task).with_context(|| format!("a refit of task {task} of {}", tasks.len()))?;
            best.insert((search, task), winner.restore(&networks[setup.network])?);
        }
        Ok(Self { ranks: saved.ranks.into_iter().collect(), best, recorded: saved.recorded, warnings: saved.warnings })
    }
}

impl SavedRefits {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranks.is_empty() && self.best.is_empty() && self.recorded.is_empty()
    }

    /// Refuses refits of what are no finalists of `finished`.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub(crate) fn check(&self, finished: &[FinishedSearch], rules: &[SearchRules]) -> anyhow::Result<()> {
        let is_finalist = |key: &RefitKey| {
            let task = finished.get(key.search).and_then(|search| search.tasks.get(key.task));
            let is_one = task.is_some_and(|task| task.walks().any(|walk| walk == key.walk));
            ensure!(is_one, "it has a refit of walk {}, no finalist", key.walk);
            Ok(())
        };
        for (key @ RefitKey { walk, .. }, rank) in &self.ranks {
            is_finalist(key)?;
            let is_one = rank.is_none_or(|rank| rank.reward.is_finite() && rank.walk == *walk);
            ensure!(is_one, "it has a refit of walk {walk} with rank {rank:?}");
        }
        for &((search, task), ref winner) in &self.best {
            let key = RefitKey { round: Round::Last, search, task, walk: winner.walk };
            is_finalist(&key)?;
            rules[search].tasks[task].check_kept(&winner.kept, winner.macs)?;
            check_score(&winner.score)?;
            let expected = Rank { reward: winner.reward, macs: winner.macs, walk: winner.walk };
            let keys = [key, RefitKey { round: Round::InPairs, ..key }];
            let known = self.ranks.iter().any(|(other, rank)| keys.contains(other) && *rank == Some(expected));
            ensure!(known, "it has a refitted network of walk {} with another rank", winner.walk);
        }
        let n_tasks = rules.first().map_or(0, |search| search.tasks.len());
        ensure!(self.recorded.iter().all(|&task| task < n_tasks), "it has results of more than {n_tasks} tasks");
        Ok(())
    }
}

impl SavedWinner {
    fn of(winner: &Winner) -> Self {
        let plain =
            |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.shape().to_vec(), tensor.data().to_vec());
        Self {
            walk: winner.walk,
            kept: winner.kept.lists().to_vec(),
            parameters: winner.network.weights().iter().map(plain).collect(),
            score: winner.score,
            reward: winner.reward,
            macs: winner.macs,
        }
    }

    /// The graph follows from the kept channels.
    fn restore(self, prepared: &Prepared) -> anyhow::Result<Winner> {
        let kept = prepared.kept(self.kept).context("a refitted finalist")?;
        let (graph, _) = prune(&prepared.network, &prepared.groups, &kept).context("a refitted finalist")?.into_parts();
        let tensor = |(name, shape, data)| Ok::<_, anyhow::Error>((name, Tensor::new(shape, data)?));
        let weights: Weights = self.parameters.into_iter().map(tensor).collect::<Result<_, _>>()?;
        let network = Network::new(graph, weights).map_err(|error| anyhow!("a refitted finalist: {error}"))?;
        Ok(Winner { walk: self.walk, kept, network, score: self.score, reward: self.reward, macs: self.macs })
    }
}
