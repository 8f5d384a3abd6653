//! What is known of every data set before it is read: how it is named, and where its files belong.

use super::{DatasetSource, arrays, cifar, flowers, idx, images, procedural};
use crate::alternatives::alternatives;

/// What is known of a data set before it is read.
#[derive(Clone, Copy, Debug)]
pub struct DatasetEntry {
    /// How reports and the command line name it.
    pub word: &'static str,
    /// How the command line takes it, optional parts in brackets.
    pub usage: &'static str,
    /// Folder of its files under the data root, and how to get them; none for one that is drawn.
    pub files: Option<DatasetFiles>,
    /// Makes it of what stands behind `word:` on the command line.
    pub(super) parse: fn(Option<&str>) -> Result<DatasetSource, String>,
}

/// The files of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetFiles {
    /// Folder under the data root.
    pub folder: &'static str,
    /// What to put there, to be read in front of "under" and the root.
    pub how_to_get: &'static str,
}

/// Every data set, in the order of help texts. Sizes and seeds of the drawn ones are those that the quickstart's
/// networks were trained on.
pub static DATASETS: &[DatasetEntry] = &[
    DatasetEntry {
        word: cifar::CIFAR_10.name,
        usage: "cifar10",
        files: Some(DatasetFiles {
            folder: cifar::CIFAR_10.folder,
            how_to_get: "unpack the binary version of CIFAR-10 (cifar-10-batches-bin)",
        }),
        parse: |rest| alone(DatasetSource::Cifar10, rest),
    },
    DatasetEntry {
        word: cifar::CIFAR_100.name,
        usage: "cifar100",
        files: Some(DatasetFiles {
            folder: cifar::CIFAR_100.folder,
            how_to_get: "unpack the binary version of CIFAR-100 (cifar-100-binary)",
        }),
        parse: |rest| alone(DatasetSource::Cifar100, rest),
    },
    DatasetEntry {
        word: idx::MNIST.name,
        usage: "mnist",
        files: Some(DatasetFiles {
            folder: idx::MNIST.folders[0],
            how_to_get: "put the four files of MNIST, with or without .gz, into mnist",
        }),
        parse: |rest| alone(DatasetSource::Mnist, rest),
    },
    DatasetEntry {
        word: idx::FASHION_MNIST.name,
        usage: "fashion_mnist",
        files: Some(DatasetFiles {
            folder: idx::FASHION_MNIST.folders[0],
            how_to_get: "put the four files of Fashion-MNIST, with or without .gz, into fashion-mnist",
        }),
        parse: |rest| alone(DatasetSource::FashionMnist, rest),
    },
    DatasetEntry {
        word: "images",
        usage: images::command_line::USAGE,
        files: None,
        parse: images::command_line::parse,
    },
    DatasetEntry {
        word: "arrays",
        usage: arrays::command_line::USAGE,
        files: None,
        parse: arrays::command_line::parse,
    },
    DatasetEntry {
        word: flowers::NAME,
        usage: flowers::NAME,
        files: Some(DatasetFiles {
            folder: flowers::FOLDER,
            how_to_get: "put the images of Flowers-102 (jpg/), setid.mat and imagelabels.mat into flowers-102",
        }),
        parse: |rest| alone(flowers::with_defaults(), rest),
    },
    DatasetEntry {
        word: procedural::Kind::Shapes.name(),
        usage: "shapes[:SEED]",
        files: None,
        parse: |seed| drawn(procedural::Kind::Shapes, 1, seed),
    },
    DatasetEntry {
        word: procedural::Kind::Textures.name(),
        usage: "textures[:SEED]",
        files: None,
        parse: |seed| drawn(procedural::Kind::Textures, 2, seed),
    },
];

/// A data set that has no settings.
fn alone(source: DatasetSource, rest: Option<&str>) -> Result<DatasetSource, String> {
    match rest {
        None => Ok(source),
        Some(rest) => Err(format!("it takes nothing behind it, got ':{rest}'")),
    }
}

fn drawn(kind: procedural::Kind, default_seed: u64, seed: Option<&str>) -> Result<DatasetSource, String> {
    let seed = seed.map_or(Ok(default_seed), |seed| {
        seed.parse().map_err(|e| format!("the seed '{seed}' is no whole number of 64 bits: {e}"))
    })?;
    Ok(DatasetSource::Procedural { kind, seed, train: 8000, test: 2000, size: None })
}

impl DatasetEntry {
    /// The data set with its defaults.
    pub fn source(&self) -> Option<DatasetSource> {
        (self.parse)(None).ok()
    }
}

/// How the command line takes data sets, as a sentence: `cifar10, …, shapes[:SEED] or textures[:SEED]`.
pub fn dataset_usage() -> String {
    let usages: Vec<&str> = DATASETS.iter().map(|entry| entry.usage).collect();
    alternatives(&usages)
}
