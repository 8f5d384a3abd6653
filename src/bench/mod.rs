//! `bench`: measurements of this machine.

mod environment;
mod eval;
mod json;
mod kernels;
mod measure;
mod queue;
mod report;
mod schedulers;
mod synthetic;
mod timed;

use secateur_sim::PluginList;

pub(crate) use schedulers::Variant;

use crate::Failure;
use crate::arguments::Bench;

pub(crate) fn bench(what: &Bench, plugins: &PluginList) -> Result<(), Failure> {
    match what {
        Bench::Eval(arguments) => eval::eval(arguments),
        Bench::Kernels(arguments) => kernels::kernels(arguments),
        Bench::Schedulers(arguments) => schedulers::schedulers(arguments, plugins),
    }
}
