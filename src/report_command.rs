//! `report`: what runs and comparisons found, as one HTML page. `run`, `retarget` and `compare` write theirs at their
//! end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use secateur_formats::write_atomic;
use secateur_history::{FoundRow, RunRow};
use secateur_report::{HtmlReport, RecordedResult, RecordedRun};
use secateur_run::REPORT_FILE;

use crate::history::open;
use crate::options::HistoryArgs;
use crate::{Failure, screen, serve};

pub(crate) const REPORT_EXAMPLES: &str = "\
Examples:
  secateur report runs/first                          writes runs/first/report.html
  secateur report runs/first runs/second -o both.html side by side
  secateur report runs/starts                         of `secateur compare`, with the runs of its seeds
  secateur report runs/first --svg drawings           every drawing as a file, too
  secateur report runs/first --serve                  the page while the run goes on, on http://127.0.0.1:8329/
  secateur report --history -o history.html           every run that was recorded, and what won for each network and budget

One file that needs no script and nothing from elsewhere; `run`, `retarget` and `compare` write it at their end. Of a run that
goes on, was killed or is damaged, the page shows what there is and says what is missing. --serve shows it to readers on this
machine alone, unless it is given another address; from elsewhere, `ssh -L 8329:localhost:8329 HOST` leads there. It writes nothing.";

/// The page of a history, where no other file is named.
const HISTORY_PAGE: &str = "history.html";

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Directories of runs or comparisons
    #[arg(value_name = "DIR", required_unless_present = "history")]
    directories: Vec<PathBuf>,
    /// The page [default: report.html in the directory; in the current one for several; history.html]
    #[arg(long, short, value_name = "FILE.html")]
    output: Option<PathBuf>,
    /// Write every drawing as an SVG file into this folder, too
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Serve the page over HTTP instead, and keep it up to date while a run goes on: an address and a port, or a port
    /// [default: 127.0.0.1:8329]
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = serve::DEFAULT_ADDRESS,
          value_parser = serve::address, conflicts_with_all = ["output", "svg", "history"])]
    serve: Option<SocketAddr>,
    /// Of all runs that were recorded, in this file or where `secateur history` looks for one
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "directories")]
    history: Option<Option<PathBuf>>,
}

pub(crate) fn report(arguments: &ReportArgs) -> Result<(), Failure> {
    if let Some(address) = arguments.serve {
        return serve::serve(address, arguments.directories.clone());
    }
    let report = match &arguments.history {
        Some(file) => of_history(file.clone())?,
        None => HtmlReport::of(&arguments.directories).map_err(|nothing| Failure::BadArguments(nothing.into()))?,
    };
    report.problems.iter().for_each(|problem| screen::note(format_args!("warning: {problem}")));
    let output = arguments.output.clone().unwrap_or_else(|| match &arguments.directories[..] {
        [only] => only.join(REPORT_FILE),
        [] => PathBuf::from(HISTORY_PAGE),
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

/// The page of all that was recorded.
fn of_history(file: Option<PathBuf>) -> Result<HtmlReport, Failure> {
    let history = open(&HistoryArgs { history: file })?;
    let run = |run: RunRow| RecordedRun {
        id: run.id,
        started: run.started,
        status: run.status,
        agent: run.agent,
        wall_s: run.wall_s,
        tasks: run.tasks,
        walks: run.walks,
        directory: run.directory,
    };
    let result = |row: FoundRow| RecordedResult {
        run: row.run,
        network: row.network,
        network_content: row.network_content,
        dataset: row.dataset,
        dataset_content: row.dataset_content,
        budget: row.budget,
        agent: row.agent,
        macs: row.macs,
        dense_macs: row.macs_original,
        dense_accuracy: row.test_accuracy_original,
        test_accuracy: row.test_accuracy,
        test_output_error: row.test_output_error,
    };
    let runs: Vec<RecordedRun> = history.runs()?.into_iter().map(run).collect();
    let results: Vec<RecordedResult> = history.found()?.into_iter().map(result).collect();
    Ok(HtmlReport::of_history(&history.path().display().to_string(), &runs, &results))
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
