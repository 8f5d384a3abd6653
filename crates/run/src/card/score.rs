//! The system that scores walks on the card.

use std::collections::BTreeMap;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use secateur_kernels::KernelError;
use secateur_net::Network;
use secateur_sim::{
    Actor, Candidate, Failure, Outcome, Prepared, PruneTask, PrunedNetwork, Score, ScoreCache, SimError,
};

use super::{Card, Scores, State};

/// A candidate with its actor's index and its task.
type Fresh<'a> = (usize, &'a PruneTask, &'a mut Candidate);

/// Candidates of one prepared network, in actor order.
struct Batch<'a> {
    prepared: Arc<Prepared>,
    candidates: Vec<Fresh<'a>>,
}

/// Takes the scores of the networks that the card was handed while others were built, and hands it those that it was not. What it
/// cannot score keeps its network, and `score_candidates` does it on the processor.
pub(super) fn score_on_card(
    card: Res<Card>,
    mut cache: ResMut<ScoreCache>,
    tasks: Query<&PruneTask>,
    networks: Query<&PrunedNetwork>,
    mut actors: Query<(&Actor, &mut Outcome)>,
    mut failure: ResMut<Failure>,
) {
    let mut batches: BTreeMap<usize, Batch<'_>> = BTreeMap::new();
    for (actor, outcome) in &mut actors {
        let Some(candidate) = &mut outcome.into_inner().0 else { continue };
        let Ok(task) = tasks.get(actor.task) else { continue };
        let Ok(network) = networks.get(task.network) else { continue };
        if candidate.compact.is_some() && candidate.score.is_none() {
            let new = || Batch { prepared: network.prepared.clone(), candidates: Vec::new() };
            batches.entry(network.index).or_insert_with(new).candidates.push((actor.index, task, candidate));
        }
    }
    batches.values_mut().for_each(|batch| batch.candidates.sort_by_key(|(actor, ..)| *actor));
    let scores = card.state().score(&batches);
    for (index, batch) in batches {
        batch.take(index, &scores, &mut cache, &mut failure);
    }
    if card.forgets_scores() {
        // Scores of another engine are not those that this one would give.
        *cache = ScoreCache::default();
    }
}

impl State {
    /// Scores of all that the card was handed, and of what else is in `batches`.
    fn score(&mut self, batches: &BTreeMap<usize, Batch<'_>>) -> Scores {
        let mut scores = Scores::new();
        self.finish(&mut scores);
        for (&index, batch) in batches {
            // Whatever a plugin put in the place of what was built.
            let is_new = |network: &Arc<Network>| !scores.contains_key(&Arc::as_ptr(network));
            let compact = batch.candidates.iter().filter_map(|(.., candidate)| candidate.compact.clone());
            let others: Vec<_> = compact.filter(is_new).collect();
            if !others.is_empty() {
                self.begin(index, batch.prepared.clone(), others);
            }
        }
        self.finish(&mut scores);
        scores
    }
}

impl Batch<'_> {
    /// Gives every candidate its score, if the card has one.
    fn take(self, index: usize, scores: &Scores, cache: &mut ScoreCache, failure: &mut Failure) {
        let n = self.prepared.reward.labels.len().max(1) as f64;
        for (_, task, candidate) in self.candidates {
            let score = candidate.compact.as_ref().and_then(|network| scores.get(&Arc::as_ptr(network)));
            let Some(score) = score else { continue };
            candidate.compact = None;
            if let Some(image) = score.first_not_finite {
                let (task, walk) = (task.name.clone(), candidate.walk);
                failure.note(SimError::Candidate { task, walk, source: KernelError::NanLogits { image } });
                continue;
            }
            let score = Score { accuracy: score.n_correct as f64 / n, divergence: score.divergence / n };
            candidate.score = Some(score);
            cache.insert(index, candidate.kept.clone(), score);
        }
    }
}
