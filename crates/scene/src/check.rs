//! The rules of a scene beyond its types. Every broken rule becomes a problem at the value that breaks it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::mem::discriminant;
use std::ops::RangeInclusive;

use ron::value::RawValue;

use crate::choices::{Control, DatasetSource, Device, Images, Precision, RepairMode, SchedulerKind};
use crate::error::{Problem, Source};
use crate::file::{BudgetFile, DatasetFile, NetworkFile, SceneFile};
use crate::locate::Node;
use crate::plugin::PluginConfig;
use crate::ron_error::clip;
use crate::scene::{Budget, BudgetBound, BudgetKind, DatasetSpec, NetworkSpec, SceneData, TaskSpec, nearest_span};
use crate::suggest::did_you_mean;
use crate::tasks::{TASKS_MAX, budget_name, count_tasks, expand_tasks};

/// Longest name; three of them and a budget still fit a file name.
const NAME_LEN_MAX: usize = 64;
/// Most images of one procedural data set: about 3 GB at 32 x 32 pixels.
const IMAGES_MAX: usize = 1_000_000;
const ACTORS_MAX: usize = 4096;
/// Most actors of all tasks together: each holds a walk and what is to be learned from it.
const ALL_ACTORS_MAX: usize = 1 << 16;
const QUEUE_CAPACITY_MAX: usize = 1_000_000;
/// More lag than any agent learns from.
const LAG_MAX: usize = 1000;
const CANDIDATES_MAX: usize = 1_000_000;
/// Most walks of one task.
const WALKS_MAX: usize = 1_000_000_000;

/// Checks a scene that was read from the text whose walk is `root`.
pub(crate) fn check(file: SceneFile, root: &Node, source: &Source) -> Result<SceneData, Vec<Problem>> {
    let mut checker = Checker { root, problems: Vec::new() };
    if !checker.lists_are_short(&file) {
        return Err(checker.problems);
    }
    let data = checker.scene(file, source);
    if checker.problems.is_empty() { Ok(data) } else { Err(checker.problems) }
}

struct Checker<'a> {
    root: &'a Node,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, path: &str, message: impl Display) {
        self.problem_with_help(path, message, None);
    }

    fn problem_with_help(&mut self, path: &str, message: impl Display, help: Option<String>) {
        self.problems.push(Problem::new(nearest_span(self.root, path), format!("`{path}` {message}"), help));
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

    fn scene(&mut self, file: SceneFile, source: &Source) -> SceneData {
        let paper = file.agent.is_paper();
        let datasets = self.datasets(file.datasets);
        let networks = self.networks(file.networks, &datasets);
        let budgets = self.budgets(&file.budgets);
        self.sizes(&file.images, file.walks_per_task);
        self.range("channel_multiple", file.channel_multiple, 1..=64);
        self.range("finalists", file.finalists, 1..=64);
        self.range("actors_per_task", file.actors_per_task, 1..=ACTORS_MAX);
        if let SchedulerKind::BoundedLag { max } = file.scheduler {
            self.range("scheduler.max", usize::try_from(max).unwrap_or(usize::MAX), 0..=LAG_MAX);
        }
        self.range("queue_capacity", file.queue_capacity, 1..=QUEUE_CAPACITY_MAX);
        let keep_ratio_min = file.keep_ratio_min.unwrap_or(if paper { 0.2 } else { 0.1 });
        self.ratio("keep_ratio_min", keep_ratio_min);
        self.controls(&file.controls);
        if file.device == Device::Gpu && file.precision == Precision::Bf16 {
            self.problem(
                "precision",
                "is Bf16, which is the processor's, while `device` is Gpu; leave one of them out",
            );
        }
        let tasks = self.tasks(&networks, &datasets, &budgets);
        let n_actors = tasks.len().saturating_mul(file.actors_per_task);
        if n_actors > ALL_ACTORS_MAX {
            let message =
                format!("for {} tasks makes {n_actors} actors, at most {ALL_ACTORS_MAX} are allowed", tasks.len());
            self.problem("actors_per_task", message);
        }
        SceneData {
            seed: file.seed,
            networks,
            datasets,
            budgets,
            tasks,
            protocol: file.protocol,
            channel_multiple: file.channel_multiple,
            keep_ratio_min,
            selection: file.selection,
            repair: file.repair.unwrap_or(if paper { RepairMode::Original } else { RepairMode::Sequential }),
            finalists: file.finalists,
            spend_leftover: file.spend_leftover.unwrap_or(!paper),
            // The walks' images are the first of the refit's.
            images: Images { walk: file.images.walk.min(file.images.refit), ..file.images },
            reward: file.reward,
            device: file.device,
            precision: file.precision,
            agent: file.agent,
            actors_per_task: file.actors_per_task,
            walks_per_task: file.walks_per_task,
            scheduler: file.scheduler,
            executor: file.executor,
            queue_capacity: file.queue_capacity,
            controls: file.controls,
            plugins: self.plugins(source),
        }
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
            NetworkSpec { name: file.name, file: file.file, arch: file.arch, normalisation, datasets }
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
            if let DatasetSource::Procedural { train, test, .. } = file.source {
                self.range(&format!("datasets[{i}].source.train"), train, 1..=IMAGES_MAX);
                self.range(&format!("datasets[{i}].source.test"), test, 1..=IMAGES_MAX);
            }
        }
        files.into_iter().map(|file| DatasetSpec { name: file.name, source: file.source }).collect()
    }

    fn budgets(&mut self, files: &[BudgetFile]) -> Vec<Budget> {
        if files.is_empty() {
            self.problem("budgets", "is empty, so the scene has zero tasks");
        }
        let mut first_of = BTreeMap::new();
        let mut budgets = Vec::new();
        for (i, file) in files.iter().enumerate() {
            let path = format!("budgets[{i}]");
            let Some(budget) = self.budget(&path, *file) else { continue };
            if let Some(first) = first_of.insert(budget_name(&budget), i) {
                self.problem(&path, format!("is the same bound as `budgets[{first}]`"));
            }
            budgets.push(budget);
        }
        budgets
    }

    fn budget(&mut self, path: &str, file: BudgetFile) -> Option<Budget> {
        let (kind, ratio, max) = match file {
            BudgetFile::Macs { ratio, max } => (BudgetKind::Macs, ratio, max),
            BudgetFile::Params { ratio, max } => (BudgetKind::Params, ratio, max),
            BudgetFile::ActivationBytes { ratio, max } => (BudgetKind::ActivationBytes, ratio, max),
        };
        let bound = match (ratio, max) {
            (Some(ratio), None) => {
                self.ratio(&format!("{path}.ratio"), ratio);
                BudgetBound::Ratio(ratio)
            }
            (None, Some(max)) => {
                self.at_least_one(&format!("{path}.max"), max);
                BudgetBound::Max(max)
            }
            (ratio, _) => {
                let got = if ratio.is_some() { "both" } else { "neither" };
                self.problem(path, format!("has {got}, expected exactly one of `ratio` and `max`"));
                return None;
            }
        };
        Some(Budget { kind, bound })
    }

    fn sizes(&mut self, images: &Images, walks_per_task: u64) {
        for (path, count) in [
            ("images.reward", images.reward),
            ("images.calibration", images.calibration),
            ("images.walk", images.walk),
            ("images.refit", images.refit),
        ] {
            self.at_least_one(path, count as u64);
        }
        self.range("walks_per_task", walks_per_task as usize, 1..=WALKS_MAX);
    }

    fn controls(&mut self, controls: &[Control]) {
        for (i, control) in controls.iter().enumerate() {
            if controls[..i].iter().any(|earlier| discriminant(earlier) == discriminant(control)) {
                self.problem(&format!("controls[{i}]"), "repeats a control, expected each kind at most once");
            }
            if let Control::Random { candidates } = control {
                self.range(&format!("controls[{i}].candidates"), *candidates, 1..=CANDIDATES_MAX);
            }
        }
    }

    /// Task names are checked only when the parts are sound, so that one mistake is told once.
    fn tasks(&mut self, networks: &[NetworkSpec], datasets: &[DatasetSpec], budgets: &[Budget]) -> Vec<TaskSpec> {
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

    fn plugins(&mut self, source: &Source) -> Vec<PluginConfig> {
        let Some(map) = self.root.entry("plugins") else { return Vec::new() };
        let mut plugins = BTreeMap::new();
        for entry in map.value.body.iter().flat_map(|body| &body.entries) {
            let Some(key) = &entry.key else { continue };
            let problem = |what: &str| Problem::new(key.span.clone(), format!("`plugins`: {what}"), None);
            if let Some(what) = name_fault(&key.name) {
                self.problems.push(problem(&format!("the name {what}")));
            }
            let (start, ron) = (entry.value.span.start, source.text[entry.value.span.clone()].to_owned());
            if RawValue::from_ron(&ron).is_err() {
                self.problems.push(problem("these settings cannot be read on their own"));
            }
            let config = PluginConfig::new(key.name.clone(), ron, source.clone(), start);
            if plugins.insert(key.name.clone(), config).is_some() {
                self.problems.push(problem(&format!("the name `{}` is there twice", clip(&key.name))));
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
    fn ratio(&mut self, path: &str, value: f64) {
        if !(value > 0.0 && value <= 1.0) {
            self.problem(path, format!("is {value}, expected a number in (0, 1]"));
        }
    }

    fn range(&mut self, path: &str, value: usize, allowed: RangeInclusive<usize>) {
        if !allowed.contains(&value) {
            self.problem(path, format!("is {value}, expected {}..={}", allowed.start(), allowed.end()));
        }
    }

    fn at_least_one(&mut self, path: &str, value: u64) {
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
