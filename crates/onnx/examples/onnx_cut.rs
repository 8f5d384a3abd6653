//! Removes random channels from an ONNX network, for comparing with other programs: `tests/onnx/compare.py` runs it.
//!
//! For every draw, `cut_N.onnx` has its channels removed and `masked_N.onnx` has zeros for the weights that read them;
//! both must compute the same. `whole.onnx` keeps everything. Where the engine computes the network, `refitted.onnx`
//! has other weights as well, as a run writes it, and `folded.onnx` the same without BatchNorm. What was found is
//! printed as JSON.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use secateur_net::{ChannelGroups, KeptChannels, Network, Protocol, Tensor, fold_batch_norm, prune};
use secateur_onnx::{
    Compacted, DocumentGroups, DocumentNetwork, Facts, KeptFlags, NormNodes, OnnxDocument, OnnxError, Removal,
};
use serde_json::json;

/// Removes random channels from an ONNX network.
#[derive(Parser)]
struct Arguments {
    /// The network.
    file: PathBuf,
    /// Folder of what is written.
    out: PathBuf,
    /// How often channels are chosen.
    #[arg(long, default_value_t = 20)]
    draws: usize,
    /// Seed of the choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of every group's channels that is kept.
    #[arg(long, default_value_t = 0.5)]
    keep: f64,
    /// Rows and columns where the network leaves them open.
    #[arg(long, num_args = 2)]
    size: Vec<usize>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Nothing is left to tell it to where this fails.
            let _ = writeln!(std::io::stderr(), "{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let folder = arguments.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let document = OnnxDocument::from_bytes(fs::read(&arguments.file)?.into(), folder)?;
    let size = <[usize; 2]>::try_from(arguments.size.as_slice()).ok();
    let facts = Facts::of(&document, size)?;
    let groups = DocumentGroups::of(&document, &facts);
    fs::create_dir_all(&arguments.out)?;
    let write = |kept: &KeptFlags, cut: bool, name: &str| -> Result<OnnxDocument, Box<dyn std::error::Error>> {
        let removal = Removal { document: &document, facts: &facts, groups: &groups, kept };
        let edited = if cut { removal.cut()? } else { removal.masked()? };
        write_files(&edited, &document, &arguments.out, name)?;
        Ok(edited)
    };
    write(&groups.keep_all(), true, "whole")?;
    let mut rng = ChaCha8Rng::seed_from_u64(arguments.seed);
    let mut draws = Vec::new();
    for draw in 0..arguments.draws {
        let kept = draw_kept(&groups, arguments.keep, &mut rng);
        let cut = write(&kept, true, &format!("cut_{draw}"))?;
        write(&kept, false, &format!("masked_{draw}"))?;
        let macs = Facts::of(&cut, size)?.macs(&cut);
        draws.push(json!({ "macs": macs }));
    }
    let refitted = refit(&document, &facts, arguments)
        .map_or_else(|why| json!({ "refused": why.to_string() }), |n| json!({ "changed": n }));
    let list = groups.groups().iter().map(|g| json!({"name": g.name, "channels": g.n_channels, "frozen": g.frozen}));
    let frozen = groups.frozen_nodes().iter().map(|n| json!({"node": n.name, "op": n.operation, "reason": n.reason}));
    let report = json!({
        "groups": list.collect::<Vec<_>>(),
        "frozen_nodes": frozen.collect::<Vec<_>>(),
        "macs": facts.macs(&document),
        "draws": draws,
        "refitted": refitted,
    });
    print_json(&report)?;
    Ok(())
}

fn write_files(
    edited: &OnnxDocument,
    original: &OnnxDocument,
    out: &Path,
    name: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let files = edited.to_files(original, &format!("{name}.onnx.data"))?;
    fs::write(out.join(format!("{name}.onnx")), files.model)?;
    for file in files.data {
        fs::write(out.join(file.name), file.bytes)?;
    }
    Ok(())
}

/// Writes the network with random channels, and all its weights and biases changed; returns how many tensors those are.
fn refit(document: &OnnxDocument, facts: &Facts, arguments: &Arguments) -> Result<usize, Box<dyn std::error::Error>> {
    let imported = document.network(facts)?;
    let folded = fold_batch_norm(&imported.network)?;
    let groups = ChannelGroups::derive(folded.graph(), Protocol::Full);
    let mut rng = ChaCha8Rng::seed_from_u64(arguments.seed);
    let lists = groups.groups().iter().map(|group| {
        let share = if group.frozen.is_none() { arguments.keep } else { 1.0 };
        let flags = draw_flags(group.n_channels, share, &mut rng);
        (0..group.n_channels).filter(|&channel| flags[channel]).collect()
    });
    let kept = KeptChannels::new(&groups, lists.collect())?;
    let mut network = prune(&folded, &groups, &kept)?;
    let changed = change_weights(&mut network, &mut rng)?;
    let source = DocumentNetwork::new(document.clone(), facts.clone(), &imported);
    let pruned = Compacted { folded: &folded, groups: &groups, kept: &kept, network: &network };
    for (norms, name) in [(NormNodes::Kept, "refitted"), (NormNodes::Folded, "folded")] {
        write_files(&source.pruned(&pruned, norms)?, document, &arguments.out, name)?;
    }
    Ok(changed)
}

/// Weights grow or shrink by up to a tenth, biases move by as much; returns how many tensors there are.
fn change_weights(network: &mut Network, rng: &mut ChaCha8Rng) -> Result<usize, Box<dyn std::error::Error>> {
    let names: Vec<String> = network.graph().nodes().iter().map(|node| node.name.clone()).collect();
    let mut changed = 0;
    for name in names {
        for parameter in ["weight", "bias"] {
            let is_layer = network.weights().contains_key(&format!("{name}.bias"));
            let is_norm = network.weights().contains_key(&format!("{name}.running_var"));
            if !is_layer || is_norm || !network.weights().contains_key(&format!("{name}.{parameter}")) {
                continue;
            }
            let tensor = network.parameter(&name, parameter).clone();
            let mut tenth = || (f64::from(rng.next_u32()) / f64::from(u32::MAX) * 0.2 - 0.1) as f32;
            let moved =
                tensor.data().iter().map(|w| if parameter == "weight" { w * (1.0 + tenth()) } else { w + tenth() });
            let moved: Vec<f32> = moved.collect();
            network.set_parameter(&name, parameter, Tensor::new(tensor.shape().to_vec(), moved)?)?;
            changed += 1;
        }
    }
    Ok(changed)
}

fn print_json(report: &serde_json::Value) -> Result<(), OnnxError> {
    let mut stdout = std::io::stdout().lock();
    let written =
        serde_json::to_writer(&mut stdout, report).map_err(std::io::Error::from).and_then(|()| writeln!(stdout));
    written.map_err(|source| OnnxError::Io { path: "standard output".into(), source })
}

/// A random choice of `keep` of every group's channels, at least one.
fn draw_kept(groups: &DocumentGroups, keep: f64, rng: &mut ChaCha8Rng) -> KeptFlags {
    let share = |group: &secateur_onnx::DocumentGroup| if group.frozen.is_some() { 1.0 } else { keep };
    groups.groups().iter().map(|group| draw_flags(group.n_channels, share(group), rng)).collect()
}

/// A random choice of a share of `n` channels, at least one.
fn draw_flags(n: usize, share: f64, rng: &mut ChaCha8Rng) -> Vec<bool> {
    let n_kept = ((n as f64 * share).ceil() as usize).clamp(1, n);
    let mut order: Vec<(u32, usize)> = (0..n).map(|channel| (rng.next_u32(), channel)).collect();
    order.sort_unstable();
    let mut flags = vec![false; n];
    order.iter().take(n_kept).for_each(|&(_, channel)| flags[channel] = true);
    flags
}
