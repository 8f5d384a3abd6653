//! The rules of a scene beyond its types. Every broken rule becomes a problem at the value that breaks it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use secateur_kernels::Precision;
use secateur_rl::{ErrorWeights, Profile};
use secateur_scene::{Document, PluginConfig, Problem, clip, did_you_mean};
use secateur_sim::Repair;
use secateur_train::Scheduler;

use super::agents::{AgentList, AgentSpec, ControlSpec};
use super::choices::{Device, HistoryChoice, Images, RewardChoice};
use super::file::{DatasetFile, NetworkFile, SceneFile};
use super::parsed::{BudgetSpec, DatasetSpec, NetworkSpec, SIDES, SceneData, TaskSpec};
use super::recipes::{Polish, Tune, TuneBeforeScore};
use super::tasks::{TASKS_MAX, count_tasks, expand_tasks};

/// Longest name; three of them and a budget still fit a file name.
const NAME_LEN_MAX: usize = 64;
const ACTORS_MAX: usize = 4096;
/// Most actors of all tasks together: each holds a walk and what is to be learned from it.
const ALL_ACTORS_MAX: usize = 1 << 16;
const QUEUE_CAPACITY_MAX: usize = 1_000_000;
/// More lag than any agent learns from.
const LAG_MAX: usize = 1000;
/// Earlier tasks that a task may learn from.
const SOURCES: RangeInclusive<usize> = 1..=16;
/// Most walks of one task.
const WALKS_MAX: usize = 1_000_000_000;

/// Checks a scene that was read from `document`.
pub(super) fn check(file: SceneFile, document: &Document, agents: &AgentList) -> Result<SceneData, Vec<Problem>> {
    let mut checker = Checker { document, agents, problems: Vec::new() };
    if !checker.lists_are_short(&file) {
        return Err(checker.problems);
    }
    match checker.scene(file) {
        Some(data) if checker.problems.is_empty() => Ok(data),
        _ => Err(checker.problems),
    }
}

pub(super) struct Checker<'a> {
    pub(super) document: &'a Document,
    agents: &'a AgentList,
    pub(super) problems: Vec<Problem>,
}

impl Checker<'_> {
    pub(super) fn problem(&mut self, path: &str, message: impl Display) {
        self.problem_with_help(path, message, None);
    }

    fn problem_with_help(&mut self, path: &str, message: impl Display, help: Option<String>) {
        self.problems.push(self.document.problem(path, format!("`{path}` {message}"), help));
    }

    /// Checked first, because comparing names of longer lists would take long.
    fn lists_are_short(&mut self, file: &SceneFile) -> bool {
        let references = |(i, network): (usize, &NetworkFile)| {
            (format!("networks[{i}].datasets"), network.datasets.as_ref().map_or(0, Vec::len))
        };
        let lists = [
            ("networks".to_owned(), file.networks.len()),
            ("datasets".to_owned(), file.datasets.len()),
            ("budgets".to_owned(), file.budgets.len()),
            ("controls".to_owned(), file.controls.len()),
        ];
        for (path, len) in lists.into_iter().chain(file.networks.iter().enumerate().map(references)) {
            if len > TASKS_MAX {
                self.problem(&path, format!("has {len} entries, at most {TASKS_MAX} are allowed"));
            }
        }
        self.problems.is_empty()
    }

    /// None if the agent cannot be read: what its profile changes is then not known.
    fn scene(&mut self, file: SceneFile) -> Option<SceneData> {
        let agent = self.agent().map(|agent| self.with_history(agent, file.history.as_ref()));
        let paper = agent.as_ref().is_some_and(|agent| agent.settings.profile() == Profile::Paper);
        self.numbers(&file);
        if let Some(reward) = &file.reward {
            self.weights(reward);
        }
        let datasets = self.datasets(file.datasets);
        let networks = self.networks(file.networks, &datasets);
        let budgets = self.budgets(&file.budgets);
        let keep_ratio_min = file.keep_ratio_min.unwrap_or(if paper { 0.2 } else { 0.1 });
        self.ratio("keep_ratio_min", keep_ratio_min);
        file.tune_before_score.iter().for_each(|tune| self.tune_before_score(tune, &file.images));
        file.polish.iter().for_each(|polish| self.polish(polish));
        file.tune.iter().for_each(|tune| self.tune(tune));
        let controls = self.controls(file.controls.len());
        let tasks = self.tasks(&networks, &datasets, &budgets);
        self.actors(tasks.len(), file.actors_per_task);
        Some(SceneData {
            seed: file.seed,
            networks,
            datasets,
            budgets,
            tasks,
            protocol: file.protocol,
            channel_multiple: file.channel_multiple,
            keep_ratio_min,
            selection: file.selection,
            repair: file.repair.unwrap_or(if paper { Repair::Original } else { Repair::Sequential }),
            tune_before_score: file.tune_before_score,
            finalists: file.finalists,
            spend_leftover: file.spend_leftover.unwrap_or(!paper),
            refit_in_pairs: file.refit_in_pairs.unwrap_or(!paper),
            polish: file.polish,
            tune: file.tune,
            // The walks' images are the first of the refit's.
            images: Images { walk: file.images.walk.min(file.images.refit), ..file.images },
            reward: file.reward.unwrap_or(if paper { RewardChoice::Accuracy } else { RewardChoice::Kl }),
            device: file.device,
            precision: file.precision,
            agent: agent?,
            actors_per_task: file.actors_per_task,
            walks_per_task: file.walks_per_task,
            ends_after: file.ends_after,
            scheduler: file.scheduler,
            executor: file.executor,
            queue_capacity: file.queue_capacity,
            controls,
            history: file.history,
            plugins: self.plugins(),
        })
    }

    /// The agent with what the scene's history makes of it.
    fn with_history(&mut self, mut agent: AgentSpec, history: Option<&HistoryChoice>) -> AgentSpec {
        let Some(history) = history else { return agent };
        self.range("history.sources", history.sources, SOURCES);
        if history.augmented && !history.transfer {
            self.problem("history.augmented", "is true, which says how much is transferred, while `transfer` is false");
        }
        let name = agent.entry.name;
        if history.assistant {
            match agent.settings.assisted() {
                Some(assisted) => agent.settings = assisted,
                None => {
                    self.problem("history.assistant", format!("is true, but no assistant proposes walks to {name}"))
                }
            }
        }
        if history.learns() && !agent.settings.learns_from_history() {
            let switch = if history.transfer { "history.transfer" } else { "history.assistant" };
            self.problem(switch, format!("is true, but {name} does not learn from earlier runs"));
        } else if history.learns() && agent.settings.plan_weights() != Some(ErrorWeights::Probed) {
            let switch = if history.transfer { "history.transfer" } else { "history.assistant" };
            let message =
                format!("is true, but {name} with these settings does not ask what single groups do (probed errors)");
            self.problem(switch, message);
        }
        agent
    }

    fn networks(&mut self, files: Vec<NetworkFile>, datasets: &[DatasetSpec]) -> Vec<NetworkSpec> {
        self.names("networks", files.iter().map(|file| file.name.as_str()));
        let specs = files.into_iter().enumerate().map(|(i, file)| {
            let path = format!("networks[{i}]");
            if file.file.is_empty() || file.file.contains('\0') {
                self.problem(&format!("{path}.file"), "expected a file name, got an empty one or one with a NUL");
            }
            let normalisation = self.normalisation(&path, &file);
            let datasets = match &file.datasets {
                None => (0..datasets.len()).collect(),
                Some(names) => self.references(&format!("{path}.datasets"), names, datasets),
            };
            if file.size.is_some_and(|size| size.iter().any(|side| !SIDES.contains(side))) {
                let message =
                    format!("is {:?}, expected rows and columns from {} to {}", file.size, SIDES.start(), SIDES.end());
                self.problem(&format!("{path}.size"), message);
            }
            let keep = self.keep(i, &file.keep);
            let NetworkFile { name, file, arch, size, .. } = file;
            NetworkSpec { name, file, arch, normalisation, size, datasets, keep }
        });
        specs.collect()
    }

    /// Mean and standard deviation: both or neither, of one length, finite, the deviation positive.
    fn normalisation(&mut self, path: &str, file: &NetworkFile) -> Option<(Vec<f32>, Vec<f32>)> {
        let (mean, std) = match (&file.mean, &file.std) {
            (None, None) => return None,
            (Some(mean), Some(std)) => (mean, std),
            (Some(_), None) => {
                self.problem(&format!("{path}.mean"), "is given without `std`, expected both or neither");
                return None;
            }
            (None, Some(_)) => {
                self.problem(&format!("{path}.std"), "is given without `mean`, expected both or neither");
                return None;
            }
        };
        if mean.is_empty() {
            self.problem(&format!("{path}.mean"), "is empty, expected one number per input channel");
        }
        if mean.len() != std.len() {
            let message = format!("has {} numbers, expected {} as in `mean`", std.len(), mean.len());
            self.problem(&format!("{path}.std"), message);
        }
        for (i, value) in mean.iter().enumerate().filter(|(_, value)| !value.is_finite()) {
            self.problem(&format!("{path}.mean[{i}]"), format!("is {value}, expected a finite number"));
        }
        for (i, value) in std.iter().enumerate().filter(|(_, value)| !(value.is_finite() && **value > 0.0)) {
            self.problem(&format!("{path}.std[{i}]"), format!("is {value}, expected a finite number > 0"));
        }
        Some((mean.clone(), std.clone()))
    }

    /// Indices of the data sets that a network names.
    fn references(&mut self, path: &str, names: &[String], datasets: &[DatasetSpec]) -> Vec<usize> {
        if names.is_empty() {
            self.problem(path, "is empty, so the network has zero tasks; leave it out to mean all data sets");
        }
        let mut found = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let path = format!("{path}[{i}]");
            match datasets.iter().position(|dataset| dataset.name == *name) {
                Some(index) if found.contains(&index) => self.problem(&path, format!("names `{}` again", clip(name))),
                Some(index) => found.push(index),
                None => {
                    let help = did_you_mean(name, datasets.iter().map(|dataset| dataset.name.as_str()));
                    self.problem_with_help(&path, format!("names the unknown data set `{}`", clip(name)), help);
                }
            }
        }
        found
    }

    fn datasets(&mut self, files: Vec<DatasetFile>) -> Vec<DatasetSpec> {
        self.names("datasets", files.iter().map(|file| file.name.as_str()));
        for (i, file) in files.iter().enumerate() {
            for (path, problem) in file.source.check() {
                self.problem(&format!("datasets[{i}].source.{path}"), problem);
            }
        }
        let spec = |file: DatasetFile| DatasetSpec { name: file.name, source: file.source, labels: file.labels };
        files.into_iter().map(spec).collect()
    }

    /// Numbers that are checked one by one.
    fn numbers(&mut self, file: &SceneFile) {
        self.sizes(&file.images, file.walks_per_task);
        self.range("channel_multiple", file.channel_multiple, 1..=64);
        self.range("finalists", file.finalists, 1..=64);
        self.range("actors_per_task", file.actors_per_task, 1..=ACTORS_MAX);
        if let Scheduler::BoundedLag { max } = file.scheduler {
            self.range("scheduler.max", usize::try_from(max).unwrap_or(usize::MAX), 0..=LAG_MAX);
        }
        self.range("queue_capacity", file.queue_capacity, 1..=QUEUE_CAPACITY_MAX);
        if file.device == Device::Gpu && file.precision == Precision::Bf16 {
            let message = "is Bf16, which is the processor's, while `device` is Gpu; leave one of them out";
            self.problem("precision", message);
        }
    }

    /// Weights of outputs; whether there are such outputs is seen once the networks are read.
    fn weights(&mut self, reward: &RewardChoice) {
        let Some(weights) = reward.weights() else { return };
        for (output, weight) in weights.iter().filter(|(_, weight)| !(weight.is_finite() && **weight >= 0.0)) {
            let message = format!("gives output `{}` the weight {weight}, expected a finite number >= 0", clip(output));
            self.problem("reward.weights", message);
        }
    }

    fn actors(&mut self, n_tasks: usize, actors_per_task: usize) {
        let n_actors = n_tasks.saturating_mul(actors_per_task);
        if n_actors > ALL_ACTORS_MAX {
            let message = format!("for {n_tasks} tasks makes {n_actors} actors, at most {ALL_ACTORS_MAX} are allowed");
            self.problem("actors_per_task", message);
        }
    }

    fn sizes(&mut self, images: &Images, walks_per_task: u64) {
        for (path, count) in [
            ("images.reward", images.reward),
            ("images.calibration", images.calibration),
            ("images.walk", images.walk),
            ("images.refit", images.refit),
            ("images.probe", images.probe),
        ] {
            self.at_least_one(path, count as u64);
        }
        self.range("walks_per_task", walks_per_task as usize, 1..=WALKS_MAX);
    }

    fn tune_before_score(&mut self, tune: &TuneBeforeScore, images: &Images) {
        self.at_least_one("tune_before_score.batch", tune.batch as u64);
        self.above_zero("tune_before_score.rate", tune.rate);
        if tune.batch > images.refit {
            let message = format!("is {}, more than the {} images of `images.refit`", tune.batch, images.refit);
            let help = "take a smaller batch, or more refit images".to_owned();
            self.problem_with_help("tune_before_score.batch", message, Some(help));
        }
    }

    fn polish(&mut self, polish: &Polish) {
        for (path, count) in [
            ("polish.epochs", polish.epochs),
            ("polish.images", polish.images.unwrap_or(1)),
            ("polish.batch", polish.batch),
        ] {
            self.at_least_one(path, count as u64);
        }
        self.above_zero("polish.rate", polish.rate);
    }

    fn tune(&mut self, tune: &Tune) {
        for (path, count) in
            [("tune.epochs", tune.epochs), ("tune.batch", tune.batch), ("tune.held_out", tune.held_out)]
        {
            self.at_least_one(path, count as u64);
        }
        self.above_zero("tune.rate", tune.rate);
        self.above_zero("tune.temperature", tune.temperature);
        if !(0.0..=1.0).contains(&tune.distillation) {
            self.problem("tune.distillation", format!("is {}, expected a share from 0 to 1", tune.distillation));
        }
    }

    fn above_zero(&mut self, path: &str, value: f32) {
        if !(value > 0.0 && value.is_finite()) {
            self.problem(path, format!("is {value}, expected a finite number > 0"));
        }
    }

    fn agent(&mut self) -> Option<AgentSpec> {
        match self.agents.agent(self.document) {
            Ok((agent, section)) => {
                self.problems.extend(agent.check(&section));
                Some(agent)
            }
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn controls(&mut self, n_controls: usize) -> Vec<ControlSpec> {
        let mut controls: Vec<ControlSpec> = Vec::new();
        for place in 0..n_controls {
            let (control, section) = match self.agents.control(self.document, place) {
                Ok(read) => read,
                Err(problem) => {
                    self.problems.push(problem);
                    continue;
                }
            };
            if controls.iter().any(|earlier| earlier.agent.entry == control.agent.entry) {
                self.problem(section.path(), "repeats a control, expected each kind at most once");
            }
            self.problems.extend(control.check(&section));
            controls.push(control);
        }
        controls
    }

    /// Task names are checked only when the parts are sound, so that one mistake is told once.
    fn tasks(&mut self, networks: &[NetworkSpec], datasets: &[DatasetSpec], budgets: &[BudgetSpec]) -> Vec<TaskSpec> {
        if !self.problems.is_empty() {
            return Vec::new();
        }
        let n_tasks = count_tasks(networks, budgets);
        if n_tasks > TASKS_MAX {
            self.problem(
                "budgets",
                format!("and the other lists make {n_tasks} tasks, at most {TASKS_MAX} are allowed"),
            );
            return Vec::new();
        }
        let tasks = expand_tasks(networks, datasets, budgets);
        let mut names = BTreeMap::new();
        for task in &tasks {
            if let Some(first) = names.insert(task.name.as_str(), task.network) {
                let message = format!("makes a second task named `{}`, as `networks[{first}]` does", task.name);
                self.problem(&format!("networks[{}].name", task.network), message);
            }
        }
        tasks
    }

    fn plugins(&mut self) -> Vec<PluginConfig> {
        let mut plugins = BTreeMap::new();
        for entry in self.document.map("plugins") {
            if let Some(what) = name_fault(&entry.name) {
                self.problems.push(entry.problem(format!("`plugins`: the name {what}")));
            }
            if !entry.is_readable() {
                self.problems.push(entry.problem("`plugins`: these settings cannot be read on their own"));
            }
            if plugins.insert(entry.name.clone(), entry.config.clone()).is_some() {
                let twice = format!("`plugins`: the name `{}` is there twice", clip(&entry.name));
                self.problems.push(entry.problem(twice));
            }
        }
        plugins.into_values().collect()
    }

    /// The list is not empty, its names are file-safe and unique.
    fn names<'n>(&mut self, list: &str, names: impl Iterator<Item = &'n str>) {
        let mut first_of = BTreeMap::new();
        for (i, name) in names.enumerate() {
            let path = format!("{list}[{i}].name");
            if let Some(what) = name_fault(name) {
                self.problem(&path, what);
            }
            if let Some(first) = first_of.insert(name.to_owned(), i) {
                self.problem(&path, format!("is `{}` again, as in `{list}[{first}]`; names must differ", clip(name)));
            }
        }
        if first_of.is_empty() {
            self.problem(list, "is empty, so the scene has zero tasks");
        }
    }

    /// NaN is no ratio either.
    pub(super) fn ratio(&mut self, path: &str, value: f64) {
        if !(value > 0.0 && value <= 1.0) {
            self.problem(path, format!("is {value}, expected a number in (0, 1]"));
        }
    }

    fn range(&mut self, path: &str, value: usize, allowed: RangeInclusive<usize>) {
        if !allowed.contains(&value) {
            self.problem(path, format!("is {value}, expected {}..={}", allowed.start(), allowed.end()));
        }
    }

    pub(super) fn at_least_one(&mut self, path: &str, value: u64) {
        if value == 0 {
            self.problem(path, "is 0, expected at least 1");
        }
    }
}

/// What keeps `name` from being part of a file name.
fn name_fault(name: &str) -> Option<String> {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || name.len() > NAME_LEN_MAX {
        return Some(format!("has {} characters, expected 1..={NAME_LEN_MAX}", name.chars().count()));
    }
    if name.starts_with('.') {
        return Some(format!("is `{name}`, expected a name that does not start with a dot"));
    }
    let bad = name.chars().find(|c| !safe(*c))?;
    Some(format!("is `{name}`, which contains {bad:?}; expected only letters, digits, `_`, `.` and `-`"))
}
