//! `plan`: widths, cost and expected accuracy for every budget, without a search.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use secateur_run::scene::{DatasetFile, DatasetSource, LabelUse, NetworkFile, SceneError, apply_set, template};
use secateur_run::{BoundSummary, PlanReport, PlannedTask, Roots, RunSpec, plan, run};
use secateur_scene::to_ron;

use crate::arguments::PlanArgs;
use crate::closing_table::closing_table;
use crate::extensions::Extensions;
use crate::interrupt::Interrupt;
use crate::progress::RunProgress;
use crate::table::Table;
use crate::{Failure, report_command, screen};

pub(crate) fn plan_scene(arguments: &PlanArgs, extensions: &Extensions) -> Result<(), Failure> {
    let spec = extensions.spec(spec(arguments, extensions)?);
    let mut progress = RunProgress::new(arguments.quiet, Interrupt::install()?);
    let report = plan(&spec, arguments.weights, &extensions.plugins, &mut progress)?;
    match arguments.json {
        true => screen::result(serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?)?,
        false => screen::result(to_text(&report))?,
    }
    let Some(out) = &arguments.write else { return Ok(()) };
    let agent = format!("agent=Knapsack(weights: {:?})", arguments.weights);
    let finalists = ["controls=[]", "finalists=1", "walks_per_task=1", &agent].map(str::to_owned);
    let polish = arguments.polish.then(|| "polish=()".to_owned());
    let sets = spec.sets.iter().cloned().chain(finalists).chain(polish).collect();
    let written = run(&RunSpec { sets, out: Some(out.clone()), ..spec }, &extensions.plugins, &mut progress)?;
    match arguments.json {
        true => screen::note(format_args!("the networks are in '{}'", written.directory.display())),
        false => screen::result(closing_table(&written))?,
    }
    report_command::write_beside(&written.directory, arguments.quiet);
    Ok(())
}

/// What is to be planned: a scene, or one made of the arguments.
fn spec(arguments: &PlanArgs, extensions: &Extensions) -> Result<RunSpec, Failure> {
    let path = &arguments.network.network;
    let is_scene = path.extension().is_some_and(|extension| extension == "ron");
    let budgets: Vec<String> = arguments.budget.iter().map(|budget| to_ron(&budget.0)).collect();
    let mut sets = arguments.set.clone();
    let (scene, text) = match is_scene {
        true => {
            check_no_network_choices(arguments).map_err(Failure::BadArguments)?;
            if !budgets.is_empty() {
                sets.insert(0, format!("budgets=[{}]", budgets.join(", ")));
            }
            (path.clone(), None)
        }
        false => (PathBuf::from("scene of the arguments"), Some(scene_of(arguments, &budgets, extensions)?)),
    };
    Ok(RunSpec {
        sets,
        text,
        data_root: arguments.data_root.clone(),
        model_root: arguments.network.model_root.clone(),
        threads: arguments.threads.threads,
        memory: arguments.memory.memory,
        ..RunSpec::new(scene)
    })
}

/// A scene says all of this itself.
fn check_no_network_choices(arguments: &PlanArgs) -> anyhow::Result<()> {
    let network = &arguments.network;
    let given = [
        ("--dataset", arguments.dataset.is_some()),
        ("--protocol", arguments.protocol.is_some()),
        ("--arch", network.arch.is_some()),
        ("--mean", network.mean.is_some()),
        ("--size", network.size.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => anyhow::bail!("{option} is for a network; change the scene with --set instead"),
        None => Ok(()),
    }
}

/// The scene of one network on one data set, every other setting at its default.
fn scene_of(arguments: &PlanArgs, budgets: &[String], extensions: &Extensions) -> Result<String, Failure> {
    let bad = |what: &str| Failure::BadArguments(anyhow::anyhow!("{what}"));
    let source = arguments.dataset.clone().ok_or_else(|| bad("--dataset is missing: the images to plan on"))?;
    if budgets.is_empty() {
        return Err(bad("--budget is missing: what the network may cost, such as macs=0.5; may be repeated"));
    }
    let network = &arguments.network;
    let roots = Roots::new(None, network.model_root.clone(), Default::default());
    let absolute = || {
        let found = roots.find_network(&network.network)?;
        let path = std::path::absolute(&found).with_context(|| format!("'{}'", found.display()))?;
        let text = path.to_str().with_context(|| format!("'{}' is no Unicode, which a scene needs", path.display()))?;
        Ok(text.to_owned())
    };
    let file: String = absolute().map_err(Failure::BadArguments)?;
    let name = safe_name(Path::new(&file));
    let (mean, std, size) = (network.mean.clone(), network.std.clone(), network.size);
    let keep = Default::default();
    let network = NetworkFile { name, file, arch: network.arch.clone(), mean, std, size, datasets: None, keep };
    let dataset =
        DatasetFile { name: safe_name(Path::new(&source.word)), source: source.source, labels: LabelUse::default() };
    let sets = [
        format!("networks=[{}]", to_ron(&network)),
        format!("datasets=[{}]", to_ron(&dataset)),
        format!("budgets=[{}]", budgets.join(", ")),
        format!("protocol={:?}", arguments.protocol.unwrap_or_default()),
    ];
    let set = |text: String, set: &String| apply_set(&text, set, &extensions.agents);
    let made: Result<String, SceneError> = sets.iter().try_fold(template().to_owned(), set);
    Ok(made?)
}

/// The file's name without what names in scenes cannot have.
fn safe_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let safe = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' };
    let name: String = stem.chars().map(safe).collect();
    if name.is_empty() { "network".to_owned() } else { name }
}

/// A data set of the command line, and the word that names it.
#[derive(Clone, Debug)]
pub(crate) struct DatasetArg {
    word: String,
    source: DatasetSource,
}

pub(crate) fn dataset(text: &str) -> Result<DatasetArg, String> {
    let source = text.parse().map_err(|error: secateur_formats::FormatError| error.to_string())?;
    Ok(DatasetArg { word: text.split(':').next().unwrap_or_default().to_owned(), source })
}

fn to_text(report: &PlanReport) -> String {
    let mut lines = Vec::new();
    let mut table =
        Table::new(&["task", ">at most", ">cost", ">of original", ">layer error", ">expected top-1", ">before"]);
    for task in &report.tasks {
        table.row(cells(task));
    }
    lines.push(table.to_string());
    for task in report.tasks.iter().filter(|task| !task.unchanged) {
        let mut line = format!("{}:", task.name);
        for group in &task.groups {
            let _ = write!(line, " {}={}/{}", group.name, group.kept, group.channels);
        }
        lines.push(line);
    }
    lines.push(format!(
        "\nexpected top-1: of {} training images that nothing was fitted to, after a quick refit; `--write DIR` refits \
         thoroughly and certifies",
        report.reward_images
    ));
    let proven = report.tasks.iter().all(|task| task.gap.is_some_and(|gap| gap < 1e-6));
    let which =
        if proven { "the least that these budgets allow" } else { "close to the least that these budgets allow" };
    lines.push(format!(
        "the layer error is {which}; accuracy is not that error, and a search (`secateur run`) may find better widths"
    ));
    lines.join("\n")
}

fn cells(task: &PlannedTask) -> [String; 7] {
    let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", 100.0 * share));
    let expected = match task.standard_error {
        Some(error) => format!("{} ± {:.2}", percent(task.expected_accuracy), 100.0 * error),
        None => percent(task.expected_accuracy),
    };
    // What one bound says stands in a cell of its own, what several say side by side.
    let told = |one: String, of: fn(&BoundSummary) -> String| match task.bounds.as_slice() {
        [] => one,
        bounds => bounds.iter().map(of).collect::<Vec<_>>().join(", "),
    };
    let original = |bound: &BoundSummary| bound.max as f64 / bound.ratio.max(f64::MIN_POSITIVE);
    let share = task.cost as f64 / task.original.max(1) as f64;
    [
        task.name.clone(),
        told(format!("{} {}", task.budget.max, task.budget.kind), |bound| format!("{} {}", bound.max, bound.kind)),
        told(task.cost.to_string(), |bound| bound.value.to_string()),
        match task.bounds.is_empty() {
            true => format!("{share:.4}"),
            false => {
                let shares = task.bounds.iter().map(|bound| format!("{:.4}", bound.value as f64 / original(bound)));
                shares.collect::<Vec<_>>().join(", ")
            }
        },
        format!("{:.4}", task.predicted_error),
        expected,
        percent(task.original_accuracy),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_become_names_of_scenes() {
        assert_eq!(safe_name(Path::new("/a/my net.v2.onnx")), "my_net_v2");
        assert_eq!(safe_name(Path::new("/")), "network");
    }
}
