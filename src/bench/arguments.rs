//! What `bench` is told on the command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use secateur_gpu::{CONV_BLOCK_MAX, CONV_TILES, ConvVariant, GpuOptions};
use secateur_kernels::{Isa, Precision};
use secateur_run::scene::Device;
use secateur_run::{N_TOP, RunSpec};
use secateur_train::{Executor, Scheduler};

use crate::options::{MemoryArgs, RootArgs, ThreadArgs, bytes, one_of};

const BENCH_EVAL_EXAMPLES: &str = "\
Examples:
  secateur bench eval --network resnet56 --keep 0.5 --json eval.json
  secateur bench eval --network vgg16 --keep 0.5        random weights where there is no such file
  secateur bench eval --network resnet20 --keep 1 --threads 1 --isa avx2
  secateur bench eval --network model.onnx --keep 1 --images 16 --batch 16 --layers
  secateur bench eval --device gpu --candidates 64 --images 1000 --peak-tflops 67

Rates are medians of five runs after one to warm up; images are random, as speed does not depend on them. peak_share is the
share of one core's highest rate of multiply-adds, in the same numbers and instructions, times the threads: give it no more
threads than there are physical cores. --layers lists the steps that a candidate is computed in, each a layer with the addition and
the activation that are fused to it: the rates count the plain convolution's work, so they may exceed the peak.";

const BENCH_KERNELS_EXAMPLES: &str = "\
Examples:
  secateur bench kernels --json kernels.json
  secateur bench kernels --all-isas
  secateur bench kernels --device gpu --all-isas --all-tiles --candidates 8 --peak-tflops 67";

const BENCH_TRAIN_EXAMPLES: &str = "\
Examples:
  secateur bench train --network resnet20 --batch 128 --threads 2 --json train.json
  secateur bench train --network resnet56 --keep 0.5
  secateur bench train --network mobilenet_v1 --isa avx2

A step is forward, cross-entropy, backward and gradient descent with Nesterov momentum; BatchNorm normalises with the batch's
statistics. The rate is the median over steps after two to warm up; images are random, as speed does not depend on them.";

const BENCH_REWARDS_EXAMPLES: &str = "\
Examples:
  secateur bench rewards scenes/quickstart.ron
  secateur bench rewards scenes/cifar10_resnet20.ron --candidates 64 --images 250,500,1000,2000,4000 --json rewards.json

Candidates within each budget are scored on the first of the reward images, once for every number of them, and on the
images that a run keeps for its finalists (`images.finalists`), which tell their true order. Kendall's tau is 1 where the
reward has the same order, 0 where it knows nothing; the regret is the accuracy that the candidate of highest reward lacks
to the best. Take the reward and the number of images that rank well enough for the time: `reward` and `images.reward`.";

const BENCH_SCHEDULERS_EXAMPLES: &str = "\
Examples:
  secateur bench schedulers --threads 2 --actors 4,8,16 --json schedulers.json
  secateur bench schedulers --score-ms 0 --learn-share 0 --variants lockstep --actors 64 --walks 20000
  secateur bench schedulers scenes/quickstart.ron --walks 50 --actors 4";

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
    /// Training one network: images per second
    #[command(after_help = BENCH_TRAIN_EXAMPLES)]
    Train(BenchTrainArgs),
    /// Which reward, on how many images, ranks a scene's candidates best for the time it takes
    #[command(after_help = BENCH_REWARDS_EXAMPLES)]
    Rewards(BenchRewardsArgs),
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
    #[arg(long, value_parser = one_of(&Precision::ALL, Precision::name), default_value = Precision::F32.name())]
    pub(crate) precision: Precision,
    /// Instructions that compile and score candidates in f32; the refit takes the best [default: the best of this
    /// processor]
    #[arg(long, value_parser = one_of(&Isa::ALL, Isa::name))]
    pub(crate) isa: Option<Isa>,
    #[command(flatten)]
    pub(crate) card: CardArgs,
    /// Images of the refit behind a walk, which the processor does
    #[arg(long, value_name = "N", default_value = "128")]
    pub(crate) repair_images: NonZeroUsize,
    /// List how long each layer takes, and at what rate it computes
    #[arg(long)]
    pub(crate) layers: bool,
    /// Folder of networks [default: $SECATEUR_MODELS, else ./models]
    #[arg(long, value_name = "DIR")]
    pub(crate) model_root: Option<PathBuf>,
    /// Write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

/// What is measured, and on the card how.
#[derive(Args, Debug)]
pub(crate) struct CardArgs {
    /// What is measured
    #[arg(long, value_parser = one_of(&Device::ALL, Device::name), default_value = Device::Cpu.name())]
    pub(crate) device: Device,
    /// On the card: candidates that are scored together [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) candidates: Option<NonZeroUsize>,
    /// On the card: how dense convolutions are computed [default: what suits the adapter]
    #[arg(long, value_parser = one_of(&ConvVariant::ALL, ConvVariant::name))]
    pub(crate) conv: Option<ConvVariant>,
    /// On the card: invocations of a dense convolution's workgroup: 32, 64 or 128 [default: what suits the adapter]
    #[arg(long, value_name = "N", value_parser = tile)]
    pub(crate) tile: Option<u32>,
    /// On the card: most output quads that are computed together, 1 to 4 [default: what suits the adapter]
    #[arg(long, value_name = "N", value_parser = block)]
    pub(crate) block: Option<usize>,
    /// On the card: most bytes of one buffer of activations, like 64M; buffers that fit the card's cache may be faster
    /// [default: by the kind of adapter]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) activations: Option<u64>,
    /// On the card: its peak in fp32, to report shares of; no adapter tells its own
    #[arg(long, value_name = "TFLOPS", value_parser = tflops)]
    pub(crate) peak_tflops: Option<f64>,
}

impl CardArgs {
    /// How the card is opened.
    pub(crate) fn options(&self) -> GpuOptions {
        GpuOptions {
            conv: self.conv,
            conv_tile: self.tile,
            conv_block: self.block,
            activations_max: self.activations,
            ..GpuOptions::default()
        }
    }

    /// How many candidates are scored together.
    pub(crate) fn n_candidates(&self) -> usize {
        self.candidates.map_or(64, NonZeroUsize::get)
    }
}

fn tile(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|n| CONV_TILES.contains(n)).ok_or_else(|| "expected 32, 64 or 128".to_owned())
}

fn block(text: &str) -> Result<usize, String> {
    let expected = || format!("expected a whole number, 1..={CONV_BLOCK_MAX}");
    text.parse().ok().filter(|n| (1..=CONV_BLOCK_MAX).contains(n)).ok_or_else(expected)
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
    /// Every instruction set this processor has, and bf16; on the card every variant of the convolution; not only the
    /// best
    #[arg(long)]
    pub(crate) all_isas: bool,
    /// On the card: every size of workgroup, with every number of outputs that are computed together
    #[arg(long)]
    pub(crate) all_tiles: bool,
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
pub(crate) struct BenchTrainArgs {
    /// A path, a name under the model root, or an architecture (with random weights)
    #[arg(long, default_value = "resnet20")]
    pub(crate) network: PathBuf,
    /// Share of the channels inside each block that are kept
    #[arg(long, default_value = "1", value_parser = share)]
    pub(crate) keep: f64,
    /// Images of a step
    #[arg(long, value_name = "B", default_value = "128")]
    pub(crate) batch: NonZeroUsize,
    /// Steps of which the median is taken
    #[arg(long, value_name = "N", default_value = "12")]
    pub(crate) steps: NonZeroUsize,
    /// Instructions that compute it [default: the best of this processor]
    #[arg(long, value_parser = one_of(&Isa::ALL, Isa::name))]
    pub(crate) isa: Option<Isa>,
    /// Folder of networks [default: $SECATEUR_MODELS, else ./models]
    #[arg(long, value_name = "DIR")]
    pub(crate) model_root: Option<PathBuf>,
    /// Write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

#[derive(Args, Debug)]
pub(crate) struct BenchRewardsArgs {
    /// The scene: networks, data sets, budgets, and how candidates are refitted
    #[arg(value_name = "SCENE.ron")]
    pub(crate) scene: PathBuf,
    /// Candidates of each task, more than 8
    #[arg(long, value_name = "N", default_value = "48", value_parser = candidates)]
    pub(crate) candidates: usize,
    /// Numbers of reward images
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "125,250,500,1000")]
    pub(crate) images: Vec<NonZeroUsize>,
    /// Write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) roots: RootArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    /// Change the scene for this measurement; may be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
}

fn candidates(text: &str) -> Result<usize, String> {
    let expected = || format!("expected a whole number above {N_TOP}");
    text.parse().ok().filter(|n| (N_TOP + 1..=100_000).contains(n)).ok_or_else(expected)
}

impl BenchRewardsArgs {
    /// The scene, with as many reward images as the most that are asked for.
    pub(crate) fn spec(&self) -> RunSpec {
        let most = self.images.iter().map(|n| n.get()).max().unwrap_or(1);
        let reward_images = format!("images.reward={most}");
        RunSpec {
            sets: self.set.iter().cloned().chain([reward_images]).collect(),
            data_root: self.roots.data_root.clone(),
            model_root: self.roots.model_root.clone(),
            threads: self.threads.threads,
            ..RunSpec::new(&self.scene)
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct BenchSchedulersArgs {
    /// The scene, searched by its agent on the processor [default: a synthetic environment]
    #[arg(value_name = "SCENE.ron")]
    pub(crate) scene: Option<PathBuf>,
    /// Schedulers: lockstep, async, bounded_lag[:MAX] [default: all three, and the scene's own]
    #[arg(long, value_delimiter = ',')]
    pub(crate) variants: Option<Vec<Scheduler>>,
    /// Executors of the ECS systems [default: the scene's, else single]
    #[arg(long, value_delimiter = ',', value_parser = one_of(&Executor::ALL, Executor::name))]
    pub(crate) executors: Option<Vec<Executor>>,
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

impl BenchSchedulersArgs {
    /// The scene that is to be measured, if it is one.
    pub(crate) fn spec(&self) -> Option<RunSpec> {
        let spec = RunSpec::new(self.scene.as_ref()?);
        Some(RunSpec {
            sets: self.set.clone(),
            data_root: self.roots.data_root.clone(),
            model_root: self.roots.model_root.clone(),
            threads: self.threads.threads,
            ..spec
        })
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
