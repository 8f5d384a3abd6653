//! `compare-networks`: which of two networks is better on the same images.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use secateur_formats::Dataset;
use secateur_run::{
    ComparedNetworks, CountEvent, FirstImages, LoadedNetwork, NetworkChoices, PairedAccuracy, PairedError, Roots,
    check_fit, check_images_fit, compare_outputs, correct_images, dataset_for, load_network_as, thread_pool,
};
use serde_json::json;

use crate::arguments::CompareNetworksArgs;
use crate::eval_against::check_alike;
use crate::screen::Progress;
use crate::{Failure, screen};

/// What was found.
enum Verdict {
    Accuracy(PairedAccuracy),
    Error(PairedError),
}

pub(crate) fn compare_networks(arguments: &CompareNetworksArgs) -> Result<(), Failure> {
    let load = |file: &Path| load(arguments, file).map_err(Failure::BadArguments);
    let (first, second) = (load(&arguments.first)?, load(&arguments.second)?);
    let dense = arguments.against.as_deref().map(load).transpose()?;
    if let Some(dense) = &dense {
        let check = check_alike(&first, dense).and_then(|()| check_alike(&second, dense));
        check.context("--against").map_err(Failure::BadArguments)?;
    }
    let roots = Roots::new(arguments.roots.data_root.clone(), None, Default::default());
    let data = arguments
        .dataset
        .read(&roots.data, arguments.split)
        .context("set --data-root or SECATEUR_DATA to the folder that holds the data set")
        .map_err(Failure::BadArguments)?;
    let pool = thread_pool(arguments.threads.threads)?;
    let verdict = match &dense {
        Some(dense) => {
            let errors = |network| image_errors(arguments, network, dense, &data, &pool);
            let [first, second] = [errors(&first)?, errors(&second)?];
            Verdict::Error(PairedError::of(&first, &second))
        }
        None => {
            let correct = |network| correct(arguments, network, &data, &pool);
            let [first, second] = [correct(&first)?, correct(&second)?];
            Verdict::Accuracy(PairedAccuracy::of(&first, &second))
        }
    };
    tell(arguments, [&first, &second], &verdict)
}

fn load(arguments: &CompareNetworksArgs, file: &Path) -> anyhow::Result<LoadedNetwork> {
    let roots = Roots::new(None, arguments.roots.model_root.clone(), Default::default());
    let path = roots.find_network(file)?;
    load_network_as(&path, &NetworkChoices { size: arguments.size, ..Default::default() })
}

/// How many images are looked at.
fn n_images(arguments: &CompareNetworksArgs, data: &Dataset) -> usize {
    arguments.limit.map_or(data.len(), NonZeroUsize::get).min(data.len())
}

/// Whether a network is right about each image, as it reads them.
fn correct(
    arguments: &CompareNetworksArgs,
    network: &LoadedNetwork,
    data: &Dataset,
    pool: &rayon::ThreadPool,
) -> Result<Vec<bool>, Failure> {
    let data = dataset_for(network, data).map_err(|error| Failure::BadArguments(error.into()))?;
    check_fit(network, &data).map_err(Failure::BadArguments)?;
    let images =
        FirstImages { data: &data, preprocessing: &network.preprocessing, order: None, n: n_images(arguments, &data) };
    let mut progress = Progress::new(images.n as u64);
    let correct = correct_images(&network.folded, images, pool, |event| set(&mut progress, event));
    Ok(correct.with_context(|| format!("network '{}'", network.name))?)
}

/// How far a network's outputs are from the dense network's on each image.
fn image_errors(
    arguments: &CompareNetworksArgs,
    network: &LoadedNetwork,
    dense: &LoadedNetwork,
    data: &Dataset,
    pool: &rayon::ThreadPool,
) -> Result<Vec<f64>, Failure> {
    let data = dataset_for(network, data).map_err(|error| Failure::BadArguments(error.into()))?;
    check_images_fit(network, &data).map_err(Failure::BadArguments)?;
    let images =
        FirstImages { data: &data, preprocessing: &network.preprocessing, order: None, n: n_images(arguments, &data) };
    let compared = ComparedNetworks {
        dense: &dense.folded,
        other: &network.folded,
        outputs: &dense.outputs,
        are_logits: dense.no_logits().is_none(),
    };
    let mut progress = Progress::new(images.n as u64);
    let agreement = compare_outputs(&compared, images, pool, |event| set(&mut progress, event));
    Ok(agreement.with_context(|| format!("network '{}'", network.name))?.image_errors)
}

fn set(progress: &mut Progress, event: CountEvent) {
    match event {
        CountEvent::Done(done) => progress.set(done),
        CountEvent::Note(note) => screen::note(note),
    }
}

fn tell(arguments: &CompareNetworksArgs, networks: [&LoadedNetwork; 2], verdict: &Verdict) -> Result<(), Failure> {
    let files = networks.map(|network| network.path.display().to_string());
    if arguments.json {
        let found = match verdict {
            Verdict::Accuracy(test) => json!({ "networks": files, "paired_accuracy": test }),
            Verdict::Error(test) => json!({ "networks": files, "paired_error": test }),
        };
        return Ok(screen::result(serde_json::to_string_pretty(&found).map_err(anyhow::Error::from)?)?);
    }
    for (which, network) in ["first", "second"].into_iter().zip(networks) {
        screen::result(format_args!("{which:<7} {} ('{}')", network.name, network.path.display()))?;
        for assumption in &network.assumptions {
            screen::result(format_args!("        {assumption}"))?;
        }
    }
    Ok(screen::result(sentences(verdict))?)
}

/// What was found, and whose network is better.
fn sentences(verdict: &Verdict) -> String {
    let better = |is_distinguishable: bool, gain: f64| match (is_distinguishable, gain > 0.0) {
        (false, _) => "not distinguishable",
        (true, true) => "first is better",
        (true, false) => "second is better",
    };
    match verdict {
        Verdict::Accuracy(test) => {
            let [low, high] = test.gain_interval.map(|end| 100.0 * end);
            format!(
                "of {} images only the first gets {} right, only the second {}\n{}: accuracy of the first less the second's {:+.2} points, 95 % \
                 interval {low:+.2} to {high:+.2}, p = {:.2e} (McNemar)",
                test.images,
                test.only_first,
                test.only_second,
                better(test.is_distinguishable, test.gain),
                100.0 * test.gain,
                test.p_value
            )
        }
        Verdict::Error(test) => {
            let [low, high] = test.gain_interval;
            format!(
                "{} images\n{}: error of the second less the first's {:+.5} of the outputs' variance, 95 % interval {low:+.5} to {high:+.5} (paired \
                 bootstrap)",
                test.images,
                better(test.is_distinguishable, test.gain),
                test.gain
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_begins_with_the_verdict() {
        let last = |verdict| sentences(&verdict).lines().last().unwrap().split(':').next().unwrap().to_owned();
        let accuracy = |first: &[bool], second: &[bool]| Verdict::Accuracy(PairedAccuracy::of(first, second));
        assert_eq!(last(accuracy(&[true; 9], &[false; 9])), "first is better");
        assert_eq!(last(accuracy(&[false; 9], &[true; 9])), "second is better");
        assert_eq!(last(accuracy(&[true, false], &[false, true])), "not distinguishable");
        assert_eq!(last(Verdict::Error(PairedError::of(&[1.0; 9], &[2.0; 9]))), "first is better");
    }
}
