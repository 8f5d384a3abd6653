//! What happened, in order: the driver drains this after every tick and writes it to wherever runs are recorded.

use std::collections::BTreeMap;

use bevy_ecs::prelude::*;

use crate::score::Score;

/// Something worth recording.
#[derive(Clone, Debug, PartialEq)]
pub enum ProcessEvent {
    /// A walk ended and its candidate was scored.
    Candidate {
        /// Index of the task.
        task: usize,
        /// Index of the actor.
        actor: usize,
        /// Number of the walk within its task.
        walk: u64,
        /// Whether the walk was free of noise.
        noise_free: bool,
        /// Whether the score was known.
        cached: bool,
        /// What the walk was paid.
        reward: f32,
        /// Its score.
        score: Score,
        /// Multiply-accumulates per image.
        macs: u64,
        /// Where the task has several bounds, its cost for each of them; else empty.
        costs: Vec<u64>,
        /// Width of every prunable group, in walk order.
        widths: Vec<usize>,
        /// Of these, widths bought with leftover budget after the walk: channels, by place in the walk.
        spent: BTreeMap<usize, usize>,
        /// Whether it is the best of its task so far.
        is_best: bool,
    },
    /// An actor begins its walk again, because its candidate, or an equal one, has a fault instead of a score.
    Restarted {
        /// Index of the task.
        task: usize,
        /// Index of the actor.
        actor: usize,
        /// Number of the walk within its task.
        walk: u64,
        /// What the fault is, such as what a panic said.
        message: String,
    },
    /// Anything a plugin wants in `metrics.jsonl`.
    Note {
        /// The plugin's name.
        plugin: String,
        /// Named numbers.
        numbers: Vec<(String, f64)>,
    },
}

/// Events since the driver last looked.
#[derive(Resource, Debug, Default)]
pub struct EventLog(pub Vec<ProcessEvent>);
