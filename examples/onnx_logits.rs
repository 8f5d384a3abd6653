//! What the engine makes of a network: `tests/onnx/compare.py` and `state_dicts.py` compare it with other runtimes. Of an
//! ONNX file that it does not compute to its end, the tensors that it does compute last; their names are printed.
#![expect(clippy::print_stdout, reason = "the scripts read it")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Parser;
use secateur::kernels::{Arithmetic, Plan};
use secateur::net::{Network, Shape, fold_batch_norm};
use secateur::onnx::Facts;
use secateur::run::{is_onnx, load_network, open_document};

/// Computes a network on images.
#[derive(Parser)]
struct Arguments {
    /// The network.
    file: PathBuf,
    /// Images as the network takes them, 32-bit floats, little-endian, one after the other.
    input: PathBuf,
    /// Where all outputs of all images are written, in the same way.
    output: PathBuf,
    /// Rows and columns where the network leaves them open.
    #[arg(long, num_args = 2)]
    size: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let outputs = match is_onnx(&arguments.file) {
        true => of_document(&arguments)?,
        false => {
            let network = load_network(&arguments.file, None, None)?.folded;
            let images = channels_last(&read(&arguments.input, network.graph().input())?, network.graph().input());
            logits(&network, &images)?
        }
    };
    fs::write(&arguments.output, outputs.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    Ok(())
}

/// All outputs of an ONNX file. Other programs give them one after the other, each of all images.
fn of_document(arguments: &Arguments) -> anyhow::Result<Vec<f32>> {
    let document = open_document(&arguments.file)?;
    let facts = Facts::of(&document, <[usize; 2]>::try_from(arguments.size.as_slice()).ok())?;
    let imported = document.network(&facts)?;
    if imported.ends_early.is_some() {
        println!("{}", serde_json::to_string(&imported.outputs)?);
    }
    let network = fold_batch_norm(&imported.network)?;
    let input = network.graph().input();
    let images = read(&arguments.input, input)?;
    let is_channels_last = facts.inputs()[0].shape.last() == Some(&input.c) && input.c != input.w;
    let logits = logits(&network, &if is_channels_last { images } else { channels_last(&images, input) })?;
    let (mut written, mut from) = (Vec::new(), 0);
    for output in &imported.outputs {
        let n: usize = facts.shape(output).context("an output of unknown shape")?.iter().product();
        let images = logits.chunks_exact(network.graph().n_classes());
        written.extend(images.flat_map(|image| &image[from..from + n]));
        from += n;
    }
    Ok(written)
}

/// Images of shape `input` from a file.
fn read(path: &Path, input: Shape) -> anyhow::Result<Vec<f32>> {
    let bytes = fs::read(path).with_context(|| format!("reading '{}'", path.display()))?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    ensure!(values.len().is_multiple_of(input.len()), "{} numbers are no images of {input}", values.len());
    Ok(values)
}

/// Images whose channels come first, as the engine takes them.
fn channels_last(images: &[f32], input: Shape) -> Vec<f32> {
    let one = |image: &[f32]| {
        let at = |i: usize| image[(i % input.c) * input.h * input.w + i / input.c];
        (0..input.len()).map(at).collect::<Vec<f32>>()
    };
    images.chunks_exact(input.len()).flat_map(one).collect()
}

fn logits(network: &Network, images: &[f32]) -> anyhow::Result<Vec<f32>> {
    let plan = Plan::compile(network, Arithmetic::default())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    Ok(plan.logits(&pool, images)?)
}
