//! `bench eval`: how fast candidates of one network are evaluated.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use rayon::ThreadPool;
use secateur_kernels::{
    Effort, NormalEquations, Plan, Precision, RefitData, SequentialRefit, calibrate, peak_gflops, repair,
};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{ChannelGroups, Cost, CostModel, KeptChannels, Network, Protocol, arch, fold_batch_norm, prune};
use serde::Serialize;

use super::json;
use crate::arguments::BenchEvalArgs;
use crate::eval::thread_pool;
use crate::load::{BUILDER_INPUT, load_network};
use crate::roots::Roots;
use crate::{Failure, screen};

/// Runs of which the median is taken, after one that is not counted.
pub(super) const N_RUNS: usize = 5;

/// What is measured; rates are medians.
#[derive(Debug, Serialize)]
struct Measured {
    network: String,
    keep: f64,
    macs: u64,
    images: usize,
    batch: usize,
    threads: usize,
    precision: String,
    images_per_s: f64,
    /// Compiling the compact network and evaluating all images.
    candidates_per_s: f64,
    plan_s: f64,
    /// With the quick sequential refit that walks are scored after.
    candidates_per_s_with_repair: f64,
    repair_images: usize,
    repair_s: f64,
    /// Refitting on the original activations instead (`repair: Original`), its equations made once beforehand.
    repair_original_s: f64,
    /// Compiling and refitting on the original activations, by evaluating all images.
    plan_and_repair_original_share: f64,
    gflops: f64,
    /// Of all threads' highest rate of multiply-adds; above 1 where fewer multiplications than the convolution's are needed.
    peak_share: f64,
    peak_gflops_per_core: f64,
}

pub(super) fn eval(arguments: &BenchEvalArgs) -> Result<(), Failure> {
    let (name, network) = network(arguments).map_err(Failure::BadArguments)?;
    Precision::from(arguments.precision).checked().map_err(|error| Failure::BadArguments(error.into()))?;
    let pool = thread_pool(arguments.threads)?;
    let measured = measure(arguments, name, &network, &pool)?;
    let row = |name: &str, value: String| screen::result(format_args!("{name:<30}{value}"));
    row("network", format!("{} keep {} ({} MACs)", measured.network, measured.keep, measured.macs))?;
    let work = format!("{} images, {} at a time, {} threads", measured.images, measured.batch, measured.threads);
    row("work", format!("{work}, {}", measured.precision))?;
    row("images_per_s", format!("{:.0}", measured.images_per_s))?;
    row("candidates_per_s", format!("{:.3} (plan {:.1} ms)", measured.candidates_per_s, 1e3 * measured.plan_s))?;
    let repair = format!("refit on {} images {:.0} ms", measured.repair_images, 1e3 * measured.repair_s);
    row("candidates_per_s_with_repair", format!("{:.3} ({repair})", measured.candidates_per_s_with_repair))?;
    let share = 100.0 * measured.plan_and_repair_original_share;
    let original = format!("{:.1} ms; with the plan {share:.1} % of evaluating", 1e3 * measured.repair_original_s);
    row("refit on original activations", original)?;
    let peak = format!("peak_share {:.2} of {:.0} a core", measured.peak_share, measured.peak_gflops_per_core);
    row("gflops", format!("{:.0} ({peak})", measured.gflops))?;
    json::write(arguments.json.as_deref(), &measured)
}

/// A network under the model root or at a path, else an architecture with random weights.
pub(super) fn network(arguments: &BenchEvalArgs) -> anyhow::Result<(String, Network)> {
    let roots = Roots::new(None, arguments.model_root.clone(), Default::default());
    match roots.find_network(&arguments.network) {
        Ok(path) => load_network(&path, None, None).map(|loaded| (loaded.name, loaded.folded)),
        Err(missing) => {
            let name = arguments.network.to_string_lossy().into_owned();
            if !arch::ARCHITECTURES.contains(&&*name) {
                let known = arch::ARCHITECTURES.join(", ");
                return Err(missing.context(format!("'{name}' is no architecture either (known: {known})")));
            }
            let network = with_random_weights(arch::build(&name, BUILDER_INPUT, 10)?, 1);
            Ok((format!("{name}, random weights"), fold_batch_norm(&network)?))
        }
    }
}

fn measure(arguments: &BenchEvalArgs, name: String, network: &Network, pool: &ThreadPool) -> anyhow::Result<Measured> {
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let kept = keep_share(&groups, arguments.keep)?;
    let compact = prune(network, &groups, &kept)?;
    let macs = CostModel::new(network.graph(), &groups).count(Cost::Macs, &kept.widths());
    let (n_images, batch, len) = (arguments.images.get(), arguments.batch.get(), network.graph().input().len());
    let images = random_images(n_images * len);
    let run = |plan: &Plan| -> anyhow::Result<()> {
        images.chunks(batch * len).try_for_each(|images| plan.logits(pool, images).map(drop)).context("evaluating")
    };
    let compile = |network: &Network| Plan::compile_with(network, arguments.precision.into());
    let plan = compile(&compact)?;
    screen::status(format_args!("evaluating {n_images} images, {} times", 2 * (N_RUNS + 1)));
    let infer_s = median_s(|| run(&plan))?;
    let plan_s = median_s(|| compile(&compact).map(drop).context("compiling"))?;
    let candidate_s = median_s(|| run(&compile(&compact)?))?;
    let repair_images = arguments.repair_images.get().min(n_images);
    screen::status(format_args!("refitting on {repair_images} images, {} times", 2 * (N_RUNS + 1)));
    let data = RefitData::new(pool, network, &groups, &images[..repair_images * len], Effort::Quick)?;
    let refit = SequentialRefit::new(pool, network, &groups, &data);
    let repair_s = median_s(|| refit.run(&kept, false).map(drop).context("refitting"))?;
    let repaired_s = median_s(|| run(&compile(&refit.run(&kept, false)?.0)?))?;
    let equations = calibrate(pool, network, &groups, &images[..repair_images * len], |_| ())?;
    let equations: Vec<Arc<NormalEquations>> = equations.into_iter().map(Arc::new).collect();
    let solve = |_: usize, equations: &NormalEquations, kept: Vec<usize>| equations.refit(&kept).map(Arc::new);
    let on_original = || pool.install(|| repair(network, &groups, &equations, &kept, solve));
    let repair_original_s = median_s(|| on_original().map(drop).context("refitting on original activations"))?;
    let (threads, peak) = (pool.current_num_threads(), peak_gflops());
    let images_per_s = n_images as f64 / infer_s;
    let gflops = 2.0 * macs as f64 * images_per_s / 1e9;
    Ok(Measured {
        network: name,
        keep: arguments.keep,
        macs,
        images: n_images,
        batch,
        threads,
        precision: arguments.precision.name().to_owned(),
        images_per_s,
        candidates_per_s: 1.0 / candidate_s,
        plan_s,
        candidates_per_s_with_repair: 1.0 / repaired_s,
        repair_images,
        repair_s,
        repair_original_s,
        plan_and_repair_original_share: (plan_s + repair_original_s) / infer_s,
        gflops,
        peak_share: gflops / (peak * threads as f64),
        peak_gflops_per_core: peak,
    })
}

/// So many values, like those of normalised images.
pub(super) fn random_images(n_values: usize) -> Vec<f32> {
    let mut rng = SplitMix(1);
    (0..n_values).map(|_| 2.0 * rng.signed()).collect()
}

/// The first round(`keep` * n), at least one, of the n channels of every group: which ones does not matter to the speed.
pub(super) fn keep_share(groups: &ChannelGroups, keep: f64) -> anyhow::Result<KeptChannels> {
    let prunable = groups.prunable();
    let of_group = |(g, group): (usize, &secateur_net::ChannelGroup)| {
        let n = if prunable.contains(&g) {
            ((group.n_channels as f64 * keep).round() as usize).clamp(1, group.n_channels)
        } else {
            group.n_channels
        };
        (0..n).collect()
    };
    Ok(KeptChannels::new(groups, groups.groups().iter().enumerate().map(of_group).collect())?)
}

/// Median time of `N_RUNS` runs after one to warm up, seconds.
fn median_s(mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    run()?;
    let mut times = Vec::with_capacity(N_RUNS);
    for _ in 0..N_RUNS {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(median(times))
}

/// Of [`N_RUNS`] times.
pub(super) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[N_RUNS / 2]
}
