//! [`SceneFile`]: the RON text, field by field, before any check.

use std::collections::BTreeMap;
use std::fmt;

use secateur_formats::DatasetSource;
use secateur_kernels::Precision;
use secateur_net::Protocol;
use secateur_scene::RawValue;
use secateur_sim::{EndsAfter, Repair, Selection};
use secateur_train::{Executor, Scheduler};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::choices::{Device, HistoryChoice, Images, LabelUse, RewardChoice};
use super::recipes::{Polish, Tune, TuneBeforeScore};

/// The one version of the scene format that this program reads and writes.
pub const SCENE_VERSION: u32 = 1;

/// The text of a scene as serde sees it; holds anything of the right types. [`Scene`](super::Scene) is the checked
/// form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "Scene")]
pub struct SceneFile {
    /// Format version, 1.
    pub version: u32,
    /// Seed of every random stream of the run.
    pub seed: u64,
    /// Networks to prune.
    pub networks: Vec<NetworkFile>,
    /// Data sets to prune for.
    pub datasets: Vec<DatasetFile>,
    /// Upper bounds to meet, one task each per network and data set.
    pub budgets: Vec<BudgetFile>,
    /// Which groups may be pruned.
    #[serde(default)]
    pub protocol: Protocol,
    /// Widths are multiples of this many channels, 1..=64.
    #[serde(default = "default_channel_multiple")]
    pub channel_multiple: usize,
    /// Smallest keep ratio of a group, (0, 1]; default 0.1, and 0.2 for an agent with profile `Paper`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_ratio_min: Option<f64>,
    /// How the channels that stay are chosen.
    #[serde(default)]
    pub selection: Selection,
    /// How consumers are refitted when a walk is scored; default `Sequential`, and `Original` for profile `Paper`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
    /// How every candidate is trained before it is scored; none: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune_before_score: Option<TuneBeforeScore>,
    /// Candidates per task that are refitted sequentially at the end, 1..=64.
    #[serde(default = "default_finalists")]
    pub finalists: usize,
    /// Whether budget left after a walk is spent on the most useful groups; default true, and false for profile
    /// `Paper`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend_leftover: Option<bool>,
    /// Whether hidden channels of the winners are refitted as well; default true, and false for profile `Paper`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refit_in_pairs: Option<bool>,
    /// How winners are refined towards the dense network, without labels; none: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polish: Option<Polish>,
    /// How winners are fine-tuned; none: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune: Option<Tune>,
    /// Training images per purpose.
    #[serde(default)]
    pub images: Images,
    /// What a walk is paid for; default `Kl`, and `Accuracy` for profile `Paper`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardChoice>,
    /// Where walks are scored.
    #[serde(default)]
    pub device: Device,
    /// Numbers that the processor scores walks in.
    #[serde(default)]
    pub precision: Precision,
    /// Who decides, to be read by the list of agents.
    #[serde(default = "unread")]
    pub agent: Box<RawValue>,
    /// Actors that work on each task.
    #[serde(default = "default_actors_per_task")]
    pub actors_per_task: usize,
    /// Walks each task gets.
    #[serde(default = "default_walks_per_task")]
    pub walks_per_task: u64,
    /// Whether walks are counted, or candidates that are scored.
    #[serde(default)]
    pub ends_after: EndsAfter,
    /// How actors and learners share time.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// What runs the ECS systems of a tick.
    #[serde(default)]
    pub executor: Executor,
    /// Capacity of the queue between actors and learners, in trajectories.
    #[serde(default = "default_queue_capacity")]
    pub queue_capacity: usize,
    /// References that run beside the agent, each to be read by the list of agents; an empty list switches them off.
    #[serde(default = "default_controls")]
    pub controls: Vec<Box<RawValue>>,
    /// Where the run is recorded, if it is.
    #[serde(default = "default_history")]
    pub history: Option<HistoryChoice>,
    /// Settings of plugins by plugin name, as RON for the plugin to check.
    #[serde(default)]
    pub plugins: BTreeMap<String, Box<RawValue>>,
}

/// One network to prune.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "Network")]
pub struct NetworkFile {
    /// Name in task names and reports: `[A-Za-z0-9_.-]`, unique, no leading dot.
    pub name: String,
    /// Weights: `./x` and `../x` are relative to the scene file, an absolute path is taken as is, anything else lies
    /// under the model root.
    pub file: String,
    /// Architecture, needed only for a bare state dict whose keys are ambiguous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Per-channel mean of the input in [0, 1] units; given with `std` or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// Per-channel standard deviation of the input, > 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// Rows and columns of the images, for a file that leaves them open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// Names of the data sets this network is pruned for; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datasets: Option<Vec<String>>,
    /// Shares of their channels that groups keep, by name or pattern.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keep: BTreeMap<String, KeepFile>,
}

/// One data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "Dataset")]
pub struct DatasetFile {
    /// Name in task names and references: `[A-Za-z0-9_.-]`, unique, no leading dot.
    pub name: String,
    /// Where its images come from.
    pub source: DatasetSource,
    /// What is made of their labels.
    #[serde(default)]
    pub labels: LabelUse,
}

/// The share of its channels that a group keeps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum KeepFile {
    /// This share: 1.0 leaves the group as it is.
    Share(f64),
    /// From `min` to `max`, at least one of them given.
    Range(KeepRangeFile),
}

/// Ends of a range of shares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "Keep")]
pub struct KeepRangeFile {
    /// Least share; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest share; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

impl<'de> Deserialize<'de> for KeepFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeepVisitor)
    }
}

/// Reads a number or a range, and tells of both what serde's own choice between them would not.
struct KeepVisitor;

impl<'de> Visitor<'de> for KeepVisitor {
    type Value = KeepFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share such as 0.5 or a range such as (min: 0.5)")
    }

    fn visit_f64<E: de::Error>(self, share: f64) -> Result<KeepFile, E> {
        Ok(KeepFile::Share(share))
    }

    fn visit_u64<E: de::Error>(self, share: u64) -> Result<KeepFile, E> {
        Ok(KeepFile::Share(share as f64))
    }

    fn visit_i64<E: de::Error>(self, share: i64) -> Result<KeepFile, E> {
        Ok(KeepFile::Share(share as f64))
    }

    fn visit_unit<E: de::Error>(self) -> Result<KeepFile, E> {
        Ok(KeepFile::Range(KeepRangeFile { min: None, max: None }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<KeepFile, A::Error> {
        KeepRangeFile::deserialize(MapAccessDeserializer::new(map)).map(KeepFile::Range)
    }
}

/// What a task must not exceed: one upper bound, exactly one of `ratio` (of the original network, (0, 1]) and `max`
/// (absolute, > 0), or several that hold at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "Budget")]
pub enum BudgetFile {
    /// Multiply-accumulates per image.
    Macs {
        /// Share of the original network's count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ratio: Option<f64>,
        /// Absolute count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
    },
    /// Parameters of the emitted network.
    Params {
        /// Share of the original network's count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ratio: Option<f64>,
        /// Absolute count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
    },
    /// Peak bytes of live activations, one image.
    ActivationBytes {
        /// Share of the original network's peak.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ratio: Option<f64>,
        /// Absolute bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
    },
    /// Bounds on different costs, all to be met.
    Budget(Vec<BudgetFile>),
}

fn default_channel_multiple() -> usize {
    1
}

fn default_finalists() -> usize {
    8
}

fn default_actors_per_task() -> usize {
    4
}

fn default_walks_per_task() -> u64 {
    300
}

fn default_queue_capacity() -> usize {
    64
}

fn default_history() -> Option<HistoryChoice> {
    Some(HistoryChoice::default())
}

/// Stands for a field that is absent: the list of agents then reads the template's.
fn unread() -> Box<RawValue> {
    RawValue::from_ron("()").expect("this is RON").to_owned()
}

/// As many as the template has.
fn default_controls() -> Vec<Box<RawValue>> {
    vec![unread(), unread(), unread(), unread()]
}
