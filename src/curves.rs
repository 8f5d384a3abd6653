//! `inspect --curves`: what each group's consumers lose at every width.

use std::fmt::Write;

use anyhow::Context;
use secateur_formats::{DatasetSource, Split, write_atomic};
use secateur_run::{CurvesReport, CurvesSpec, GroupErrors, MemoryBound, Roots, error_curves};

use crate::arguments::InspectArgs;
use crate::eval::requested_network;
use crate::inspect::show;
use crate::interrupt::Interrupt;
use crate::progress::RunProgress;
use crate::svg::escaped;
use crate::table::Table;
use crate::{Failure, screen};

/// Shares of the channels that the table shows errors for, in per cent.
const SHOWN: [usize; 6] = [90, 75, 50, 25, 10, 5];

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
    let (width, height, margin) = (720.0, 480.0, 60.0);
    let highest =
        report.groups.iter().flat_map(|group| &group.errors).fold(1f64, |most, &e| most.max(e)).log10().ceil();
    let x = |share: f64| margin + share * (width - 2.0 * margin);
    let y = |error: f64| {
        let power = error.max(1e-5).log10().min(highest);
        margin + (highest - power) / (highest + 5.0) * (height - 2.0 * margin)
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{margin}\" y=\"30\" font-size=\"14\">{} on {}: layer error by share of channels kept</text>\n",
        escaped(&report.network),
        escaped(&report.dataset)
    );
    let mut line = |from: [f64; 2], to: [f64; 2], label: String| {
        let ([x1, y1], [x2, y2]) = (from, to);
        let at = if x1 == x2 { [x1 - 8.0, y2 + 16.0] } else { [x1 - 50.0, y1 + 4.0] };
        let _ = writeln!(
            out,
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{}\">{label}</text>",
            at[0], at[1]
        );
    };
    for power in -5..=highest as i32 {
        let error = 10f64.powi(power);
        line([x(0.0), y(error)], [x(1.0), y(error)], format!("{error}"));
    }
    for tenth in (0..=10).step_by(2) {
        let share = f64::from(tenth) / 10.0;
        line([x(share), y(f64::INFINITY)], [x(share), y(0.0)], format!("{share:.1}"));
    }
    let measured: Vec<&GroupErrors> = report.groups.iter().filter(|group| group.measured).collect();
    for (i, group) in measured.iter().enumerate() {
        let point =
            |at: usize, error: f64| format!("{:.1},{:.1}", x((at + 1) as f64 / group.channels as f64), y(error));
        let points: Vec<String> = group.errors.iter().enumerate().map(|(at, &error)| point(at, error)).collect();
        // From blue in front to red behind.
        let hue = 240.0 - 240.0 * i as f64 / measured.len().max(2) as f64;
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"hsl({hue:.0},70%,45%)\" points=\"{}\"><title>{}</title></polyline>",
            points.join(" "),
            escaped(&group.name)
        );
    }
    out + "</svg>\n"
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
        assert_eq!(drawn.matches("<polyline").count(), 2);
        assert!(drawn.contains("a&lt;b") && drawn.contains("c&amp;1") && !drawn.contains("NaN"), "{drawn}");
        let text = to_text(&report);
        assert!(text.contains("not measured") && text.contains("0.10000") && text.contains("0.00100"), "{text}");
        assert_eq!((error_at(&report.groups[0], 50), error_at(&report.groups[0], 5)), (0.1, 0.9));
    }
}
