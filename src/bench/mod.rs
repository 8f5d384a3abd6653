//! `bench`: measurements of this machine.

mod arguments;
mod arithmetic;
mod environment;
mod eval;
mod eval_on_card;
mod json;
mod kernels;
mod kernels_on_card;
mod layers;
mod measure;
mod queue;
mod report;
mod rewards;
mod schedulers;
mod synthetic;
mod timed;
mod train;

use anyhow::anyhow;

use secateur_kernels::Precision;
use secateur_run::scene::Device;

pub(crate) use arguments::BenchArgs;

use crate::Failure;
use crate::extensions::Extensions;
use arguments::{Bench, CardArgs};

pub(crate) fn bench(what: &Bench, extensions: &Extensions) -> Result<(), Failure> {
    json::check(match what {
        Bench::Eval(arguments) => arguments.json.as_deref(),
        Bench::Kernels(arguments) => arguments.json.as_deref(),
        Bench::Train(arguments) => arguments.json.as_deref(),
        Bench::Rewards(arguments) => arguments.json.as_deref(),
        Bench::Schedulers(arguments) => arguments.json.as_deref(),
    })?;
    match what {
        Bench::Eval(arguments) => {
            let is_bf16 = arguments.precision == Precision::Bf16;
            let of_processor = [
                ("--threads", arguments.threads.threads.is_some()),
                ("--batch", arguments.batch.get() != 1000),
                ("--repair-images", arguments.repair_images.get() != 128),
                ("--precision bf16", is_bf16),
                ("--layers", arguments.layers),
            ];
            refuse(&arguments.card, &of_processor, &[])?;
            match arguments.card.device {
                Device::Cpu => eval::eval(arguments),
                Device::Gpu => eval_on_card::eval(arguments),
            }
        }
        Bench::Kernels(arguments) => {
            refuse(&arguments.card, &[], &[("--images", arguments.images.is_some())])?;
            match arguments.card.device {
                Device::Cpu => kernels::kernels(arguments),
                Device::Gpu => kernels_on_card::kernels(arguments),
            }
        }
        Bench::Train(arguments) => train::train(arguments),
        Bench::Rewards(arguments) => rewards::rewards(arguments, extensions),
        Bench::Schedulers(arguments) => schedulers::schedulers(arguments, extensions),
    }
}

/// Refuses options that would be ignored: each with whether it was given, or is not as it is by default.
fn refuse(card: &CardArgs, of_processor: &[(&str, bool)], of_card: &[(&str, bool)]) -> Result<(), Failure> {
    let of_any = [("--candidates", card.candidates.is_some()), ("--peak-tflops", card.peak_tflops.is_some())];
    let (device, others): (_, Vec<_>) = match card.device {
        Device::Cpu => ("cpu", of_any.iter().chain(of_card).collect()),
        Device::Gpu => ("gpu", of_processor.iter().collect()),
    };
    match others.iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => Err(Failure::BadArguments(anyhow!("{option} means nothing with --device {device}"))),
        None => Ok(()),
    }
}
