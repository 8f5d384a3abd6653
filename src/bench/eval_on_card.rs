//! `bench eval --device gpu`: many candidates of one network in one batch, one dense network, and what each dispatch
//! takes.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Context;
use secateur_gpu::{Candidates, DispatchTime, DispatchTimes, Gpu, GpuImages, Repeats, Truth};
use secateur_net::{ChannelGroups, Cost, CostModel, KeptChannels, Network, Protocol, prune};
use serde::Serialize;

use super::arguments::BenchEvalArgs;
use super::eval::{N_RUNS, keep_share, median, network, random_images};
use super::json;
use crate::{Failure, screen};

/// The shortest of so many dispatches counts.
pub(super) const REPEATS: Repeats = Repeats { n: N_RUNS, at_least: Duration::from_millis(30) };

/// What is measured; rates are medians.
#[derive(Debug, Serialize)]
struct CandidateRates {
    adapter: String,
    network: String,
    keep: f64,
    /// Of one image and one candidate, on average.
    macs: f64,
    candidates: usize,
    images: usize,
    /// Every candidate with weights of its own: gathering, sending and packing them included.
    candidates_per_s: f64,
    /// Shared weights and a mask per candidate.
    candidates_per_s_by_mask: f64,
    /// Seconds of the first batch, which also compiles the shaders that are not kept from an earlier process.
    first_s: f64,
    /// The unpruned network alone.
    dense_images_per_s: f64,
    gflops: f64,
    peak_tflops: Option<f64>,
    peak_share: Option<f64>,
    /// None where the adapter has no timestamps.
    dispatches: Option<Dispatches>,
}

/// The first chunk of images of the first batch that the candidates are cut into, dispatch by dispatch.
#[derive(Debug, Serialize)]
struct Dispatches {
    candidates: usize,
    images: usize,
    rows: Vec<Row>,
}

/// One dispatch.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) layer: String,
    pub(super) kernel: String,
    pub(super) seconds: f64,
    pub(super) gflops: f64,
    pub(super) peak_share: Option<f64>,
}

impl Row {
    pub(super) fn new(time: &DispatchTime, peak_tflops: Option<f64>) -> Self {
        Self {
            layer: time.node.clone(),
            kernel: time.kernel.clone(),
            seconds: time.seconds,
            gflops: 2e-9 * time.macs as f64 / time.seconds.max(f64::MIN_POSITIVE),
            peak_share: peak_tflops.map(|peak| time.share_of_peak(peak * 1e12)),
        }
    }

    pub(super) fn line(&self) -> String {
        let share = self.peak_share.map_or_else(String::new, |share| format!(" {share:7.4} of peak"));
        let (micros, gflops) = (1e6 * self.seconds, self.gflops);
        format!("{:<32}{:<12}{micros:11.1} us {gflops:10.1} GFLOP/s{share}", self.layer, self.kernel)
    }
}

pub(super) fn eval(arguments: &BenchEvalArgs) -> Result<(), Failure> {
    let (name, network) = network(arguments).map_err(Failure::BadArguments)?;
    let gpu = secateur_run::open_gpu(&arguments.card.options())?;
    let measured = measure(arguments, &gpu, name, &network)?;
    secateur_run::keep_pipelines(&gpu);
    print(&measured)?;
    json::write(arguments.json.as_deref(), &measured)
}

fn measure(arguments: &BenchEvalArgs, gpu: &Gpu, name: String, network: &Network) -> anyhow::Result<CandidateRates> {
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let (n, n_images, shape) = (arguments.card.n_candidates(), arguments.images.get(), network.graph().input());
    let kept = candidates(&groups, arguments.keep, n)?;
    let compact = kept.iter().map(|kept| prune(network, &groups, kept)).collect::<Result<Vec<_>, _>>()?;
    let model = CostModel::new(network.graph(), &groups);
    let macs = kept.iter().map(|kept| model.count(Cost::Macs, &kept.widths())).sum::<u64>() as f64 / n as f64;
    let truth =
        Truth { labels: Some(&vec![0; n_images]), n_classes: network.graph().n_classes(), original_logits: None };
    let images = GpuImages::new(gpu, shape, &random_images(n_images * shape.len()), Some(truth))?;
    let own: Vec<&Network> = compact.iter().collect();
    let own = Candidates::Repaired(&own);
    let timed = |what: &str, candidates: &Candidates<'_>| -> anyhow::Result<(f64, f64)> {
        screen::status(format_args!("scoring {what} on {n_images} images, {} times", N_RUNS + 1));
        let seconds = gpu.time_scoring(&images, candidates, N_RUNS + 1).with_context(|| format!("scoring {what}"))?;
        Ok((seconds[0], median(seconds[1..].to_vec())))
    };
    let (first_s, own_s) = timed(&format!("{n} candidates"), &own)?;
    let masked = Candidates::Masked { network, groups: &groups, kept: &kept };
    let (_, masked_s) = timed(&format!("{n} masks"), &masked)?;
    let (_, dense_s) = timed("the unpruned network", &Candidates::Repaired(&[network]))?;
    let gflops = 2e-9 * macs * (n * n_images) as f64 / own_s;
    let peak_tflops = arguments.card.peak_tflops;
    Ok(CandidateRates {
        adapter: gpu.name().to_owned(),
        network: name,
        keep: arguments.keep,
        macs,
        candidates: n,
        images: n_images,
        candidates_per_s: n as f64 / own_s,
        candidates_per_s_by_mask: n as f64 / masked_s,
        first_s,
        dense_images_per_s: n_images as f64 / dense_s,
        gflops,
        peak_tflops,
        peak_share: peak_tflops.map(|peak| 1e-3 * gflops / peak),
        dispatches: gpu.time_dispatches(&images, &own, REPEATS)?.map(|times| Dispatches::new(&times, peak_tflops)),
    })
}

/// Candidates of different widths, as a search has them: each keeps a share of its own, between 0.75 and 1.25 of `keep`
/// and that on average (unless it would be more than all). Narrow and wide ones take turns.
fn candidates(groups: &ChannelGroups, keep: f64, n: usize) -> anyhow::Result<Vec<KeptChannels>> {
    let rank = |i: usize| if i.is_multiple_of(2) { i / 2 } else { n - 1 - i / 2 };
    let share = |i: usize| keep * (0.75 + 0.5 * (rank(i) as f64 + 0.5) / n as f64);
    (0..n).map(|i| keep_share(groups, share(i).min(1.0))).collect()
}

impl Dispatches {
    fn new(times: &DispatchTimes, peak_tflops: Option<f64>) -> Self {
        let rows = times.dispatches.iter().map(|time| Row::new(time, peak_tflops)).collect();
        Self { candidates: times.n_candidates, images: times.n_images, rows }
    }
}

fn print(measured: &CandidateRates) -> Result<(), Failure> {
    let row = |name: &str, value: &dyn Display| screen::result(format_args!("{name:<30}{value}"));
    row("adapter", &measured.adapter)?;
    row(
        "network",
        &format_args!("{} keep {} ({:.0} MACs on average)", measured.network, measured.keep, measured.macs),
    )?;
    row("work", &format_args!("{} candidates, {} images", measured.candidates, measured.images))?;
    let first = format_args!("{:.3} (first batch {:.3} s)", measured.candidates_per_s, measured.first_s);
    row("candidates_per_s", &first)?;
    row("candidates_per_s_by_mask", &format_args!("{:.3}", measured.candidates_per_s_by_mask))?;
    row("dense_images_per_s", &format_args!("{:.0}", measured.dense_images_per_s))?;
    let share = match (measured.peak_share, measured.peak_tflops) {
        (Some(share), Some(peak)) => format!("peak_share {share:.4} of {peak} TFLOP/s"),
        _ => "no peak was given: --peak-tflops".to_owned(),
    };
    row("gflops", &format_args!("{:.0} ({share})", measured.gflops))?;
    let Some(dispatches) = &measured.dispatches else {
        return Ok(row("dispatches", &"the adapter has no timestamps")?);
    };
    row("dispatches", &format_args!("{} candidates, {} images each", dispatches.candidates, dispatches.images))?;
    for dispatch in &dispatches.rows {
        screen::result(dispatch.line())?;
    }
    Ok(())
}
