//! What a search takes over from one that learned on other tasks.

use super::actor_critic::{ActorCritic, Followed};
use super::frame::{DdpgFrame, SearchScope};
use super::replay::{PastWalk, Replay};
use super::task_reward::TaskReward;
use crate::error::RlError;
use crate::inheritance::{Inheritance, TaskOrigin, same_depth};
use crate::state::StateReader;

/// A search of an earlier run, as one of now sees it.
pub(super) struct EarlierSearch<'a> {
    /// Its place among the searches then.
    place: usize,
    n_tasks: usize,
    origin: &'a TaskOrigin,
    /// Inputs that tell which group is decided, then and now.
    n_places: [usize; 2],
}

impl<'a> EarlierSearch<'a> {
    /// That of the search at `place` of now.
    pub(super) fn new(frame: &DdpgFrame, from: &'a Inheritance<'_>, place: usize) -> Result<Self, RlError> {
        let missing = || RlError::State { what: "it has no task like one of now".to_owned() };
        // One search for all tasks has them at the depths of the first.
        let origin = from.origins.get(place).ok_or_else(missing)?;
        let nearest = origin.shares.iter().max_by(|a, b| a.1.total_cmp(&b.1)).ok_or_else(missing)?;
        let then = match frame.scope {
            SearchScope::EachTask => nearest.0,
            SearchScope::AllTasks => 0,
        };
        let sees = |n: usize| if frame.settings.sees_place { n } else { 0 };
        let n_places = [sees(from.walk_length_max_then), sees(frame.environment.walk_length_max)];
        Ok(Self { place: then, n_tasks: from.n_tasks_then, origin, n_places })
    }

    /// Weights of a network whose first layer has `n_units`, of `n_now` inputs now.
    fn weights(&self, values: &[f32], [n_now, n_units, n_all]: [usize; 3]) -> Result<Vec<f32>, RlError> {
        let n_others = n_now - self.n_places[1];
        let n_then = n_others + self.n_places[0];
        let expected = n_all - n_now * n_units + n_then * n_units;
        if values.len() != expected {
            let what = format!(
                "it has {} weights, expected {expected}: other settings, or other numbers of networks or data sets",
                values.len()
            );
            return Err(RlError::State { what });
        }
        let row = |input: usize| values[input * n_units..][..n_units].iter();
        let of_place = |place: usize| n_others + self.origin.group_then(place.min(self.last_group()));
        let inputs = (0..n_others).chain((0..self.n_places[1]).map(of_place));
        let first = inputs.flat_map(|input| row(input.min(n_then - 1)));
        Ok(first.chain(&values[n_then * n_units..]).copied().collect())
    }

    fn last_group(&self) -> usize {
        self.origin.walk_length.saturating_sub(1)
    }

    /// A walk of then as one of now, its reward what was learned of it then.
    fn walk(&self, walk: &PastWalk, rewards: &[TaskReward], frame: &DdpgFrame) -> PastWalk {
        let n_others = frame.sizes.n_features - self.n_places[1];
        let n_then = n_others + self.n_places[0];
        let mut features = Vec::with_capacity(walk.actions.len() * frame.sizes.n_features);
        for step in walk.features.chunks_exact(n_then) {
            features.extend(&step[..n_others]);
            let then = step[n_others..].iter().position(|&seen| seen > 0.5).unwrap_or(0);
            let now = same_depth(then, self.origin.walk_length_then, self.origin.walk_length);
            features.extend((0..self.n_places[1]).map(|place| if place == now { 1.0 } else { 0.0 }));
        }
        let reward = rewards[walk.task as usize].learned(walk.reward.into(), frame.settings.reward_scale) as f32;
        PastWalk { task: 0, features, actions: walk.actions.clone(), reward }
    }
}

impl ActorCritic {
    /// Takes over what an earlier search learned, and its ring as walks of earlier runs.
    pub(super) fn inherit(
        &mut self,
        frame: &DdpgFrame,
        earlier: &EarlierSearch<'_>,
        reader: &StateReader,
    ) -> Result<(), RlError> {
        let prefix = format!("search.{}", earlier.place);
        let n_units = frame.sizes.hidden.first().copied().unwrap_or(1);
        let take = |net: &mut Followed, name: &str| -> Result<(), RlError> {
            let read = |what: &str, n_all: usize| {
                let values = reader.f32(&format!("{prefix}.{name}.{what}"))?;
                earlier.weights(&values, [frame.sizes.n_features, n_units, n_all])
            };
            let n_all = net.now.values().len();
            net.now.restore(read("weights", n_all)?)?;
            net.target.restore(read("target", n_all)?)
        };
        take(&mut self.actor, "actor")?;
        take(&mut self.critic, "critic")?;
        let n_then = frame.sizes.n_features - earlier.n_places[1] + earlier.n_places[0];
        let sizes = [earlier.n_tasks, frame.settings.replay_walks, n_then];
        let ring = Replay::load(&format!("{prefix}.replay"), sizes, reader)?;
        let rewards = (0..earlier.n_tasks).map(|task| TaskReward::load(&format!("task.{task}.reward"), reader));
        let rewards = rewards.collect::<Result<Vec<_>, RlError>>()?;
        for walk in ring.walks() {
            self.earlier.push(earlier.walk(walk, &rewards, frame), frame.settings.replay_walks);
        }
        Ok(())
    }
}
