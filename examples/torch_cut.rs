//! Removes random channels from a network and changes all its weights, for comparing with PyTorch:
//! `tests/onnx/torch_cut.py` runs it.
//!
//! Writes what a run writes for a task, by the same code: `model.onnx`, `model.safetensors`, `plan.json` and `cut.py`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use rayon::ThreadPoolBuilder;
use secateur::formats::stage_network;
use secateur::net::{ChannelGroups, KeptChannels, Network, Protocol, Tensor, drop_zero_biases, prune};
use secateur::onnx::{Compacted, NormNodes, OnnxDocument};
use secateur::run::{CUT_SCRIPT, CutPlan, NetworkChoices, load_network_as};

/// Removes random channels from a network.
#[derive(Parser)]
struct Arguments {
    /// The network.
    file: PathBuf,
    /// Folder of what is written.
    out: PathBuf,
    /// Seed of the choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of the channels that is kept, a fifth more or less in each group; 1 keeps all, and leaves weights as they
    /// are, too.
    #[arg(long, default_value_t = 0.5)]
    keep: f64,
    /// Which groups lose channels.
    #[arg(long, value_enum, default_value_t = Choice::Full)]
    protocol: Choice,
    /// Rows and columns where the network leaves them open.
    #[arg(long, num_args = 2)]
    size: Vec<usize>,
}

/// A protocol, as the command line has it.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Choice {
    /// Channels inside residual blocks.
    Inner,
    /// All.
    Full,
}

/// Numbers from 0 to 1 in an order that only the seed decides.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
            x = (x ^ (x >> 29)).wrapping_mul(factor);
        }
        (x >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let size = <[usize; 2]>::try_from(arguments.size.as_slice()).ok();
    let source = load_network_as(&arguments.file, &NetworkChoices { size, ..Default::default() })?;
    let protocol = match arguments.protocol {
        Choice::Inner => Protocol::Inner,
        Choice::Full => Protocol::Full,
    };
    let groups = ChannelGroups::derive(source.folded.graph(), protocol);
    let mut draws = Draws(arguments.seed);
    let kept = draw_kept(&groups, arguments.keep, &mut draws)?;
    let mut network = prune(&source.folded, &groups, &kept)?;
    if arguments.keep < 1.0 {
        change_weights(&mut network, &mut draws)?;
    }
    let network = drop_zero_biases(&network);
    fs::create_dir_all(&arguments.out)?;
    let pruned = Compacted { folded: &source.folded, groups: &groups, kept: &kept, network: &network };
    let (document, original) = match &source.document {
        Some(document) => (document.pruned(&pruned, NormNodes::Kept)?, Some(document.document())),
        None => (OnnxDocument::of_network(&network, &source.name)?, None),
    };
    let files = document.to_files(original.unwrap_or(&document), "model.onnx.data")?;
    fs::write(arguments.out.join("model.onnx"), files.model)?;
    for file in files.data {
        fs::write(arguments.out.join(file.name), file.bytes)?;
    }
    stage_network(&arguments.out.join("model.safetensors"), &network, &source.preprocessing)?.commit()?;
    let pool = ThreadPoolBuilder::new().num_threads(2).build()?;
    fs::write(arguments.out.join("plan.json"), CutPlan::new(&source, &pruned, &pool)?.to_json()?)?;
    fs::write(arguments.out.join("cut.py"), CUT_SCRIPT).context("cut.py")
}

/// A random choice of a share of every group's channels, at least one.
fn draw_kept(groups: &ChannelGroups, keep: f64, draws: &mut Draws) -> anyhow::Result<KeptChannels> {
    let mut lists = Vec::new();
    for group in groups.groups() {
        let mut order: Vec<(f64, usize)> = (0..group.n_channels).map(|channel| (draws.next(), channel)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let share = if group.frozen.is_none() && keep < 1.0 { keep * (0.8 + 0.4 * draws.next()) } else { 1.0 };
        order.truncate(((group.n_channels as f64 * share).ceil() as usize).max(1));
        let mut list: Vec<usize> = order.into_iter().map(|(_, channel)| channel).collect();
        list.sort_unstable();
        lists.push(list);
    }
    Ok(KeptChannels::new(groups, lists)?)
}

/// As a refit does: the weights of layers grow or shrink by up to a tenth, and biases move by as much.
fn change_weights(network: &mut Network, draws: &mut Draws) -> anyhow::Result<()> {
    let names: Vec<String> = network.graph().nodes().iter().map(|node| node.name.clone()).collect();
    for name in names {
        let has = |parameter: &str| network.weights().contains_key(&format!("{name}.{parameter}"));
        if !has("bias") || has("running_var") || network.parameter(&name, "weight").shape().len() < 2 {
            continue;
        }
        for parameter in ["weight", "bias"] {
            let tensor = network.parameter(&name, parameter);
            let moved = tensor.data().iter().map(|&w| {
                let by = (draws.next() * 0.2 - 0.1) as f32;
                if parameter == "weight" { w * (1.0 + by) } else { w + by }
            });
            let moved = Tensor::new(tensor.shape().to_vec(), moved.collect())?;
            network.set_parameter(&name, parameter, moved)?;
        }
    }
    Ok(())
}
