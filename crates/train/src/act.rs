//! Asking the policy, for all actors of a tick at once.

use bevy_ecs::prelude::*;
use secateur_rl::ActRequest;
use secateur_sim::{Actor, Budget, KeepRatio, Observation, PruneTask, Readiness, Walk};

use crate::components::{Asked, CurrentPolicy, Decided, EnvSteps, PolicyVersion, RecurrentState, TrainFailure};

/// Writes the question of every actor that acts, or only looks, in the form policies take.
pub fn ask_policy(
    tasks: Query<(&PruneTask, &Budget)>,
    mut actors: Query<(&Actor, &Readiness, &Walk, &Observation, &RecurrentState, &mut Asked)>,
) {
    for (actor, readiness, walk, observation, recurrent, mut asked) in &mut actors {
        let Ok((task, wall)) = tasks.get(actor.task) else { continue };
        if !matches!(readiness, Readiness::Acting | Readiness::Looking) {
            continue;
        }
        // Field by field: the arrays keep their memory.
        let asked = &mut asked.0;
        asked.task = task.index as u32;
        asked.walk = walk.number;
        asked.layer = walk.cursor as u32;
        asked.n_layers = wall.0.order().len() as u32;
        asked.observation.clone_from(&observation.features);
        asked.even_ratio = observation.even_ratio;
        asked.last_action = walk.last_action;
        asked.last_reward = walk.last_reward;
        asked.recurrent.clear();
        if walk.cursor > 0 {
            asked.recurrent.extend_from_slice(&recurrent.0);
        }
        asked.explore = !walk.noise_free;
    }
}

/// The components of an actor that acts.
type Acting<'w> = (
    &'w Actor,
    &'w Readiness,
    &'w mut Asked,
    &'w mut Decided,
    &'w mut RecurrentState,
    &'w mut KeepRatio,
    &'w mut PolicyVersion,
);

/// Asks the newest policy once for all acting actors, in actor order.
pub fn act(
    policy: Res<CurrentPolicy>,
    mut steps: ResMut<EnvSteps>,
    mut actors: Query<Acting<'_>>,
    mut failure: ResMut<TrainFailure>,
    mut requests: Local<Vec<ActRequest>>,
) {
    let mut acting: Vec<_> = actors.iter_mut().filter(|(_, r, ..)| **r == Readiness::Acting).collect();
    acting.sort_by_key(|(actor, ..)| actor.index);
    if acting.is_empty() {
        return;
    }
    requests.clear();
    requests.extend(acting.iter_mut().map(|(_, _, asked, ..)| std::mem::take(&mut asked.0)));
    let decisions = policy.0.act(&requests);
    for ((_, _, asked, ..), request) in acting.iter_mut().zip(requests.drain(..)) {
        asked.0 = request;
    }
    let decisions = match decisions {
        Ok(decisions) => decisions,
        Err(error) => return failure.note(error.into()),
    };
    steps.0 += decisions.len() as u64;
    for ((.., decided, recurrent, keep_ratio, version), mut decision) in acting.iter_mut().zip(decisions) {
        recurrent.0 = std::mem::take(&mut decision.recurrent);
        keep_ratio.0 = decision.keep_ratio;
        version.0 = policy.0.version();
        decided.0 = decision;
    }
}

#[cfg(test)]
mod tests;
