//! What `tune` is told on the command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use secateur_formats::{DatasetSource, dataset_usage};

use crate::arguments::{NetworkArgs, size};
use crate::options::{MemoryArgs, ThreadArgs};

pub(crate) const TUNE_EXAMPLES: &str = "\
Examples:
  secateur tune runs/plan/tasks/resnet20/model.safetensors --teacher resnet20 --dataset cifar10 --epochs 5 --out tuned.safetensors
  secateur tune resnet20 --dataset cifar10 --epochs 1 --rate 0.001 --out dense.safetensors --json dense.json

Losses are cross-entropy and distillation. Convolutions that have no BatchNorm get one, which changes nothing yet; all are trained
and folded at the end. What is written is an average of the last steps' weights. Test images are looked at before and after, and
choose nothing.";

pub(crate) const TRAIN_EXAMPLES: &str = "\
Examples:
  secateur train lenet5 --dataset mnist --epochs 5 --no-flip --crop 2 --out lenet5.safetensors   mirrored digits are none
  secateur train resnet20 --dataset cifar10 --epochs 100 --out my20.safetensors
  secateur train scenes/quickstart/shapes.safetensors --dataset shapes:1 --epochs 40 --out again.safetensors

Parameters are drawn from --seed (He et al. 2015). Without a file to take it from, preprocessing is the mean and deviation of
each channel over training images. What is written keeps its BatchNorms, and is an average of the last steps' weights. Test
images are looked at once, at the end, and choose nothing.";

#[derive(Args, Debug)]
pub(crate) struct TuneArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// The network whose outputs are to be matched, usually the one that was pruned
    #[arg(long, value_name = "NETWORK")]
    pub(crate) teacher: Option<PathBuf>,
    /// Highest learning rate; it rises over a tenth of the steps, then falls to 0
    #[arg(long, default_value = "0.01")]
    pub(crate) rate: f32,
    /// Share of distillation in the loss, where there is a teacher; the rest is cross-entropy with the labels
    #[arg(long, value_name = "SHARE", default_value = "0.9")]
    pub(crate) distillation: f32,
    /// What outputs are divided by for distillation
    #[arg(long, default_value = "4")]
    pub(crate) temperature: f32,
    /// Put no BatchNorm behind convolutions that have none; with one, which is folded again at the end, higher rates do
    #[arg(long)]
    pub(crate) no_batch_norm: bool,
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    /// What to build (`lenet5`, `resnet20`, …), or a network, whose graph is taken and whose parameters are not
    #[arg(value_name = "ARCH|NETWORK")]
    pub(crate) network: PathBuf,
    /// Folder of networks [default: $SECATEUR_MODELS, else ./models]
    #[arg(long, value_name = "DIR")]
    pub(crate) model_root: Option<PathBuf>,
    /// Rows and columns of the images, for an architecture and images that come as files of any size: 64 or 64x96
    #[arg(long, value_name = "ROWSxCOLS", value_parser = size)]
    pub(crate) size: Option<[usize; 2]>,
    /// Highest learning rate; it rises over a fifth of the steps, then falls to 0
    #[arg(long, default_value = "0.1")]
    pub(crate) rate: f32,
    /// Label smoothing
    #[arg(long, value_name = "SHARE", default_value = "0")]
    pub(crate) smoothing: f32,
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
}

/// What every training is told.
#[derive(Args, Debug)]
pub(crate) struct RecipeArgs {
    /// The data set
    #[arg(long, help = dataset_usage())]
    pub(crate) dataset: DatasetSource,
    /// Times that all training images are seen
    #[arg(long, value_name = "N")]
    pub(crate) epochs: NonZeroUsize,
    /// The file to write; its certificate and, until it is done, a checkpoint lie beside it
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) out: PathBuf,
    /// Go on from the checkpoint beside --out, with the same result as if it had never stopped
    #[arg(long)]
    pub(crate) resume: bool,
    /// Images of a step
    #[arg(long, value_name = "B", default_value = "64")]
    pub(crate) batch: NonZeroUsize,
    /// What moves the weights: gradient descent with Nesterov momentum and weight decay, or Adam (rates about 0.001)
    #[arg(long, value_enum, default_value = "sgd")]
    pub(crate) optimiser: OptimiserArg,
    /// Longest gradient; longer ones are shortened
    #[arg(long, value_name = "NORM", default_value = "5")]
    pub(crate) clip: f32,
    /// Most pixels that images are moved by
    #[arg(long, value_name = "PIXELS", default_value = "4")]
    pub(crate) crop: usize,
    /// Mirror no images
    #[arg(long)]
    pub(crate) no_flip: bool,
    /// Training images that are not learned from, only watched
    #[arg(long, value_name = "N", default_value = "2000")]
    pub(crate) held_out: NonZeroUsize,
    /// Only so many of the training images
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Of the order of images, of how they are moved, and of those held out
    #[arg(long, default_value = "1")]
    pub(crate) seed: u64,
    /// Folder of data sets [default: $SECATEUR_DATA, else ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Write what was done as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

/// What moves the weights.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum OptimiserArg {
    Sgd,
    Adam,
}
