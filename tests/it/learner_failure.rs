//! A learner that cannot learn from a batch stops the whole run with a checkpoint and the batch in a file.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur::Failure;
use secateur::run::{Incomplete, RunError, RunResult, RunSpec};
use secateur::scene::{PluginConfig, SceneError};
use secateur::sim::{PluginList, PruningPlugin, Step, Tick};
use secateur::train::{CurrentPolicy, LearnerStats, Trajectory, collect_steps};

use crate::timeless;

/// Makes trajectories that cannot be learned from after the second update; once `healed`, gives those that wait what
/// they should have had.
struct Cosmic {
    healed: Arc<AtomicBool>,
}

impl PruningPlugin for Cosmic {
    fn name(&self) -> &str {
        "cosmic"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        let healed = self.healed.load(Ordering::SeqCst);
        let flip = move |policy: Res<CurrentPolicy>, mut made: Query<&mut Trajectory>| {
            let sound = healed || policy.0.version() < 2;
            made.iter_mut().for_each(|mut t| t.0.value[0] = if sound { 0.5 } else { f32::INFINITY });
        };
        app.add_systems(Tick, flip.after(collect_steps).in_set(Step::Collect));
        Ok(())
    }
    fn load(&self, world: &mut World, _saved: &[u8]) -> Result<(), String> {
        let healed = self.healed.load(Ordering::SeqCst);
        for mut stats in world.query::<&mut LearnerStats>().iter_mut(world) {
            stats.pending.iter_mut().filter(|_| healed).for_each(|queued| queued.unroll.value[0] = 0.5);
        }
        Ok(())
    }
}

fn run(out: &Path, healed: bool, resumes: bool) -> Result<RunResult, RunError> {
    let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron");
    let sets = [
        "budgets=[Macs(ratio: 0.6)]",
        "walks_per_task=12",
        "actors_per_task=2",
        "finalists=1",
        "images=(reward: 100, calibration: 100, walk: 30, refit: 60)",
        "controls=[]",
        "plugins={\"cosmic\": ()}",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 300, test: 100)),
                   (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 300, test: 100))]",
    ];
    let spec = RunSpec {
        sets: sets.map(str::to_owned).to_vec(),
        out: Some(out.to_owned()),
        resume: resumes,
        history: Some(out.with_extension("sqlite")),
        ..RunSpec::new(scene)
    };
    let mut plugins = PluginList::default();
    plugins.add(Cosmic { healed: Arc::new(AtomicBool::new(healed)) });
    // Through the library: the command line would listen to the signals of the process that all tests share.
    secateur::run(&spec, &plugins, &mut ())
}

fn summary(out: &Path) -> serde_json::Value {
    let mut summary: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    summary.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_s"));
    summary
}

/// Every line of the metrics; the order of those of one tick may differ.
fn metrics(out: &Path) -> Vec<String> {
    let mut lines: Vec<String> = timeless::events(out).iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}

#[test]
fn an_infinite_batch_stops_the_run_with_checkpoint_and_batch_and_resume_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let (sound, failed) = (dir.path().join("sound"), dir.path().join("failed"));
    run(&sound, true, false).unwrap();
    let error = run(&failed, false, false).unwrap_err();
    assert!(matches!(error, RunError::Incomplete { reason: Incomplete::SearchFailed(_), .. }), "{error:?}");
    assert_eq!(Failure::from(error).exit_code(), 1);
    assert!(summary(&failed)["walks"].as_u64().unwrap() < 24);
    assert_eq!(summary(&failed)["learner_updates"], 2);
    let batch = fs::read(failed.join("failed-batch-2.safetensors")).unwrap();
    // Four unrolls, of which the first value is infinite.
    let infinity = f32::INFINITY.to_le_bytes();
    assert!(batch.windows(4).filter(|w| *w == infinity).count() >= 4);
    assert_eq!(fs::read_dir(failed.join("checkpoints")).unwrap().count(), 1);
    let recorded = || {
        let runs = secateur_history::History::open_existing(&failed.with_extension("sqlite")).unwrap().runs().unwrap();
        runs.into_iter().map(|run| run.status).collect::<Vec<_>>()
    };
    assert_eq!(recorded(), ["failed"]);
    run(&failed, true, true).unwrap();
    assert_eq!(recorded(), ["finished"]);
    assert_eq!(summary(&failed), summary(&sound));
    assert_eq!(metrics(&failed), metrics(&sound));
}
