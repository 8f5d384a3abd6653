//! Which layers lost channels, over all budgets of a network.

use serde_json::Value;

use crate::block::{DataTable, PageSection};
use crate::plot::HeatMap;
use crate::run_files::{RunFiles, items};

pub(crate) fn widths(run: &RunFiles, prefix: &str) -> PageSection {
    let mut section = PageSection::new(prefix, "widths", "Widths of the layers");
    section.text(
        "Channels that every prunable group kept, from the network's input above to its output below: the stronger the colour, \
         the more. A group is all layers that must lose the same channels; it has the name of its first.",
    );
    let mut networks: Vec<(&str, Vec<&Value>)> = Vec::new();
    for task in run.task_summaries().iter().filter(|task| !items(&task["groups"]).is_empty()) {
        let network = task["network"].as_str().unwrap_or("?");
        match networks.iter_mut().find(|(name, tasks)| *name == network && has_same_groups(tasks[0], task)) {
            Some((_, tasks)) => tasks.push(task),
            None => networks.push((network, vec![task])),
        }
    }
    for (at, (network, mut tasks)) in networks.into_iter().enumerate() {
        tasks.sort_by_key(|task| task["macs"].as_u64());
        let groups = items(&tasks[0]["groups"]);
        let names: Vec<String> = groups.iter().map(|group| group["name"].as_str().unwrap_or("?").to_owned()).collect();
        let columns: Vec<String> = tasks.iter().map(|task| task["name"].as_str().unwrap_or("?").to_owned()).collect();
        let cells =
            (0..groups.len()).map(|row| tasks.iter().map(|task| cell(&task["groups"][row])).collect()).collect();
        let map = HeatMap {
            name: format!("{prefix}widths-{}", at + 1),
            title: format!("{network}: channels kept by layer and budget"),
            alternative: alternative(&tasks),
            columns,
            rows: names,
            cells,
        };
        let numbers = numbers(network, &map);
        section.figure(map.draw(), numbers);
    }
    if section.blocks.len() == 1 {
        section.text("No widths are known.");
    }
    section
}

fn has_same_groups(a: &Value, b: &Value) -> bool {
    let names =
        |task: &Value| -> Vec<Value> { items(&task["groups"]).iter().map(|group| group["name"].clone()).collect() };
    names(a) == names(b)
}

fn cell(group: &Value) -> Option<(f64, String)> {
    let (kept, channels) = (group["kept"].as_u64()?, group["channels"].as_u64()?);
    Some((kept as f64 / channels.max(1) as f64, format!("{kept} of {channels}")))
}

fn alternative(tasks: &[&Value]) -> String {
    let told = tasks.iter().filter_map(|task| {
        let shares = items(&task["groups"]).iter().filter_map(|group| Some((cell(group)?.0, group["name"].as_str()?)));
        let (share, name) = shares.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let task = task["name"].as_str().unwrap_or("?");
        Some(format!("{task} is narrowest at {name}, which keeps {:.0} % of its channels", share * 100.0))
    });
    format!("{}.", told.collect::<Vec<_>>().join("; "))
}

fn numbers(network: &str, map: &HeatMap) -> DataTable {
    let heads: Vec<String> = map.columns.iter().map(|column| format!(">{column}")).collect();
    let heads: Vec<&str> = ["layer"].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let mut table = DataTable::new(format!("{network}: channels kept"), &heads);
    for (name, cells) in map.rows.iter().zip(&map.cells) {
        let cells = cells.iter().map(|cell| cell.as_ref().map_or_else(String::new, |(_, text)| text.clone()));
        table.rows.push([name.clone()].into_iter().chain(cells).collect());
    }
    table
}
