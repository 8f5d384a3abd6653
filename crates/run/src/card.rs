//! Scoring on the card: a system that hands over each batch of networks while the processor builds the next, and one in
//! front of the processor's, which scores what this one leaves.

mod score;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_gpu::{
    Candidates, Gpu, GpuError, GpuOptions, GpuScore, ImageSet, PendingScores, Session, Truth, filter_norms, norm_order,
};
use secateur_kernels::Norm;
use secateur_net::{ChannelGroups, GroupId, Network, Protocol};
use secateur_sim::{
    BatchSize, BuildBatch, CandidateId, Caught, Pool, Prepared, RewardKind, Step, Tick, build_batch, guarded,
    score_candidates,
};
use serde::{Deserialize, Serialize};

use crate::cache_files;
use crate::error::RunError;
use crate::scene::{Device, Scene};
use score::{hand_to_card, score_on_card};

/// The graphics card of a run, shared by its searches.
#[derive(Resource, Clone)]
pub struct Card(Arc<Mutex<CardState>>);

struct CardState {
    /// What went wrong, and what follows from it.
    record: CardRecord,
    /// None once it was given up.
    session: Option<Session>,
    /// What the card is busy with while the processor prepares more, oldest first.
    ahead: Vec<Ahead>,
    n_told: usize,
    /// Whether scores of the card must not be mixed with those to come.
    forgets_scores: bool,
    /// Where compiled pipelines are kept, if they are.
    folder: Option<PathBuf>,
    #[cfg(test)]
    panics: bool,
}

/// State of the card that must survive a resume, so that a run goes on as it would have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CardRecord {
    /// The adapter.
    name: String,
    /// Whether the processor scores everything from here on.
    is_given_up: bool,
    /// Networks that the card cannot score, which the processor does.
    refused: BTreeSet<usize>,
    warnings: Vec<String>,
}

/// The compact network of a candidate.
#[derive(Clone)]
struct Built {
    id: CandidateId,
    network: Arc<Network>,
}

/// Networks that were handed to the card.
struct Ahead {
    index: usize,
    prepared: Arc<Prepared>,
    built: Vec<Built>,
    begun: PendingScores,
}

/// What the card scored of each candidate: a plugin may have put another network in its place since.
type Scores = BTreeMap<CandidateId, (Arc<Network>, GpuScore)>;

impl Card {
    /// The device the scene asks for; none for the processor.
    ///
    /// # Errors
    /// No adapter, or one that gives no device.
    pub fn of(scene: &Scene) -> Result<Option<Self>, RunError> {
        if scene.device == Device::Cpu {
            return Ok(None);
        }
        let session = open_session().map_err(|failure| match failure {
            RunError::BadArguments(error) => scene.error_at("device", format!("{error:#}"), None).into(),
            other => other,
        });
        let card = Self::new(session?);
        card.state().folder = cache_files::folder();
        Ok(Some(card))
    }

    /// The device of a run that goes on: as `open` gives it, or given up as it was.
    ///
    /// # Errors
    /// As `open`.
    pub(crate) fn again(
        record: Option<CardRecord>,
        open: impl FnOnce() -> Result<Option<Self>, RunError>,
    ) -> Result<Option<Self>, RunError> {
        let Some(record) = record else { return open() };
        if record.is_given_up {
            let n_told = record.warnings.len();
            return Ok(Some(Self(Arc::new(Mutex::new(CardState { n_told, ..CardState::new(record, None) })))));
        }
        let card = open()?;
        card.iter().for_each(|card| card.state().go_on(record.clone()));
        Ok(card)
    }

    fn new(session: Session) -> Self {
        let record = CardRecord { name: session.name().to_owned(), ..CardRecord::default() };
        Self(Arc::new(Mutex::new(CardState::new(record, Some(session)))))
    }

    /// Its state for a checkpoint.
    pub(crate) fn record(&self) -> CardRecord {
        self.state().record.clone()
    }

    /// Whether the scores that an earlier process left are not this card's; asking settles it.
    pub(crate) fn forgets_scores(&self) -> bool {
        std::mem::take(&mut self.state().forgets_scores)
    }

    /// Adds the systems that hand networks to this card as they are built, as many at a time as the processor builds at
    /// once, and that take their scores.
    pub(crate) fn join(&self, app: &mut App, pool: &Pool) {
        app.insert_resource(self.clone());
        app.insert_resource(BatchSize(pool.0.current_num_threads()));
        app.add_systems(BuildBatch, hand_to_card.after(build_batch));
        app.add_systems(Tick, score_on_card.in_set(Step::Score).before(score_candidates));
    }

    /// Channels of the prunable groups of a network by norm, worked out by the card; groups where its rounding could
    /// matter are left to the processor, so that both choose the same channels.
    pub(crate) fn norm_orders(
        &self,
        network: &Network,
        protocol: Protocol,
        norm: Norm,
    ) -> HashMap<GroupId, Vec<usize>> {
        let mut state = self.state();
        let Some(gpu) = state.session.as_ref().and_then(Session::gpu) else { return HashMap::new() };
        match guarded(|| filter_norms(gpu, network)) {
            Ok(layers) => {
                let groups = ChannelGroups::derive(network.graph(), protocol);
                let order = |&group: &GroupId| Some((group, norm_order(network, &groups, group, &layers, norm)?));
                groups.prunable().iter().filter_map(order).collect()
            }
            Err(failed) => {
                state.warn(&format!("{failed}; filter norms are computed on the CPU"));
                HashMap::new()
            }
        }
    }

    /// Keeps the pipelines that were compiled, for the next process.
    pub(crate) fn keep_pipelines(&self) {
        let state = self.state();
        if let (Some(gpu), Some(folder)) = (state.session.as_ref().and_then(Session::gpu), &state.folder) {
            keep_pipelines_in(gpu, folder);
        }
    }

    /// What went wrong since the last time this was asked.
    pub(crate) fn news(&self) -> Vec<String> {
        let mut state = self.state();
        let news = &state.record.warnings[state.n_told..];
        let news = news.iter().map(|warning| format!("warning: {warning}")).collect();
        state.n_told = state.record.warnings.len();
        news
    }

    /// Where walks are scored now.
    pub(crate) fn device(&self) -> String {
        let record = self.record();
        let given_up = match (record.is_given_up, record.refused.is_empty()) {
            (true, _) => ", then cpu",
            (false, false) => ", some networks cpu",
            (false, true) => "",
        };
        format!("gpu: {}{given_up}", record.name)
    }

    /// What went wrong so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.record().warnings
    }

    /// A panic elsewhere leaves at worst a device that fails, which is handled.
    fn state(&self) -> MutexGuard<'_, CardState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the device for `--device gpu`, with the pipelines that an earlier process compiled.
///
/// # Errors
/// As [`Session::open`]: [`RunError::BadArguments`].
pub fn open_session() -> Result<Session, RunError> {
    Session::open_with(GpuOptions::default(), &compiled).map_err(no_card)
}

/// Opens the device of `--device gpu` without a session, to be measured.
///
/// # Errors
/// As [`open_session`].
pub fn open_gpu(options: &GpuOptions) -> Result<Gpu, RunError> {
    Gpu::open_with(options, &compiled).map_err(no_card)
}

/// Name of the cache file of the pipelines of a card.
pub(crate) fn pipelines(key: &str) -> String {
    format!("{key}.pipelines")
}

fn compiled(key: &str) -> Option<Vec<u8>> {
    cache_files::read(&cache_files::folder()?, &pipelines(key))
}

fn no_card(error: GpuError) -> RunError {
    RunError::BadArguments(anyhow::anyhow!("--device gpu: {error}"))
}

/// Keeps the pipelines that were compiled, for the next process.
pub fn keep_pipelines(gpu: &Gpu) {
    cache_files::folder().iter().for_each(|folder| keep_pipelines_in(gpu, folder));
}

fn keep_pipelines_in(gpu: &Gpu, folder: &Path) {
    if let Some((key, compiled)) = gpu.compiled() {
        cache_files::write(folder, &pipelines(&key), &compiled);
    }
}

impl CardState {
    fn new(record: CardRecord, session: Option<Session>) -> Self {
        Self {
            record,
            session,
            ahead: Vec::new(),
            n_told: 0,
            forgets_scores: false,
            folder: None,
            #[cfg(test)]
            panics: false,
        }
    }

    /// Goes on where an earlier process was.
    fn go_on(&mut self, record: CardRecord) {
        let before = std::mem::replace(&mut self.record, record);
        self.n_told = self.record.warnings.len();
        if before.name != self.record.name {
            let was = std::mem::replace(&mut self.record.name, before.name);
            self.record.warnings.push(format!("{was}: gone since; {} scores walks from here on", self.record.name));
            self.forgets_scores = true;
        }
    }

    /// Once: what failed before a checkpoint may fail again behind it.
    fn warn(&mut self, problem: &str) {
        let warning = format!("{}: {problem}", self.record.name);
        if !self.record.warnings.contains(&warning) {
            self.record.warnings.push(warning);
        }
    }

    /// Hands compact networks of one prepared network to the card and returns while that is busy.
    fn begin(&mut self, index: usize, prepared: Arc<Prepared>, built: Vec<Built>) {
        if self.record.refused.contains(&index) || self.lacks_reward(index, &prepared) {
            return;
        }
        #[cfg(test)]
        let panics = std::mem::take(&mut self.panics);
        let Some(session) = &mut self.session else { return };
        let own: Vec<&Network> = built.iter().map(|built| &*built.network).collect();
        let begun = guarded(|| {
            #[cfg(test)]
            assert!(!panics, "a fault of the driver");
            Ok(session.begin(Some(index), &image_set(&prepared), &Candidates::Repaired(&own)))
        });
        match begun {
            Ok(begun) => self.ahead.push(Ahead { index, prepared, built, begun }),
            Err(failed) => self.leave_to_processor(index, &prepared, &failed),
        }
    }

    /// Whether a network is paid for what the shaders do not compute; the processor scores it then.
    fn lacks_reward(&mut self, index: usize, prepared: &Prepared) -> bool {
        let kind = prepared.reward.kind;
        if kind != RewardKind::OutputError {
            return false;
        }
        self.record.refused.insert(index);
        let (name, kind) = (&prepared.network_name, kind.name());
        self.warn(&format!("the reward {kind} is computed on the CPU; walks of network '{name}' are scored there"));
        true
    }

    /// Adds the scores of all that was handed to the card; what it cannot score is left out.
    fn finish(&mut self, scores: &mut Scores) {
        for Ahead { index, prepared, built, begun } in std::mem::take(&mut self.ahead) {
            let Some(session) = self.session.as_mut().filter(|_| !self.record.refused.contains(&index)) else {
                continue;
            };
            let own: Vec<&Network> = built.iter().map(|built| &*built.network).collect();
            let finish = || session.finish(begun, Some(index), &image_set(&prepared), &Candidates::Repaired(&own));
            match guarded(finish) {
                Ok(scored) => {
                    if let Some(error) = scored.recovered {
                        self.warn(&format!("{error}; the device was rebuilt and the batch scored again"));
                    }
                    let networks = built.into_iter().zip(scored.scores);
                    scores.extend(networks.map(|(Built { id, network }, score)| (id, (network, score))));
                }
                Err(failed) => self.leave_to_processor(index, &prepared, &failed),
            }
        }
    }

    /// A network that does not fit is scored by the processor from here on, everything if it is the card that fails.
    fn leave_to_processor(&mut self, index: usize, prepared: &Prepared, failed: &Caught<GpuError>) {
        self.forgets_scores = true;
        match failed {
            Caught::Error(error) if !error.is_of_device() => {
                self.record.refused.insert(index);
                let name = &prepared.network_name;
                self.warn(&format!("{error}; walks of network '{name}' are scored on the CPU from here on"));
            }
            _ => {
                self.record.is_given_up = true;
                self.warn(&format!("{failed}; walks are scored on the CPU from here on"));
                let session = self.session.take();
                if matches!(failed, Caught::Panic(_)) {
                    // Whatever state it is in: closing it could panic again, or wait for ever.
                    std::mem::forget(session);
                }
            }
        }
    }
}

fn image_set(prepared: &Prepared) -> ImageSet<'_> {
    let (reward, graph) = (&prepared.reward, prepared.network.graph());
    let (n_classes, original_logits) = (graph.n_classes(), Some(&reward.original_logits[..]));
    let truth = Truth { labels: reward.labels.as_deref(), n_classes, original_logits };
    ImageSet { shape: graph.input(), images: &reward.images, truth }
}

#[cfg(test)]
mod tests;
