//! Writes a procedural data set as `train.bin` and `test.bin` in CIFAR-10's record layout: 1 label byte, 3072 bytes
//! CHW.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use secateur_formats::procedural::{Kind, generate};
use secateur_formats::{Dataset, Split};

const USAGE: &str = "usage: procedural_bin shapes|textures SEED N_TRAIN N_TEST OUT_DIR";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, seed, n_train, n_test, out] = args.as_slice() else { return Err(USAGE.into()) };
    let kind = Kind::from_name(kind).ok_or(USAGE)?;
    let seed = seed.parse()?;
    std::fs::create_dir_all(out)?;
    for (split, n, file) in [(Split::Train, n_train, "train.bin"), (Split::Test, n_test, "test.bin")] {
        write_records(&generate(kind, seed, split, n.parse()?), &Path::new(out).join(file))?;
    }
    Ok(())
}

fn write_records(set: &Dataset, path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    let labels = set.labels().map_err(io::Error::other)?;
    for (image, &label) in set.bytes().chunks(set.shape.len()).zip(labels) {
        file.write_all(&[label as u8])?;
        file.write_all(image)?;
    }
    file.flush()
}
