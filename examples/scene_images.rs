//! Writes the test images of a scene's first data set as bytes `[N, C, H, W]`, and prints the four numbers, so that
//! other programs can be run on the very images that a summary tells of.
//!
//! `cargo run --release --example scene_images -- SCENE.ron IMAGES.bin`

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use secateur::formats::{Preprocessing, Split};
use secateur::net::Shape;
use secateur::run::scene::{NetworkSpec, Scene};
use secateur::run::{NetworkChoices, RunSpec, dataset_for, load_network_as};

#[derive(Parser)]
struct Arguments {
    /// The scene.
    scene: PathBuf,
    /// Where the images are written.
    images: PathBuf,
}

#[expect(clippy::print_stdout, reason = "an example")]
fn main() -> anyhow::Result<()> {
    let Arguments { scene: file, images } = Arguments::parse();
    let text = fs::read_to_string(&file).with_context(|| format!("reading '{}'", file.display()))?;
    let scene = Scene::parse(&file.to_string_lossy(), &text)?;
    let roots = RunSpec::new(&file).roots();
    let data = scene.datasets[0].source.read(&roots.data, Split::Test)?;
    let NetworkSpec { file: network, arch, normalisation, size, .. } = &scene.networks[0];
    let choices = NetworkChoices { arch: arch.as_deref(), mean_std: normalisation.as_ref(), size: *size };
    let network = load_network_as(&roots.find_in_scene(network)?, &choices)?;
    let data = dataset_for(&network, &data)?;
    let Shape { c, h, w } = data.shape;
    // As they are decoded for the first network: a share of 255 each, channels last.
    let pool = rayon::ThreadPoolBuilder::new().build()?;
    let order: Vec<usize> = (0..data.len()).collect();
    let shares = data.load_first(order.len(), &order, &Preprocessing::new(vec![0.0; c], vec![1.0; c])?, &pool)?;
    let mut bytes = Vec::with_capacity(shares.images.len());
    for image in shares.images.chunks_exact(c * h * w) {
        let at = |i: usize| image[i % (h * w) * c + i / (h * w)];
        bytes.extend((0..c * h * w).map(|i| (at(i) * 255.0).round() as u8));
    }
    fs::write(&images, &bytes).with_context(|| format!("writing '{}'", images.display()))?;
    println!("{} {c} {h} {w}", shares.indices.len());
    Ok(())
}
