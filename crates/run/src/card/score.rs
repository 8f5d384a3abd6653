//! The systems that score walks on the card.

use std::collections::BTreeMap;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use secateur_gpu::GpuScore;
use secateur_kernels::KernelError;
use secateur_net::Network;
use secateur_sim::{
    CandidateFault, CandidateId, Compact, Kept, MadeBy, OnTask, Prepared, PruneTask, PrunedNetwork, Score, ScoreCache,
    SimError, TickFailure, ToScore,
};

use super::{Built, Card, CardState, Scores};

/// A candidate that is built and to be scored.
type Ready<'w> = (Entity, &'w CandidateId, &'w MadeBy, &'w OnTask, &'w Kept, &'w Compact);

/// Candidates of one prepared network, in actor order.
struct NetworkCandidates<'a> {
    prepared: Arc<Prepared>,
    candidates: Vec<Ready<'a>>,
}

fn by_network<'a>(
    networks: &Query<&PrunedNetwork>,
    candidates: &'a Query<Ready<'_>, ToScore>,
) -> BTreeMap<usize, NetworkCandidates<'a>> {
    let mut by_network: BTreeMap<usize, NetworkCandidates<'a>> = BTreeMap::new();
    for candidate in candidates {
        if let Ok(network) = networks.get(candidate.3.network) {
            let new = || NetworkCandidates { prepared: network.prepared.clone(), candidates: Vec::new() };
            by_network.entry(network.index).or_insert_with(new).candidates.push(candidate);
        }
    }
    by_network
        .values_mut()
        .for_each(|of_network| of_network.candidates.sort_by_key(|(_, _, made_by, ..)| made_by.index));
    by_network
}

/// Hands the card the networks that were built since it was last handed some, and returns while it is busy with them.
pub(super) fn hand_to_card(card: Res<Card>, networks: Query<&PrunedNetwork>, candidates: Query<Ready<'_>, ToScore>) {
    card.state().begin_new(&by_network(&networks, &candidates), &Scores::new());
}

/// Takes the scores of the networks that the card was handed while others were built, and hands it those that it was
/// not. What it cannot score is left to `score_candidates`, which does it on the processor.
pub(super) fn score_on_card(
    mut commands: Commands,
    card: Res<Card>,
    mut cache: ResMut<ScoreCache>,
    (tasks, networks): (Query<&PruneTask>, Query<&PrunedNetwork>),
    candidates: Query<Ready<'_>, ToScore>,
    mut failure: ResMut<TickFailure>,
) {
    let by_network = by_network(&networks, &candidates);
    let scores = card.state().score(&by_network);
    for (index, of_network) in by_network {
        let reward = &of_network.prepared.reward;
        let n_images = reward.n_images.max(1) as f64;
        for (entity, id, _, on, kept, compact) in of_network.candidates {
            match scores.get(id).filter(|(network, _)| Arc::ptr_eq(network, &compact.0)) {
                None => {}
                Some((_, GpuScore { first_not_finite: Some(image), .. })) => {
                    let source = KernelError::NanLogits { image: *image };
                    commands.entity(entity).insert(CandidateFault(source.to_string()));
                    let task = tasks.get(on.task).map_or_else(|_| String::new(), |task| task.name.clone());
                    failure.note(SimError::Candidate { task, walk: id.walk, source });
                }
                Some((_, score)) => {
                    let score = Score {
                        accuracy: reward.labels.as_ref().map(|_| score.n_correct as f64 / n_images),
                        divergence: Some(score.divergence / n_images),
                        output_error: None,
                    };
                    cache.insert(index, kept.0.clone(), score);
                    commands.entity(entity).insert(score).remove::<Compact>();
                }
            }
        }
    }
    if card.forgets_scores() {
        // Scores of another engine are not those that this one would give.
        *cache = ScoreCache::default();
    }
}

impl CardState {
    /// Scores of all that the card was handed, and of what else is in `by_network`.
    fn score(&mut self, by_network: &BTreeMap<usize, NetworkCandidates<'_>>) -> Scores {
        let mut scores = Scores::new();
        self.finish(&mut scores);
        // Such as what a plugin put in the place of what was built.
        self.begin_new(by_network, &scores);
        self.finish(&mut scores);
        scores
    }

    /// Hands over what the card neither has in hand nor has scored.
    fn begin_new(&mut self, by_network: &BTreeMap<usize, NetworkCandidates<'_>>, scores: &Scores) {
        for (&index, of_network) in by_network {
            let built =
                of_network.candidates.iter().map(|(_, id, .., compact)| Built { id: **id, network: compact.0.clone() });
            let new: Vec<Built> = built.filter(|built| !self.knows(built, scores)).collect();
            if !new.is_empty() {
                self.begin(index, of_network.prepared.clone(), new);
            }
        }
    }

    fn knows(&self, built: &Built, scores: &Scores) -> bool {
        let is_it = |network: &Arc<Network>| Arc::ptr_eq(network, &built.network);
        let in_hand = self.ahead.iter().flat_map(|ahead| &ahead.built);
        scores.get(&built.id).is_some_and(|(network, _)| is_it(network))
            || in_hand.into_iter().any(|other| other.id == built.id && is_it(&other.network))
    }
}
