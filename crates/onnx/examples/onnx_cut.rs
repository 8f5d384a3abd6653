//! Removes random channels from an ONNX network, for comparing with other programs: `tests/onnx/compare.py` runs it.
//!
//! For every draw, `cut_N.onnx` has its channels removed and `masked_N.onnx` has zeros for the weights that read them;
//! both must compute the same. `whole.onnx` keeps everything. What was found is printed as JSON.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use secateur_onnx::{DocumentGroups, Facts, KeptFlags, OnnxDocument, OnnxError, Removal};
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
        let files = edited.to_files(&document, &format!("{name}.onnx.data"))?;
        fs::write(arguments.out.join(format!("{name}.onnx")), files.model)?;
        for file in files.data {
            fs::write(arguments.out.join(file.name), file.bytes)?;
        }
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
    let list = groups.groups().iter().map(|g| json!({"name": g.name, "channels": g.n_channels, "frozen": g.frozen}));
    let frozen = groups.frozen_nodes().iter().map(|n| json!({"node": n.name, "op": n.operation, "reason": n.reason}));
    let report = json!({
        "groups": list.collect::<Vec<_>>(),
        "frozen_nodes": frozen.collect::<Vec<_>>(),
        "macs": facts.macs(&document),
        "draws": draws,
    });
    print_json(&report)?;
    Ok(())
}

fn print_json(report: &serde_json::Value) -> Result<(), OnnxError> {
    let mut stdout = std::io::stdout().lock();
    let written =
        serde_json::to_writer(&mut stdout, report).map_err(std::io::Error::from).and_then(|()| writeln!(stdout));
    written.map_err(|source| OnnxError::Io { path: "standard output".into(), source })
}

/// A random choice of `keep` of every group's channels, at least one.
fn draw_kept(groups: &DocumentGroups, keep: f64, rng: &mut ChaCha8Rng) -> KeptFlags {
    let of_group = |group: &secateur_onnx::DocumentGroup| {
        let n = group.n_channels;
        let n_kept = if group.frozen.is_some() { n } else { ((n as f64 * keep).ceil() as usize).clamp(1, n) };
        let mut order: Vec<(u32, usize)> = (0..n).map(|channel| (rng.next_u32(), channel)).collect();
        order.sort_unstable();
        let mut flags = vec![false; n];
        order.iter().take(n_kept).for_each(|&(_, channel)| flags[channel] = true);
        flags
    };
    groups.groups().iter().map(of_group).collect()
}
