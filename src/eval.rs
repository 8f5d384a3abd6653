//! `eval`: top-1 accuracy of one network on one split.

use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::Context;
use secateur_formats::Split;
use secateur_kernels::Precision;
use secateur_run::scene::Device;
use secateur_run::{
    CHUNK_IMAGES, CountEvent, Engine, Evaluation, FirstImages, LoadedNetwork, MemoryBound, NetworkChoices, Roots,
    check_fit, check_images_fit, count_correct, dataset_for, load_network_as, n_threads, thread_pool,
};

use crate::arguments::{EvalArgs, NetworkArgs};
use crate::eval_against::{dense_network, eval_against};
use crate::screen::Progress;
use crate::{Failure, screen};

pub(crate) fn eval(arguments: &EvalArgs) -> Result<(), Failure> {
    let network = requested_network(&arguments.network)?;
    let dense = dense_network(arguments, &network)?;
    let split = arguments.split;
    let roots = Roots::new(arguments.data_root.clone(), None, Default::default());
    let data = arguments.dataset.read(&roots.data, split).map_err(|error| {
        let help =
            error.is_missing_data().then_some("set --data-root or SECATEUR_DATA to the folder that holds the data set");
        let error = anyhow::Error::from(error);
        Failure::BadArguments(match help {
            Some(help) => error.context(help),
            None => error,
        })
    })?;
    let data = dataset_for(&network, &data).map_err(|error| Failure::BadArguments(error.into()))?;
    let fit = if dense.is_some() { check_images_fit(&network, &data) } else { check_fit(&network, &data) };
    fit.map_err(Failure::BadArguments)?;
    let notes = data.notes();
    notes.iter().for_each(screen::note);
    let n = arguments.limit.map_or(data.len(), NonZeroUsize::get).min(data.len());
    if arguments.device == Device::Cpu {
        check_memory(arguments, &network, n)?;
    }
    let pool = thread_pool(arguments.threads.threads)?;
    if let Some(dense) = &dense {
        let images = FirstImages { data: &data, preprocessing: &network.preprocessing, order: None, n };
        return eval_against(&network, dense, images, &pool, arguments.json);
    }
    let mut engine = match arguments.device {
        Device::Cpu => Engine::cpu(&network.folded).map_err(anyhow::Error::from)?,
        Device::Gpu => Engine::Gpu(Box::new(secateur_run::open_session()?)),
    };
    let start = Instant::now();
    let mut progress = Progress::new(n as u64);
    let images = FirstImages { data: &data, preprocessing: &network.preprocessing, order: None, n };
    let counted = count_correct(&network.folded, images, &mut engine, &pool, |event| match event {
        CountEvent::Done(done) => progress.set(done),
        CountEvent::Note(note) => screen::note(note),
    })?;
    drop(progress);
    data.failures().iter().for_each(screen::note);
    let (n, n_correct) = (counted.n, counted.n_correct);
    let elapsed_s = start.elapsed().as_secs_f64();
    let (mean, std) = (&network.preprocessing.mean, &network.preprocessing.std);
    let device = match &engine {
        Engine::Cpu(_) => format!("{} threads", pool.current_num_threads()),
        Engine::Gpu(session) => {
            session.gpu().into_iter().for_each(secateur_run::keep_pipelines);
            session.name().to_owned()
        }
    };
    let rate = n as f64 / elapsed_s;
    if arguments.json {
        return screen::json(&serde_json::json!({
            "network": network.name, "file": network.path, "assumptions": network.assumptions, "mean": mean, "std": std,
            "dataset": data.name, "split": split.name(), "images": n, "of": data.len(), "correct": n_correct,
            "top1": n_correct as f64 / n.max(1) as f64, "images_per_s": rate, "seconds": elapsed_s, "device": device,
        }));
    }
    let split = if split == Split::Test { "test" } else { "training" };
    screen::result(format_args!("network        {} ('{}')", network.name, network.path.display()))?;
    for assumption in &network.assumptions {
        screen::result(format_args!("               {assumption}"))?;
    }
    screen::result(format_args!("preprocessing  mean {mean:?}, std {std:?}"))?;
    screen::result(format_args!("data           {n} of {} {split} images of {}", data.len(), data.name))?;
    screen::result(format_args!("speed          {rate:.0} images/s ({elapsed_s:.2} s on {device})"))?;
    Ok(screen::result(top1(n_correct, n.max(1)))?)
}

/// The last line of the output.
fn top1(n_correct: usize, n: usize) -> String {
    format!("top1 {:.4} ({n_correct} of {n})", n_correct as f64 / n as f64)
}

/// The network a command names.
///
/// # Errors
/// As [`Roots::find_network`] and [`load_network_as`]: exit code 2.
pub(crate) fn requested_network(arguments: &NetworkArgs) -> Result<LoadedNetwork, Failure> {
    let mean_std = arguments.mean.clone().zip(arguments.std.clone());
    let roots = Roots::new(None, arguments.model_root.clone(), Default::default());
    let load = || {
        let path = roots.find_network(&arguments.network)?;
        let (arch, mean_std) = (arguments.arch.as_deref(), mean_std.as_ref());
        load_network_as(&path, &NetworkChoices { arch, mean_std, size: arguments.size })
    };
    load().map_err(Failure::BadArguments)
}

/// Whether the memory is enough for `n` images.
fn check_memory(arguments: &EvalArgs, network: &LoadedNetwork, n: usize) -> Result<(), Failure> {
    let bound = MemoryBound::new(arguments.memory.memory, n_threads(arguments.threads.threads)?);
    let evaluation = Evaluation { precision: Precision::F32, n_images: n.min(CHUNK_IMAGES) };
    let fits = bound.check_evaluation(&network.folded, evaluation);
    fits.with_context(|| format!("network '{}'", network.name)).map_err(Failure::BadArguments)
}

#[cfg(test)]
mod tests {
    use super::top1;

    #[test]
    fn the_last_line_is_what_scripts_expect() {
        assert_eq!(top1(9173, 10_000), "top1 0.9173 (9173 of 10000)");
        assert_eq!(top1(1, 3), "top1 0.3333 (1 of 3)");
    }
}
