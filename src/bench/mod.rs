//! `bench`: measurements of this machine.

mod environment;
mod eval;
mod eval_on_card;
mod json;
mod kernels;
mod kernels_on_card;
mod measure;
mod queue;
mod report;
mod schedulers;
pub(crate) mod synthetic;
mod timed;

use secateur_sim::PluginList;

pub(crate) use schedulers::{Variant, executor_name};

use crate::Failure;
use crate::arguments::{Bench, DeviceArg};

pub(crate) fn bench(what: &Bench, plugins: &PluginList) -> Result<(), Failure> {
    json::check(match what {
        Bench::Eval(arguments) => arguments.json.as_deref(),
        Bench::Kernels(arguments) => arguments.json.as_deref(),
        Bench::Schedulers(arguments) => arguments.json.as_deref(),
    })?;
    match what {
        Bench::Eval(arguments) => match arguments.card.device {
            DeviceArg::Cpu => eval::eval(arguments),
            DeviceArg::Gpu => eval_on_card::eval(arguments),
        },
        Bench::Kernels(arguments) => match arguments.card.device {
            DeviceArg::Cpu => kernels::kernels(arguments),
            DeviceArg::Gpu => kernels_on_card::kernels(arguments),
        },
        Bench::Schedulers(arguments) => schedulers::schedulers(arguments, plugins),
    }
}
