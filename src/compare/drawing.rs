//! The curves of a comparison as a drawing: a row of two panels for each task.

use std::fmt::Write;

use secateur_run::{Comparison, CurvePoint, TaskScores};

use crate::svg::escaped;

/// Size of a panel, and the space around it.
const PANEL: [f64; 2] = [420.0, 260.0];
const MARGIN: f64 = 60.0;

/// Best reward over candidates on the left, over seconds on the right; the band is from the worst seed to the best.
pub(super) fn svg(comparison: &Comparison) -> String {
    let [width, height] = PANEL;
    let (row, legend) = (height + 1.5 * MARGIN, 18.0 * comparison.agents.len() as f64 + MARGIN);
    let total = [2.0 * width + 3.0 * MARGIN, row * comparison.tasks.len() as f64 + legend];
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        total[0], total[1]
    );
    for (at, task) in comparison.tasks.iter().enumerate() {
        let top = MARGIN + row * at as f64;
        let of = |curve: fn(&TaskScores) -> &[CurvePoint]| -> Vec<&[CurvePoint]> {
            comparison.agents.iter().map(|agent| curve(&agent.tasks[at])).collect()
        };
        let _ = writeln!(out, "<text x=\"{MARGIN}\" y=\"{}\" font-size=\"14\">{}</text>", top - 14.0, escaped(task));
        panel(&mut out, [MARGIN, top], "candidates scored", &of(|task| &task.by_candidates));
        panel(&mut out, [2.0 * MARGIN + width, top], "seconds of the search", &of(|task| &task.by_seconds));
    }
    for (i, agent) in comparison.agents.iter().enumerate() {
        let y = total[1] - legend + 18.0 * (i + 1) as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{MARGIN}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}, mean rank {:.2}</text>",
            y - 10.0,
            colour(i, comparison.agents.len()),
            MARGIN + 18.0,
            y,
            escaped(&agent.agent),
            comparison.ranking.mean_ranks[i]
        );
    }
    out + "</svg>\n"
}

fn colour(i: usize, n: usize) -> String {
    format!("hsl({:.0},70%,42%)", 360.0 * i as f64 / n.max(1) as f64)
}

/// One panel; curves of one point are drawn as a level line.
fn panel(out: &mut String, [left, top]: [f64; 2], axis: &str, curves: &[&[CurvePoint]]) {
    let [width, height] = PANEL;
    let points = || curves.iter().flat_map(|curve| curve.iter());
    let right = points().fold(0f64, |most, point| most.max(point.at)).max(1e-9);
    let highest = points().fold(f64::NEG_INFINITY, |most, point| most.max(point.most));
    // What the first candidates of the worst agent had would press everything else into the upper edge.
    let finals = curves.iter().filter_map(|curve| curve.last());
    let lowest = finals.fold(f64::INFINITY, |least, point| least.min(point.least));
    let lowest = lowest - 0.5 * (highest - lowest).max(1e-3);
    let x = |at: f64| left + at / right * width;
    let y = |reward: f64| top + (1.0 - (reward.max(lowest) - lowest) / (highest - lowest).max(1e-9)) * height;
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (reward, at) = (lowest + share * (highest - lowest), share * right);
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" y1=\"{0:.1}\" x2=\"{1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/><text x=\"{2}\" y=\"{0:.1}\">{reward:.3}</text>\
             <text x=\"{3:.1}\" y=\"{4}\">{at:.0}</text>",
            y(reward),
            left + width,
            left - 40.0,
            x(at) - 8.0,
            top + height + 16.0
        );
    }
    let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{axis}</text>", left + 0.4 * width, top + height + 32.0);
    for (i, curve) in curves.iter().enumerate() {
        let (Some(first), Some(last)) = (curve.first(), curve.last()) else { continue };
        let fill = colour(i, curves.len());
        let at = |point: &CurvePoint, reward: f64| format!("{:.1},{:.1}", x(point.at), y(reward));
        let band = curve.iter().map(|p| at(p, p.most)).chain(curve.iter().rev().map(|p| at(p, p.least)));
        let band: Vec<String> = band.collect();
        let mut line: Vec<String> = curve.iter().map(|point| at(point, point.mean)).collect();
        if first.at == last.at {
            line.push(format!("{:.1},{:.1}", left + width, y(last.mean)));
        }
        let _ = writeln!(
            out,
            "<polygon fill=\"{fill}\" fill-opacity=\"0.12\" points=\"{}\"/><polyline fill=\"none\" stroke=\"{fill}\" stroke-width=\"1.5\" \
             points=\"{}\"/>",
            band.join(" "),
            line.join(" ")
        );
    }
}
