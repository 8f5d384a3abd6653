//! What to take away of a run: each task's network, what it costs, what it is worth, and whether that is certified.

use serde_json::Value;

use crate::block::{Block, CertificateVerdict, CostBar, DataTable, LabelledNumber, PageSection, TaskCard};
use crate::metrics::ScoredWalk;
use crate::numbers::{accuracy, bytes, counted, points, seconds, short, whole};
use crate::run_files::{RunFiles, TaskFiles, items};

/// Costs as `summary.json` names them, and as people do.
const COSTS: [(&str, &str); 3] = [("macs", "MACs"), ("params", "parameters"), ("activation_bytes", "activation bytes")];

/// A cost's name for people.
pub(crate) fn cost_name(kind: &str) -> &str {
    COSTS.iter().find(|(name, _)| *name == kind).map_or(kind, |(_, spoken)| spoken)
}

pub(crate) fn take_away(run: &RunFiles, prefix: &str) -> PageSection {
    let mut section = PageSection::new(prefix, "take-away", "What to take away");
    let cards: Vec<TaskCard> = run.task_summaries().iter().map(|task| card(run, task)).collect();
    if cards.is_empty() {
        section.text(match run.summary.is_null() {
            true => "There are no final networks yet; these are the best candidates of the search so far.",
            false => "The run ended without a network.",
        });
        section.text(run.progress.sentence());
        section.blocks.extend(best_so_far(run).map(Block::Table));
        return section;
    }
    let certified = cards.iter().filter(|card| card.verdict.class == "good").count();
    let mut facts = vec![LabelledNumber {
        value: format!("{certified} of {}", cards.len()),
        label: "networks are certified to meet their budgets".to_owned(),
    }];
    if let Some(scored) = run.summary["candidates_scored"].as_u64() {
        let walks = run.summary["walks"].as_u64().unwrap_or(0);
        facts.push(LabelledNumber {
            value: whole(scored),
            label: format!("candidates scored in {} walks", whole(walks)),
        });
    }
    if let Some(wall_s) = run.summary["wall_s"].as_f64() {
        facts.push(LabelledNumber { value: seconds(wall_s), label: "for the whole run".to_owned() });
    }
    let losses = run.task_summaries().iter().filter_map(change_of_accuracy);
    if let Some(least) = losses.map(|loss| -loss).reduce(f64::max) {
        let label = "points of test accuracy at most lost to the dense network".to_owned();
        facts.push(LabelledNumber { value: short((least.max(0.0) * 1e4).round() / 1e2), label });
    }
    section.blocks.push(Block::Facts(facts));
    if run.summary["interrupted"].as_bool() == Some(true) {
        section.text("The run was interrupted: these networks are the best of what was searched until then.");
    }
    section.blocks.push(Block::Cards(cards));
    section.blocks.push(Block::Table(table(run)));
    section.text(
        "Accuracies are top-1 on the test images, which nothing was chosen by; without labels, the output error against the dense \
         network stands in their place. Costs are exact, of one image: multiply-accumulates \
         (MACs), parameters, and the peak of live f32 activations. This run measured no speed: `secateur bench eval` does, on your machine.",
    );
    section
}

/// Stages of a task in order, with the test accuracy behind each that there is.
pub(crate) fn accuracies(result: &Value) -> impl Iterator<Item = (&'static str, f64)> + '_ {
    [
        ("dense", "test_accuracy_original"),
        ("pruned", "test_accuracy_before_tuning"),
        ("polished", "test_accuracy_after_polish"),
        ("tuned", "test_accuracy_after_tuning"),
    ]
    .into_iter()
    .filter_map(|(stage, key)| Some((stage, result[key].as_f64()?)))
}

fn change_of_accuracy(task: &Value) -> Option<f64> {
    let dense = task["test_accuracy_original"].as_f64()?;
    let (stage, last) = accuracies(task).last()?;
    (stage != "dense").then_some(last - dense)
}

/// What the budget allows.
pub(crate) fn budget(task: &Value) -> String {
    let bound = |bound: &Value| {
        let kind = bound["kind"].as_str()?;
        let most = whole(bound["max"].as_u64()?);
        let share = bound["ratio"].as_f64().map_or(String::new(), |ratio| format!(" ({} %)", short(round(ratio))));
        Some(format!("at most {most} {}{share}", cost_name(kind)))
    };
    let several: Vec<String> = items(&task["bounds"]).iter().filter_map(bound).collect();
    match several.is_empty() {
        false => several.join(" and "),
        true => bound(&task["budget"]).unwrap_or_else(|| "unknown budget".to_owned()),
    }
}

fn round(share: f64) -> f64 {
    (share * 1e4).round() / 1e2
}

fn card(run: &RunFiles, task: &Value) -> TaskCard {
    let name = task["name"].as_str().unwrap_or("unnamed task").to_owned();
    let mut steps: Vec<LabelledNumber> = accuracies(task)
        .map(|(stage, share)| LabelledNumber { value: accuracy(share), label: stage.to_owned() })
        .collect();
    if let Some(error) = task["test_output_error"].as_f64() {
        steps.push(LabelledNumber { value: short(error), label: "output error".to_owned() });
    }
    let costs = COSTS.iter().filter_map(|(kind, spoken)| {
        let (now, before) = (task[kind].as_u64()?, task["original"][kind].as_u64()?);
        let share = round(now as f64 / before.max(1) as f64);
        let text = format!("{} of {} ({} %)", whole(now), whole(before), short(share));
        Some(CostBar { kind: (*spoken).to_owned(), text, percent: short(share.min(100.0)) })
    });
    let files = run.tasks.get(&name);
    TaskCard {
        budget: budget(task),
        steps,
        change: change_of_accuracy(task).map(|change| format!("{} points against dense", points(change))),
        costs: costs.collect(),
        verdict: verdict(files),
        files: files.map_or_else(Vec::new, |files| {
            files.networks.iter().map(|(file, size)| format!("{file}: {}", bytes(*size))).collect()
        }),
        name,
    }
}

/// What the certificate of a task says, and whether it is of the file that lies there.
fn verdict(files: Option<&TaskFiles>) -> CertificateVerdict {
    let certificate = files.map_or(&Value::Null, |files| &files.certificate);
    let bounds = items(&certificate["budgets"]).iter().chain(items(&certificate["onnx"]["budgets"]));
    let held: Vec<bool> = bounds.map(|bound| bound["ok"].as_bool().unwrap_or(false)).collect();
    let open = |text: &str| CertificateVerdict { class: "open", text: text.to_owned() };
    match files.and_then(|files| files.is_certified_file) {
        _ if held.is_empty() => open("no certificate"),
        _ if held.contains(&false) => CertificateVerdict { class: "bad", text: "over budget".to_owned() },
        Some(true) => CertificateVerdict { class: "good", text: "certified: within budget".to_owned() },
        Some(false) => CertificateVerdict { class: "bad", text: "changed since it was certified".to_owned() },
        None => open("certified, but the file is missing"),
    }
}

fn table(run: &RunFiles) -> DataTable {
    let heads =
        ["task", ">budget", ">MACs", ">parameters", ">dense", ">pruned", ">polished", ">tuned", ">file", "certificate"];
    let mut table = DataTable::new("Every task's network", &heads);
    for task in run.task_summaries() {
        let name = task["name"].as_str().unwrap_or("unnamed task");
        let cost = |key: &str| task[key].as_u64().map_or_else(dash, whole);
        let share = |key: &str| task[key].as_f64().map_or_else(dash, accuracy);
        let bound = &task["budget"];
        let allowed =
            bound["max"].as_u64().map(|max| format!("{} {}", whole(max), bound["kind"].as_str().unwrap_or("")));
        let files = run.tasks.get(name);
        let size = files.and_then(|files| files.networks.first()).map_or_else(dash, |(_, size)| bytes(*size));
        table.row([
            name.to_owned(),
            allowed.unwrap_or_else(dash),
            cost("macs"),
            cost("params"),
            share("test_accuracy_original"),
            share("test_accuracy_before_tuning"),
            share("test_accuracy_after_polish"),
            share("test_accuracy_after_tuning"),
            size,
            match verdict(files) {
                CertificateVerdict { class: "good", .. } => "certified".to_owned(),
                other => other.text,
            },
        ]);
    }
    table.without_columns_of(DASH)
}

/// What stands where nothing is known.
const DASH: &str = "–";

/// What stands where nothing is known.
pub(crate) fn dash() -> String {
    DASH.to_owned()
}

/// The best candidate of every task and agent, for a run without results.
fn best_so_far(run: &RunFiles) -> Option<DataTable> {
    let walks = &run.metrics.as_ref()?.walks;
    let mut best: Vec<(&ScoredWalk, usize)> = Vec::new();
    for walk in walks {
        match best.iter_mut().find(|(known, _)| known.task == walk.task && known.agent == walk.agent) {
            Some((known, n)) => {
                *n += 1;
                if walk.reward > known.reward {
                    *known = walk;
                }
            }
            None => best.push((walk, 1)),
        }
    }
    best.sort_by(|(a, _), (b, _)| (&a.task, &a.agent).cmp(&(&b.task, &b.agent)));
    let caption = format!("Best candidates of {} so far, before the final refit", counted(walks.len(), "walk"));
    let heads = ["task", "agent", ">walks", ">best reward", ">reward images", ">MACs"];
    let mut table = DataTable::new(caption, &heads);
    for (walk, n) in best {
        table.row([
            walk.task.clone(),
            walk.agent.clone(),
            whole(n as u64),
            format!("{:.4}", walk.reward),
            walk.accuracy.map_or_else(dash, accuracy),
            walk.macs.map_or_else(dash, whole),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}
