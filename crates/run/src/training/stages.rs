//! The stages of a run that train its winners: polishing towards the dense network, and fine-tuning.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rayon::ThreadPool;
use secateur_formats::Dataset;
use secateur_kernels::{Arithmetic, Isa, Plan, Teacher, TrainPlan};
use secateur_net::Network;
use secateur_sim::{Prepared, RewardKind, Winner};
use secateur_tune::{
    AdamSettings, Augmentation, Decay, LossSettings, OptimiserSettings, SgdSettings, Trainer, TrainerSettings,
    TuneError,
};

use super::images::TrainingImages;
use super::matched::{matched_values, output_match};
use super::normalised::with_batch_norms;
use super::session::{EpochMeans, Training};
use super::trained::{Trained, TrainingKey, TrainingStage, values_of, winner_with};
use crate::error::RunError;
use crate::events::RunEvent;
use crate::finalist_images::{finalist_images, reward_on};
use crate::finish::Winners;
use crate::inputs::images::dataset_for;
use crate::inputs::load::LoadedNetwork;
use crate::inputs::reachable::full_cost;
use crate::observer::StageKind;
use crate::prepare::shuffled;
use crate::run::Run;
use crate::scene::{Cost, Polish, Tune, TuneOptimiser};
use crate::search::SearchOutcome;
use crate::split_accuracy::FirstImages;

/// Most images that a network is polished on, unless the scene says otherwise.
const POLISH_IMAGES: usize = 20_000;
/// Multiply-accumulates that polishing one network takes at most, unless the scene says otherwise: a minute or two of
/// two cores.
const POLISH_WORK: u64 = 12_000_000_000_000;
/// Passes forward and backward take as many multiply-accumulates as three forward.
const TIMES_FORWARD: u64 = 3;
/// One in so many training images is held out from fine-tuning at most.
const HELD_OUT_SHARE: usize = 10;
/// Notes on a training, between which this much time passes.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// How a network of a run is trained.
#[derive(Clone, Copy, Debug)]
enum Recipe {
    Polish(Polish),
    Tune(Tune),
}

/// What a training works on.
struct TrainingTask<'a> {
    recipe: Recipe,
    pool: &'a ThreadPool,
    prepared: &'a Prepared,
    loaded: &'a LoadedNetwork,
    data: &'a Dataset,
    /// Whether there are labels for classes to be told.
    has_classes: bool,
    /// Images that decide whether the training was any good; none where the reward images do.
    held_out: Vec<usize>,
    places: Vec<usize>,
    seed: u64,
}

/// How a training ended.
enum TrainingEnd {
    Done(Trained),
    /// The observer asked to stop.
    Stopped,
}

impl Run<'_> {
    fn recipe(&self, stage: TrainingStage, search: usize, prepared: &Prepared) -> Option<Recipe> {
        let scene = self.job.scene;
        match stage {
            TrainingStage::Polish => {
                let polish = scene.polish.filter(|polish| prepared.repairs() && (search == 0 || polish.controls));
                polish.map(Recipe::Polish)
            }
            TrainingStage::Tune => scene.tune.filter(|tune| search == 0 || tune.controls).map(Recipe::Tune),
        }
    }

    /// Polishes and tunes winners, as the scene asks for; what is better of the run's agent's is written as soon as it
    /// is known.
    pub(crate) fn train_winners(&mut self, winners: &[Winners], searches: &[SearchOutcome]) -> Result<(), RunError> {
        for stage in TrainingStage::ALL {
            for (search, winners) in winners.iter().enumerate() {
                for (&task, winner) in winners {
                    if self.job.tasks[task].is_searched {
                        self.train_winner(TrainingKey { stage, search, task }, winner, searches)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn train_winner(&mut self, key: TrainingKey, winner: &Winner, searches: &[SearchOutcome]) -> Result<(), RunError> {
        let prepared = self.job.networks[self.job.tasks[key.task].network].clone();
        let Some(recipe) = self.recipe(key.stage, key.search, &prepared) else { return Ok(()) };
        let before = self.trained_before(key, winner)?;
        if !self.trainings.done.contains_key(&key) {
            if self.must_stop() {
                self.save_if_stopping(searches);
                return Ok(());
            }
            match self.train(key, recipe, &before, searches)? {
                TrainingEnd::Done(trained) => self.note_trained(key, trained, searches)?,
                TrainingEnd::Stopped => return Ok(()),
            }
        }
        let trained = self.trainings.done[&key].network(&before.network).context("--resume")?;
        match trained {
            Some(network) if key.search == 0 => self.emit(key.task, &winner_with(winner, network)),
            _ => Ok(()),
        }
    }

    /// The winner with what came of the stages before.
    fn trained_before(&self, key: TrainingKey, winner: &Winner) -> Result<Winner, RunError> {
        let mut network = winner.network.clone();
        for stage in TrainingStage::ALL.into_iter().filter(|&stage| stage < key.stage) {
            let trained = self.trainings.done.get(&TrainingKey { stage, ..key });
            let trained = trained.map(|trained| trained.network(&network)).transpose().context("--resume")?;
            network = trained.flatten().unwrap_or(network);
        }
        Ok(winner_with(winner, network))
    }

    fn note_trained(&mut self, key: TrainingKey, trained: Trained, searches: &[SearchOutcome]) -> Result<(), RunError> {
        let (name, agent) = (&self.job.tasks[key.task].name, searches[key.search].agent);
        if let Some(why) = &trained.failure {
            let warning = format!("{} of {name} ({agent}): {why}", key.stage.name());
            self.journal.reporter.note(&format!("warning: {warning}"));
            self.refits.warnings.push(warning);
        }
        self.journal.record_event(&RunEvent::Trained {
            stage: key.stage.name(),
            agent,
            task: name,
            images: trained.n_images,
            epochs: trained.n_epochs,
            held_out_before: trained.held_out[0],
            held_out_after: trained.held_out[1],
            kept: trained.values.is_some(),
        })?;
        self.trainings.current = None;
        self.trainings.done.insert(key, trained);
        if self.searched_all && self.journal.checkpoint_is_due() {
            self.checkpoint(searches);
        }
        Ok(())
    }

    /// Trains the winner of a field; what keeps it from being trained is told, and leaves it as it is.
    fn train(
        &mut self,
        key: TrainingKey,
        recipe: Recipe,
        winner: &Winner,
        searches: &[SearchOutcome],
    ) -> Result<TrainingEnd, RunError> {
        let (scene, resolved, pool) = (self.job.scene, self.job.resolved, self.job.pool.clone());
        let spec = &scene.tasks[key.task];
        let prepared = self.job.networks[self.job.tasks[key.task].network].clone();
        let (loaded, dataset) = (&resolved.networks[spec.network], &resolved.datasets[spec.dataset]);
        let data = dataset_for(loaded, &dataset.train).context("the training split")?;
        let has_classes = dataset.has_labels && prepared.reward.kind != RewardKind::OutputError;
        let judges = finalist_images(&scene.images, &data);
        let order = shuffled(data.len(), scene.images.seed);
        let n_paid = scene.images.reward + data.failures().len();
        let work = TrainingTask {
            recipe,
            pool: &pool.0,
            prepared: &prepared,
            loaded,
            data: &data,
            has_classes,
            held_out: held_out(recipe, &judges, &order),
            places: places(recipe, &order, judges.len(), n_paid, &prepared),
            seed: scene.seed,
        };
        let mut training = match work.training(winner, self.job.memory) {
            Ok(training) => training,
            Err(error) => return Ok(TrainingEnd::Done(Trained::nothing(format!("{error:#}")))),
        };
        let saved = self.trainings.current.take().filter(|(of, ..)| *of == key);
        let before = match saved {
            Some((_, before, saved)) => {
                training.resume(saved).context("--resume")?;
                before
            }
            None => work.judge(&winner.network)?,
        };
        self.go_on_training(key, &work, &mut training, before, searches)
    }

    /// Steps until the training is over, or the observer asks to stop.
    fn go_on_training(
        &mut self,
        key: TrainingKey,
        work: &TrainingTask<'_>,
        training: &mut Training<'_>,
        before: f64,
        searches: &[SearchOutcome],
    ) -> Result<TrainingEnd, RunError> {
        let (name, agent) = (self.job.tasks[key.task].name.clone(), searches[key.search].agent);
        let batch = work.batch() as u64;
        let of_agent = if key.search == 0 { String::new() } else { format!(" ({agent})") };
        let stage = format!("{} {name}{of_agent}", key.stage.name());
        let done = |training: &Training<'_>| batch * training.n_done() as u64;
        self.journal.reporter.begin(StageKind::Train, &stage, batch * training.n_steps() as u64, done(training));
        let (mut noted, n_images) = (Progressed::new(done(training)), work.places.len());
        while !training.is_done() {
            if self.must_stop() {
                self.trainings.current = Some((key, before, training.save()));
                self.save_if_stopping(searches);
                return Ok(TrainingEnd::Stopped);
            }
            let failed = |error: anyhow::Error, n_epochs: usize| {
                let failure = Some(format!("{error:#}; the network stays as it was before"));
                let held_out = [before, before];
                TrainingEnd::Done(Trained { values: None, n_images, n_epochs, held_out, failure })
            };
            match training.step(work.pool) {
                Ok(Some(means)) => {
                    let held_out = self.watch(key, work, training)?;
                    self.journal.record_event(&RunEvent::Epoch {
                        stage: key.stage.name(),
                        agent,
                        task: &name,
                        epoch: means.epoch,
                        loss: means.loss,
                        accuracy: means.accuracy,
                        held_out,
                    })?;
                    let text = noted.line(&name, &means, held_out, done(training), batch * training.n_steps() as u64);
                    text.iter().for_each(|text| self.journal.reporter.note(text));
                }
                Ok(None) => {}
                Err(error) if error.downcast_ref::<TuneError>().is_some() => {
                    return Ok(failed(error, training.n_done() / training.steps_per_epoch()));
                }
                Err(error) => return Err(error.context(stage).into()),
            }
            self.journal.reporter.progress(done(training));
            if self.searched_all && self.journal.checkpoint_is_due() {
                self.trainings.current = Some((key, before, training.save()));
                self.checkpoint(searches);
            }
        }
        let network = training.network()?;
        let after = work.judge(&network)?;
        let kept = after > before;
        let failure = (!kept && key.stage == TrainingStage::Tune).then(|| {
            format!(
                "on held-out training images it is no better than before ({after:.4}, {before:.4}), and the network stays as it \
                 was; a lower `tune.rate` or more epochs may help"
            )
        });
        let n_epochs = training.n_done() / training.steps_per_epoch();
        let values = kept.then(|| values_of(&network));
        Ok(TrainingEnd::Done(Trained { values, n_images, n_epochs, held_out: [before, after], failure }))
    }

    /// The reward on held-out images after an epoch of fine-tuning; polishing looks at them only at its end.
    fn watch(
        &self,
        key: TrainingKey,
        work: &TrainingTask<'_>,
        training: &Training<'_>,
    ) -> Result<Option<f64>, RunError> {
        match key.stage {
            TrainingStage::Polish => Ok(None),
            TrainingStage::Tune => Ok(Some(work.judge(&training.network()?)?)),
        }
    }
}

/// When something was last said of a training, and how far it was when this process took it up.
struct Progressed {
    start: Instant,
    last: Instant,
    done_before: u64,
}

impl Progressed {
    fn new(done_before: u64) -> Self {
        Self { start: Instant::now(), last: Instant::now(), done_before }
    }

    /// A line on an epoch, if the last is long enough ago or there is more to tell than its loss.
    fn line(&mut self, task: &str, means: &EpochMeans, held_out: Option<f64>, done: u64, total: u64) -> Option<String> {
        if self.last.elapsed() < NOTE_EVERY {
            return None;
        }
        self.last = Instant::now();
        let rate = (done - self.done_before) as f64 / self.start.elapsed().as_secs_f64();
        let accuracy = means.accuracy.map_or_else(String::new, |share| format!(", train {:.2} %", 100.0 * share));
        let held_out = held_out.map_or_else(String::new, |reward| format!(", held-out {reward:.4}"));
        let left = (total - done) as f64 / rate;
        Some(format!(
            "{task}: epoch {}, loss {:.4}{accuracy}{held_out}, {rate:.0} images/s, {left:.0} s left",
            means.epoch, means.loss
        ))
    }
}

/// Images that decide whether a training was any good.
fn held_out(recipe: Recipe, judges: &[usize], order: &[usize]) -> Vec<usize> {
    match recipe {
        Recipe::Polish(_) => judges.to_vec(),
        // Nothing is chosen after it, so that all others may be learned from.
        Recipe::Tune(tune) => order[order.len() - tune.held_out.min(order.len() / HELD_OUT_SHARE)..].to_vec(),
    }
}

/// Images to learn from: of polishing none that a walk was paid on, or that finalists, or polished networks, are judged
/// on.
fn places(recipe: Recipe, order: &[usize], n_judges: usize, n_paid: usize, prepared: &Prepared) -> Vec<usize> {
    match recipe {
        Recipe::Polish(polish) => {
            let of_step = full_cost(&prepared.network, Cost::Macs).saturating_mul(1 + TIMES_FORWARD).max(1);
            let by_work = POLISH_WORK / of_step / polish.epochs as u64;
            let most = polish.images.unwrap_or(POLISH_IMAGES.min(by_work as usize).max(polish.batch));
            let end = order.len() - n_judges;
            let places = &order[n_paid.min(end)..end];
            places[..places.len().min(most)].to_vec()
        }
        Recipe::Tune(tune) => {
            let n_held_out = tune.held_out.min(order.len() / HELD_OUT_SHARE);
            order[..order.len() - n_held_out].to_vec()
        }
    }
}

impl TrainingTask<'_> {
    fn batch(&self) -> usize {
        match self.recipe {
            Recipe::Polish(polish) => polish.batch,
            Recipe::Tune(tune) => tune.batch,
        }
    }

    /// The reward on held-out training images.
    fn judge(&self, network: &Network) -> anyhow::Result<f64> {
        let Self { prepared, loaded, data, held_out, pool, .. } = self;
        if held_out.is_empty() {
            let score = prepared.reward.score(pool, network, secateur_kernels::Precision::F32)?;
            return Ok(score.reward(prepared.reward.kind));
        }
        let (order, n) = (Some(held_out.as_slice()), held_out.len());
        let images = FirstImages { data, preprocessing: &loaded.preprocessing, order, n };
        reward_on(network, prepared, images, pool).context("held-out training images")
    }

    fn settings(&self) -> TrainerSettings {
        let batch = self.batch();
        let steps_per_epoch = self.places.len() / batch;
        let loss = LossSettings { distillation: 1.0, temperature: 1.0, smoothing: 0.0 };
        let (epochs, rate, decay, optimiser, loss) = match self.recipe {
            Recipe::Polish(polish) => {
                (polish.epochs, polish.rate, Decay::Cosine, OptimiserSettings::Adam(AdamSettings::default()), loss)
            }
            Recipe::Tune(tune) => {
                let optimiser = match tune.optimiser {
                    TuneOptimiser::Sgd => OptimiserSettings::Sgd(SgdSettings::default()),
                    TuneOptimiser::Adam => OptimiserSettings::Adam(AdamSettings::default()),
                };
                let Tune { distillation, temperature, .. } = tune;
                (tune.epochs, tune.rate, Decay::Linear, optimiser, LossSettings { distillation, temperature, ..loss })
            }
        };
        let n_steps = epochs.saturating_mul(steps_per_epoch);
        TrainerSettings { batch, n_steps, rate, warm_up: 0.1, decay, optimiser, clip: 5.0, half_life: 0.05, loss }
    }

    /// The training before its first step, if there is memory for it.
    fn training(&self, winner: &Winner, memory: crate::MemoryBound) -> anyhow::Result<Training<'_>> {
        let (isa, settings) = (Isa::detect(), self.settings());
        let (crop, flip) = match self.recipe {
            Recipe::Polish(polish) => (polish.crop, polish.flip),
            Recipe::Tune(tune) => (tune.crop, tune.flip),
        };
        let images = TrainingImages {
            data: self.data,
            preprocessing: &self.loaded.preprocessing,
            places: self.places.clone(),
            augmentation: Augmentation { crop, flip },
            seed: self.seed,
        };
        if images.places.len() < settings.batch {
            let n = images.places.len();
            return Err(anyhow!("{n} training images are left to learn from, a step takes {}", settings.batch));
        }
        let normalised = match self.recipe {
            Recipe::Tune(tune) if tune.batch_norm => Some(with_batch_norms(&winner.network, &images, self.pool)?),
            Recipe::Tune(_) | Recipe::Polish(_) => None,
        };
        let network = normalised.as_ref().unwrap_or(&winner.network);
        let teacher = self.teacher(winner)?;
        let fit = |network: &Network, teacher: Option<&Teacher<'_>>| {
            let sizes = [settings.batch, self.pool.current_num_threads()];
            let needed = TrainPlan::bytes_needed(network, teacher, isa, sizes)?;
            memory.check_training(network, needed, settings.batch)
        };
        fit(network, teacher.as_ref())?;
        let trainer = match &teacher {
            Some(teacher) => Trainer::with_teacher(network, teacher, isa, settings)?,
            None => Trainer::new(network, isa, settings)?,
        };
        let distilled = (teacher.is_none() && settings.loss.distillation > 0.0)
            .then(|| Plan::compile(&self.prepared.network, Arithmetic::default()))
            .transpose()?;
        let uses_labels = matches!(self.recipe, Recipe::Tune(_)) && self.has_classes;
        Training::new(images, trainer, distilled, uses_labels)
    }

    /// The dense network, where more than the divergence of its logits is followed.
    fn teacher(&self, winner: &Winner) -> Result<Option<Teacher<'_>>, anyhow::Error> {
        let network = &self.prepared.network;
        let values = match self.recipe {
            Recipe::Polish(_) => matched_values(network.graph(), &self.prepared.groups, &winner.kept),
            Recipe::Tune(_) if self.prepared.reward.kind == RewardKind::OutputError => Vec::new(),
            Recipe::Tune(_) => return Ok(None),
        };
        let outputs = output_match(self.prepared, self.pool).context("the dense network")?;
        Ok(Some(Teacher { network, outputs, values }))
    }
}
