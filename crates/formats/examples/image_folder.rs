//! Lists a folder of images and decodes some of them, to be compared with `benches/torchvision_folder.py`:
//! `cargo run --release -p secateur-formats --example image_folder -- DIR [N [THREADS [SIDE]]]`

use std::path::Path;
use std::time::Instant;

use secateur_formats::{DatasetSource, ImageNeeds, Preprocessing, Split};
use secateur_net::Shape;

const USAGE: &str = "usage: image_folder DIR [IMAGES [THREADS [SIDE]]]";

#[expect(clippy::print_stdout, reason = "a program that prints what it measured")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().ok_or(USAGE)?;
    let number = |i: usize, default: usize| arguments.get(i).map_or(Ok(default), |text| text.parse());
    let (n, n_threads, side) = (number(1, 1000)?, number(2, 2)?, number(3, 224)?);
    let source: DatasetSource = format!("images:{folder},test={folder},cache=off").parse()?;
    let start = Instant::now();
    let data = source.read(Path::new("."), Split::Train)?;
    println!("listed   {} files in {:.2} s", data.len(), start.elapsed().as_secs_f64());
    let input = Shape { c: 3, h: side, w: side };
    let data = data.for_network(&ImageNeeds { input, outputs: data.n_classes, cache: None })?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
    let order: Vec<usize> = (0..data.len()).collect();
    let (mut done, start) = (0, Instant::now());
    for part in order[..n.min(order.len())].chunks(256) {
        done += data.load_first(part.len(), part, &Preprocessing::imagenet(), &pool)?.indices.len();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("decoded  {done} images to {side} x {side} on {n_threads} threads: {:.0} images/s", done as f64 / seconds);
    Ok(())
}
