//! `bench train`: how fast a network is trained.

use std::time::Instant;

use anyhow::Context;
use secateur_kernels::{Isa, TrainLoss, TrainPlan, WeightedLoss};
use secateur_net::random::with_random_weights;
use secateur_net::{ChannelGroups, Cost, CostModel, Network, Protocol, arch, prune};
use secateur_run::{BUILDER_INPUT, Roots, load_network, thread_pool};
use secateur_tune::{Optimiser, Sgd, SgdSettings};
use serde::Serialize;

use super::arguments::BenchTrainArgs;
use super::eval::{keep_share, random_images};
use super::json;
use crate::{Failure, screen};

/// Steps before those that are counted.
const N_WARM_UP: usize = 2;

/// What is measured; the rate is a median over steps.
#[derive(Debug, Serialize)]
struct TrainRates {
    network: String,
    keep: f64,
    macs: u64,
    batch: usize,
    steps: usize,
    threads: usize,
    precision: String,
    isa: String,
    /// Forward, cross-entropy, backward and a step of gradient descent.
    train_images_per_s: f64,
    step_s: f64,
    /// Of the fastest step.
    step_min_s: f64,
    /// Bytes of activations, gradients and sums.
    memory_bytes: u64,
    /// Of three times the network's multiply-accumulates, two operations each.
    gflops: f64,
}

pub(super) fn train(arguments: &BenchTrainArgs) -> Result<(), Failure> {
    let (name, network) = network(arguments).map_err(Failure::BadArguments)?;
    let measured = measure(arguments, name, &network)?;
    let row = |name: &str, value: String| screen::result(format_args!("{name:<30}{value}"));
    row("network", format!("{} keep {} ({} MACs)", measured.network, measured.keep, measured.macs))?;
    let work = format!("batches of {}, {} threads", measured.batch, measured.threads);
    row("work", format!("{work}, {} {}", measured.isa, measured.precision))?;
    row("train_images_per_s", format!("{:.0}", measured.train_images_per_s))?;
    row("step", format!("{:.1} ms (fastest {:.1})", 1e3 * measured.step_s, 1e3 * measured.step_min_s))?;
    row("memory", format!("{} MiB", measured.memory_bytes >> 20))?;
    row("gflops", format!("{:.0}", measured.gflops))?;
    json::write(arguments.json.as_deref(), &measured)
}

/// A network under the model root or at a path, else an architecture with random weights; with its BatchNorm, and some
/// of the channels inside each block.
fn network(arguments: &BenchTrainArgs) -> anyhow::Result<(String, Network)> {
    let roots = Roots::new(None, arguments.model_root.clone(), Default::default());
    let (name, network) = match roots.find_network(&arguments.network) {
        Ok(path) => load_network(&path, None, None).map(|loaded| (loaded.name, loaded.original))?,
        Err(missing) => {
            let name = arguments.network.to_string_lossy().into_owned();
            if !arch::ARCHITECTURES.contains(&&*name) {
                let known = arch::ARCHITECTURES.join(", ");
                return Err(missing.context(format!("'{name}' is no architecture either (known: {known})")));
            }
            let network = with_random_weights(arch::build(&name, BUILDER_INPUT, 10)?, 1);
            (format!("{name}, random weights"), network)
        }
    };
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let compact = prune(&network, &groups, &keep_share(&groups, arguments.keep)?)?;
    Ok((name, compact))
}

fn measure(arguments: &BenchTrainArgs, network: String, compact: &Network) -> Result<TrainRates, Failure> {
    let (batch, steps) = (arguments.batch.get(), arguments.steps.get());
    let pool = thread_pool(arguments.threads.threads)?;
    let isa = arguments.isa.unwrap_or_else(Isa::detect);
    let mut plan = TrainPlan::compile(compact, isa, batch).map_err(|error| Failure::BadArguments(error.into()))?;
    let mut optimiser = Optimiser::Sgd(Sgd::new(plan.parameters(), SgdSettings::default()).context("optimiser")?);
    let images = random_images(batch * compact.graph().input().len());
    let n_outputs = plan.n_outputs().min(1 << 16);
    let labels: Vec<u16> = (0..batch).map(|image| (image % n_outputs) as u16).collect();
    let losses = [WeightedLoss { loss: TrainLoss::CrossEntropy { labels: &labels, smoothing: 0.0 }, weight: 1.0 }];
    let mut times = Vec::with_capacity(steps);
    for step in 0..N_WARM_UP + steps {
        let start = Instant::now();
        plan.step(&pool, &images, &losses).context("a training step")?;
        let (values, gradient) = plan.values_and_gradient();
        // Small, so that random weights stay finite.
        optimiser.step(values, gradient, 1e-4);
        times.extend((step >= N_WARM_UP).then(|| start.elapsed().as_secs_f64()));
    }
    times.sort_by(f64::total_cmp);
    let step_s = times[times.len() / 2];
    let groups = ChannelGroups::derive(compact.graph(), Protocol::Inner);
    let macs = CostModel::new(compact.graph(), &groups).count(Cost::Macs, &groups.full_widths());
    let train_images_per_s = batch as f64 / step_s;
    Ok(TrainRates {
        network,
        keep: arguments.keep,
        macs,
        batch,
        steps,
        threads: pool.current_num_threads(),
        precision: "f32".to_owned(),
        isa: format!("{isa:?}"),
        train_images_per_s,
        step_s,
        step_min_s: times[0],
        memory_bytes: plan.bytes(pool.current_num_threads()),
        gflops: 6e-9 * macs as f64 * train_images_per_s,
    })
}
