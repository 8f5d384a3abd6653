//! `train`: a network from scratch.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use secateur_formats::Split;
use secateur_run::{Roots, Untrained, untrained_network};
use secateur_tune::LossSettings;
use serde::Serialize;

use super::arguments::TrainArgs;
use super::epochs::{EpochReport, Epochs, Rate, pool_of};
use super::{fitted, read_data, write, written};
use crate::{Failure, screen};

/// Share of the steps in which the learning rate rises: of a network that knows nothing yet, longer than of one that is
/// tuned.
const WARM_UP: f32 = 0.2;

/// What came of a training from scratch.
#[derive(Debug, Serialize)]
struct TrainReport {
    network: String,
    dataset: String,
    epochs: usize,
    train_images: usize,
    held_out_images: usize,
    curve: Vec<EpochReport>,
    test_accuracy: f64,
    macs: u64,
    params: u64,
    file: PathBuf,
    wall_s: f64,
}

pub(crate) fn train(arguments: &TrainArgs) -> Result<(), Failure> {
    let (start, recipe) = (Instant::now(), &arguments.recipe);
    let read = |split| read_data(recipe, split).map_err(Failure::BadArguments);
    let (data, test) = (read(Split::Train)?, read(Split::Test)?);
    let pool = pool_of(recipe).map_err(Failure::BadArguments)?;
    let roots = Roots::new(recipe.data_root.clone(), arguments.model_root.clone(), Default::default());
    let untrained = Untrained { what: &arguments.network, seed: recipe.seed, size: arguments.size };
    let network = untrained_network(&untrained, &roots, &data, &pool).map_err(Failure::BadArguments)?;
    let [data, test] = [data, test].map(|data| fitted(data, &network).map_err(Failure::BadArguments));
    let (data, test) = (data?, test?);
    let work = Epochs::new(recipe, &network, &data, &pool).map_err(Failure::BadArguments)?;
    let loss = LossSettings { distillation: 0.0, temperature: 1.0, smoothing: arguments.smoothing };
    let mut training = work
        .training(&network.original, None, Rate { peak: arguments.rate, warm_up: WARM_UP }, loss)
        .with_context(|| format!("network '{}'", network.name))
        .map_err(Failure::BadArguments)?;
    let curve = work.train_epochs(&mut training)?;
    let all_test: Vec<usize> = (0..test.len()).collect();
    let test_accuracy = work.accuracy(&training.network()?, &test, &all_test)?;
    let (macs, params) = write(&recipe.out, &training.unfolded()?, &network)?;
    let _ = fs::remove_file(work.checkpoint());
    screen::result(format_args!("trained        test {test_accuracy:.4}, {macs} MACs, {params} parameters"))?;
    let report = TrainReport {
        network: network.name.clone(),
        dataset: data.name.clone(),
        epochs: recipe.epochs.get(),
        train_images: work.train.len(),
        held_out_images: work.held_out.len(),
        curve,
        test_accuracy,
        macs,
        params,
        file: recipe.out.clone(),
        wall_s: start.elapsed().as_secs_f64(),
    };
    written(recipe, &report)
}
