//! What the learner remembers of past walks: reward statistics and the best walks, per task.

use crate::error::RlError;
use crate::state::{StateReader, StateWriter};
use crate::unroll::Unroll;

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
            walk.save(&format!("task.{task}.best.{i}"), writer);
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
            .map(|i| Unroll::load(task as u32, n_features, &format!("task.{task}.best.{i}"), reader))
            .collect::<Result<_, _>>()?;
        memories.push(TaskMemory { stats, best });
    }
    Ok(memories)
}
