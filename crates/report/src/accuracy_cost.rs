//! Accuracy against cost: the networks of all tasks, of the agent and of its controls, and which of them nothing beats.

use serde_json::Value;

use crate::block::{DataTable, PageSection};
use crate::numbers::{accuracy, short, whole, wilson};
use crate::plot::{Axis, Chart, Curve, CurveShape};
use crate::run_files::RunFiles;
use crate::style::Styles;
use crate::take_away::{accuracies, dash};

/// A network that was found.
pub(crate) struct FoundNetwork {
    /// Who found it, and what was done to it since.
    pub(crate) label: String,
    pub(crate) task: String,
    pub(crate) macs: u64,
    /// Test accuracy, or output error.
    pub(crate) value: f64,
    /// 95 % interval of an accuracy.
    pub(crate) interval: Option<[f64; 2]>,
}

/// Networks of a network on a data set.
pub(crate) struct OfNetwork {
    pub(crate) network: String,
    pub(crate) dataset: String,
    pub(crate) dense_macs: u64,
    pub(crate) dense_accuracy: Option<f64>,
    pub(crate) found: Vec<FoundNetwork>,
}

pub(crate) fn accuracy_against_cost(runs: &[&RunFiles], prefix: &str, styles: &Styles) -> PageSection {
    let mut section = PageSection::new(prefix, "accuracy-cost", "Accuracy against cost");
    section.text(
        "Each mark is a network within its budget; whiskers are 95 % intervals of a share of as many test images \
         (Wilson's), which say how far chance alone may move it. The dotted line joins the networks that no other beats \
         in both cost and accuracy. Two networks on the same images are told apart better by the paired tests below.",
    );
    draw(&mut section, &collect(runs), prefix, styles);
    if section.blocks.len() == 1 {
        section.text("No network was measured on test images.");
    }
    section
}

/// A drawing for each network and data set, with its numbers.
pub(crate) fn draw(section: &mut PageSection, found: &[OfNetwork], prefix: &str, styles: &Styles) {
    for (at, of_network) in found.iter().enumerate() {
        let is_accuracy = of_network.dense_accuracy.is_some();
        let value = if is_accuracy { "test accuracy" } else { "output error on the test images (less is better)" };
        let front = front(of_network, is_accuracy);
        let title = format!("{} on {}: {value} against cost", of_network.network, of_network.dataset);
        let mut chart = Chart {
            name: format!("{prefix}accuracy-cost-{}", at + 1),
            alternative: alternative(of_network, &front, is_accuracy),
            title,
            x: Axis::new("multiply-accumulates per image"),
            y: if is_accuracy { Axis::percent(value) } else { Axis::new(value) },
            curves: Vec::new(),
        };
        for network in &of_network.found {
            let point = [network.macs as f64, network.value];
            let interval = network.interval.unwrap_or([f64::NAN; 2]);
            match chart.curves.iter_mut().find(|curve| curve.label == network.label) {
                Some(curve) => {
                    curve.points.push(point);
                    curve.intervals.push(interval);
                }
                None => {
                    let style = styles.of(&network.label);
                    let curve = Curve::new(network.label.clone(), style, CurveShape::Marks, vec![point]);
                    chart.curves.push(Curve { intervals: vec![interval], ..curve });
                }
            }
        }
        if let Some(dense) = of_network.dense_accuracy {
            let style = styles.of("dense");
            let curve = Curve::new("dense", style, CurveShape::Marks, vec![[of_network.dense_macs as f64, dense]]);
            chart.curves.push(curve);
        }
        let front: Vec<[f64; 2]> = front.iter().map(|network| [network.macs as f64, network.value]).collect();
        chart.curves.insert(0, Curve::new("Pareto front", 0, CurveShape::Bound, front));
        if !chart.is_empty() {
            section.figure(chart.draw(), numbers(of_network, is_accuracy));
        }
    }
}

fn collect(runs: &[&RunFiles]) -> Vec<OfNetwork> {
    let mut out: Vec<OfNetwork> = Vec::new();
    for run in runs {
        let of_run = |agent: &str| if runs.len() > 1 { format!("{}: {agent}", run.name) } else { agent.to_owned() };
        for task in run.task_summaries() {
            let text = |key: &str| task[key].as_str().unwrap_or("?").to_owned();
            let (network, dataset, name) = (text("network"), text("dataset"), text("name"));
            let position = out.iter().position(|known| known.network == network && known.dataset == dataset);
            let position = position.unwrap_or_else(|| {
                let dense_macs = task["original"]["macs"].as_u64().unwrap_or(0);
                let dense_accuracy = task["test_accuracy_original"].as_f64();
                out.push(OfNetwork { network, dataset, dense_macs, dense_accuracy, found: Vec::new() });
                out.len() - 1
            });
            let controls = run.control_summaries().iter().filter(|control| control["task"] == task["name"]);
            let images = controls.clone().find_map(|control| control["test_paired"]["images"].as_u64());
            let images = images.or_else(|| {
                ["polish", "tuning"].iter().find_map(|stage| task[stage]["test_paired"]["images"].as_u64())
            });
            let into = &mut out[position];
            let is_accuracy = into.dense_accuracy.is_some();
            let mut add = |agent: &str, result: &Value| {
                let Some(macs) = result["macs"].as_u64() else { return };
                let found =
                    |label: String, value, interval| FoundNetwork { label, task: name.clone(), macs, value, interval };
                if is_accuracy {
                    for (stage, share) in accuracies(result).filter(|(stage, _)| *stage != "dense") {
                        let label =
                            if stage == "pruned" { of_run(agent) } else { format!("{}, {stage}", of_run(agent)) };
                        into.found.push(found(label, share, images.map(|n| wilson(share, n))));
                    }
                } else if let Some(error) = result["test_output_error"].as_f64() {
                    into.found.push(found(of_run(agent), error, None));
                }
            };
            add(run.agent(), task);
            for control in controls {
                add(control["agent"].as_str().unwrap_or("?"), control);
            }
        }
    }
    out
}

/// Networks that no other beats, by cost.
fn front(of_network: &OfNetwork, is_accuracy: bool) -> Vec<&FoundNetwork> {
    let better = |a: f64, b: f64| if is_accuracy { a > b } else { a < b };
    let mut by_cost: Vec<&FoundNetwork> = of_network.found.iter().collect();
    by_cost.sort_by(|a, b| {
        let by_value = if is_accuracy { b.value.total_cmp(&a.value) } else { a.value.total_cmp(&b.value) };
        a.macs.cmp(&b.macs).then(by_value)
    });
    let mut front: Vec<&FoundNetwork> = Vec::new();
    for network in by_cost {
        if front.last().is_none_or(|last| better(network.value, last.value)) {
            front.push(network);
        }
    }
    front
}

fn written(value: f64, is_accuracy: bool) -> String {
    if is_accuracy { accuracy(value) } else { short(value) }
}

fn alternative(of_network: &OfNetwork, front: &[&FoundNetwork], is_accuracy: bool) -> String {
    let dense = of_network.dense_accuracy.map_or(String::new(), |dense| {
        format!(" The dense network has {} at {} multiply-accumulates.", accuracy(dense), whole(of_network.dense_macs))
    });
    let front: Vec<String> = front
        .iter()
        .map(|found| format!("{} with {} at {}", found.label, written(found.value, is_accuracy), whole(found.macs)))
        .collect();
    format!("{} networks.{dense} Not beaten in both: {}.", of_network.found.len(), front.join("; "))
}

fn numbers(of_network: &OfNetwork, is_accuracy: bool) -> DataTable {
    let value = if is_accuracy { ">test accuracy" } else { ">output error" };
    let heads = ["network of", "task", ">MACs", ">of dense", value, ">95 % interval"];
    let caption = format!("{} on {}", of_network.network, of_network.dataset);
    let mut table = DataTable::new(caption, &heads);
    for found in &of_network.found {
        let share = found.macs as f64 / of_network.dense_macs.max(1) as f64;
        let interval = found.interval.map(|[least, most]| format!("{} to {}", accuracy(least), accuracy(most)));
        table.row([
            found.label.clone(),
            found.task.clone(),
            whole(found.macs),
            format!("{:.1} %", share * 100.0),
            written(found.value, is_accuracy),
            interval.unwrap_or_else(dash),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_holds_what_nothing_beats() {
        let found =
            |macs, value| FoundNetwork { label: format!("{macs}"), task: String::new(), macs, value, interval: None };
        let all = [(50, 0.8), (70, 0.75), (50, 0.7), (90, 0.9), (60, 0.8), (95, 0.9)];
        let of_network = OfNetwork {
            network: String::new(),
            dataset: String::new(),
            dense_macs: 100,
            dense_accuracy: Some(0.95),
            found: all.iter().map(|&(macs, value)| found(macs, value)).collect(),
        };
        let of = |is_accuracy| -> Vec<(u64, f64)> {
            front(&of_network, is_accuracy).iter().map(|found| (found.macs, found.value)).collect()
        };
        assert_eq!(of(true), [(50, 0.8), (90, 0.9)]);
        assert_eq!(of(false), [(50, 0.7)], "errors: less is better");
    }
}
