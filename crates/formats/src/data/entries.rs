//! What is known of every data set before it is read: how it is named, and where its files belong.

use std::str::FromStr;

use super::source::{DatasetSource, default_cache};
use super::{arrays, cifar, flowers, idx, images, procedural};
use crate::alternatives::alternatives;
use crate::{FormatError, OnError, Transform};

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
    parse: fn(Option<&str>) -> Result<DatasetSource, String>,
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
        parse: |rest| alone(all_flowers(), rest),
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

/// Flowers-102 as its name alone means it.
fn all_flowers() -> DatasetSource {
    DatasetSource::Flowers102 {
        train: flowers::default_train(),
        test: flowers::default_test(),
        transform: Transform::default(),
        on_error: OnError::default(),
        cache: default_cache(),
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

/// As the command line names it: `word` or `word:…`.
impl FromStr for DatasetSource {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let (word, rest) = text.split_once(':').map_or((text, None), |(word, rest)| (word, Some(rest)));
        let fail = |problem: String| FormatError::DatasetName { name: text.to_owned(), problem };
        match DATASETS.iter().find(|entry| entry.word == word) {
            Some(entry) => (entry.parse)(rest).map_err(fail),
            None => Err(fail(format!("unknown data set; expected {}", dataset_usage()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procedural::Kind;

    #[test]
    fn data_sets_are_named_with_an_optional_seed() {
        let parse = |text: &str| text.parse::<DatasetSource>().ok();
        assert_eq!(parse("cifar10"), Some(DatasetSource::Cifar10));
        let shapes = |seed| DatasetSource::Procedural { kind: Kind::Shapes, seed, train: 8000, test: 2000, size: None };
        assert_eq!((parse("shapes"), parse("shapes:77")), (Some(shapes(1)), Some(shapes(77))));
        assert!(matches!(parse("textures"), Some(DatasetSource::Procedural { kind: Kind::Textures, seed: 2, .. })));
        for bad in ["cifar10:1", "shapes:", "shapes:-1", "imagenet", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let error = "imagenet".parse::<DatasetSource>().unwrap_err().to_string();
        let known =
            ["unknown data set; expected cifar10, cifar100, mnist, fashion_mnist, images:DIR", "or textures[:SEED]"];
        assert!(known.iter().all(|part| error.contains(part)), "{error}");
    }

    #[test]
    fn every_data_set_has_a_name_of_its_own_that_leads_to_it() {
        for (i, entry) in DATASETS.iter().enumerate() {
            assert!(DATASETS[..i].iter().all(|earlier| earlier.word != entry.word));
            assert_eq!(entry.word.parse::<DatasetSource>().ok(), entry.source(), "{}", entry.word);
            // All but those that need the name of a folder or a file.
            let has_defaults = entry.source().is_some_and(|source| source.check().is_empty());
            assert!(
                entry.usage.starts_with(entry.word) && (has_defaults || ["images", "arrays"].contains(&entry.word))
            );
        }
    }
}
