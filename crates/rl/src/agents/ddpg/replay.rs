//! The replay ring: the last walks, whole.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{RlError, check_finite};
use crate::rng::RngStream;
use crate::state::{StateReader, StateWriter};

/// A walk as it is remembered, of `T` steps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PastWalk {
    /// The task.
    pub(super) task: u32,
    /// What was seen before each step, `[T, F]`.
    pub(super) features: Vec<f32>,
    /// What was done, `[T]`.
    pub(super) actions: Vec<f32>,
    /// What the walk earned.
    pub(super) reward: f32,
}

/// A step of a remembered walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct PastStep<'a> {
    pub(super) walk: &'a PastWalk,
    pub(super) step: usize,
}

/// The last walks, oldest first. A copy shares them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Replay(VecDeque<Arc<PastWalk>>);

impl Replay {
    /// Appends a walk; of more than `n_walks` the oldest goes.
    pub(super) fn push(&mut self, walk: PastWalk, n_walks: usize) {
        self.0.push_back(Arc::new(walk));
        while self.0.len() > n_walks {
            self.0.pop_front();
        }
    }

    /// Takes a walk in if it is among the `n_best` of its task; of equals the earlier stay. The same actions again are
    /// no other walk.
    pub(super) fn keep_best(&mut self, walk: &PastWalk, n_best: usize) {
        let is_known = |known: &Arc<PastWalk>| known.task == walk.task && known.actions == walk.actions;
        if self.0.iter().any(is_known) {
            return;
        }
        self.0.push_back(Arc::new(walk.clone()));
        let of_task: Vec<usize> = (0..self.0.len()).filter(|&place| self.0[place].task == walk.task).collect();
        // The last of the worst.
        let worst = |&a: &usize, &b: &usize| self.0[b].reward.total_cmp(&self.0[a].reward).then(a.cmp(&b));
        if let Some(worst) = of_task.iter().copied().max_by(worst).filter(|_| of_task.len() > n_best) {
            self.0.remove(worst);
        }
    }

    /// The walks, oldest first.
    pub(super) fn walks(&self) -> impl ExactSizeIterator<Item = &PastWalk> {
        self.0.iter().map(|walk| &**walk)
    }

    /// Every step.
    pub(super) fn all(&self) -> impl Iterator<Item = PastStep<'_>> {
        self.0.iter().flat_map(|walk| (0..walk.actions.len()).map(move |step| PastStep { walk, step }))
    }

    /// Steps that may be sampled.
    pub(super) fn n_steps(&self, skip_first: bool) -> usize {
        (0..self.0.len()).map(|place| self.n_steps_of(place, skip_first)).sum()
    }

    /// Of the walk at `place`. Before the oldest walk no end is known, so the quirk does not see where it starts.
    fn n_steps_of(&self, place: usize, skip_first: bool) -> usize {
        self.0[place].actions.len() - usize::from(skip_first && place > 0)
    }

    /// `n` steps, each as likely as any other and none twice if there are as many; else each drawn from all. None if
    /// there is none.
    pub(super) fn sample(&self, n: usize, skip_first: bool, rng: &mut RngStream) -> Vec<PastStep<'_>> {
        let n_steps = self.n_steps(skip_first);
        let mut below = |n: usize| ((rng.uniform() * n as f64) as usize).min(n - 1);
        let mut chosen: Vec<usize> = Vec::with_capacity(n);
        if n_steps == 0 {
            return Vec::new();
        }
        if n_steps < n {
            chosen.extend((0..n).map(|_| below(n_steps)));
        } else {
            // Floyd's way to draw a subset.
            for last in n_steps - n..n_steps {
                let drawn = below(last + 1);
                chosen.push(if chosen.contains(&drawn) { last } else { drawn });
            }
        }
        chosen.into_iter().filter_map(|index| self.at(index, skip_first)).collect()
    }

    fn at(&self, mut index: usize, skip_first: bool) -> Option<PastStep<'_>> {
        for (place, walk) in self.0.iter().enumerate() {
            let n_steps = self.n_steps_of(place, skip_first);
            if index < n_steps {
                return Some(PastStep { walk, step: index + walk.actions.len() - n_steps });
            }
            index -= n_steps;
        }
        None
    }

    pub(super) fn save(&self, prefix: &str, writer: &mut StateWriter) {
        let whole = |of: &dyn Fn(&PastWalk) -> u64| self.0.iter().map(|walk| of(walk)).collect::<Vec<_>>();
        writer.put_u64(format!("{prefix}.task"), &whole(&|walk| walk.task.into()));
        writer.put_u64(format!("{prefix}.n_steps"), &whole(&|walk| walk.actions.len() as u64));
        let all = |of: &dyn Fn(&PastWalk) -> Vec<f32>| self.0.iter().flat_map(|walk| of(walk)).collect::<Vec<_>>();
        writer.put_f32(format!("{prefix}.features"), &all(&|walk| walk.features.clone()));
        writer.put_f32(format!("{prefix}.actions"), &all(&|walk| walk.actions.clone()));
        writer.put_f32(format!("{prefix}.rewards"), &all(&|walk| vec![walk.reward]));
    }

    /// Reads what [`Self::save`] wrote of walks of tasks below `n_tasks`, at most `n_walks`, with `n_features` features
    /// a step.
    ///
    /// # Errors
    /// [`RlError::State`] for anything else.
    pub(super) fn load(
        prefix: &str,
        [n_tasks, n_walks, n_features]: [usize; 3],
        reader: &StateReader,
    ) -> Result<Self, RlError> {
        let tasks = reader.u64(&format!("{prefix}.task"))?;
        let lengths = reader.u64(&format!("{prefix}.n_steps"))?;
        let [features, actions, rewards] =
            ["features", "actions", "rewards"].map(|name| reader.f32(&format!("{prefix}.{name}")));
        let (features, actions, rewards) = (features?, actions?, rewards?);
        for (name, values) in [("features", &features), ("actions", &actions), ("rewards", &rewards)] {
            check_finite("load learner state", &format!("{prefix}.{name}"), values).map_err(RlError::state)?;
        }
        let n_steps = lengths.iter().try_fold(0u64, |sum, &n| if n == 0 { None } else { sum.checked_add(n) });
        let fits = tasks.len() <= n_walks
            && [lengths.len(), rewards.len()] == [tasks.len(); 2]
            && tasks.iter().all(|&task| task < n_tasks as u64)
            && n_steps == Some(actions.len() as u64)
            && features.len() == actions.len() * n_features;
        if !fits {
            let what = format!("{prefix}: expected at most {n_walks} walks with {n_features} features a step");
            return Err(RlError::State { what });
        }
        let mut walks = VecDeque::with_capacity(tasks.len());
        let mut first = 0;
        for ((task, n), reward) in tasks.into_iter().zip(lengths).zip(rewards) {
            let end = first + n as usize;
            walks.push_back(Arc::new(PastWalk {
                task: task as u32,
                features: features[first * n_features..end * n_features].to_vec(),
                actions: actions[first..end].to_vec(),
                reward,
            }));
            first = end;
        }
        Ok(Self(walks))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Walks of three steps of one feature; the actions of walk `i` are 10 i, 10 i + 1, 10 i + 2.
    fn ring(n_walks: usize, n_kept: usize) -> Replay {
        let mut replay = Replay::default();
        for i in 0..n_walks {
            let actions: Vec<f32> = (0..3).map(|step| (10 * i + step) as f32).collect();
            let features = actions.iter().map(|action| action / 2.0).collect();
            replay.push(PastWalk { task: (i % 2) as u32, features, actions, reward: i as f32 }, n_kept);
        }
        replay
    }

    /// Every action that is ever sampled.
    fn sampled(replay: &Replay, skip_first: bool) -> BTreeSet<u32> {
        let mut seen = BTreeSet::new();
        for draw in 0..200 {
            let steps = replay.sample(4, skip_first, &mut RngStream::new(draw, 0, 0, 0));
            let actions: Vec<u32> = steps.iter().map(|past| past.walk.actions[past.step] as u32).collect();
            assert_eq!(actions.iter().collect::<BTreeSet<_>>().len(), 4, "none twice: {actions:?}");
            seen.extend(actions);
        }
        seen
    }

    #[test]
    fn every_step_of_the_last_walks_is_sampled_and_none_of_those_before() {
        let replay = ring(4, 3);
        assert_eq!(sampled(&replay, false), BTreeSet::from([10, 11, 12, 20, 21, 22, 30, 31, 32]));
        assert_eq!(replay.n_steps(false), 9);
    }

    #[test]
    fn the_quirk_never_samples_how_a_walk_starts_but_for_the_oldest() {
        let replay = ring(4, 3);
        assert_eq!(sampled(&replay, true), BTreeSet::from([10, 11, 12, 21, 22, 31, 32]));
        assert_eq!(replay.n_steps(true), 7);
    }

    #[test]
    fn steps_are_sampled_alike_often() {
        let replay = ring(3, 3);
        let mut counts = [0u32; 9];
        for draw in 0..3000 {
            for past in replay.sample(3, false, &mut RngStream::new(draw, 1, 0, 0)) {
                counts[3 * past.walk.reward as usize + past.step] += 1;
            }
        }
        // 1000 expected of each, with a standard deviation of 26.
        assert!(counts.iter().all(|&n| (880..1120).contains(&n)), "{counts:?}");
        let few = ring(1, 3);
        assert_eq!(few.sample(7, false, &mut RngStream::new(1, 0, 0, 0)).len(), 7, "too few are drawn again");
        assert!(Replay::default().sample(7, false, &mut RngStream::new(1, 0, 0, 0)).is_empty());
    }

    #[test]
    fn the_best_walks_of_each_task_are_kept_without_repeats() {
        let walk = |task, action, reward| PastWalk { task, features: vec![0.0], actions: vec![action], reward };
        let mut best = Replay::default();
        for (task, action, reward) in
            [(0, 0.1, 0.5), (0, 0.2, 0.7), (1, 0.1, 0.1), (0, 0.3, 0.6), (0, 0.2, 0.7), (0, 0.4, 0.6), (0, 0.5, 0.2)]
        {
            best.keep_best(&walk(task, action, reward), 2);
        }
        let kept: Vec<(u32, f32)> = best.all().map(|past| (past.walk.task, past.walk.actions[past.step])).collect();
        assert_eq!(kept, [(0, 0.2), (1, 0.1), (0, 0.3)]);
    }

    #[test]
    fn a_ring_is_saved_whole_and_what_does_not_fit_is_refused() {
        let replay = ring(5, 3);
        let mut writer = StateWriter::default();
        replay.save("ring", &mut writer);
        let bytes = writer.finish().unwrap();
        let reader = StateReader::new(&bytes).unwrap();
        assert_eq!(Replay::load("ring", [2, 3, 1], &reader).unwrap(), replay);
        for wrong in [[1, 3, 1], [2, 2, 1], [2, 3, 2]] {
            assert!(Replay::load("ring", wrong, &reader).is_err(), "{wrong:?}");
        }
        let mut odd = ring(1, 1);
        odd.push(PastWalk { task: 0, features: vec![f32::NAN], actions: vec![0.0], reward: 0.0 }, 3);
        let mut writer = StateWriter::default();
        odd.save("ring", &mut writer);
        let bytes = writer.finish().unwrap();
        assert!(Replay::load("ring", [2, 3, 1], &StateReader::new(&bytes).unwrap()).is_err());
    }
}
