//! How the search went: the best reward so far over candidates and over seconds.

use crate::block::{DataTable, PageSection};
use crate::metrics::{Metrics, ScoredWalk};
use crate::numbers::{seconds, whole};
use crate::plot::{Axis, Chart, Curve, CurveShape};
use crate::run_files::RunFiles;
use crate::style::Styles;

/// The best so far of an agent on a task.
pub(crate) struct BestSoFar<'a> {
    pub(crate) agent: &'a str,
    /// Candidates scored, seconds and reward where a candidate was better than all before it, and at the end.
    pub(crate) steps: Vec<[f64; 3]>,
}

pub(crate) fn search_curves(run: &RunFiles, prefix: &str, styles: &Styles) -> PageSection {
    let mut section = PageSection::new(prefix, "search", "How the search went");
    let Some(metrics) = run.metrics.as_ref().filter(|metrics| !metrics.walks.is_empty()) else {
        section.text("There is no record of walks.");
        return section;
    };
    section.text(
        "The best reward so far, before the final refit. Candidates whose score was known already count nothing. Every agent searched \
         all tasks in turn, so its seconds are those of its whole search.",
    );
    for (at, task) in tasks(metrics).into_iter().enumerate() {
        let curves = best_so_far(metrics, task);
        for (over, axis, column) in [("candidates", "candidates scored", 0), ("seconds", "seconds of the search", 1)] {
            let chart = Chart {
                name: format!("{prefix}search-{}-{over}", at + 1),
                title: format!("{task}: best reward over {axis}"),
                alternative: alternative(&curves),
                x: Axis { least: Some(0.0), ..Axis::new(axis) },
                y: Axis { least: least_shown(&curves), ..Axis::new("best reward so far") },
                curves: curves.iter().map(|curve| curve.draw(column, styles)).collect(),
            };
            if !chart.is_empty() {
                let numbers = if column == 0 { numbers(task, &curves) } else { DataTable::default() };
                section.figure(chart.draw(), numbers);
            }
        }
    }
    section
}

/// Names of tasks as they come.
pub(crate) fn tasks(metrics: &Metrics) -> Vec<&str> {
    let mut tasks: Vec<&str> = Vec::new();
    for walk in &metrics.walks {
        if !tasks.contains(&walk.task.as_str()) {
            tasks.push(&walk.task);
        }
    }
    tasks.sort_unstable();
    tasks
}

pub(crate) fn best_so_far<'a>(metrics: &'a Metrics, task: &str) -> Vec<BestSoFar<'a>> {
    let mut agents: Vec<(&str, Vec<&ScoredWalk>)> = Vec::new();
    for walk in metrics.walks.iter().filter(|walk| walk.task == task) {
        match agents.iter_mut().find(|(agent, _)| *agent == walk.agent) {
            Some((_, walks)) => walks.push(walk),
            None => agents.push((&walk.agent, vec![walk])),
        }
    }
    agents.into_iter().map(|(agent, walks)| BestSoFar { agent, steps: steps(&walks) }).collect()
}

fn steps(walks: &[&ScoredWalk]) -> Vec<[f64; 3]> {
    let (mut best, mut scored, mut steps) = (f64::NEG_INFINITY, 0, Vec::new());
    for (at, walk) in walks.iter().enumerate() {
        scored += usize::from(!walk.is_cached);
        if walk.reward > best || at + 1 == walks.len() {
            best = best.max(walk.reward);
            steps.push([scored as f64, walk.search_s, best]);
        }
    }
    steps
}

/// What the first candidates of the worst agent had would press everything else into the upper edge.
fn least_shown(curves: &[BestSoFar<'_>]) -> Option<f64> {
    let finals = || curves.iter().filter_map(|curve| curve.steps.last()).map(|step| step[2]);
    let (least, most) = (finals().reduce(f64::min)?, finals().reduce(f64::max)?);
    let all = curves.iter().flat_map(|curve| &curve.steps).map(|step| step[2]).reduce(f64::min)?;
    let shown = least - (most - least).max(0.02 * most.abs().max(1e-3));
    (all < shown).then_some(shown)
}

impl BestSoFar<'_> {
    fn draw(&self, column: usize, styles: &Styles) -> Curve {
        let points = self.steps.iter().map(|step| [step[column], step[2]]).collect();
        let shape = if self.steps.len() == 1 { CurveShape::Marks } else { CurveShape::Steps };
        Curve::new(self.agent, styles.of(self.agent), shape, points)
    }
}

fn alternative(curves: &[BestSoFar<'_>]) -> String {
    let told = curves.iter().filter_map(|curve| {
        let [scored, search_s, best] = curve.steps.last()?;
        Some(format!(
            "{} ends at {best:.4} after {} candidates and {}",
            curve.agent,
            whole(*scored as u64),
            seconds(*search_s)
        ))
    });
    format!("{}.", told.collect::<Vec<_>>().join("; "))
}

fn numbers(task: &str, curves: &[BestSoFar<'_>]) -> DataTable {
    let heads = ["agent", ">candidates", ">seconds", ">best reward"];
    let mut table =
        DataTable::new(format!("{task}: candidates that were better than all before, and the last"), &heads);
    for curve in curves {
        for [scored, search_s, best] in &curve.steps {
            table.row([curve.agent.to_owned(), whole(*scored as u64), format!("{search_s:.1}"), format!("{best:.4}")]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_scores_count_and_the_last_walk_ends_the_curve() {
        let walk = |reward, is_cached, search_s| ScoredWalk {
            agent: "a".into(),
            task: "t".into(),
            reward,
            accuracy: None,
            macs: None,
            is_noise_free: false,
            is_cached,
            search_s,
        };
        let walks = [
            walk(0.5, false, 1.0),
            walk(0.4, false, 2.0),
            walk(0.5, true, 3.0),
            walk(0.6, false, 4.0),
            walk(0.1, false, 5.0),
        ];
        let found = steps(&walks.iter().collect::<Vec<_>>());
        assert_eq!(found, [[1.0, 1.0, 0.5], [3.0, 4.0, 0.6], [4.0, 5.0, 0.6]]);
    }
}
