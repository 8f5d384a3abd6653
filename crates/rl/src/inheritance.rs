//! What an agent takes over from one of its kind that learned on other tasks.

/// Where a task stands among the tasks of an earlier run.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOrigin {
    /// Earlier tasks that it is like, and how much: shares that add up to 1. Budgets between two earlier ones are like
    /// both.
    pub shares: Vec<(usize, f32)>,
    /// Groups of a walk then.
    pub walk_length_then: usize,
    /// Groups of a walk now: a group is like the one at the same share of the depth then.
    pub walk_length: usize,
}

/// What was learned, and how the tasks of now are related to those that it was learned on.
#[derive(Clone, Debug, PartialEq)]
pub struct Inheritance<'a> {
    /// What [`Learner::save`](crate::Learner::save) returned, under the same settings.
    pub state: &'a [u8],
    /// Groups of the longest walk then.
    pub walk_length_max_then: usize,
    /// Tasks then.
    pub n_tasks_then: usize,
    /// One for each task of now.
    pub origins: &'a [TaskOrigin],
    /// Share of the walks planned, [0, 1], that exploration and step sizes take for done: 1 for a policy that is to
    /// act, less for one that is to learn on.
    pub progress: f64,
}

impl TaskOrigin {
    /// Of a share of the cost among earlier tasks of these shares, all on one network: the nearest ones below and
    /// above, by how near they are, else the nearest. `earlier` are (task, share of the cost), at least one.
    pub fn between(share: f64, earlier: &[(usize, f64)], walk_length_then: usize, walk_length: usize) -> Self {
        let below = earlier.iter().filter(|(_, at)| *at <= share).max_by(|a, b| a.1.total_cmp(&b.1));
        let above = earlier.iter().filter(|(_, at)| *at >= share).min_by(|a, b| a.1.total_cmp(&b.1));
        let shares = match (below, above) {
            (Some(&(low, from)), Some(&(high, to))) if to > from => {
                let part = ((share - from) / (to - from)) as f32;
                vec![(low, 1.0 - part), (high, part)]
            }
            (Some(&(task, _)), _) | (None, Some(&(task, _))) => vec![(task, 1.0)],
            (None, None) => Vec::new(),
        };
        Self { shares, walk_length_then, walk_length }
    }

    /// The group of then that a group is like.
    pub(crate) fn group_then(&self, group: usize) -> usize {
        same_depth(group, self.walk_length, self.walk_length_then)
    }
}

/// Of a walk of `n_then` groups the one at the same share of the depth as `group` of one of `n`.
pub(crate) fn same_depth(group: usize, n: usize, n_then: usize) -> usize {
    let (last, last_then) = (n.saturating_sub(1).max(1), n_then.saturating_sub(1));
    ((group * last_then) as f64 / last as f64).round().min(last_then as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::TaskOrigin;

    #[test]
    fn a_budget_between_two_is_like_both_and_one_outside_like_the_nearest() {
        let of = |share| TaskOrigin::between(share, &[(0, 0.3), (2, 0.7), (1, 0.5)], 9, 9).shares;
        assert_eq!(of(0.2), [(0, 1.0)]);
        assert_eq!(of(0.9), [(2, 1.0)]);
        assert_eq!(of(0.5), [(1, 1.0)]);
        let [(low, least), (high, most)] = of(0.35)[..] else { panic!("two") };
        assert_eq!((low, high), (0, 1));
        assert!((least - 0.75).abs() < 1e-6 && (most - 0.25).abs() < 1e-6);
    }

    #[test]
    fn a_group_is_like_the_one_at_the_same_depth() {
        let origin = TaskOrigin { shares: vec![(0, 1.0)], walk_length_then: 9, walk_length: 27 };
        assert_eq!([0, 13, 26].map(|group| origin.group_then(group)), [0, 4, 8]);
        let same = TaskOrigin { walk_length: 9, ..origin };
        assert!((0..9).all(|group| same.group_then(group) == group));
        let one = TaskOrigin { walk_length_then: 1, walk_length: 1, ..same };
        assert_eq!(one.group_then(0), 0);
    }
}
