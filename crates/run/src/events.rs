//! What happens in a run, as observers see it and as `metrics.jsonl` has it, one JSON object a line.

use std::collections::BTreeMap;

use secateur_sim::{ProcessEvent, Score, TaskSetup, Winner};
use secateur_train::SearchEvent;
use serde::{Serialize, Serializer};

use crate::saved_search::SearchTimes;
use crate::summary::BoundSummary;

/// Version of the lines of `metrics.jsonl`.
pub(crate) const METRICS_SCHEMA: u32 = 1;

/// Something that happened. Serialises to a line of `metrics.jsonl`, whose field `event` is the variant in snake case.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent<'a> {
    /// The run began: the first line.
    Start {
        /// Version of the lines.
        schema: u32,
        /// Seed of the scene.
        seed: u64,
    },
    /// A walk ended and its candidate was scored.
    Candidate {
        /// Name of the agent.
        agent: &'a str,
        /// Name of the task.
        task: &'a str,
        /// Index of the actor.
        actor: usize,
        /// Number of the walk within its task.
        walk: u64,
        /// Whether the walk was free of exploration noise.
        noise_free: bool,
        /// Whether the score was known.
        cached: bool,
        /// What the walk was paid.
        reward: f64,
        /// What was measured on the reward images.
        #[serde(flatten)]
        measured: Measured,
        /// Multiply-accumulates per image.
        macs: u64,
        /// Where its task has several bounds, its cost for each of them, by kind; else absent.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        costs: BTreeMap<&'static str, u64>,
        /// Width of every prunable group, in walk order.
        widths: &'a [usize],
        /// Of these, channels that were bought with leftover budget after the walk, by place in the walk.
        spent: &'a BTreeMap<usize, usize>,
        /// Whether it is the best of its task so far.
        is_best: bool,
        /// Seconds of the search until then, earlier processes included.
        search_s: f64,
        /// Seconds in which its candidates were tuned before they were scored, added up over them; absent where they
        /// are not.
        #[serde(skip_serializing_if = "Option::is_none")]
        tuning_s: Option<f64>,
    },
    /// An actor begins its walk again, because its candidate, or an equal one, panicked while it was repaired or
    /// scored.
    Restarted {
        /// Name of the agent.
        agent: &'a str,
        /// Name of the task.
        task: &'a str,
        /// Index of the actor.
        actor: usize,
        /// Number of the walk within its task.
        walk: u64,
        /// What the panic said.
        message: &'a str,
    },
    /// A learner updated its policy.
    Learned {
        /// Name of the agent.
        agent: &'a str,
        /// Updates so far.
        n_updates: u64,
        /// Losses and the like, by name.
        #[serde(flatten)]
        numbers: Numbers<'a, &'static str>,
    },
    /// Where time went between two updates of a learner that has a thread of its own.
    Scheduled {
        /// Name of the agent.
        agent: &'a str,
        /// Updates so far.
        n_updates: u64,
        /// Times in seconds and shares, by name.
        #[serde(flatten)]
        numbers: Numbers<'a, &'static str>,
    },
    /// Numbers of a plugin.
    Note {
        /// Name of the agent.
        agent: &'a str,
        /// Name of the plugin.
        plugin: &'a str,
        /// What the plugin noted, by name.
        numbers: Numbers<'a, String>,
    },
    /// A task of the run's agent has its network, after the final refit.
    Result {
        /// Name of the task.
        task: &'a str,
        /// The walk whose candidate won; none where nothing had to be pruned.
        walk: Option<u64>,
        /// What decided between the finalists.
        reward: f64,
        /// Top-1 on the reward images, from 0 to 1; absent without labels.
        #[serde(skip_serializing_if = "Option::is_none")]
        accuracy: Option<f64>,
        /// Output error on the reward images, a share of the dense outputs' variance; absent where it is not measured.
        #[serde(skip_serializing_if = "Option::is_none")]
        output_error: Option<f64>,
        /// Multiply-accumulates per image.
        macs: u64,
        /// Where several bounds hold at once, all of them; else absent.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        bounds: Vec<BoundSummary>,
    },
    /// An epoch of the training of a winner ended.
    Epoch {
        /// `polish` or `tune`.
        stage: &'a str,
        /// Name of the agent whose winner it is.
        agent: &'a str,
        /// Name of the task.
        task: &'a str,
        /// Epochs that are done.
        epoch: usize,
        /// Mean over the epoch's images.
        loss: f64,
        /// Share of the epoch's images, as they were moved, that were told right; absent without labels.
        #[serde(skip_serializing_if = "Option::is_none")]
        accuracy: Option<f64>,
        /// Reward on held-out training images; absent where these are not looked at.
        #[serde(skip_serializing_if = "Option::is_none")]
        held_out: Option<f64>,
    },
    /// The training of a winner ended.
    Trained {
        /// `polish` or `tune`.
        stage: &'a str,
        /// Name of the agent whose winner it is.
        agent: &'a str,
        /// Name of the task.
        task: &'a str,
        /// Images that were learned from.
        images: usize,
        /// Times that each was seen.
        epochs: usize,
        /// Reward on held-out training images before.
        held_out_before: f64,
        /// After.
        held_out_after: f64,
        /// Whether the trained network is used.
        kept: bool,
    },
}

/// A score; what is not known is absent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Top-1, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Mean Kullback-Leibler divergence from the original network's class probabilities, nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// Output error, a share of the dense outputs' variance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
}

impl Measured {
    const fn of(score: &Score) -> Self {
        let Score { accuracy, divergence, output_error } = *score;
        Self { accuracy, divergence, output_error }
    }
}

/// Named numbers. Serialise as a map; those that are not finite become `null`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers<'a, N>(pub &'a [(N, f64)]);

impl<N: AsRef<str>> Serialize for Numbers<'_, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, number)| (name.as_ref(), number)))
    }
}

impl<'a> RunEvent<'a> {
    /// An event of a search by `agent`.
    pub(crate) fn of_search(
        agent: &'a str,
        tasks: &'a [TaskSetup],
        event: &'a SearchEvent,
        times: SearchTimes,
    ) -> Self {
        match event {
            SearchEvent::Process(event) => Self::of_process(agent, tasks, event, times),
            SearchEvent::Learned { n_updates, numbers, .. } => {
                Self::Learned { agent, n_updates: *n_updates, numbers: Numbers(numbers) }
            }
            SearchEvent::Scheduled { n_updates, numbers } => {
                Self::Scheduled { agent, n_updates: *n_updates, numbers: Numbers(numbers) }
            }
        }
    }

    fn of_process(agent: &'a str, tasks: &'a [TaskSetup], event: &'a ProcessEvent, times: SearchTimes) -> Self {
        let name = |task: &usize| tasks[*task].name.as_str();
        match event {
            ProcessEvent::Candidate {
                task,
                actor,
                walk,
                noise_free,
                cached,
                reward,
                score,
                macs,
                costs,
                widths,
                spent,
                is_best,
            } => Self::Candidate {
                agent,
                task: name(task),
                actor: *actor,
                walk: *walk,
                noise_free: *noise_free,
                cached: *cached,
                reward: f64::from(*reward),
                measured: Measured::of(score),
                macs: *macs,
                costs: tasks[*task].budget.iter().map(|bound| bound.cost.name()).zip(costs.iter().copied()).collect(),
                widths,
                spent,
                is_best: *is_best,
                search_s: times.wall,
                tuning_s: (times.tuning > 0.0).then_some(times.tuning),
            },
            ProcessEvent::Restarted { task, actor, walk, message } => {
                Self::Restarted { agent, task: name(task), actor: *actor, walk: *walk, message }
            }
            ProcessEvent::Note { plugin, numbers } => Self::Note { agent, plugin, numbers: Numbers(numbers) },
        }
    }

    /// The result of a task.
    pub(crate) fn result(task: &'a TaskSetup, winner: &Winner, bounds: Vec<BoundSummary>) -> Self {
        Self::Result {
            task: &task.name,
            walk: task.is_searched.then_some(winner.walk),
            reward: winner.reward,
            accuracy: winner.score.accuracy,
            output_error: winner.score.output_error,
            macs: winner.macs,
            bounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_json_object_and_numbers_that_are_not_finite_are_null() {
        let numbers = [("loss", 0.5), ("entropy", f64::NAN)];
        let learned = RunEvent::Learned { agent: "mtacp", n_updates: 3, numbers: Numbers(&numbers) };
        let expected = serde_json::json!({
            "event": "learned", "agent": "mtacp", "n_updates": 3, "loss": 0.5, "entropy": null
        });
        assert_eq!(serde_json::to_value(&learned).unwrap(), expected);
        let of_plugin = [("penalty".to_owned(), 2.0)];
        let note = RunEvent::Note { agent: "random", plugin: "penalty", numbers: Numbers(&of_plugin) };
        let expected = serde_json::json!({
            "event": "note", "agent": "random", "plugin": "penalty", "numbers": {"penalty": 2.0}
        });
        assert_eq!(serde_json::to_value(&note).unwrap(), expected);
    }
}
