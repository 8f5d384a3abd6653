//! A plugin that scores candidates on a thread of its own, which stands for a worker or a device: under `scheduler:
//! Async` actors wait ticks for their scores while others go on; under `Lockstep` the tick waits, and nothing else is
//! different. `cargo run --release --example score_elsewhere -- run scenes/quickstart.ron --set
//! 'plugins={"score_elsewhere": (pause_ms: 5)}'`

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur::net::Network;
use secateur::scene::{PluginConfig, SceneError};
use secateur::sim::{
    Awaited, CandidateFault, CandidateId, Compact, OnTask, Prepared, PrunedNetwork, PruningPlugin, Score,
    ScoreArrivals, ScoredElsewhere, Step, Tick, ToScore, repair_candidates,
};
use serde::Deserialize;

/// The settings in the scene: how much longer than it takes a score is on its way.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoreElsewhere {
    pause_ms: u64,
}

type Job = (CandidateId, Arc<Prepared>, Arc<Network>);

#[derive(Resource)]
struct Jobs(Sender<Job>);

#[derive(Resource)]
struct Results(Mutex<Receiver<(CandidateId, Result<Score, String>)>>);

fn send_away(
    mut commands: Commands,
    jobs: Res<Jobs>,
    networks: Query<&PrunedNetwork>,
    built: Query<(Entity, &CandidateId, &OnTask, &Compact), ToScore>,
) {
    for (entity, id, on, compact) in &built {
        let Ok(network) = networks.get(on.network) else { continue };
        // A candidate that cannot be sent is scored here.
        if jobs.0.send((*id, network.prepared.clone(), compact.0.clone())).is_ok() {
            commands.entity(entity).insert(ScoredElsewhere);
        }
    }
}

fn take_scores(mut commands: Commands, results: Res<Results>, waiting: Query<(Entity, &CandidateId), Awaited>) {
    let results = results.0.lock().unwrap_or_else(PoisonError::into_inner);
    for (id, result) in results.try_iter() {
        let Some((entity, _)) = waiting.iter().find(|(_, waiting)| **waiting == id) else { continue };
        match result {
            Ok(score) => commands.entity(entity).insert(score),
            Err(what) => commands.entity(entity).insert(CandidateFault(what)),
        };
    }
}

/// Ends when the search is dropped, and with it the other end of `jobs`.
fn work(jobs: &Receiver<Job>, results: &Sender<(CandidateId, Result<Score, String>)>, pause: Duration) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|error| error.to_string());
    for (id, prepared, network) in jobs {
        std::thread::sleep(pause);
        let score = |pool| prepared.reward.score(pool, &network, prepared.precision).map_err(|e| e.to_string());
        if results.send((id, pool.as_ref().map_err(Clone::clone).and_then(score))).is_err() {
            break;
        }
    }
}

struct ScoreElsewherePlugin;

impl PruningPlugin for ScoreElsewherePlugin {
    fn name(&self) -> &str {
        "score_elsewhere"
    }
    fn build(&self, app: &mut App, config: &PluginConfig) -> Result<(), SceneError> {
        let pause = Duration::from_millis(config.parse::<ScoreElsewhere>()?.pause_ms);
        let ((jobs, to_do), (done, results)) = (channel(), channel());
        std::thread::spawn(move || work(&to_do, &done, pause));
        app.insert_resource(Jobs(jobs)).insert_resource(Results(Mutex::new(results)));
        app.add_systems(Tick, send_away.in_set(Step::Repair).after(repair_candidates));
        app.add_systems(ScoreArrivals, take_scores);
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    secateur::cli().add_plugins(ScoreElsewherePlugin).run()
}
