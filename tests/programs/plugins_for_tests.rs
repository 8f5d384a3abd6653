//! The program with plugins of use to tests alone; `tests/plugins.rs` runs it.

use std::process::Command;
use std::time::Duration;

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur::net::KeptChannels;
use secateur::scene::{PluginConfig, SceneError};
use secateur::sim::{
    CandidateId, Kept, OnTask, PruneTask, PrunedNetwork, PruningPlugin, Reward, Step, Tick, ToBuild, select_channels,
    write_reward,
};
use secateur::train::{BatchRule, LearnerState};
use serde::Deserialize;

/// Pays the first walks of every task and search these rewards, in order, whatever they scored.
#[derive(Resource, Deserialize)]
#[serde(deny_unknown_fields)]
struct FixedPay {
    rewards: Vec<f32>,
}

fn pay_by_walk(pay: Res<FixedPay>, mut candidates: Query<(&CandidateId, &mut Reward)>) {
    for (id, mut reward) in &mut candidates {
        let fixed = usize::try_from(id.walk).ok().and_then(|walk| pay.rewards.get(walk));
        reward.0 = fixed.copied().unwrap_or(reward.0);
    }
}

struct FixedPayPlugin;

impl PruningPlugin for FixedPayPlugin {
    fn name(&self) -> &str {
        "fixed_pay"
    }
    fn build(&self, app: &mut App, config: &PluginConfig) -> Result<(), SceneError> {
        app.insert_resource(config.parse::<FixedPay>()?);
        app.add_systems(Tick, pay_by_walk.in_set(Step::Reward).after(write_reward));
        Ok(())
    }
}

/// Gives every candidate of these tasks all its channels back, behind the budget wall.
#[derive(Resource, Deserialize)]
#[serde(deny_unknown_fields)]
struct Regrowth {
    tasks: Vec<String>,
}

fn regrow_channels(
    regrowth: Res<Regrowth>,
    tasks: Query<&PruneTask>,
    networks: Query<&PrunedNetwork>,
    mut candidates: Query<(&OnTask, &mut Kept), ToBuild>,
) {
    for (on, mut kept) in &mut candidates {
        let (Ok(task), Ok(network)) = (tasks.get(on.task), networks.get(on.network)) else { continue };
        if regrowth.tasks.contains(&task.name) {
            kept.0 = KeptChannels::all(&network.prepared.groups);
        }
    }
}

struct RegrowthPlugin;

impl PruningPlugin for RegrowthPlugin {
    fn name(&self) -> &str {
        "regrowth"
    }
    fn build(&self, app: &mut App, config: &PluginConfig) -> Result<(), SceneError> {
        app.insert_resource(config.parse::<Regrowth>()?);
        app.add_systems(Tick, regrow_channels.in_set(Step::Select).after(select_channels));
        Ok(())
    }
}

/// Asks the program to stop, as Ctrl-C does, while the last batches of a search are learned from.
fn stop_at_last_batches(rule: Option<Res<BatchRule>>, learners: Query<(), With<LearnerState>>) {
    if !learners.is_empty() && rule.is_some_and(|rule| *rule == BatchRule::Rest) {
        let told = Command::new("kill").args(["-INT", &std::process::id().to_string()]).status();
        assert!(told.is_ok_and(|status| status.success()));
        // Time for whoever listens.
        std::thread::sleep(Duration::from_millis(500));
    }
}

struct StopAtLastBatchesPlugin;

impl PruningPlugin for StopAtLastBatchesPlugin {
    fn name(&self) -> &str {
        "stop_at_last_batches"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        app.add_systems(Tick, stop_at_last_batches.in_set(Step::Record));
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    secateur::cli().add_plugins(FixedPayPlugin).add_plugins(RegrowthPlugin).add_plugins(StopAtLastBatchesPlugin).run()
}
