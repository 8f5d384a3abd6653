//! `inspect --curves`: what each group's consumers lose at every width.

use anyhow::Context;
use secateur_formats::{DatasetSource, Split, write_atomic};
use secateur_report::{Axis, AxisScale, Chart, Curve, CurveShape};
use secateur_run::{CurvesReport, CurvesSpec, GroupErrors, MemoryBound, Roots, error_curves};

use crate::arguments::InspectArgs;
use crate::eval::requested_network;
use crate::interrupt::Interrupt;
use crate::progress::RunProgress;
use crate::screen::show;
use crate::table::Table;
use crate::{Failure, screen};

/// Shares of the channels that the table shows errors for, in per cent.
const SHOWN: [usize; 6] = [90, 75, 50, 25, 10, 5];
/// Smaller errors are drawn as this one.
const LEAST_SHOWN: f64 = 1e-5;

pub(crate) fn show_curves(arguments: &InspectArgs, source: &DatasetSource) -> Result<(), Failure> {
    let network = requested_network(&arguments.network)?;
    let fits = MemoryBound::new(arguments.memory.memory, 1).check_groups(&network.original);
    fits.with_context(|| format!("network '{}'", network.name)).map_err(Failure::BadArguments)?;
    let roots = Roots::new(arguments.data_root.clone(), None, Default::default());
    let data = source
        .read(&roots.data, Split::Train)
        .context("set --data-root or SECATEUR_DATA to the folder that holds the data set")
        .map_err(Failure::BadArguments)?;
    let spec = CurvesSpec {
        network: &network,
        data: &data,
        protocol: arguments.protocol,
        n_images: arguments.images.get(),
        threads: arguments.threads.threads,
    };
    let mut progress = RunProgress::new(false, Interrupt::install()?);
    let report = error_curves(&spec, &mut progress)?;
    if let Some(file) = &arguments.svg {
        write_atomic(file, svg(&report).as_bytes()).map_err(anyhow::Error::from)?;
        screen::note(format_args!("the curves are drawn in '{}'", file.display()));
    }
    show(&report, arguments.json, to_text)
}

/// The error with this share of the channels, rounded up.
fn error_at(group: &GroupErrors, percent: usize) -> f64 {
    group.errors[(group.channels * percent).div_ceil(100).max(1) - 1]
}

fn to_text(report: &CurvesReport) -> String {
    let mut lines = vec![format!(
        "{} on {} images of {}, protocol {}: squared error of what reads a group, refitted, as a share of its variance",
        report.network, report.images, report.dataset, report.protocol
    )];
    let header: Vec<String> = SHOWN.iter().map(|percent| format!(">{percent} %")).collect();
    let header: Vec<&str> = ["group", ">channels"].into_iter().chain(header.iter().map(String::as_str)).collect();
    let mut table = Table::new(&header);
    for group in &report.groups {
        let error = |&percent: &usize| match group.measured {
            true => format!("{:.5}", error_at(group, percent)),
            false => "not measured".to_owned(),
        };
        let cells = [group.name.clone(), group.channels.to_string()];
        table.row(cells.into_iter().chain(SHOWN.iter().map(error)).collect::<Vec<_>>());
    }
    lines.push(table.to_string());
    lines.join("\n")
}

/// Error over the share of channels that stay, one line for each group, errors from 0.00001 to 1 and more in powers
/// of ten.
fn svg(report: &CurvesReport) -> String {
    let measured: Vec<&GroupErrors> = report.groups.iter().filter(|group| group.measured).collect();
    let curve = |style: usize| {
        let group = measured[style];
        let shares = (1..=group.channels).map(|width| width as f64 / group.channels as f64);
        let points = shares.zip(&group.errors).map(|(share, error)| [share, error.max(LEAST_SHOWN)]).collect();
        Curve::new(group.name.clone(), style, CurveShape::Line, points)
    };
    let half =
        measured.iter().map(|group| format!("{} loses {:.5} at half its channels", group.name, error_at(group, 50)));
    let chart = Chart {
        name: "curves".to_owned(),
        title: format!("{} on {}: layer error by share of channels kept", report.network, report.dataset),
        alternative: format!("{}.", half.collect::<Vec<_>>().join("; ")),
        x: Axis { least: Some(0.0), most: Some(1.0), ..Axis::percent("channels kept") },
        y: Axis {
            scale: AxisScale::Logarithmic,
            least: Some(LEAST_SHOWN),
            ..Axis::new("squared error, share of the variance")
        },
        curves: (0..measured.len()).map(curve).collect(),
    };
    chart.draw().standalone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_has_a_line_for_every_measured_group_and_escapes_names() {
        let group = |name: &str, measured| GroupErrors {
            name: name.to_owned(),
            channels: 4,
            measured,
            errors: vec![0.9, 0.1, 0.001, 0.0],
        };
        let report = CurvesReport {
            network: "a<b".to_owned(),
            dataset: "d".to_owned(),
            protocol: "inner".to_owned(),
            images: 7,
            groups: vec![group("c&1", true), group("c2", true), group("up", false)],
        };
        let drawn = svg(&report);
        // A line in the chart and one in its legend.
        assert_eq!(drawn.matches("class=\"line\"").count(), 4);
        assert!(drawn.contains("a&lt;b") && drawn.contains("c&amp;1") && !drawn.contains("NaN"), "{drawn}");
        let text = to_text(&report);
        assert!(text.contains("not measured") && text.contains("0.10000") && text.contains("0.00100"), "{text}");
        assert_eq!((error_at(&report.groups[0], 50), error_at(&report.groups[0], 5)), (0.1, 0.9));
    }
}
