//! What the learner remembers of past walks: reward statistics and the best walks, per task.

use crate::error::RlError;
use crate::interface::Unroll;
use crate::state::{StateReader, StateWriter};
use crate::unrolls::save_unroll;

/// Running mean and variance of a task's rewards.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RewardStats {
    count: f64,
    mean: f64,
    variance: f64,
}

/// The mean forgets rewards older than about this many walks, because the policy that earned them is gone.
const MEMORY_WALKS: f64 = 64.0;
/// Least standard deviation assumed, in accuracy: one image of a thousand.
const SIGMA_MIN: f64 = 1e-3;

impl RewardStats {
    pub(super) fn add(&mut self, reward: f64) {
        self.count += 1.0;
        let rate = self.count.min(MEMORY_WALKS).recip();
        let deviation = reward - self.mean;
        self.mean += rate * deviation;
        self.variance = (1.0 - rate) * (self.variance + rate * deviation * deviation);
    }

    /// The reward of a walk's end in units of standard deviations from the mean.
    pub(super) fn standardise(&self, reward: f64) -> f64 {
        (reward - self.mean) / self.variance.sqrt().max(SIGMA_MIN)
    }
}

/// One task's past.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TaskMemory {
    pub(super) stats: RewardStats,
    /// Best first; of equals the earlier first.
    pub(super) best: Vec<Unroll>,
}

impl TaskMemory {
    /// Takes note of an unroll; `n_best` walks are kept if they came whole.
    pub(super) fn add(&mut self, unroll: &Unroll, n_best: usize) {
        for (&reward, &ends) in unroll.reward.iter().zip(&unroll.ends_walk) {
            if ends {
                self.stats.add(f64::from(reward));
            }
        }
        if n_best == 0 || !is_whole_walk(unroll) {
            return;
        }
        let place = self.best.partition_point(|known| score(known) >= score(unroll));
        if self.best.get(place.wrapping_sub(1)).is_some_and(|known| known.keep_ratio == unroll.keep_ratio) {
            return;
        }
        self.best.insert(place, unroll.clone());
        self.best.truncate(n_best);
    }
}

fn score(walk: &Unroll) -> f32 {
    walk.reward.last().copied().unwrap_or(f32::NEG_INFINITY)
}

fn is_whole_walk(unroll: &Unroll) -> bool {
    unroll.starts_walk.first() == Some(&true) && unroll.ends_walk.iter().position(|&e| e) == Some(unroll.n_steps() - 1)
}

pub(super) fn save(memories: &[TaskMemory], writer: &mut StateWriter) {
    for (task, memory) in memories.iter().enumerate() {
        let stats = &memory.stats;
        writer.put_f64(format!("task.{task}.stats"), &[stats.count, stats.mean, stats.variance]);
        writer.put_u64(format!("task.{task}.n_best"), &[memory.best.len() as u64]);
        for (i, walk) in memory.best.iter().enumerate() {
            save_unroll(walk, &format!("task.{task}.best.{i}"), writer);
        }
    }
}

pub(super) fn load(
    n_tasks: usize,
    n_best: usize,
    n_features: usize,
    reader: &StateReader,
) -> Result<Vec<TaskMemory>, RlError> {
    let mut memories = Vec::with_capacity(n_tasks);
    for task in 0..n_tasks {
        let stats = match reader.f64(&format!("task.{task}.stats"))?[..] {
            [count, mean, variance] if [count, mean, variance].iter().all(|x| x.is_finite()) => {
                RewardStats { count, mean, variance }
            }
            _ => return Err(RlError::State { what: format!("task.{task}.stats: expected three finite numbers") }),
        };
        let n = match reader.u64(&format!("task.{task}.n_best"))?[..] {
            [n] if n <= n_best as u64 => n,
            _ => return Err(RlError::State { what: format!("task.{task}.n_best: expected at most {n_best}") }),
        };
        let best = (0..n)
            .map(|i| load_unroll(task as u32, n_features, &format!("task.{task}.best.{i}"), reader))
            .collect::<Result<_, _>>()?;
        memories.push(TaskMemory { stats, best });
    }
    Ok(memories)
}

fn load_unroll(task: u32, n_features: usize, prefix: &str, reader: &StateReader) -> Result<Unroll, RlError> {
    let f32 = |name: &str| reader.f32(&format!("{prefix}.{name}"));
    let u64 = |name: &str| reader.u64(&format!("{prefix}.{name}"));
    let flags = |name: &str| Ok::<_, RlError>(u64(name)?.into_iter().map(|x| x != 0).collect::<Vec<_>>());
    let walk = Unroll {
        task,
        first_recurrent: f32("first_recurrent")?,
        observation: f32("observation")?,
        layer: u64("layer")?.into_iter().map(|l| u32::try_from(l).unwrap_or(u32::MAX)).collect(),
        even_ratio: f32("even_ratio")?,
        last_action: f32("last_action")?,
        last_reward: f32("last_reward")?,
        starts_walk: flags("starts_walk")?,
        raw_action: f32("raw_action")?,
        keep_ratio: f32("keep_ratio")?,
        log_prob: f32("log_prob")?,
        value: f32("value")?,
        reward: f32("reward")?,
        ends_walk: flags("ends_walk")?,
        policy_version: u64("policy_version")?,
    };
    walk.check(n_features)?;
    Ok(walk)
}
