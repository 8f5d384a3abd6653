//! Scoring on the card: one more system in front of the processor's, which scores what this one leaves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_gpu::{Candidates, Gpu, GpuError, GpuOptions, GpuScore, ImageSet, Scored, Session, Truth};
use secateur_kernels::KernelError;
use secateur_net::Network;
use secateur_scene::{Device, Scene};
use secateur_sim::{
    Actor, Candidate, Failure as SimFailure, Outcome, Prepared, PruneTask, PrunedNetwork, Score, ScoreCache, SimError,
    Step, Tick, score_candidates,
};

use crate::{Failure, pipeline_files};

/// The device of a run, shared by its searches.
#[derive(Resource, Clone)]
pub(crate) struct Card(Arc<Mutex<State>>);

struct State {
    name: String,
    /// None once it was given up.
    session: Option<Session>,
    warnings: Vec<String>,
    n_told: usize,
}

impl Card {
    /// The device the scene asks for; none for the processor.
    ///
    /// # Errors
    /// No adapter, or one that gives no device.
    pub(crate) fn of(scene: &Scene) -> Result<Option<Self>, Failure> {
        if scene.device == Device::Cpu {
            return Ok(None);
        }
        let session = open()?;
        let name = session.name().to_owned();
        let state = State { name, session: Some(session), warnings: Vec::new(), n_told: 0 };
        Ok(Some(Self(Arc::new(Mutex::new(state)))))
    }

    /// Adds the system that scores on this card.
    pub(crate) fn join(&self, app: &mut App) {
        app.insert_resource(self.clone());
        app.add_systems(Tick, score_on_card.in_set(Step::Score).before(score_candidates));
    }

    /// Keeps the pipelines that were compiled, for the next process.
    pub(crate) fn keep_pipelines(&self) {
        self.state().session.iter().for_each(keep_pipelines);
    }

    /// What went wrong since the last time this was asked.
    pub(crate) fn news(&self) -> Vec<String> {
        let mut state = self.state();
        let news = state.warnings[state.n_told..].iter().map(|warning| format!("warning: {warning}")).collect();
        state.n_told = state.warnings.len();
        news
    }

    /// Where walks are scored now.
    pub(crate) fn device(&self) -> String {
        let state = self.state();
        let given_up = if state.session.is_some() { "" } else { ", then cpu" };
        format!("gpu: {}{given_up}", state.name)
    }

    /// What went wrong so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.state().warnings.clone()
    }

    /// A panic elsewhere leaves at worst a device that fails, which is handled.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the device for `--device gpu`.
///
/// # Errors
/// As [`Session::open`]: a mistake in what was asked for.
pub(crate) fn open() -> Result<Session, Failure> {
    let compiled = |key: &str| pipeline_files::read(&pipeline_files::folder()?, key);
    Session::open_with(GpuOptions::default(), &compiled)
        .map_err(|error| Failure::BadArguments(anyhow::anyhow!("--device gpu: {error}")))
}

/// Keeps the pipelines that were compiled, for the next process.
pub(crate) fn keep_pipelines(session: &Session) {
    if let (Some(folder), Some((key, compiled))) = (pipeline_files::folder(), session.gpu().and_then(Gpu::compiled)) {
        pipeline_files::write(&folder, &key, &compiled);
    }
}

impl State {
    /// Scores compact networks of one prepared network; none when that is left to the processor.
    fn score(&mut self, index: usize, prepared: &Prepared, networks: &[&Network]) -> Option<Vec<GpuScore>> {
        let session = self.session.as_mut()?;
        let (reward, graph) = (&prepared.reward, prepared.network.graph());
        let truth = Truth {
            labels: &reward.labels,
            n_classes: graph.n_classes(),
            original_logits: Some(&reward.original_logits),
        };
        let set = ImageSet { shape: graph.input(), images: &reward.images, truth };
        match session.score(Some(index), &set, &Candidates::Repaired(networks)) {
            Ok(Scored { scores, recovered }) => {
                let warn = |error: GpuError| {
                    format!("{}: {error}; the device was rebuilt and the batch scored again", self.name)
                };
                self.warnings.extend(recovered.map(warn));
                Some(scores)
            }
            Err(error) => {
                self.warnings.push(format!("{}: {error}; walks are scored on the CPU from here on", self.name));
                // A device that hangs would hang again while it is closed.
                std::mem::forget(self.session.take());
                None
            }
        }
    }
}

/// A candidate with its actor's index and its task.
type Fresh<'a> = (usize, &'a PruneTask, &'a mut Candidate);

/// Scores all compact networks of the tick, those of one network in one batch. What it cannot score keeps its network, and
/// `score_candidates` does it on the processor.
fn score_on_card(
    card: Res<Card>,
    mut cache: ResMut<ScoreCache>,
    tasks: Query<&PruneTask>,
    networks: Query<&PrunedNetwork>,
    mut actors: Query<(&Actor, &mut Outcome)>,
    mut failure: ResMut<SimFailure>,
) {
    let mut batches: BTreeMap<usize, (Arc<Prepared>, Vec<Fresh<'_>>)> = BTreeMap::new();
    for (actor, outcome) in &mut actors {
        let Some(candidate) = &mut outcome.into_inner().0 else { continue };
        let Ok(task) = tasks.get(actor.task) else { continue };
        let Ok(network) = networks.get(task.network) else { continue };
        if candidate.compact.is_some() && candidate.score.is_none() {
            let batch = batches.entry(network.index).or_insert_with(|| (network.prepared.clone(), Vec::new()));
            batch.1.push((actor.index, task, candidate));
        }
    }
    let mut state = card.state();
    for (index, (prepared, mut batch)) in batches {
        batch.sort_by_key(|(actor, ..)| *actor);
        let compact: Vec<Arc<Network>> = batch.iter().filter_map(|(.., candidate)| candidate.compact.clone()).collect();
        let was_open = state.session.is_some();
        let Some(scores) = state.score(index, &prepared, &compact.iter().map(Arc::as_ref).collect::<Vec<_>>()) else {
            if was_open {
                // Scores of another engine are not those that this one would give.
                *cache = ScoreCache::default();
            }
            continue;
        };
        for ((_, task, candidate), score) in batch.into_iter().zip(scores) {
            candidate.compact = None;
            if let Some(image) = score.first_not_finite {
                let (task, walk) = (task.name.clone(), candidate.walk);
                failure.note(SimError::Candidate { task, walk, source: KernelError::NanLogits { image } });
                continue;
            }
            let n = prepared.reward.labels.len().max(1) as f64;
            let score = Score { accuracy: score.n_correct as f64 / n, divergence: score.divergence / n };
            candidate.score = Some(score);
            cache.insert(index, candidate.kept.clone(), score);
        }
    }
}

#[cfg(test)]
mod tests {
    use secateur_net::random::with_random_weights;
    use secateur_net::{Conv2d, GraphBuilder, Op, Protocol, Shape};
    use secateur_sim::{Inputs, Repair, Selection};

    use super::*;

    fn prepared() -> Prepared {
        let mut b = GraphBuilder::new(Shape { c: 2, h: 4, w: 4 });
        let a = b.push("a", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(2, 6, 3, 1, 1) }), &[0]);
        let c = b.push("c", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(6, 3, 3, 1, 1) }), &[a]);
        b.push("m", Op::GlobalAvgPool, &[c]);
        let network = with_random_weights(b.finish().unwrap(), 1);
        let images: Vec<f32> = (0..8 * 32).map(|i| (i as f32 * 0.7).sin()).collect();
        let inputs = Inputs {
            network_name: "small".into(),
            dataset_name: "waves".into(),
            network_index: (0, 1),
            dataset_index: (0, 1),
            network,
            protocol: Protocol::Inner,
            selection: Selection::L1,
            repair: Repair::Off,
            precision: secateur_kernels::Precision::F32,
            calibration: images.clone(),
            refit: images.clone(),
            reward: (images, vec![0, 1, 2, 0, 1, 2, 0, 1]),
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        Prepared::new(&pool, inputs, |_| 1, |_, _| ()).unwrap()
    }

    fn state(options: GpuOptions) -> Option<State> {
        match Session::open(options) {
            Ok(session) => Some(State { name: "card".into(), session: Some(session), warnings: Vec::new(), n_told: 0 }),
            Err(error) => {
                assert_ne!(
                    std::env::var("SECATEUR_REQUIRE_GPU").as_deref(),
                    Ok("1"),
                    "SECATEUR_REQUIRE_GPU=1, but {error}"
                );
                eprintln!("SKIPPED: {error}");
                None
            }
        }
    }

    #[test]
    fn the_original_network_is_scored_as_the_processor_does() {
        let (Some(mut state), prepared) = (state(GpuOptions::default()), prepared()) else { return };
        let score = state.score(0, &prepared, &[&prepared.network]).unwrap()[0];
        assert_eq!(score.n_correct as f64 / 8.0, prepared.original_score.accuracy);
        assert!(score.divergence.abs() < 1e-5);
        assert!(state.warnings.is_empty());
    }

    #[test]
    fn a_card_that_cannot_score_is_given_up_with_a_warning() {
        // Not even one image fits.
        let tiny = GpuOptions { binding_max: Some(64), ..GpuOptions::default() };
        let (Some(mut state), prepared) = (state(tiny), prepared()) else { return };
        assert!(state.score(0, &prepared, &[&prepared.network]).is_none());
        assert_eq!(state.warnings.len(), 1);
        let warning = &state.warnings[0];
        assert!(warning.contains("one image") && warning.contains("CPU from here on"), "{warning}");
        assert!(state.session.is_none() && state.score(0, &prepared, &[&prepared.network]).is_none());
        let card = Card(Arc::new(Mutex::new(state)));
        assert_eq!(card.device(), "gpu: card, then cpu");
    }

    #[test]
    fn a_device_that_is_lost_once_is_rebuilt_with_a_warning() {
        let (Some(mut state), prepared) = (state(GpuOptions::default()), prepared()) else { return };
        state.session.as_ref().unwrap().gpu().unwrap().destroy();
        assert_eq!(state.score(0, &prepared, &[&prepared.network]).unwrap().len(), 1);
        assert!(state.session.is_some() && state.warnings[0].contains("scored again"), "{:?}", state.warnings);
    }
}
