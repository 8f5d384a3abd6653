//! The command line as it is typed.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use secateur_formats::{DatasetSource, Split, dataset_usage, weight_extensions_usage};
use secateur_net::Protocol;
use secateur_rl::ErrorWeights;
use secateur_run::RunSpec;
use secateur_run::scene::{Device, SIDES};

use crate::bench::BenchArgs;
use crate::budget_argument::{BudgetArg, budget};
use crate::compare::{COMPARE_EXAMPLES, CompareArgs};
use crate::history::{HISTORY_EXAMPLES, HistoryCommand};
use crate::options::{HistoryArgs, MemoryArgs, RootArgs, ThreadArgs, one_of};
use crate::plan::{DatasetArg, dataset};
use crate::report_command::{REPORT_EXAMPLES, ReportArgs};
use crate::retarget::{RETARGET_EXAMPLES, RetargetArgs};
use crate::shell::{COMPLETIONS_EXAMPLES, CompletionsArgs, MAN_EXAMPLES, ManArgs};
use crate::tune::arguments::{TRAIN_EXAMPLES, TUNE_EXAMPLES, TrainArgs, TuneArgs};
use crate::watch::{WATCH_EXAMPLES, WatchArgs};

const RUN_EXAMPLES: &str = "\
Examples:
  secateur check --template > my.ron      a scene to start from
  secateur run my.ron --out runs/first
  secateur run my.ron --out runs/first --resume       after Ctrl-C, a crash or kill -9
  secateur run my.ron --out runs/short --set walks_per_task=50 --set 'budgets[0].ratio=0.4'
  secateur run my.ron --out runs/next --set history.transfer=true --set history.augmented=true --set history.assistant=true
                                          begin with what earlier runs learned
  secateur run my.ron --out runs/again --history-at 12-9f3ca1b2c4d5     with the same `history`: that run again

The run directory gets report.html, scene.ron (as resolved), summary.json, metrics.jsonl, error_curves.json
(what every layer loses at every width) and, for every task,
tasks/<task>/model.safetensors, the same network as model.onnx, and their certificate.json; plan.json
says which channels were kept, and cut.py beside it cuts your own PyTorch module to the same network:
  >>> from cut import cut; cut(module)";

const CHECK_EXAMPLES: &str = "\
Examples:
  secateur check my.ron
  secateur check --template > my.ron      every field at its default, with a comment on each

Networks and data sets are looked up as `run` would; nothing is written.";

const PLAN_EXAMPLES: &str = "\
Examples:
  secateur plan resnet20 --dataset cifar10 --budget macs=0.5
  secateur plan resnet56 --dataset cifar10 --budget macs=0.7 --budget macs=0.5 --budget params=120000
  secateur plan resnet20 --dataset cifar10 --budget macs=0.5 --write planned
  secateur plan resnet20 --dataset cifar10 --budget macs=0.5,params=0.4,activation_bytes=200000
  secateur plan resnet20 --dataset cifar10 --budget 0.5 --set 'networks[0].keep={\"layer1.*\": 1.0, \"layer3.*\": (min: 0.5)}'
  secateur plan my.ron                         every task of a scene

Nothing is searched: layer errors are measured once (and kept in the cache), the widths are those of the least sum of
them within the budget, and one candidate for each budget tells what to expect. --write gets what `run` writes. Bounds with
commas between are one budget, which meets all of them; --budget twice are two. `keep` says which groups are never
touched, or to what share of their channels; `secateur check --template` tells more.";

const INSPECT_EXAMPLES: &str = "\
Examples:
  secateur inspect resnet20                    a name under the model root
  secateur inspect resnet20 --curves --dataset cifar10 --svg curves.svg
  secateur inspect ./nets/mine.pth --arch vgg16
  secateur inspect resnet56 --protocol full --json";

const EVAL_EXAMPLES: &str = "\
Examples:
  secateur eval resnet20 --dataset cifar10
  secateur eval runs/first/tasks/resnet20-cifar10-macs0.5/model.onnx --dataset cifar10
  secateur eval scenes/quickstart/shapes.safetensors --dataset shapes:1
  secateur eval resnet18.onnx --size 224 --dataset images:flowers,labels=labels.csv

Data sets: cifar10, cifar100, mnist, fashion_mnist, flowers102 (their files under the data root; `secateur doctor` says which are
there), shapes[:SEED] and textures[:SEED] (drawn, no file needed), and
images:DIR, a folder of JPEG, PNG, WebP or BMP files (a path, or a name under the data root). Its sub-folders are the classes, in
alphabetical order; with sub-folders train and val (or test) these are the splits, else a fifth of every class is held out.
Behind the folder may follow, each after a comma:
  labels=FILE.csv      a file in the folder, a line `path,label` for each image; numbers are those of the network's outputs
  labels=none          there are no labels
  test=DIR             folder of the held-out images
  resize=N             shorter side before the middle is cut out [default: 8/7 of the network's, 256 for 224]
  resize=exact         no cut: resized to what the network reads, whatever the proportions
  interpolation=bicubic (or nearest, lanczos) [default: bilinear, antialiased as torchvision's Resize]
  channels=bgr         blue first
  on_error=stop        end at an image that cannot be read [default: skip it and say so]
  cache=off            keep no decoded images in ~/.cache/secateur/images (8 GiB at most, of which the oldest go first)
arrays:FILE is a NumPy array of images, uint8 or floats: x.npy, all.npz:NAME, or an archive whose arrays have the usual names (x_train,
y_train, x_test, y_test; train_images, ...) alone. Behind it may follow:
  labels=FILE          integers, the numbers of the network's outputs
  test=FILE            images of the test split, with test_labels=FILE; without, a fifth of every class is held out
  layout=nhwc          or nchw, nhw (grey), where the shape does not tell
  floats=bytes         floats are pixels of 0 to 255, or normalised: what the network reads [default: unit, 0 to 1]
The last line reads `top1 0.9173 (9173 of 10000)`.";

const COMPARE_NETWORKS_EXAMPLES: &str = "\
Examples:
  secateur compare-networks runs/a/tasks/t/model.onnx runs/b/tasks/t/model.onnx --dataset cifar10
  secateur compare-networks a.onnx b.onnx --against detector.onnx --dataset images:photos,labels=none

With labels: how often either is right, and McNemar's exact test on the images that only one gets right. With --against: whose
outputs are nearer to that network's, with a paired bootstrap over images. The last line begins with `first is better`,
`second is better` or `not distinguishable`.";

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
    /// Show a network's channel groups, counts and reachable budgets; of an .onnx file what it holds
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Find widths for budgets in seconds, without a search, and what accuracy to expect of them
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(PlanArgs),
    /// Measure a network's top-1 accuracy
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(EvalArgs),
    /// Train a network from scratch
    #[command(after_help = TRAIN_EXAMPLES)]
    Train(TrainArgs),
    /// Train a network further, with another one as its teacher
    #[command(after_help = TUNE_EXAMPLES)]
    Tune(TuneArgs),
    /// Answer budgets that were not in a run's scene by the policy that it learned, in seconds
    #[command(after_help = RETARGET_EXAMPLES)]
    Retarget(RetargetArgs),
    /// Run several agents on one scene at equal cost, over several seeds, and rank them
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
    /// Tell which of two networks is better on the same images, or that these are too few to tell
    #[command(after_help = COMPARE_NETWORKS_EXAMPLES)]
    CompareNetworks(CompareNetworksArgs),
    /// Show what was run and what came of it, as every run is recorded
    #[command(after_help = HISTORY_EXAMPLES)]
    History(HistoryCommand),
    /// Show what runs and comparisons found, as one HTML page
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Follow a run on the terminal while it goes on
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArgs),
    /// Measure this machine
    Bench(BenchArgs),
    /// Show what this machine offers and which networks and data sets are found
    Doctor(DoctorArgs),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The scene
    #[arg(value_name = "SCENE.ron")]
    pub(crate) scene: PathBuf,
    /// Run directory; must be new or empty unless --resume [default: runs/<name of the scene file>]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Go on from the run directory's last checkpoint; under scheduler Lockstep with the same result as if it had never
    /// stopped
    #[arg(long)]
    pub(crate) resume: bool,
    /// Seconds between checkpoints
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) checkpoint_every: f64,
    #[command(flatten)]
    pub(crate) roots: RootArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    #[command(flatten)]
    pub(crate) history: HistoryArgs,
    /// Learn from the runs that were finished when the history had this snapshot, not from all that are now: with the
    /// name in a run's summary.json, and its scene, the same run again
    #[arg(long, value_name = "SNAPSHOT")]
    pub(crate) history_at: Option<String>,
    /// Change the scene for this run: walks_per_task=50, 'budgets[0].ratio=0.4'; may be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where walks are scored [default: the scene's device]
    #[arg(long, value_parser = one_of(&Device::ALL, Device::name))]
    pub(crate) device: Option<Device>,
    /// Says how candidates are scored by workers on a Ray cluster, which the Python package does
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) workers: Option<String>,
    /// Print summary.json instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but the results
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl CheckArgs {
    /// The run that would be checked; none where only the template is asked for.
    pub(crate) fn spec(&self) -> Option<RunSpec> {
        let spec = RunSpec::new(self.scene.as_ref()?);
        Some(RunSpec {
            data_root: self.roots.data_root.clone(),
            model_root: self.roots.model_root.clone(),
            threads: self.threads.threads,
            memory: self.memory.memory,
            ..spec
        })
    }
}

/// One number for both sides, or rows and columns.
pub(crate) fn size(text: &str) -> Result<[usize; 2], String> {
    let (rows, cols) = text.split_once(['x', 'X']).unwrap_or((text, text));
    let side = |text: &str| text.trim().parse().ok().filter(|side| SIDES.contains(side));
    side(rows).zip(side(cols)).map(|(rows, cols)| [rows, cols]).ok_or_else(|| {
        format!("expected a side, or rows x columns as in 224x320, each from {} to {}", SIDES.start(), SIDES.end())
    })
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
    /// Print JSON
    #[arg(long, conflicts_with = "template")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) roots: RootArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

impl RunArgs {
    /// The run that they ask for.
    pub(crate) fn spec(&self) -> RunSpec {
        RunSpec {
            sets: self.sets(),
            out: self.out.clone(),
            resume: self.resume,
            checkpoint_every: Duration::from_secs_f64(self.checkpoint_every),
            data_root: self.roots.data_root.clone(),
            model_root: self.roots.model_root.clone(),
            threads: self.threads.threads,
            memory: self.memory.memory,
            history: self.history.history.clone(),
            history_at: self.history_at.clone(),
            ..RunSpec::new(&self.scene)
        }
    }

    /// The changes to the scene, in order: the device is one of its fields.
    fn sets(&self) -> Vec<String> {
        let device = self.device.map(|device| format!("device={device:?}"));
        self.set.iter().cloned().chain(device).collect()
    }
}

/// How a network is named.
fn network_usage() -> String {
    format!("A path, or a name under the model root ({} may be left out)", weight_extensions_usage())
}

/// A network and what its file may leave unsaid.
#[derive(Args, Debug)]
pub(crate) struct NetworkArgs {
    /// The network
    #[arg(value_name = "NETWORK", help = network_usage())]
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
    /// Rows and columns of the images, where the file leaves them open: 224 or 224x320
    #[arg(long, value_name = "ROWSxCOLS", value_parser = size)]
    pub(crate) size: Option<[usize; 2]>,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Which groups may be pruned: those inside each residual block, or residual streams too
    #[arg(long, value_parser = one_of(&Protocol::ALL, Protocol::name), default_value = Protocol::Inner.name())]
    pub(crate) protocol: Protocol,
    /// Show what each group's consumers lose at every width
    #[arg(long, requires = "dataset")]
    pub(crate) curves: bool,
    /// The data set whose training images --curves measures on
    #[arg(long, help_heading = "Error curves", requires = "curves")]
    pub(crate) dataset: Option<DatasetSource>,
    /// Training images that --curves measures on
    #[arg(long, value_name = "N", default_value = "2000", help_heading = "Error curves")]
    pub(crate) images: NonZeroUsize,
    /// Draw the curves of --curves to a file
    #[arg(long, value_name = "FILE", help_heading = "Error curves", requires = "curves")]
    pub(crate) svg: Option<PathBuf>,
    /// Folder of data sets [default: $SECATEUR_DATA, else ./data]
    #[arg(long, value_name = "DIR", help_heading = "Error curves")]
    pub(crate) data_root: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// The data set, for a network
    #[arg(long, help = dataset_usage(), value_parser = dataset)]
    pub(crate) dataset: Option<DatasetArg>,
    /// What it may cost: macs, params or activation_bytes, a share (macs=0.5, or 0.5 alone) or a number
    /// (params=120000); with commas between, bounds that hold at once (macs=0.5,params=0.4); may be repeated, for one
    /// plan each
    #[arg(long, value_name = "COST=BOUND,…", value_parser = budget)]
    pub(crate) budget: Vec<BudgetArg>,
    /// Which groups may be pruned: those inside each residual block, or residual streams too [default: inner]
    #[arg(long, value_parser = one_of(&Protocol::ALL, Protocol::name))]
    pub(crate) protocol: Option<Protocol>,
    /// How the errors of groups are weighed: all alike, or by what each group alone does to the output (one more
    /// candidate for each group)
    #[arg(long, value_parser = one_of(&ErrorWeights::ALL, ErrorWeights::name), default_value = ErrorWeights::default().name())]
    pub(crate) weights: ErrorWeights,
    /// Refit the planned networks thoroughly and write them, certified, to a new run directory
    #[arg(long, value_name = "DIR")]
    pub(crate) write: Option<PathBuf>,
    /// Refine what is written by gradients towards the dense network, without labels, where that is better on held-out
    /// training images; a minute or two for each network
    #[arg(long, requires = "write")]
    pub(crate) polish: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Change the scene: images.reward=500; may be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Folder of data sets [default: $SECATEUR_DATA, else ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// Print nothing but the results
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Compare outputs with those of this network instead of labels: the output error of each (share of its variance
    /// over the images that is lost) and, for one vector of logits, divergence and agreement of the most likely class
    #[arg(long, value_name = "DENSE", conflicts_with = "device")]
    pub(crate) against: Option<PathBuf>,
    /// The data set
    #[arg(long, help = dataset_usage())]
    pub(crate) dataset: DatasetSource,
    /// Which images: those held out, or those for training
    #[arg(long, value_parser = one_of(&Split::ALL, Split::name), default_value = Split::Test.name())]
    pub(crate) split: Split,
    /// Only the first N images
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Folder of data sets [default: $SECATEUR_DATA, else ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Where the network is evaluated: the processor, or the best adapter through Vulkan, Metal or DX12 (`secateur
    /// doctor` lists them)
    #[arg(long, value_parser = one_of(&Device::ALL, Device::name), default_value = Device::Cpu.name())]
    pub(crate) device: Device,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CompareNetworksArgs {
    /// The first network: a file, or a name under the model root
    #[arg(value_name = "FIRST")]
    pub(crate) first: PathBuf,
    /// The second network
    #[arg(value_name = "SECOND")]
    pub(crate) second: PathBuf,
    /// Compare how near their outputs are to those of this network, instead of reading labels
    #[arg(long, value_name = "DENSE")]
    pub(crate) against: Option<PathBuf>,
    /// The data set
    #[arg(long, help = dataset_usage())]
    pub(crate) dataset: DatasetSource,
    /// Which images: those held out, or those for training
    #[arg(long, value_parser = one_of(&Split::ALL, Split::name), default_value = Split::Test.name())]
    pub(crate) split: Split,
    /// Only the first N images
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Rows and columns of the images, where the files leave them open: 224 or 224x320
    #[arg(long, value_name = "ROWSxCOLS", value_parser = size)]
    pub(crate) size: Option<[usize; 2]>,
    #[command(flatten)]
    pub(crate) roots: RootArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
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

    /// What prints no table: files' names, scripts, pages.
    const WITHOUT_TABLE: [&str; 4] = ["history import", "report", "completions", "man"];

    #[test]
    fn every_command_that_prints_a_table_prints_json_too() {
        let (mut open, mut met) = (vec![(String::new(), Arguments::command())], 0);
        while let Some((name, command)) = open.pop() {
            for below in command.get_subcommands() {
                open.push((format!("{name} {}", below.get_name()).trim().to_owned(), below.clone()));
            }
            if command.has_subcommands() {
                continue;
            }
            met += 1;
            let has_json = command.get_arguments().any(|argument| argument.get_long() == Some("json"));
            assert_eq!(has_json, !WITHOUT_TABLE.contains(&name.as_str()), "{name}");
        }
        assert!(met > 20, "{met}");
    }
}
