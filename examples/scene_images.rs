//! Writes the test images of a scene's first data set as bytes `[N, C, H, W]`, and prints the four numbers, so that
//! other programs can be run on the very images that a summary tells of.
//!
//! `cargo run --release --example scene_images -- SCENE.ron IMAGES.bin`

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use secateur::formats::Split;
use secateur::net::Shape;
use secateur::run::RunSpec;
use secateur::run::scene::Scene;

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
    let data = scene.datasets[0].source.read(&RunSpec::new(&file).roots().data, Split::Test)?;
    fs::write(&images, &data.images).with_context(|| format!("writing '{}'", images.display()))?;
    let Shape { c, h, w } = data.shape;
    println!("{} {c} {h} {w}", data.len());
    Ok(())
}
