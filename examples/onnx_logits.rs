//! What the engine makes of an ONNX network: `tests/onnx/compare.py` compares it with other runtimes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use secateur::kernels::{Arithmetic, Plan};
use secateur::net::fold_batch_norm;
use secateur::onnx::Facts;
use secateur::run::open_document;

/// Computes an ONNX network on images.
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
    let document = open_document(&arguments.file)?;
    let facts = Facts::of(&document, <[usize; 2]>::try_from(arguments.size.as_slice()).ok())?;
    let imported = document.network(&facts)?;
    if let Some(why) = imported.ends_early {
        bail!("the network is computed up to {} only: {why}", imported.outputs.join(", "));
    }
    let network = fold_batch_norm(&imported.network)?;
    let input = network.graph().input();
    let bytes = fs::read(&arguments.input).with_context(|| format!("reading '{}'", arguments.input.display()))?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    ensure!(values.len().is_multiple_of(input.len()), "{} numbers are no images of {input}", values.len());
    let is_channels_last = facts.inputs()[0].shape.last() == Some(&input.c) && input.c != input.w;
    let images: Vec<f32> = values
        .chunks_exact(input.len())
        .flat_map(|image| {
            // The engine takes channels last.
            let at = move |i: usize| image[(i % input.c) * input.h * input.w + i / input.c];
            (0..input.len()).map(move |i| if is_channels_last { image[i] } else { at(i) })
        })
        .collect();
    let plan = Plan::compile(&network, Arithmetic::default())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let logits = plan.logits(&pool, &images)?;
    // Other programs give the outputs one after the other, each of all images.
    let n_classes = network.graph().n_classes();
    let mut written: Vec<u8> = Vec::new();
    let mut from = 0;
    for output in &imported.outputs {
        let n: usize = facts.shape(output).context("an output of unknown shape")?.iter().product();
        for image in logits.chunks_exact(n_classes) {
            written.extend(image[from..from + n].iter().flat_map(|v| v.to_le_bytes()));
        }
        from += n;
    }
    fs::write(&arguments.output, written)?;
    Ok(())
}
