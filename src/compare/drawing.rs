//! The curves of a comparison as a drawing: a row of two charts for each task.

use secateur_report::{Axis, Chart, Curve, CurveShape, Drawing};
use secateur_run::{Comparison, CurvePoint, TaskScores};

/// Best reward over candidates on the left, over seconds on the right; the band is from the worst seed to the best.
pub(super) fn svg(comparison: &Comparison) -> String {
    let mut drawings = Vec::new();
    for (at, task) in comparison.tasks.iter().enumerate() {
        drawings
            .push(chart(comparison, [at, drawings.len()], task, "candidates scored", |of| &of.by_candidates).draw());
        drawings
            .push(chart(comparison, [at, drawings.len()], task, "seconds of the search", |of| &of.by_seconds).draw());
    }
    Drawing::stacked("curves", "Best reward so far of every agent on every task", &drawings, 2).standalone()
}

/// All agents on a task; the numbers are the task's and the drawing's.
fn chart(
    comparison: &Comparison,
    [at, number]: [usize; 2],
    task: &str,
    axis: &str,
    points: fn(&TaskScores) -> &[CurvePoint],
) -> Chart {
    let curve = |style: usize| {
        let agent = &comparison.agents[style];
        let points = points(&agent.tasks[at]);
        let label = format!("{}, mean rank {:.2}", agent.agent, comparison.ranking.mean_ranks[style]);
        let shape = if points.len() == 1 { CurveShape::Marks } else { CurveShape::Line };
        let means = points.iter().map(|point| [point.at, point.mean]).collect();
        let intervals = points.iter().map(|point| [point.least, point.most]).collect();
        Curve { intervals, ..Curve::new(label, style, shape, means) }
    };
    let curves: Vec<Curve> = (0..comparison.agents.len()).map(curve).collect();
    // What the first candidates of the worst agent had would press everything else into the upper edge.
    let finals = || curves.iter().filter_map(|curve| curve.points.last()).map(|point| point[1]);
    let least = finals().reduce(f64::min).zip(finals().reduce(f64::max));
    let least = least.map(|(least, most)| least - 0.5 * (most - least).max(1e-3));
    let ends =
        comparison.agents.iter().map(|agent| format!("{} ends at {:.4}", agent.agent, agent.tasks[at].score.mean));
    Chart {
        name: format!("curves-{number}"),
        title: format!("{task}: best reward over {axis}"),
        alternative: format!("{}.", ends.collect::<Vec<_>>().join("; ")),
        x: Axis { least: Some(0.0), ..Axis::new(axis) },
        y: Axis { least, ..Axis::new("best reward so far") },
        curves,
    }
}
