//! `tune` trains a network further, usually a pruned one with the dense network as its teacher; `train` begins from
//! scratch.

pub(crate) mod arguments;
mod epochs;
pub(crate) mod train;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use secateur_certify::certify;
use secateur_formats::{Dataset, Split, write_atomic, write_network};
use secateur_kernels::{Arithmetic, Plan};
use secateur_net::Network;
use secateur_run::{LoadedNetwork, Roots, check_fit, dataset_for, load_network, with_batch_norms};
use secateur_tune::LossSettings;
use serde::Serialize;

use crate::eval::requested_network;
use crate::{Failure, screen};
use arguments::{RecipeArgs, TuneArgs};
use epochs::{EpochReport, Epochs, Rate, pool_of};

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

pub(crate) fn tune(arguments: &TuneArgs) -> Result<(), Failure> {
    let (start, recipe) = (Instant::now(), &arguments.recipe);
    let network = requested_network(&arguments.network)?;
    let read = |split| fitted(read_data(recipe, split)?, &network);
    let (data, test) = (read(Split::Train).map_err(Failure::BadArguments)?, read(Split::Test)?);
    let pool = pool_of(recipe).map_err(Failure::BadArguments)?;
    let work = Epochs::new(recipe, &network, &data, &pool).map_err(Failure::BadArguments)?;
    let mut training = tuning(arguments, &work)
        .with_context(|| format!("network '{}'", network.name))
        .map_err(Failure::BadArguments)?;
    let all_test: Vec<usize> = (0..test.len()).collect();
    let before = [(&data, &work.held_out), (&test, &all_test)];
    let [held_out_accuracy_before, test_accuracy_before] =
        before.map(|(data, places)| work.accuracy(&network.folded, data, places));
    let (held_out_accuracy_before, test_accuracy_before) = (held_out_accuracy_before?, test_accuracy_before?);
    screen::result(format_args!(
        "before         held-out {held_out_accuracy_before:.4}, test {test_accuracy_before:.4}"
    ))?;
    let curve = work.train_epochs(&mut training)?;
    let tuned = training.network()?;
    let test_accuracy_after = work.accuracy(&tuned, &test, &all_test)?;
    let (macs, params) = write(&recipe.out, &tuned, &network)?;
    let _ = fs::remove_file(work.checkpoint());
    screen::result(format_args!("after          test {test_accuracy_after:.4}, {macs} MACs, {params} parameters"))?;
    let report = TuneReport {
        network: network.name.clone(),
        teacher: arguments.teacher.as_ref().map(|teacher| teacher.display().to_string()),
        dataset: data.name.clone(),
        epochs: recipe.epochs.get(),
        train_images: work.train.len(),
        held_out_images: work.held_out.len(),
        curve,
        held_out_accuracy_before,
        test_accuracy_before,
        test_accuracy_after,
        macs,
        params,
        file: recipe.out.clone(),
        wall_s: start.elapsed().as_secs_f64(),
    };
    written(recipe, &report)
}

/// Says where the network is, and writes the report that is asked for.
fn written(recipe: &RecipeArgs, report: &impl Serialize) -> Result<(), Failure> {
    screen::result(format_args!("written        '{}', with its certificate", recipe.out.display()))?;
    let Some(json) = &recipe.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).map_err(anyhow::Error::from)?;
    Ok(write_atomic(json, (text + "\n").as_bytes()).with_context(|| format!("'{}'", json.display()))?)
}

fn read_data(recipe: &RecipeArgs, split: Split) -> anyhow::Result<Dataset> {
    let roots = Roots::new(recipe.data_root.clone(), None, Default::default());
    let hint = "set --data-root or SECATEUR_DATA to the folder that holds the data set";
    recipe.dataset.read(&roots.data, split).context(hint)
}

/// The data as the network reads them, if it can tell their classes.
fn fitted(data: Dataset, network: &LoadedNetwork) -> anyhow::Result<Dataset> {
    let data = dataset_for(network, &data)?.into_owned();
    check_fit(network, &data)?;
    data.labels()?;
    Ok(data)
}

/// The training of the network that is to be tuned, before its first step.
fn tuning<'a>(arguments: &TuneArgs, work: &Epochs<'a>) -> anyhow::Result<secateur_run::Training<'a>> {
    let network = work.network;
    let teacher = arguments.teacher.as_deref().map(|teacher| teacher_plan(arguments, teacher, network)).transpose()?;
    let trained = match arguments.no_batch_norm {
        true => network.original.clone(),
        false => with_batch_norms(&network.original, &work.images(), work.pool)?,
    };
    let TuneArgs { distillation, temperature, rate, .. } = *arguments;
    let loss = LossSettings { distillation, temperature, smoothing: 0.0 };
    work.training(&trained, teacher, Rate { peak: rate, warm_up: 0.1 }, loss)
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
