//! The command line as it is typed.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use secateur_formats::Split;
use secateur_kernels::{Isa, Precision};
use secateur_scene::{DatasetSource, ProceduralKind, Protocol};
use secateur_train::Executor;

use crate::bench::Variant;

const RUN_EXAMPLES: &str = "\
Examples:
  secateur check --template > my.ron      a scene to start from
  secateur run my.ron --out runs/first
  secateur run my.ron --out runs/first --resume       after Ctrl-C, a crash or kill -9
  secateur run my.ron --out runs/short --set walks_per_task=50 --set 'budgets[0].ratio=0.4'

The run directory gets scene.ron (as resolved), summary.json, metrics.jsonl and, for every task,
tasks/<task>/model.safetensors with its certificate.json.";

const CHECK_EXAMPLES: &str = "\
Examples:
  secateur check my.ron
  secateur check --template > my.ron      every field at its default, with a comment on each

Networks and data sets are looked up as `run` would; nothing is written.";

const INSPECT_EXAMPLES: &str = "\
Examples:
  secateur inspect resnet20                    a name under the model root
  secateur inspect ./nets/mine.pth --arch vgg16
  secateur inspect resnet56 --protocol full --json";

const EVAL_EXAMPLES: &str = "\
Examples:
  secateur eval resnet20 --dataset cifar10
  secateur eval runs/first/tasks/resnet20-cifar10-macs0.5/model.safetensors --dataset cifar10
  secateur eval scenes/quickstart/shapes.safetensors --dataset shapes:1

Data sets: cifar10 (cifar-10-batches-bin under the data root), shapes[:SEED] and textures[:SEED] (drawn, no file needed).
The last line reads `top1 0.9168 (9168 of 10000)`.";

const BENCH_EVAL_EXAMPLES: &str = "\
Examples:
  secateur bench eval --network resnet56 --keep 0.5 --json eval.json
  secateur bench eval --network vgg16 --keep 0.5        random weights where there is no such file
  secateur bench eval --network resnet20 --keep 1 --threads 1 --isa avx2
  secateur bench eval --device gpu --candidates 64 --images 1000 --peak-tflops 67

Rates are medians of five runs after one to warm up; images are random, as speed does not depend on them. peak_share is the
share of one core's highest rate of multiply-adds, in the same numbers and instructions, times the threads: give it no more
threads than there are physical cores.";

const BENCH_KERNELS_EXAMPLES: &str = "\
Examples:
  secateur bench kernels --json kernels.json
  secateur bench kernels --all-isas
  secateur bench kernels --device gpu --all-isas --peak-tflops 67";

const BENCH_SCHEDULERS_EXAMPLES: &str = "\
Examples:
  secateur bench schedulers --threads 2 --actors 4,8,16 --json schedulers.json
  secateur bench schedulers --score-ms 0 --learn-share 0 --variants lockstep --actors 64 --walks 20000
  secateur bench schedulers scenes/quickstart.ron --walks 50 --actors 4";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 bad arguments or scene, 3 certificate over budget, 130 interrupted.";

/// Prunes trained convolutional networks to a provable budget.
#[derive(Debug, Parser)]
#[command(name = "secateur", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prune every network of a scene to every budget
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Check a scene and all it names: every problem with file, line and column
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Show a network's channel groups, counts and reachable budgets
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Measure a network's top-1 accuracy
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(EvalArgs),
    /// Measure this machine
    Bench(BenchArgs),
    /// Show what this machine offers and which networks and data sets are found
    Doctor(DoctorArgs),
}

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

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The scene
    #[arg(value_name = "SCENE.ron")]
    pub(crate) scene: PathBuf,
    /// Run directory; must be new or empty unless --resume [default: runs/<name of the scene file>]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Go on from the run directory's last checkpoint; under scheduler Lockstep with the same result as if it had never stopped
    #[arg(long)]
    pub(crate) resume: bool,
    /// Seconds between checkpoints
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) checkpoint_every: f64,
    #[command(flatten)]
    pub(crate) roots: RootArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    /// Change the scene for this run: walks_per_task=50, 'budgets[0].ratio=0.4'; may be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where walks are scored [default: the scene's device]
    #[arg(long, value_enum)]
    pub(crate) device: Option<DeviceArg>,
    /// Print nothing but the results
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// At most a year.
fn seconds(text: &str) -> Result<f64, String> {
    let expected = "expected a number of seconds from 0 to 31536000";
    text.parse().ok().filter(|s| (0.0..=31_536_000.0).contains(s)).ok_or_else(|| expected.to_owned())
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The scene
    #[arg(value_name = "SCENE.ron", required_unless_present = "template")]
    pub(crate) scene: Option<PathBuf>,
    /// Print a scene to start from instead
    #[arg(long, conflicts_with = "scene")]
    pub(crate) template: bool,
    #[command(flatten)]
    pub(crate) roots: RootArgs,
}

/// Where networks are evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceArg {
    /// The processor
    #[default]
    Cpu,
    /// The best adapter through Vulkan, Metal or DX12; `secateur doctor` lists them
    Gpu,
}

/// Numbers that candidates are scored in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// 24 significant bits
    #[default]
    F32,
    /// 8 significant bits, sums in f32; needs a processor with AVX512-BF16
    Bf16,
}

impl PrecisionArg {
    /// As it is written on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
        }
    }
}

/// Instructions of the processor's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsaArg {
    /// AVX-512: 16 lanes
    Avx512,
    /// AVX2 and FMA: 8 lanes
    Avx2,
    /// What any processor has
    Portable,
}

impl From<IsaArg> for Isa {
    fn from(isa: IsaArg) -> Self {
        match isa {
            IsaArg::Avx512 => Self::Avx512,
            IsaArg::Avx2 => Self::Avx2,
            IsaArg::Portable => Self::Portable,
        }
    }
}

impl RunArgs {
    /// The changes to the scene, in order: the device is one of its fields.
    pub(crate) fn sets(&self) -> Vec<String> {
        let device = self.device.map(|device| match device {
            DeviceArg::Cpu => "device=Cpu".to_owned(),
            DeviceArg::Gpu => "device=Gpu".to_owned(),
        });
        self.set.iter().cloned().chain(device).collect()
    }
}

/// A network and what its file may leave unsaid.
#[derive(Args, Debug)]
pub(crate) struct NetworkArgs {
    /// A path, or a name under the model root (.safetensors, .pth or .th may be left out)
    #[arg(value_name = "NETWORK")]
    pub(crate) network: PathBuf,
    /// Folder of networks [default: $SECATEUR_MODELS, else ./models]
    #[arg(long, value_name = "DIR")]
    pub(crate) model_root: Option<PathBuf>,
    /// Architecture of a file that holds parameters only [default: told by their names]
    #[arg(long)]
    pub(crate) arch: Option<String>,
    /// Mean of each input channel, for pixels in [0, 1]: 0.485,0.456,0.406
    #[arg(long, value_delimiter = ',', value_name = "M,M,M", requires = "std", allow_negative_numbers = true)]
    pub(crate) mean: Option<Vec<f32>>,
    /// Standard deviation of each input channel: 0.229,0.224,0.225
    #[arg(long, value_delimiter = ',', value_name = "S,S,S", requires = "mean")]
    pub(crate) std: Option<Vec<f32>>,
}

/// How many threads compute.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ThreadArgs {
    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Which groups may be pruned
    #[arg(long, value_enum, default_value_t)]
    pub(crate) protocol: ProtocolArg,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which groups may be pruned.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ProtocolArg {
    /// Channels inside each residual block
    #[default]
    Inner,
    /// Residual streams too
    Full,
}

impl From<ProtocolArg> for Protocol {
    fn from(arg: ProtocolArg) -> Self {
        match arg {
            ProtocolArg::Inner => Self::Inner,
            ProtocolArg::Full => Self::Full,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// cifar10, shapes[:SEED] or textures[:SEED]
    #[arg(long)]
    pub(crate) dataset: DatasetArg,
    /// Which images
    #[arg(long, value_enum, default_value_t)]
    pub(crate) split: SplitArg,
    /// Only the first N images
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Folder of data sets [default: $SECATEUR_DATA, else ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Where the network is evaluated
    #[arg(long, value_enum, default_value_t)]
    pub(crate) device: DeviceArg,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

/// Which half of a data set.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum SplitArg {
    /// Held-out images
    #[default]
    Test,
    /// Training images
    Train,
}

impl From<SplitArg> for Split {
    fn from(arg: SplitArg) -> Self {
        match arg {
            SplitArg::Test => Self::Test,
            SplitArg::Train => Self::Train,
        }
    }
}

/// A data set by name. Sizes and default seeds of the drawn ones are those the quickstart's networks were trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DatasetArg(pub(crate) DatasetSource);

impl FromStr for DatasetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, seed) = text.split_once(':').map_or((text, None), |(name, seed)| (name, Some(seed)));
        let (kind, default_seed) = match (name, seed) {
            ("cifar10", None) => return Ok(Self(DatasetSource::Cifar10)),
            ("shapes", _) => (ProceduralKind::Shapes, 1),
            ("textures", _) => (ProceduralKind::Textures, 2),
            _ => return Err("unknown data set; expected cifar10, shapes[:SEED] or textures[:SEED]".to_owned()),
        };
        let seed = seed.map_or(Ok(default_seed), |seed| {
            seed.parse().map_err(|e| format!("the seed '{seed}' is no whole number of 64 bits: {e}"))
        })?;
        Ok(Self(DatasetSource::Procedural { kind, seed, train: 8000, test: 2000 }))
    }
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: Bench,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Candidates of one network: images and candidates per second, with and without repair
    #[command(after_help = BENCH_EVAL_EXAMPLES)]
    Eval(BenchEvalArgs),
    /// One row per layer shape, on one core or on the card
    #[command(after_help = BENCH_KERNELS_EXAMPLES)]
    Kernels(BenchKernelsArgs),
    /// Every scheduler on the same work: a scene, or a synthetic environment
    #[command(after_help = BENCH_SCHEDULERS_EXAMPLES)]
    Schedulers(BenchSchedulersArgs),
}

#[derive(Args, Debug)]
pub(crate) struct BenchEvalArgs {
    /// A path, a name under the model root, or an architecture (with random weights)
    #[arg(long, default_value = "resnet56")]
    pub(crate) network: PathBuf,
    /// Share of the channels inside each block that are kept
    #[arg(long, default_value = "0.5", value_parser = share)]
    pub(crate) keep: f64,
    /// Images a candidate is scored on
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(crate) images: NonZeroUsize,
    /// Images handed to the processor's engine at a time; the card takes as many as fit its memory
    #[arg(long, value_name = "B", default_value = "1000")]
    pub(crate) batch: NonZeroUsize,
    /// Numbers of activations and weights while images are scored; the refit, and the card, stay f32
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionArg,
    /// Instructions that compile and score candidates in f32; the refit takes the best [default: the best of this processor]
    #[arg(long, value_enum)]
    pub(crate) isa: Option<IsaArg>,
    #[command(flatten)]
    pub(crate) card: CardArgs,
    /// Images of the refit behind a walk, which the processor does
    #[arg(long, value_name = "N", default_value = "128")]
    pub(crate) repair_images: NonZeroUsize,
    /// Folder of networks [default: $SECATEUR_MODELS, else ./models]
    #[arg(long, value_name = "DIR")]
    pub(crate) model_root: Option<PathBuf>,
    /// Write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

/// What is measured, and on the card how.
#[derive(Args, Debug)]
pub(crate) struct CardArgs {
    /// What is measured
    #[arg(long, value_enum, default_value_t)]
    pub(crate) device: DeviceArg,
    /// On the card: candidates that are scored together [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) candidates: Option<NonZeroUsize>,
    /// On the card: its peak in fp32, to report shares of; no adapter tells its own
    #[arg(long, value_name = "TFLOPS", value_parser = tflops)]
    pub(crate) peak_tflops: Option<f64>,
}

impl CardArgs {
    /// How many candidates are scored together.
    pub(crate) fn n_candidates(&self) -> usize {
        self.candidates.map_or(64, NonZeroUsize::get)
    }
}

fn tflops(text: &str) -> Result<f64, String> {
    let expected = "expected a number of TFLOP/s above 0, at most 1000000";
    text.parse().ok().filter(|t| *t > 0.0 && *t <= 1e6).ok_or_else(|| expected.to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let expected = "expected a share above 0, at most 1";
    text.parse().ok().filter(|s| *s > 0.0 && *s <= 1.0).ok_or_else(|| expected.to_owned())
}

#[derive(Args, Debug)]
pub(crate) struct BenchKernelsArgs {
    /// Every instruction set this processor has, and bf16; on the card every variant of the convolution; not only the best
    #[arg(long)]
    pub(crate) all_isas: bool,
    #[command(flatten)]
    pub(crate) card: CardArgs,
    /// On the card: images of a dispatch, if as many fit its memory [default: 1000]
    #[arg(long, value_name = "N")]
    pub(crate) images: Option<NonZeroUsize>,
    /// Write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct BenchSchedulersArgs {
    /// The scene, searched by its agent on the processor [default: a synthetic environment]
    #[arg(value_name = "SCENE.ron")]
    pub(crate) scene: Option<PathBuf>,
    /// Schedulers: lockstep, async, bounded_lag[:MAX] [default: all three, and the scene's own]
    #[arg(long, value_delimiter = ',')]
    pub(crate) variants: Option<Vec<Variant>>,
    /// Executors of the ECS systems [default: the scene's, else single]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) executors: Option<Vec<ExecutorArg>>,
    /// Actors per task [default: the scene's, else 1,2,4,8,16]
    #[arg(long, value_delimiter = ',', value_parser = actors)]
    pub(crate) actors: Option<Vec<usize>>,
    /// Walks per task [default: the scene's, else 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) walks: Option<u64>,
    /// Synthetic: CPU time of a score in milliseconds, 0 to 100
    #[arg(long, value_name = "MS", default_value = "20", value_parser = score_ms)]
    pub(crate) score_ms: f64,
    /// Synthetic: CPU time of learning from a walk, in scores
    #[arg(long, value_name = "SHARE", default_value = "0.5", value_parser = learn_share)]
    pub(crate) learn_share: f64,
    /// Trajectories that may wait for the learner [default: the scene's, else 64]
    #[arg(long, value_name = "N", value_parser = actors)]
    pub(crate) queue_capacity: Option<usize>,
    /// Write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) roots: RootArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    /// Change the scene for this measurement; may be repeated
    #[arg(long, value_name = "PATH=VALUE", requires = "scene")]
    pub(crate) set: Vec<String>,
}

/// What runs the systems of a tick.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExecutorArg {
    /// One after the other
    Single,
    /// Those that share no data at once
    Multi,
}

impl From<ExecutorArg> for Executor {
    fn from(arg: ExecutorArg) -> Self {
        match arg {
            ExecutorArg::Single => Self::Single,
            ExecutorArg::Multi => Self::Multi,
        }
    }
}

fn actors(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=4096).contains(n)).ok_or_else(|| "expected a whole number, 1..=4096".to_owned())
}

fn score_ms(text: &str) -> Result<f64, String> {
    within(text, 100.0)
}

fn learn_share(text: &str) -> Result<f64, String> {
    within(text, 10.0)
}

fn within(text: &str, most: f64) -> Result<f64, String> {
    text.parse().ok().filter(|x| (0.0..=most).contains(x)).ok_or_else(|| format!("expected a number, 0..={most}"))
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) roots: RootArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn data_sets_are_named_with_an_optional_seed() {
        let parse = |text: &str| text.parse::<DatasetArg>().map(|d| d.0);
        assert_eq!(parse("cifar10"), Ok(DatasetSource::Cifar10));
        let shapes = |seed| DatasetSource::Procedural { kind: ProceduralKind::Shapes, seed, train: 8000, test: 2000 };
        assert_eq!(parse("shapes"), Ok(shapes(1)));
        assert_eq!(parse("shapes:77"), Ok(shapes(77)));
        assert!(matches!(parse("textures"), Ok(DatasetSource::Procedural { seed: 2, .. })));
        for bad in ["cifar10:1", "shapes:", "shapes:-1", "imagenet", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
