//! A plugin in under 60 lines: walks whose network needs much activation memory are paid less. `cargo run --release
//! --example activation_penalty -- run scenes/quickstart.ron --set 'plugins={"activation_penalty": (weight: 0.1)}'`

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur::net::Cost;
use secateur::scene::{PluginConfig, SceneError};
use secateur::sim::{Kept, OnTask, PrunedNetwork, PruningPlugin, Reward, Score, Step, Tick, write_reward};
use serde::Deserialize;

/// The settings in the scene: reward lost by a network that needs as much activation memory as the original.
#[derive(Resource, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivationPenalty {
    weight: f32,
}

fn penalise_activation_memory(
    penalty: Res<ActivationPenalty>,
    networks: Query<&PrunedNetwork>,
    mut candidates: Query<(&OnTask, &Kept, &mut Reward), With<Score>>,
) {
    for (on, kept, mut reward) in &mut candidates {
        let Ok(network) = networks.get(on.network) else { continue };
        let (model, full) = (&network.prepared.model, network.prepared.groups.full_widths());
        let bytes = |widths: &[usize]| model.count(Cost::ActivationBytes, widths) as f32;
        reward.0 -= penalty.weight * bytes(&kept.0.widths()) / bytes(&full);
    }
}

struct ActivationPenaltyPlugin;

impl PruningPlugin for ActivationPenaltyPlugin {
    fn name(&self) -> &str {
        "activation_penalty"
    }
    fn build(&self, app: &mut App, config: &PluginConfig) -> Result<(), SceneError> {
        app.insert_resource(config.parse::<ActivationPenalty>()?);
        app.add_systems(Tick, penalise_activation_memory.in_set(Step::Reward).after(write_reward));
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    secateur::cli().add_plugins(ActivationPenaltyPlugin).run()
}
