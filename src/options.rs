//! Options that several commands have.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Where names are looked up.
#[derive(Args, Clone, Debug)]
pub(crate) struct RootArgs {
    /// Folder of data sets [default: $SECATEUR_DATA, else ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Folder of networks [default: $SECATEUR_MODELS, else ./models]
    #[arg(long, value_name = "DIR")]
    pub(crate) model_root: Option<PathBuf>,
}

/// How many threads compute.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ThreadArgs {
    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// How much memory may be taken.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct MemoryArgs {
    /// Memory for finding a network's channel groups and for evaluating it (ranking and refitting are not counted),
    /// such as 800M or 4G [default: 768M for each thread, 8 times its parameters, and the images; at most half of what
    /// is available]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) memory: Option<u64>,
}

/// Where runs are recorded.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HistoryArgs {
    /// File that runs are recorded in, for `secateur history`, or none [default: the scene's, else $SECATEUR_HISTORY,
    /// else ~/.local/share/secateur/history.sqlite]
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
}

/// A number of bytes with an optional suffix K, M, G or T, powers of 1,024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let number = upper.trim_end_matches("IB").trim_end_matches('B');
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let (digits, shift) = match units.iter().find(|(unit, _)| number.ends_with(*unit)) {
        Some((unit, shift)) => (number.trim_end_matches(*unit), *shift),
        None => (number, 0),
    };
    let bytes = digits.trim().parse::<f64>().ok().map(|n| n * (1u64 << shift) as f64);
    let bytes = bytes.filter(|bytes| (1.0..9e18).contains(bytes)).map(|bytes| bytes as u64);
    bytes.ok_or_else(|| "expected a number of bytes such as 800M or 4G".to_owned())
}

/// Takes one of an owner's values by the name that the owner gives it.
pub(crate) fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let named = move |word: String| all.iter().copied().find(|value| name(*value) == word);
    PossibleValuesParser::new(all.iter().map(|value| name(*value)))
        .map(move |word| named(word).expect("clap lets only these names through"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        for (text, n) in
            [("1", 1), ("800M", 800 << 20), ("4G", 4 << 30), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("3 kb", 3 << 10)]
        {
            assert_eq!(bytes(text), Ok(n), "{text}");
        }
        for bad in ["", "G", "-1G", "0", "1X", "nan", "inf", "1e300", "4 G G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
