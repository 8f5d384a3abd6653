//! What every group of channels costs the layers that read it.

use serde_json::Value;

use crate::block::{DataTable, PageSection};
use crate::numbers::short;
use crate::plot::{Axis, AxisScale, Chart, Curve, CurveShape};
use crate::run_files::{RunFiles, items};
use crate::take_away::dash;

/// Shares of the channels whose errors stand in the table, per cent.
const SHOWN: [usize; 5] = [90, 75, 50, 25, 10];
/// Smaller errors are drawn as this one.
const LEAST_SHOWN: f64 = 1e-5;
/// Curves of a drawing: more cannot be told apart.
const CURVES_MAX: usize = 8;

/// A group's curve: errors after 0, 1, … channels are gone.
struct RemovalCurve<'a> {
    name: &'a str,
    channels: usize,
    errors: Vec<f64>,
}

impl<'a> RemovalCurve<'a> {
    /// None for a group that was not measured, and for what is no curve.
    fn of(group: &'a Value) -> Option<Self> {
        let measured = group["measured"].as_bool()?;
        let channels = usize::try_from(group["channels"].as_u64()?).ok().filter(|channels| *channels > 0)?;
        let errors: Option<Vec<f64>> = items(&group["errors"]).iter().map(Value::as_f64).collect();
        let errors = errors.filter(|errors| measured && !errors.is_empty() && errors.len() <= channels)?;
        Some(Self { name: group["name"].as_str()?, channels, errors })
    }

    /// With this share of the channels, rounded up; none for fewer than the run may keep.
    fn at(&self, percent: usize) -> Option<f64> {
        let kept = (self.channels * percent).div_ceil(100).max(1);
        self.errors.get(self.channels - kept).copied()
    }
}

pub(crate) fn error_curves(run: &RunFiles, prefix: &str) -> PageSection {
    let mut section = PageSection::new(prefix, "error-curves", "Error curves of the layers");
    section.text(
        "What the layers that read a group of channels lose while its channels go, least important first, after a refit by least \
         squares: squared error as a share of their variance. A curve that rises late belongs to a group that can be narrow.",
    );
    for (at, network) in items(&run.curves).iter().enumerate() {
        let groups: Vec<RemovalCurve> = items(&network["groups"]).iter().filter_map(RemovalCurve::of).collect();
        let name = |key: &str| network[key].as_str().unwrap_or("?");
        let title = format!("{} on {}", name("network"), name("dataset"));
        let n_parts = groups.len().div_ceil(CURVES_MAX);
        for (part, shown) in groups.chunks(CURVES_MAX).enumerate() {
            let which = if n_parts > 1 { format!(", part {} of {n_parts}", part + 1) } else { String::new() };
            let numbers = if part + 1 == n_parts { numbers(&title, &groups) } else { DataTable::default() };
            let chart = Chart {
                name: format!("{prefix}error-curves-{}-{}", at + 1, part + 1),
                title: format!("{title}: error by share of the channels kept{which}"),
                alternative: alternative(shown),
                x: Axis { least: Some(0.0), most: Some(1.0), ..Axis::percent("channels kept") },
                y: Axis {
                    scale: AxisScale::Logarithmic,
                    least: Some(LEAST_SHOWN),
                    ..Axis::new("squared error, share")
                },
                curves: shown.iter().enumerate().map(|(style, group)| group.draw(style)).collect(),
            };
            if !chart.is_empty() {
                section.figure(chart.draw(), numbers);
            }
        }
    }
    if section.blocks.len() == 1 {
        section.blocks.clear();
        section.text(
            "The run directory does not hold what each layer loses at every width; \
             `secateur inspect NETWORK --curves --dataset DATASET --svg curves.svg` measures and draws it.",
        );
    }
    section
}

impl RemovalCurve<'_> {
    fn draw(&self, style: usize) -> Curve {
        let share = |gone: usize| (self.channels - gone) as f64 / self.channels as f64;
        let points = self.errors.iter().enumerate().map(|(gone, error)| [share(gone), error.max(LEAST_SHOWN)]);
        let points = points.rev().collect();
        Curve::new(self.name, style, CurveShape::Line, points)
    }
}

fn alternative(groups: &[RemovalCurve<'_>]) -> String {
    let told = groups.iter().map(|group| match group.at(50) {
        Some(error) => format!("{} loses {} at half its channels", group.name, short(error)),
        None => format!("{} keeps more than half its channels", group.name),
    });
    format!("{}.", told.collect::<Vec<_>>().join("; "))
}

fn numbers(title: &str, groups: &[RemovalCurve<'_>]) -> DataTable {
    let heads: Vec<String> = SHOWN.iter().map(|percent| format!(">at {percent} %")).collect();
    let heads: Vec<&str> = ["group", ">channels"].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let mut table = DataTable::new(format!("{title}: error at a share of the channels"), &heads);
    for group in groups {
        let errors = SHOWN.iter().map(|&percent| group.at(percent).map_or_else(dash, |error| format!("{error:.5}")));
        let cells = [group.name.to_owned(), group.channels.to_string()];
        table.rows.push(cells.into_iter().chain(errors).collect());
    }
    table
}
