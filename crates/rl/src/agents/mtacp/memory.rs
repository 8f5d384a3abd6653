//! What the learner remembers of past walks: reward statistics and the best walks, per task.

use crate::error::RlError;
use crate::returns::reward_stats::RewardStats;
use crate::state::{StateReader, StateWriter};
use crate::unroll::Unroll;

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
        if n_best == 0 || !unroll.is_whole_walk() {
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

pub(super) fn save(memories: &[TaskMemory], writer: &mut StateWriter) {
    for (task, memory) in memories.iter().enumerate() {
        memory.stats.save(&format!("task.{task}.stats"), writer);
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
        let stats = RewardStats::load(&format!("task.{task}.stats"), reader)?;
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
