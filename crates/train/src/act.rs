//! Asking the policy, for all actors of a tick at once.

use bevy_ecs::prelude::*;
use secateur_rl::ActRequest;
use secateur_sim::{Actor, Failure, KeepRatio, Observation, PruneTask, Readiness, SimError, Walk};

use crate::components::{Asked, CurrentPolicy, Decided, EnvSteps, PolicyVersion, RecurrentState};

/// Writes the question of every actor that acts, or will once there is a newer policy, in the form policies take.
pub fn ask_policy(
    tasks: Query<(&PruneTask, &secateur_sim::Budget)>,
    mut actors: Query<(&Actor, &Readiness, &Walk, &Observation, &RecurrentState, &mut Asked)>,
) {
    for (actor, readiness, walk, observation, recurrent, mut asked) in &mut actors {
        let Ok((task, wall)) = tasks.get(actor.task) else { continue };
        if !matches!(readiness, Readiness::Acting | Readiness::Stale) {
            continue;
        }
        asked.0 = ActRequest {
            task: task.index as u32,
            walk: walk.number,
            layer: walk.cursor as u32,
            n_layers: wall.0.order().len() as u32,
            observation: observation.features.clone(),
            even_ratio: observation.even_ratio,
            last_action: walk.last_action,
            last_reward: walk.last_reward,
            recurrent: if walk.cursor == 0 { Vec::new() } else { recurrent.0.clone() },
            explore: !walk.noise_free,
        };
    }
}

/// Asks the newest policy once for all acting actors, in actor order.
pub fn act(
    policy: Res<CurrentPolicy>,
    mut steps: ResMut<EnvSteps>,
    mut actors: Query<(
        &Actor,
        &Readiness,
        &Asked,
        &mut Decided,
        &mut RecurrentState,
        &mut KeepRatio,
        &mut PolicyVersion,
    )>,
    mut failure: ResMut<Failure>,
) {
    let mut acting: Vec<_> = actors.iter_mut().filter(|(_, r, ..)| **r == Readiness::Acting).collect();
    acting.sort_by_key(|(actor, ..)| actor.index);
    if acting.is_empty() {
        return;
    }
    let requests: Vec<ActRequest> = acting.iter().map(|(_, _, asked, ..)| asked.0.clone()).collect();
    let decisions = match policy.0.act(&requests) {
        Ok(decisions) => decisions,
        Err(error) => return failure.note(SimError::Agent(error.to_string())),
    };
    steps.0 += decisions.len() as u64;
    for ((.., decided, recurrent, keep_ratio, version), decision) in acting.iter_mut().zip(decisions) {
        recurrent.0.clone_from(&decision.recurrent);
        keep_ratio.0 = decision.keep_ratio;
        version.0 = policy.0.version();
        decided.0 = decision;
    }
}
