//! [`Scene`]: checked values, the only way in.

use std::collections::BTreeMap;
use std::ops::Deref;

use secateur_formats::DatasetSource;
use secateur_kernels::Precision;
use secateur_net::{Cost, Protocol};
use secateur_scene::{Document, Format, PluginConfig, Problem, RawValue, SceneError, to_ron_pretty};
use secateur_sim::{EndsAfter, KeepRange, Repair, Selection};
use secateur_train::{Executor, Scheduler};

use super::agents::{AgentList, AgentSpec, ControlSpec};
use super::check::check;
use super::choices::{Device, HistoryChoice, Images, LabelUse, RewardChoice};
use super::file::{BudgetFile, DatasetFile, KeepFile, KeepRangeFile, NetworkFile, SCENE_VERSION, SceneFile};
use super::recipes::{Polish, Tune, TuneBeforeScore};
use super::template::template;

/// A checked scene: read-only, its fields are those of [`SceneData`]. Equal when the values are, wherever they stood.
#[derive(Clone, Debug)]
pub struct Scene {
    data: SceneData,
    document: Document,
}

/// The values of a scene, every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneData {
    /// Seed of every random stream of the run.
    pub seed: u64,
    /// Networks to prune; at least one.
    pub networks: Vec<NetworkSpec>,
    /// Data sets; at least one.
    pub datasets: Vec<DatasetSpec>,
    /// What networks must not exceed; at least one, no two alike.
    pub budgets: Vec<BudgetSpec>,
    /// Every network x (its data sets) x budget, in that order; at least one, names unique.
    pub tasks: Vec<TaskSpec>,
    /// Which groups may be pruned.
    pub protocol: Protocol,
    /// Widths are multiples of this many channels, 1..=64.
    pub channel_multiple: usize,
    /// Smallest keep ratio of a group, (0, 1].
    pub keep_ratio_min: f64,
    /// How the channels that stay are chosen.
    pub selection: Selection,
    /// How consumers are refitted when a walk is scored.
    pub repair: Repair,
    /// How every candidate is trained before it is scored, if it is; its batch is no larger than the refit images.
    pub tune_before_score: Option<TuneBeforeScore>,
    /// Candidates per task that are refitted sequentially at the end, 1..=64.
    pub finalists: usize,
    /// Whether budget left after a walk is spent.
    pub spend_leftover: bool,
    /// Whether hidden channels of the winners are refitted as well, see
    /// [`secateur_kernels::SequentialRefit::run_in_pairs`].
    pub refit_in_pairs: bool,
    /// How winners are refined without labels, if they are.
    pub polish: Option<Polish>,
    /// How winners are fine-tuned, if they are.
    pub tune: Option<Tune>,
    /// Training images per purpose, each at least 1.
    pub images: Images,
    /// What a walk is paid for; weights of outputs are finite and at least 0.
    pub reward: RewardChoice,
    /// Where walks are scored.
    pub device: Device,
    /// Numbers that the processor scores walks in; `F32` with `device: Gpu`.
    pub precision: Precision,
    /// Who decides.
    pub agent: AgentSpec,
    /// Actors that work on each task, 1..=4096.
    pub actors_per_task: usize,
    /// Walks each task gets, or candidates that are scored for it, at least 1.
    pub walks_per_task: u64,
    /// Which of them, for the agent and the controls.
    pub ends_after: EndsAfter,
    /// How actors and learners share time.
    pub scheduler: Scheduler,
    /// What runs the ECS systems of a tick.
    pub executor: Executor,
    /// Capacity of the queue between actors and learners in trajectories, 1..=1,000,000.
    pub queue_capacity: usize,
    /// References that run beside the agent, no kind twice; may be empty.
    pub controls: Vec<ControlSpec>,
    /// Where the run is recorded, if it is.
    pub history: Option<HistoryChoice>,
    /// Settings of plugins, by name.
    pub plugins: Vec<PluginConfig>,
}

/// Rows (columns) that images may have.
pub const SIDES: std::ops::RangeInclusive<usize> = 1..=16_384;

/// One network to prune.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkSpec {
    /// File-system-safe name, unique among the networks.
    pub name: String,
    /// Weights, as the scene spells them: `./x` and `../x` are relative to the scene file, an absolute path is taken as
    /// is, anything else lies under the model root.
    pub file: String,
    /// Architecture of a bare state dict, if given; not checked here.
    pub arch: Option<String>,
    /// Per-channel input mean and standard deviation, same length, finite, deviation > 0.
    pub normalisation: Option<(Vec<f32>, Vec<f32>)>,
    /// Rows and columns of the images, for a file that leaves them open; each in [`SIDES`].
    pub size: Option<[usize; 2]>,
    /// Indices into the scene's data sets; at least one.
    pub datasets: Vec<usize>,
    /// Groups that keep a share of their own, by pattern; all entries that match a group hold. Whether they match any
    /// is not checked here.
    pub keep: Vec<KeepSpec>,
}

/// One data set.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetSpec {
    /// File-system-safe name, unique among the data sets.
    pub name: String,
    /// Where its images come from.
    pub source: DatasetSource,
    /// What is made of their labels.
    pub labels: LabelUse,
}

/// How a budget is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BudgetBound {
    /// Share of the original network's count, (0, 1].
    Ratio(f64),
    /// Absolute count, > 0.
    Max(u64),
}

/// What a task must not exceed.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetSpec {
    /// Upper bounds, all of them to be met: at least one, each on another cost.
    pub bounds: Vec<BoundSpec>,
}

/// The share of their channels that some groups keep.
#[derive(Clone, Debug, PartialEq)]
pub struct KeepSpec {
    /// Name of the groups, or of layers whose outputs they are; `*` is any text, `?` any character.
    pub pattern: String,
    /// The share.
    pub range: KeepRange,
}

/// One upper bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundSpec {
    /// What is bounded.
    pub kind: Cost,
    /// The bound.
    pub bound: BudgetBound,
}

impl BoundSpec {
    /// The largest count allowed for a network whose own count is `original`; a ratio is rounded down.
    pub fn max(&self, original: u64) -> u64 {
        match self.bound {
            BudgetBound::Max(max) => max,
            BudgetBound::Ratio(ratio) => (original as f64 * ratio).floor() as u64,
        }
    }
}

/// One task: a network, a data set and a budget, as indices into the scene's lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// Unique and file-system-safe, for example `resnet20-cifar10-macs0.5`.
    pub name: String,
    /// Index of the network.
    pub network: usize,
    /// Index of the data set.
    pub dataset: usize,
    /// Index of the budget.
    pub budget: usize,
}

impl Scene {
    /// Reads and checks a scene of the agents of `rl`. `origin` is the file name that messages show.
    ///
    /// # Errors
    /// The first problem of syntax or type, else every value that breaks a rule, all with line and column.
    pub fn parse(origin: &str, text: &str) -> Result<Self, SceneError> {
        Self::parse_with(origin, text, &AgentList::default())
    }

    /// As [`Self::parse`], for a scene that may name any of `agents`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_with(origin: &str, text: &str, agents: &AgentList) -> Result<Self, SceneError> {
        let document = Document::new(origin, text);
        if let Some(problem) = wrong_version(&document) {
            return Err(document.error(vec![problem]));
        }
        let file: SceneFile = document.read().map_err(|problem| document.error(vec![problem]))?;
        match check(file, &document, agents) {
            Ok(data) => Ok(Self { data, document }),
            Err(problems) => Err(document.error(problems)),
        }
    }

    /// The resolved scene as RON: every default filled in; parses back to an equal scene.
    pub fn to_ron(&self) -> String {
        to_ron_pretty(&self.data.to_file())
    }

    /// An error at the value of `path` (such as `budgets[1].ratio`), for problems found while resolving the scene.
    /// Where a default stands for the value, it points at the nearest enclosing value that is there.
    pub fn error_at(&self, path: &str, message: impl Into<String>, help: Option<String>) -> SceneError {
        self.document.error(vec![self.document.problem(path, message, help)])
    }

    /// Line and column, both from 1, of the place that [`Self::error_at`] points at.
    pub fn line_col(&self, path: &str) -> (usize, usize) {
        self.document.line_col(path)
    }

    /// The path of a bound of a budget: `budgets[1]`, and `budgets[1][0]` where it is one of a list.
    pub(crate) fn bound_path(&self, budget: usize, place: usize) -> String {
        let in_list = format!("budgets[{budget}][{place}]");
        match self.document.value(&in_list) {
            Some(_) => in_list,
            None => format!("budgets[{budget}]"),
        }
    }

    /// The file name that messages show.
    pub fn origin(&self) -> &str {
        self.document.origin()
    }

    /// The text as it was parsed.
    pub fn text(&self) -> &str {
        self.document.text()
    }
}

/// Replaces the value at a path by the text behind `=`, or adds the field where it is absent: `apply_set(text,
/// "seed=9", …)`, `"budgets[0].ratio=0.4"`, `"images.reward=500"`. Ranges and references are left to [`Scene::parse`].
///
/// # Errors
/// A malformed assignment, a path that no scene has, a value that is no RON or of another type than its field;
/// positions are those in `assignment`. A `text` that is not well-formed RON is an error with positions in `text`.
pub fn apply_set(text: &str, assignment: &str, agents: &AgentList) -> Result<String, SceneError> {
    let check = |text: &str| check_types(text, agents);
    secateur_scene::apply_set(text, assignment, Format { template: template(), check: &check })
}

/// As [`apply_set`], for an edit that has nothing to do with agents.
///
/// # Errors
/// As [`apply_set`].
pub(crate) fn edit(text: &str, assignment: &str) -> Result<String, SceneError> {
    let check = |text: &str| Document::new("scene", text).read::<SceneFile>().map(drop);
    secateur_scene::apply_set(text, assignment, Format { template: template(), check: &check })
}

/// Whether every field is there and of its type.
fn check_types(text: &str, agents: &AgentList) -> Result<(), Problem> {
    let document = Document::new("scene", text);
    let file: SceneFile = document.read()?;
    agents.agent(&document)?;
    (0..file.controls.len()).try_for_each(|place| agents.control(&document, place).map(drop))
}

impl Deref for Scene {
    type Target = SceneData;

    fn deref(&self) -> &SceneData {
        &self.data
    }
}

impl PartialEq for Scene {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

/// Checked before anything else: a later version may well have fields that look like mistakes here.
fn wrong_version(document: &Document) -> Option<Problem> {
    let version: u64 = document.value("version")?.parse().ok()?;
    (version != u64::from(SCENE_VERSION)).then(|| {
        let message = format!("`version`: scene format {version} is not supported, expected {SCENE_VERSION}");
        document.problem("version", message, Some(format!("this program reads `version: {SCENE_VERSION}`")))
    })
}

impl SceneData {
    fn to_file(&self) -> SceneFile {
        SceneFile {
            version: SCENE_VERSION,
            seed: self.seed,
            networks: self.networks.iter().map(|network| self.network_file(network)).collect(),
            datasets: self
                .datasets
                .iter()
                .map(|d| DatasetFile { name: d.name.clone(), source: d.source.clone(), labels: d.labels })
                .collect(),
            budgets: self.budgets.iter().map(budget_file).collect(),
            protocol: self.protocol,
            channel_multiple: self.channel_multiple,
            keep_ratio_min: Some(self.keep_ratio_min),
            selection: self.selection.clone(),
            repair: Some(self.repair),
            tune_before_score: self.tune_before_score,
            finalists: self.finalists,
            spend_leftover: Some(self.spend_leftover),
            refit_in_pairs: Some(self.refit_in_pairs),
            polish: self.polish,
            tune: self.tune,
            images: self.images,
            reward: Some(self.reward.clone()),
            device: self.device,
            precision: self.precision,
            agent: raw(&self.agent.to_ron()),
            actors_per_task: self.actors_per_task,
            walks_per_task: self.walks_per_task,
            ends_after: self.ends_after,
            scheduler: self.scheduler,
            executor: self.executor,
            queue_capacity: self.queue_capacity,
            controls: self.controls.iter().map(|control| raw(&control.to_ron())).collect(),
            history: self.history.clone(),
            plugins: self.plugins.iter().map(plugin_file).collect::<BTreeMap<_, _>>(),
        }
    }

    fn network_file(&self, network: &NetworkSpec) -> NetworkFile {
        NetworkFile {
            name: network.name.clone(),
            file: network.file.clone(),
            arch: network.arch.clone(),
            mean: network.normalisation.as_ref().map(|(mean, _)| mean.clone()),
            std: network.normalisation.as_ref().map(|(_, std)| std.clone()),
            size: network.size,
            datasets: Some(network.datasets.iter().map(|i| self.datasets[*i].name.clone()).collect()),
            keep: network.keep.iter().map(|keep| (keep.pattern.clone(), keep_file(keep.range))).collect(),
        }
    }
}

fn keep_file(KeepRange { min, max }: KeepRange) -> KeepFile {
    match min == max {
        true => KeepFile::Share(min),
        false => KeepFile::Range(KeepRangeFile { min: Some(min), max: Some(max) }),
    }
}

fn budget_file(budget: &BudgetSpec) -> BudgetFile {
    match budget.bounds.as_slice() {
        [bound] => bound_file(bound),
        bounds => BudgetFile::Budget(bounds.iter().map(bound_file).collect()),
    }
}

fn bound_file(bound: &BoundSpec) -> BudgetFile {
    let (ratio, max) = match bound.bound {
        BudgetBound::Ratio(ratio) => (Some(ratio), None),
        BudgetBound::Max(max) => (None, Some(max)),
    };
    match bound.kind {
        Cost::Macs => BudgetFile::Macs { ratio, max },
        Cost::Params => BudgetFile::Params { ratio, max },
        Cost::ActivationBytes => BudgetFile::ActivationBytes { ratio, max },
    }
}

fn plugin_file(plugin: &PluginConfig) -> (String, Box<RawValue>) {
    (plugin.name.clone(), raw(&plugin.ron))
}

/// A value of a checked scene, to be written as it is.
fn raw(ron: &str) -> Box<RawValue> {
    RawValue::from_ron(ron).expect("the text was read, or written, as RON when the scene was parsed").to_owned()
}
