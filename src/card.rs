//! Scoring on the card: one more system in front of the processor's, which scores what this one leaves.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_gpu::{
    Begun, Candidates, Gpu, GpuError, GpuOptions, GpuScore, ImageSet, Session, Truth, filter_norms, norm_order,
};
use secateur_kernels::{KernelError, Norm};
use secateur_net::{ChannelGroups, GroupId, Network, Protocol};
use secateur_scene::{Device, Scene};
use secateur_sim::{
    Actor, Candidate, Failure as SimFailure, OnBuilt, Outcome, Prepared, PruneTask, PrunedNetwork, Score, ScoreCache,
    SimError, Step, Tick, score_candidates,
};

use crate::{Failure, pipeline_files};

/// The device of a run, shared by its searches.
#[derive(Resource, Clone)]
pub(crate) struct Card(Arc<Mutex<State>>);

struct State {
    name: String,
    /// None once it was given up.
    session: Option<Session>,
    /// What the card is busy with while the processor prepares more, oldest first.
    ahead: Vec<Ahead>,
    warnings: Vec<String>,
    n_told: usize,
}

/// Networks that were handed to the card.
struct Ahead {
    index: usize,
    prepared: Arc<Prepared>,
    networks: Vec<Arc<Network>>,
    begun: Begun,
}

/// Scores by the network they belong to.
type Scores = HashMap<*const Network, GpuScore>;

impl Card {
    /// The device the scene asks for; none for the processor.
    ///
    /// # Errors
    /// No adapter, or one that gives no device.
    pub(crate) fn of(scene: &Scene) -> Result<Option<Self>, Failure> {
        if scene.device == Device::Cpu {
            return Ok(None);
        }
        Ok(Some(Self::new(open()?)))
    }

    fn new(session: Session) -> Self {
        let name = session.name().to_owned();
        let state = State { name, session: Some(session), ahead: Vec::new(), warnings: Vec::new(), n_told: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Adds the system that scores on this card, which is handed networks as they are built.
    pub(crate) fn join(&self, app: &mut App) {
        app.insert_resource(self.clone());
        let card = self.clone();
        app.insert_resource(OnBuilt(Arc::new(move |index, prepared, networks| {
            card.state().begin(index, prepared.clone(), networks.to_vec());
        })));
        app.add_systems(Tick, score_on_card.in_set(Step::Score).before(score_candidates));
    }

    /// Channels of the prunable groups of a network by norm, worked out by the card; groups where its rounding could matter are left
    /// to the processor, so that both choose the same channels.
    pub(crate) fn norm_orders(
        &self,
        network: &Network,
        protocol: Protocol,
        norm: Norm,
    ) -> HashMap<GroupId, Vec<usize>> {
        let mut state = self.state();
        let Some(gpu) = state.session.as_ref().and_then(Session::gpu) else { return HashMap::new() };
        match filter_norms(gpu, network) {
            Ok(layers) => {
                let groups = ChannelGroups::derive(network.graph(), protocol);
                let order = |&group: &GroupId| Some((group, norm_order(network, &groups, group, &layers, norm)?));
                groups.prunable().iter().filter_map(order).collect()
            }
            Err(error) => {
                let warning = format!("{}: {error}; filter norms are computed on the CPU", state.name);
                state.warnings.push(warning);
                HashMap::new()
            }
        }
    }

    /// Keeps the pipelines that were compiled, for the next process.
    pub(crate) fn keep_pipelines(&self) {
        self.state().session.iter().filter_map(Session::gpu).for_each(keep_pipelines);
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
    Session::open_with(GpuOptions::default(), &compiled).map_err(no_card)
}

/// Opens the device of `--device gpu` to be measured.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_bare(options: &GpuOptions) -> Result<Gpu, Failure> {
    Gpu::open_with(options, &compiled).map_err(no_card)
}

fn compiled(key: &str) -> Option<Vec<u8>> {
    pipeline_files::read(&pipeline_files::folder()?, key)
}

fn no_card(error: GpuError) -> Failure {
    Failure::BadArguments(anyhow::anyhow!("--device gpu: {error}"))
}

/// Keeps the pipelines that were compiled, for the next process.
pub(crate) fn keep_pipelines(gpu: &Gpu) {
    if let (Some(folder), Some((key, compiled))) = (pipeline_files::folder(), gpu.compiled()) {
        pipeline_files::write(&folder, &key, &compiled);
    }
}

impl State {
    /// Hands compact networks of one prepared network to the card and returns while that is busy.
    fn begin(&mut self, index: usize, prepared: Arc<Prepared>, networks: Vec<Arc<Network>>) {
        if let Some(session) = &mut self.session {
            let own: Vec<&Network> = networks.iter().map(Arc::as_ref).collect();
            let begun = session.begin(Some(index), &image_set(&prepared), &Candidates::Repaired(&own));
            self.ahead.push(Ahead { index, prepared, networks, begun });
        }
    }

    /// Adds the scores of all that was handed to the card; what it cannot score is left out.
    fn finish(&mut self, scores: &mut Scores) {
        for Ahead { index, prepared, networks, begun } in std::mem::take(&mut self.ahead) {
            let Some(session) = &mut self.session else { return };
            let own: Vec<&Network> = networks.iter().map(Arc::as_ref).collect();
            match session.finish(begun, Some(index), &image_set(&prepared), &Candidates::Repaired(&own)) {
                Ok(scored) => {
                    let warn = |error: GpuError| {
                        format!("{}: {error}; the device was rebuilt and the batch scored again", self.name)
                    };
                    self.warnings.extend(scored.recovered.map(warn));
                    scores.extend(networks.iter().map(Arc::as_ptr).zip(scored.scores));
                }
                Err(error) => {
                    self.warnings.push(format!("{}: {error}; walks are scored on the CPU from here on", self.name));
                    // A device that hangs would hang again while it is closed.
                    std::mem::forget(self.session.take());
                }
            }
        }
    }
}

fn image_set(prepared: &Prepared) -> ImageSet<'_> {
    let (reward, graph) = (&prepared.reward, prepared.network.graph());
    let (n_classes, original_logits) = (graph.n_classes(), Some(&reward.original_logits[..]));
    let truth = Truth { labels: &reward.labels, n_classes, original_logits };
    ImageSet { shape: graph.input(), images: &reward.images, truth }
}

/// A candidate with its actor's index and its task.
type Fresh<'a> = (usize, &'a PruneTask, &'a mut Candidate);

/// Takes the scores of the networks that the card was handed while others were built, and hands it those that it was not. What it
/// cannot score keeps its network, and `score_candidates` does it on the processor.
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
    let was_open = state.session.is_some();
    let mut scores = Scores::new();
    state.finish(&mut scores);
    for (&index, (prepared, batch)) in &mut batches {
        batch.sort_by_key(|(actor, ..)| *actor);
        // Whatever a plugin put in the place of what was built.
        let is_new = |network: &Arc<Network>| !scores.contains_key(&Arc::as_ptr(network));
        let others: Vec<_> = batch.iter().filter_map(|(.., c)| c.compact.clone()).filter(is_new).collect();
        if !others.is_empty() {
            state.begin(index, prepared.clone(), others);
        }
    }
    state.finish(&mut scores);
    for (index, (prepared, batch)) in batches {
        for (_, task, candidate) in batch {
            let score = candidate.compact.as_ref().and_then(|network| scores.get(&Arc::as_ptr(network)));
            let Some(score) = score else { continue };
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
    if was_open && state.session.is_none() {
        // Scores of another engine are not those that this one would give.
        *cache = ScoreCache::default();
    }
}

#[cfg(test)]
mod tests;
