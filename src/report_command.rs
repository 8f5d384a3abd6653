//! `report`: what runs and comparisons found, as one HTML page. `run`, `retarget` and `compare` write theirs at their
//! end.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use secateur_formats::write_atomic;
use secateur_report::HtmlReport;
use secateur_run::REPORT_FILE;

use crate::{Failure, screen};

pub(crate) const REPORT_EXAMPLES: &str = "\
Examples:
  secateur report runs/first                          writes runs/first/report.html
  secateur report runs/first runs/second -o both.html side by side
  secateur report runs/starts                         of `secateur compare`, with the runs of its seeds
  secateur report runs/first --svg drawings           every drawing as a file, too

One file that needs no script and nothing from elsewhere; `run`, `retarget` and `compare` write it at their end. Of a run that
goes on, was killed or is damaged, the page shows what there is and says what is missing.";

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Directories of runs or comparisons
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
    /// The page [default: report.html in the directory; in the current one for several]
    #[arg(long, short, value_name = "FILE.html")]
    output: Option<PathBuf>,
    /// Write every drawing as an SVG file into this folder, too
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

pub(crate) fn report(arguments: &ReportArgs) -> Result<(), Failure> {
    let report = HtmlReport::of(&arguments.directories).map_err(|nothing| Failure::BadArguments(nothing.into()))?;
    report.problems.iter().for_each(|problem| screen::note(format_args!("warning: {problem}")));
    let output = arguments.output.clone().unwrap_or_else(|| match &arguments.directories[..] {
        [only] => only.join(REPORT_FILE),
        _ => PathBuf::from(REPORT_FILE),
    });
    let written = write_atomic(&output, report.html.as_bytes());
    written.context("-o names another file for the page").map_err(Failure::BadArguments)?;
    if let Some(folder) = &arguments.svg {
        let made =
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder '{}'", folder.display()));
        made.map_err(Failure::BadArguments)?;
        for drawing in &report.drawings {
            let file = folder.join(format!("{}.svg", drawing.name));
            write_atomic(&file, drawing.standalone().as_bytes()).map_err(anyhow::Error::from)?;
        }
        screen::note(format_args!("{} drawings are in '{}'", report.drawings.len(), folder.display()));
    }
    Ok(screen::result(output.display())?)
}

/// Writes the page of a directory into it. One that cannot be written is told, and is no reason to fail.
pub(crate) fn write_beside(directory: &Path, is_quiet: bool) {
    let of_it = || -> anyhow::Result<PathBuf> {
        let report = HtmlReport::of(&[directory.to_owned()])?;
        let file = directory.join(REPORT_FILE);
        write_atomic(&file, report.html.as_bytes())?;
        Ok(file)
    };
    match of_it() {
        Ok(_) if is_quiet => {}
        Ok(file) => screen::note(format_args!("the report is '{}'", file.display())),
        Err(error) => screen::note(format_args!("warning: the report could not be written: {error:#}")),
    }
}
