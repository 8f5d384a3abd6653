//! `bench eval`: how fast candidates of one network are evaluated.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use rayon::ThreadPool;
use secateur_kernels::{
    Arithmetic, Effort, NormalEquations, Plan, RefitData, SequentialRefit, calibrate, peak_gflops, repair,
};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{ChannelGroups, Cost, CostModel, KeptChannels, Network, Protocol, arch, fold_batch_norm, prune};
use secateur_run::{BUILDER_INPUT, Evaluation, MemoryBound, Roots, load_network, thread_pool};
use serde::Serialize;

use super::arguments::BenchEvalArgs;
use super::arithmetic::arithmetic;
use super::json;
use super::layers::{self, LayerScale, LayerTime};
use crate::{Failure, screen};

/// Runs of which the median is taken, after one that is not counted.
pub(super) const N_RUNS: usize = 5;

/// What is measured; rates are medians.
#[derive(Debug, Serialize)]
struct EvalRates {
    network: String,
    keep: f64,
    macs: u64,
    images: usize,
    batch: usize,
    threads: usize,
    precision: String,
    isa: String,
    images_per_s: f64,
    /// Compiling the compact network and evaluating all images.
    candidates_per_s: f64,
    plan_s: f64,
    /// With the quick sequential refit that walks are scored after.
    candidates_per_s_with_repair: f64,
    repair_images: usize,
    repair_s: f64,
    /// Compiling and the quick sequential refit, by evaluating all images.
    plan_and_repair_share: f64,
    /// Refitting on the original activations instead (`repair: Original`), its equations made once beforehand.
    repair_original_s: f64,
    /// Compiling and refitting on the original activations, by evaluating all images.
    plan_and_repair_original_share: f64,
    gflops: f64,
    /// Of `threads` times one core's highest rate of multiply-adds, in the same precision and instruction set, which
    /// takes a physical core for every thread; above 1 where fewer multiplications than the convolution's are needed.
    peak_share: f64,
    peak_gflops_per_core: f64,
    /// In the order of computation, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<LayerTime>,
}

pub(super) fn eval(arguments: &BenchEvalArgs) -> Result<(), Failure> {
    let (name, network) = network(arguments).map_err(Failure::BadArguments)?;
    let arithmetic = arithmetic(arguments.precision, arguments.isa).map_err(Failure::BadArguments)?;
    let pool = thread_pool(arguments.threads.threads)?;
    let measured = measure(arguments, name, &network, arithmetic, &pool)?;
    print(&measured)?;
    json::write(arguments.json.as_deref(), &measured)
}

fn print(measured: &EvalRates) -> Result<(), Failure> {
    let row = |name: &str, value: String| screen::result(format_args!("{name:<30}{value}"));
    row("network", format!("{} keep {} ({} MACs)", measured.network, measured.keep, measured.macs))?;
    let work = format!("{} images, {} at a time, {} threads", measured.images, measured.batch, measured.threads);
    row("work", format!("{work}, {} {}", measured.isa, measured.precision))?;
    row("images_per_s", format!("{:.0}", measured.images_per_s))?;
    row("candidates_per_s", format!("{:.3} (plan {:.1} ms)", measured.candidates_per_s, 1e3 * measured.plan_s))?;
    row("candidates_per_s_with_repair", format!("{:.3}", measured.candidates_per_s_with_repair))?;
    let refit = |seconds: f64, share: f64| {
        format!(
            "{:.1} ms on {} images; plan + repair {:.1} % of evaluating",
            1e3 * seconds,
            measured.repair_images,
            100.0 * share
        )
    };
    row("repair: Sequential (default)", refit(measured.repair_s, measured.plan_and_repair_share))?;
    row("repair: Original", refit(measured.repair_original_s, measured.plan_and_repair_original_share))?;
    let peak = format!("peak_share {:.2} of {:.0} a core", measured.peak_share, measured.peak_gflops_per_core);
    row("gflops", format!("{:.0} ({peak})", measured.gflops))?;
    if measured.layers.is_empty() {
        return Ok(());
    }
    Ok(screen::result(layers::table(&measured.layers))?)
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

/// What all measurements are of.
struct Workload<'a> {
    network: &'a Network,
    groups: ChannelGroups,
    kept: KeptChannels,
    arithmetic: Arithmetic,
    pool: &'a ThreadPool,
    /// Those a candidate is scored on.
    images: &'a [f32],
    /// Those it is refitted on.
    repair_images: &'a [f32],
    /// Values of the images handed to the engine at a time.
    batch_len: usize,
}

/// Median seconds.
struct ScoringTimes {
    evaluate_s: f64,
    compile_s: f64,
    both_s: f64,
}

/// Median seconds.
struct RefitTimes {
    sequential_s: f64,
    /// Refitting, compiling and evaluating.
    all_s: f64,
    original_s: f64,
}

impl Workload<'_> {
    fn compile(&self, network: &Network) -> anyhow::Result<Plan> {
        let n_images = self.batch_len / network.graph().input().len();
        self.pool.install(|| Plan::compile_for_calls(network, self.arithmetic, n_images)).context("compiling")
    }

    fn evaluate(&self, plan: &Plan) -> anyhow::Result<()> {
        let mut batches = self.images.chunks(self.batch_len);
        batches.try_for_each(|images| plan.logits(self.pool, images).map(drop)).context("evaluating")
    }

    fn scoring(&self) -> anyhow::Result<ScoringTimes> {
        let compact = prune(self.network, &self.groups, &self.kept)?;
        let plan = self.compile(&compact)?;
        Ok(ScoringTimes {
            evaluate_s: median_s(|| self.evaluate(&plan))?,
            compile_s: median_s(|| self.compile(&compact).map(drop))?,
            both_s: median_s(|| self.evaluate(&self.compile(&compact)?))?,
        })
    }

    /// Of the candidate that is measured; `peak` is one core's, in GFLOP/s.
    fn layer_times(&self, peak: f64) -> anyhow::Result<Vec<LayerTime>> {
        let compact = prune(self.network, &self.groups, &self.kept)?;
        let n_images = self.images.len() / compact.graph().input().len();
        let peak = peak * self.pool.current_num_threads() as f64;
        layers::times(compact.graph(), &self.compile(&compact)?, self.pool, self.images, LayerScale { n_images, peak })
    }

    fn refitting(&self) -> anyhow::Result<RefitTimes> {
        let Self { network, groups, kept, pool, repair_images, .. } = self;
        let data = RefitData::new(pool, network, groups, repair_images, Effort::Quick)?;
        let refit = SequentialRefit::new(pool, network, groups, &data);
        let equations = calibrate(pool, network, groups, repair_images, |_| ())?.equations;
        let equations: Vec<Arc<NormalEquations>> = equations.into_iter().map(Arc::new).collect();
        let solve = |_: usize, equations: &NormalEquations, kept: Vec<usize>| equations.refit(&kept).map(Arc::new);
        let on_original = || pool.install(|| repair(network, groups, &equations, kept, solve));
        Ok(RefitTimes {
            sequential_s: median_s(|| refit.run(kept, false).map(drop).context("refitting"))?,
            all_s: median_s(|| self.evaluate(&self.compile(&refit.run(kept, false)?.0)?))?,
            original_s: median_s(|| on_original().map(drop).context("refitting on original activations"))?,
        })
    }

    fn measured(
        &self,
        arguments: &BenchEvalArgs,
        name: String,
        scoring: &ScoringTimes,
        refitting: &RefitTimes,
    ) -> anyhow::Result<EvalRates> {
        let macs = CostModel::new(self.network.graph(), &self.groups).count(Cost::Macs, &self.kept.widths());
        let (threads, peak) = (self.pool.current_num_threads(), peak_gflops(self.arithmetic)?);
        let images_per_s = arguments.images.get() as f64 / scoring.evaluate_s;
        let gflops = 2e-9 * macs as f64 * images_per_s;
        let share = |repair_s: f64| (scoring.compile_s + repair_s) / scoring.evaluate_s;
        Ok(EvalRates {
            network: name,
            keep: arguments.keep,
            macs,
            images: arguments.images.get(),
            batch: arguments.batch.get(),
            threads,
            precision: self.arithmetic.precision().to_string(),
            isa: format!("{:?}", self.arithmetic.isa()),
            images_per_s,
            candidates_per_s: 1.0 / scoring.both_s,
            plan_s: scoring.compile_s,
            candidates_per_s_with_repair: 1.0 / refitting.all_s,
            repair_images: arguments.repair_images.get(),
            repair_s: refitting.sequential_s,
            plan_and_repair_share: share(refitting.sequential_s),
            repair_original_s: refitting.original_s,
            plan_and_repair_original_share: share(refitting.original_s),
            gflops,
            peak_share: gflops / (peak * threads as f64),
            peak_gflops_per_core: peak,
            layers: if arguments.layers { self.layer_times(peak)? } else { Vec::new() },
        })
    }
}

fn measure(
    arguments: &BenchEvalArgs,
    name: String,
    network: &Network,
    arithmetic: Arithmetic,
    pool: &ThreadPool,
) -> Result<EvalRates, Failure> {
    let (n_images, n_repair) = (arguments.images.get(), arguments.repair_images.get());
    check_memory(arguments, network, pool)?;
    let (groups, len) = (ChannelGroups::derive(network.graph(), Protocol::Inner), network.graph().input().len());
    let kept = keep_share(&groups, arguments.keep)?;
    let drawn = random_images(n_images.max(n_repair) * len);
    let [images, repair_images] = [n_images, n_repair].map(|n| &drawn[..n * len]);
    let batch_len = arguments.batch.get() * len;
    let work = Workload { network, groups, kept, arithmetic, pool, images, repair_images, batch_len };
    screen::status(format_args!("evaluating {n_images} images, {} times", 2 * (N_RUNS + 1)));
    let scoring = work.scoring()?;
    screen::status(format_args!("refitting on {n_repair} images, {} times", 2 * (N_RUNS + 1)));
    let refitting = work.refitting()?;
    Ok(work.measured(arguments, name, &scoring, &refitting)?)
}

/// Whether the memory is enough for the images, of which those of the refit are fewer, before any is drawn.
fn check_memory(arguments: &BenchEvalArgs, network: &Network, pool: &ThreadPool) -> Result<(), Failure> {
    let bound = MemoryBound::new(arguments.memory.memory, pool.current_num_threads());
    let n_images = arguments.images.max(arguments.repair_images).get();
    let evaluation = Evaluation { precision: arguments.precision, n_images };
    let fits = bound.check_groups(network).and_then(|()| bound.check_evaluation(network, evaluation));
    fits.map_err(Failure::BadArguments)
}

/// So many values, like those of normalised images.
pub(super) fn random_images(n_values: usize) -> Vec<f32> {
    let mut rng = SplitMix(1);
    (0..n_values).map(|_| 2.0 * rng.signed()).collect()
}

/// The first round(`keep` * n), at least one, of the n channels of every group: which ones does not matter to the
/// speed.
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
