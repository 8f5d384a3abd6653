//! Networks as ONNX files, with what the engine makes of them: `tests/onnx/compare.py` compares other runtimes with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use secateur::kernels::{Arithmetic, Plan};
use secateur::net::random::{
    SplitMix, catalogue, random_network, random_network_of_every_operation, with_random_weights,
};
use secateur::net::{Network, Shape, arch, fold_batch_norm};
use secateur::onnx::OnnxDocument;
use secateur::run::{BUILDER_INPUT, load_network};

/// Images that each network computes.
const N_IMAGES: usize = 3;

/// Writes networks as NAME.onnx, beside it N random images as NAME.images.f32 and what the engine makes of them as
/// NAME.outputs.f32, both as the file has them (`[N, C, H, W]` or `[N, classes]`, little-endian): the files' networks,
/// as they are and with BatchNorm folded, built-in architectures and the catalogue with random weights, and random
/// networks.
#[derive(Parser)]
struct Arguments {
    /// Where they are written.
    folder: PathBuf,
    /// Files of weights, told apart as in scenes.
    files: Vec<PathBuf>,
    /// How many random networks of each of two kinds are written.
    #[arg(long, default_value_t = 10)]
    random: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    fs::create_dir_all(&arguments.folder)?;
    let write = |name: &str, network: &Network| {
        write(&arguments.folder, name, network).with_context(|| format!("writing '{name}'"))
    };
    for path in &arguments.files {
        let loaded = load_network(path, None, None)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        write(&name, &loaded.original)?;
        write(&format!("{name}.folded"), &loaded.folded)?;
    }
    for name in arch::ARCHITECTURES {
        let graph = arch::build(name, BUILDER_INPUT, 10)?;
        write(&format!("built.{name}"), &with_random_weights(graph, 1))?;
    }
    for catalogued in catalogue() {
        write(&format!("catalogue.{}", catalogued.name), &catalogued.network)?;
    }
    for seed in 0..arguments.random {
        write(&format!("random.{seed}"), &random_network(seed))?;
        write(&format!("random.every.{seed}"), &random_network_of_every_operation(seed))?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, network: &Network) -> anyhow::Result<()> {
    fs::write(folder.join(format!("{name}.onnx")), OnnxDocument::of_network(network, name)?.to_bytes())?;
    let graph = network.graph();
    let mut rng = SplitMix(1);
    let images: Vec<f32> = (0..N_IMAGES * graph.input().len()).map(|_| 2.0 * rng.signed()).collect();
    fs::write(folder.join(format!("{name}.images.f32")), bytes(&planes(graph.input(), &images)))?;
    let plan = Plan::compile(&fold_batch_norm(network)?, Arithmetic::default())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let outputs = plan.logits(&pool, &images)?;
    let outputs = planes(graph.shape(graph.output()), &outputs);
    Ok(fs::write(folder.join(format!("{name}.outputs.f32")), bytes(&outputs))?)
}

/// The engine has channels behind, files have them in front.
fn planes(shape: Shape, values: &[f32]) -> Vec<f32> {
    let n_pixels = shape.h * shape.w;
    let of_image = |image: &[f32]| -> Vec<f32> {
        (0..shape.len()).map(|i| image[i % n_pixels * shape.c + i / n_pixels]).collect()
    };
    values.chunks_exact(shape.len()).flat_map(of_image).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
