//! `tune`: trains a network further, usually a pruned one with the dense network as its teacher.

pub(crate) mod arguments;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use rayon::ThreadPool;
use secateur_certify::certify;
use secateur_formats::{Dataset, Split, read_regular_file, write_atomic, write_network};
use secateur_kernels::{Arithmetic, Isa, Plan, TrainPlan};
use secateur_net::Network;
use secateur_run::{
    FirstImages, LoadedNetwork, MemoryBound, Roots, SavedTraining, Training, TrainingImages, check_fit, correct_images,
    dataset_for, load_network, thread_pool, with_batch_norms,
};
use secateur_tune::{
    AdamSettings, Augmentation, Decay, LossSettings, OptimiserSettings, SgdSettings, Trainer, TrainerSettings,
    epoch_order,
};
use serde::{Deserialize, Serialize};

use crate::eval::requested_network;
use crate::screen::Progress;
use crate::{Failure, screen};
use arguments::{OptimiserArg, TuneArgs};

/// Largest checkpoint that is read, in bytes.
const CHECKPOINT_MAX: u64 = 1 << 34;

/// What became of a network.
#[derive(Debug, Serialize)]
struct TuneReport {
    network: String,
    teacher: Option<String>,
    dataset: String,
    epochs: usize,
    train_images: usize,
    held_out_images: usize,
    curve: Vec<EpochReport>,
    held_out_accuracy_before: f64,
    test_accuracy_before: f64,
    test_accuracy_after: f64,
    macs: u64,
    params: u64,
    file: PathBuf,
    wall_s: f64,
}

/// One epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct EpochReport {
    loss: f64,
    train_accuracy: f64,
    held_out_accuracy: f64,
    images_per_s: f64,
}

/// Data, networks and threads.
struct Tuning<'a> {
    arguments: &'a TuneArgs,
    network: &'a LoadedNetwork,
    data: &'a Dataset,
    pool: ThreadPool,
    /// Images to learn from, and those that are only watched.
    train: Vec<usize>,
    held_out: Vec<usize>,
}

pub(crate) fn tune(arguments: &TuneArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let network = requested_network(&arguments.network)?;
    let read = |split| read_data(arguments, &network, split).map_err(Failure::BadArguments);
    let (data, test) = (read(Split::Train)?, read(Split::Test)?);
    let work = Tuning::new(arguments, &network, &data).map_err(Failure::BadArguments)?;
    let mut training =
        work.training().with_context(|| format!("network '{}'", network.name)).map_err(Failure::BadArguments)?;
    let all_test: Vec<usize> = (0..test.len()).collect();
    let accuracy = |data, indices: &[usize]| work.accuracy(&network.folded, data, indices);
    let before = [accuracy(&data, &work.held_out)?, accuracy(&test, &all_test)?];
    screen::result(format_args!("before         held-out {:.4}, test {:.4}", before[0], before[1]))?;
    let curve = work.train_epochs(&mut training)?;
    let tuned = training.network()?;
    let test_accuracy_after = work.accuracy(&tuned, &test, &all_test)?;
    let (macs, params) = write(&arguments.out, &tuned, &network)?;
    let _ = fs::remove_file(work.checkpoint());
    let report = TuneReport {
        network: network.name.clone(),
        teacher: arguments.teacher.as_ref().map(|teacher| teacher.display().to_string()),
        dataset: data.name.clone(),
        epochs: arguments.epochs.get(),
        train_images: work.train.len(),
        held_out_images: work.held_out.len(),
        curve,
        held_out_accuracy_before: before[0],
        test_accuracy_before: before[1],
        test_accuracy_after,
        macs,
        params,
        file: arguments.out.clone(),
        wall_s: start.elapsed().as_secs_f64(),
    };
    screen::result(format_args!("after          test {test_accuracy_after:.4}, {macs} MACs, {params} parameters"))?;
    screen::result(format_args!("written        '{}', with its certificate", arguments.out.display()))?;
    let Some(json) = &arguments.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?;
    Ok(write_atomic(json, (text + "\n").as_bytes()).with_context(|| format!("'{}'", json.display()))?)
}

fn read_data(arguments: &TuneArgs, network: &LoadedNetwork, split: Split) -> anyhow::Result<Dataset> {
    let roots = Roots::new(arguments.data_root.clone(), None, Default::default());
    let hint = "set --data-root or SECATEUR_DATA to the folder that holds the data set";
    let data = arguments.dataset.read(&roots.data, split).context(hint)?;
    let data = dataset_for(network, &data)?.into_owned();
    check_fit(network, &data)?;
    data.labels()?;
    Ok(data)
}

impl<'a> Tuning<'a> {
    fn new(arguments: &'a TuneArgs, network: &'a LoadedNetwork, data: &'a Dataset) -> anyhow::Result<Self> {
        let order = epoch_order(arguments.seed, u64::MAX, data.len());
        let n = arguments.limit.map_or(order.len(), |limit| limit.get().min(order.len()));
        let (n_held_out, batch) = (arguments.held_out.get(), arguments.batch.get());
        ensure!(
            n >= n_held_out + batch,
            "{n} training images, of which --held-out {n_held_out} are only watched, do not fill a batch of {batch}"
        );
        let pool = thread_pool(arguments.threads.threads).map_err(|failure| anyhow!("{failure}"))?;
        let [held_out, train] = [order[..n_held_out].to_vec(), order[n_held_out..n].to_vec()];
        Ok(Self { arguments, network, data, pool, train, held_out })
    }

    fn training(&self) -> anyhow::Result<Training<'a>> {
        let Self { arguments, network, data, pool, train, .. } = self;
        let teacher =
            arguments.teacher.as_deref().map(|teacher| teacher_plan(arguments, teacher, network)).transpose()?;
        let (isa, settings) = (Isa::detect(), self.settings());
        let images = TrainingImages {
            data,
            preprocessing: &network.preprocessing,
            places: train.clone(),
            augmentation: Augmentation { crop: arguments.crop, flip: !arguments.no_flip },
            seed: arguments.seed,
        };
        let trained = match arguments.no_batch_norm {
            true => network.original.clone(),
            false => with_batch_norms(&network.original, &images, pool)?,
        };
        let sizes = [settings.batch, pool.current_num_threads()];
        let needed = TrainPlan::bytes_needed(&trained, None, isa, sizes)?;
        let memory = MemoryBound::new(arguments.memory.memory, pool.current_num_threads());
        memory.check_training(&trained, needed, settings.batch)?;
        let trainer = Trainer::new(&trained, isa, settings)?;
        Training::new(images, trainer, teacher, true)
    }

    fn settings(&self) -> TrainerSettings {
        let arguments = self.arguments;
        TrainerSettings {
            batch: arguments.batch.get(),
            n_steps: arguments.epochs.get() * (self.train.len() / arguments.batch.get()),
            rate: arguments.rate,
            warm_up: 0.1,
            decay: Decay::Linear,
            optimiser: match arguments.optimiser {
                OptimiserArg::Sgd => OptimiserSettings::Sgd(SgdSettings::default()),
                OptimiserArg::Adam => OptimiserSettings::Adam(AdamSettings::default()),
            },
            clip: arguments.clip,
            half_life: 0.05,
            loss: LossSettings {
                distillation: arguments.distillation,
                temperature: arguments.temperature,
                smoothing: 0.0,
            },
        }
    }

    /// Share of the images at `indices` that are predicted as their label.
    fn accuracy(&self, network: &Network, data: &Dataset, indices: &[usize]) -> anyhow::Result<f64> {
        let (preprocessing, n) = (&self.network.preprocessing, indices.len());
        let images = FirstImages { data, preprocessing, order: Some(indices), n };
        let correct = correct_images(network, images, &self.pool, |_| {})?;
        Ok(correct.iter().filter(|&&is_correct| is_correct).count() as f64 / correct.len().max(1) as f64)
    }

    fn checkpoint(&self) -> PathBuf {
        self.arguments.out.with_extension("checkpoint")
    }

    /// Trains the epochs that are not done yet; a checkpoint follows each.
    fn train_epochs(&self, training: &mut Training<'_>) -> anyhow::Result<Vec<EpochReport>> {
        let mut curve = if self.arguments.resume { self.resume(training)? } else { Vec::new() };
        let (start, n_before, n_epochs) = (Instant::now(), curve.len(), self.arguments.epochs.get());
        for epoch in n_before..n_epochs {
            let report = self.train_epoch(training).with_context(|| self.last_checkpoint())?;
            curve.push(report.clone());
            let bytes = postcard::to_stdvec(&(training.save(), &curve)).context("checkpoint")?;
            write_atomic(&self.checkpoint(), &bytes).with_context(|| {
                format!("checkpoint '{}'; the one before it is still there", self.checkpoint().display())
            })?;
            let left = start.elapsed().as_secs_f64() / (epoch + 1 - n_before) as f64 * (n_epochs - epoch - 1) as f64;
            screen::result(format_args!(
                "epoch {:>3}/{n_epochs}  loss {:.4}  train {:.4}  held-out {:.4}  {:.0} images/s  {:.0} s left",
                epoch + 1,
                report.loss,
                report.train_accuracy,
                report.held_out_accuracy,
                report.images_per_s,
                left
            ))?;
        }
        Ok(curve)
    }

    /// What a failure leaves behind.
    fn last_checkpoint(&self) -> String {
        match self.checkpoint() {
            path if path.exists() => format!("the last good checkpoint is '{}'", path.display()),
            _ => "there is no checkpoint yet".to_owned(),
        }
    }

    fn resume(&self, training: &mut Training<'_>) -> anyhow::Result<Vec<EpochReport>> {
        let path = self.checkpoint();
        if !path.exists() {
            screen::note(format_args!("no checkpoint '{}': starting afresh", path.display()));
            return Ok(Vec::new());
        }
        let what = || format!("checkpoint '{}'", path.display());
        let bytes = read_regular_file(&path, CHECKPOINT_MAX).with_context(what)?;
        let saved: (SavedTraining, Vec<EpochReport>) = postcard::from_bytes(&bytes).with_context(what)?;
        let (saved, curve) = saved;
        training.resume(saved).with_context(what)?;
        ensure!(
            training.n_done() == curve.len() * training.steps_per_epoch(),
            "{}: {} steps are done, but {} epochs; start afresh without --resume",
            what(),
            training.n_done(),
            curve.len()
        );
        Ok(curve)
    }

    fn train_epoch(&self, training: &mut Training<'_>) -> anyhow::Result<EpochReport> {
        let (start, batch) = (Instant::now(), self.arguments.batch.get());
        let n = training.steps_per_epoch() * batch;
        let (mut progress, first) = (Progress::new(n as u64), training.n_done());
        let means = loop {
            if let Some(means) = training.step(&self.pool)? {
                break means;
            }
            progress.set(((training.n_done() - first) * batch) as u64);
        };
        drop(progress);
        let images_per_s = n as f64 / start.elapsed().as_secs_f64();
        Ok(EpochReport {
            loss: means.loss,
            train_accuracy: means.accuracy.unwrap_or_default(),
            held_out_accuracy: self.accuracy(&training.network()?, self.data, &self.held_out)?,
            images_per_s,
        })
    }
}

/// The teacher, compiled, if it fits the network.
fn teacher_plan(arguments: &TuneArgs, teacher: &Path, network: &LoadedNetwork) -> anyhow::Result<Plan> {
    let roots = Roots::new(None, arguments.network.model_root.clone(), Default::default());
    let loaded = load_network(&roots.find_network(teacher)?, None, None).context("--teacher")?;
    let of = |loaded: &LoadedNetwork| (loaded.folded.graph().input(), loaded.folded.graph().n_classes());
    let ([(input, n_outputs), (teacher_input, teacher_outputs)], name) = ([of(network), of(&loaded)], &loaded.name);
    ensure!(
        n_outputs == teacher_outputs && input == teacher_input,
        "--teacher '{name}' reads {teacher_input} and has {teacher_outputs} outputs, the network reads {input} and has \
         {n_outputs}: they must be the same"
    );
    ensure!(
        loaded.preprocessing == network.preprocessing,
        "--teacher '{name}' expects images normalised in another way than the network"
    );
    Ok(Plan::compile(&loaded.folded, Arithmetic::default())?)
}

/// Writes the network and its certificate, and returns what the certificate counts.
fn write(path: &Path, tuned: &Network, network: &LoadedNetwork) -> anyhow::Result<(u64, u64)> {
    write_network(path, tuned, &network.preprocessing)?;
    let certificate = certify(path, &[])?;
    let text = serde_json::to_string_pretty(&certificate).context("certificate")?;
    let beside = path.with_extension("certificate.json");
    write_atomic(&beside, (text + "\n").as_bytes())?;
    Ok((certificate.macs, certificate.params))
}
