//! A candidate outside of its search: what a worker needs to know of it.

use secateur_sim::{CandidateId, Score};
use serde::{Deserialize, Serialize};

/// A candidate that a search asks a score of. Whoever has the search's inputs can score it, see
/// [`CandidateEvaluator`](crate::CandidateEvaluator).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedCandidate {
    /// blake3 of what decides about scores: scene, networks, data, build of the program and instruction set.
    pub search: String,
    /// Name of its task.
    pub task_name: String,
    /// Index of its task in the scene.
    pub task: usize,
    /// Number of the walk within its task.
    pub walk: u64,
    /// Index of the pair of network and data set, in the order in which the tasks name them.
    pub network: usize,
    /// Kept channels of every group, ascending: `[group][i]`.
    pub kept: Vec<Vec<usize>>,
    /// Multiply-accumulates per image.
    pub macs: u64,
}

impl AskedCandidate {
    pub(crate) fn id(&self) -> CandidateId {
        CandidateId { task: self.task, walk: self.walk }
    }

    /// Number of channels kept of every group.
    pub fn widths(&self) -> Vec<usize> {
        self.kept.iter().map(Vec::len).collect()
    }
}

/// The best candidate of a task so far, before any final refit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestCandidate {
    /// The candidate.
    pub candidate: AskedCandidate,
    /// What it was told.
    pub score: Score,
    /// What its walk was paid, [0, 1].
    pub reward: f32,
}

/// A score that a search was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToldScore {
    pub(crate) task: usize,
    pub(crate) walk: u64,
    /// blake3 of what the candidate keeps.
    pub(crate) kept: String,
    pub(crate) score: Score,
    /// The tick that the search took it in, of those in which scores could arrive, where scores count as they come.
    pub(crate) arrival: Option<u64>,
}

impl ToldScore {
    pub(crate) fn id(&self) -> CandidateId {
        CandidateId { task: self.task, walk: self.walk }
    }
}

/// blake3 of kept channels.
pub(crate) fn kept_digest(kept: &[Vec<usize>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for list in kept {
        hasher.update(&(list.len() as u64).to_le_bytes());
        list.iter().for_each(|&channel| {
            hasher.update(&(channel as u64).to_le_bytes());
        });
    }
    hasher.finalize().to_hex().to_string()
}
