//! `history`: what was run, and what came of it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use secateur_history::{History, HistoryError, RunDetails, RunRow};
use secateur_run::{default_history, import_run};

use crate::extensions::Extensions;
use crate::options::HistoryArgs;
use crate::screen::json;
use crate::table::Table;
use crate::{Failure, screen};

pub(crate) const HISTORY_EXAMPLES: &str = "\
Examples:
  secateur history list                            every run: number, when, how it ended, where
  secateur history show 12                         what run 12 found, task by task
  secateur history show runs/first --json
  secateur history export --csv tables             every table as a file, for pandas or a spreadsheet
  secateur history import runs/first               a run of before, or of another machine
  secateur history prune --older-than 90d

Every `secateur run` is recorded as it begins and as it ends, in one SQLite file: $SECATEUR_HISTORY, else
$XDG_DATA_HOME/secateur/history.sqlite (~/.local/share/...). `run --history none` or `history: None` in a scene switches that off.
  sqlite3 ~/.local/share/secateur/history.sqlite 'select name, max(reward) from walks join tasks on task = id group by id'
crates/history/TABLES.md explains every table and column.";

#[derive(Args, Debug)]
pub(crate) struct HistoryCommand {
    #[command(subcommand)]
    what: HistoryAction,
}

/// What to do with the history.
#[derive(Debug, Subcommand)]
enum HistoryAction {
    /// Every run, oldest first
    List(ListArgs),
    /// What a run found, task by task
    Show(ShowArgs),
    /// Write every table as a file of text
    Export(ExportArgs),
    /// Forget runs that began long ago; run directories stay as they are
    Prune(PruneArgs),
    /// Record the run of a directory; one that is known is looked at again
    Import(ImportArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    history: HistoryArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// Number of the run, or its directory
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    history: HistoryArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ExportArgs {
    /// Folder for TABLE.csv, one for each table
    #[arg(long, value_name = "DIR")]
    csv: PathBuf,
    #[command(flatten)]
    history: HistoryArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct PruneArgs {
    /// Age as in 12h, 90d or 8w; 0d forgets everything
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Duration,
    #[command(flatten)]
    history: HistoryArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ImportArgs {
    /// Run directories, also of runs that were killed
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    history: HistoryArgs,
}

/// Hours, days or weeks.
fn age(text: &str) -> Result<Duration, String> {
    let expected = || "expected an age such as 12h, 90d or 8w".to_owned();
    let hours = |unit| {
        Some(match unit {
            'h' => 1,
            'd' => 24,
            'w' => 7 * 24,
            _ => return None,
        })
    };
    let (at, unit) = text.trim().char_indices().next_back().ok_or_else(expected)?;
    let number: u64 = text.trim()[..at].trim().parse().map_err(|_| expected())?;
    let hours = hours(unit).and_then(|hours| number.checked_mul(hours)).filter(|&hours| hours < 24 * 366 * 1000);
    Ok(Duration::from_secs(hours.ok_or_else(expected)? * 3600))
}

pub(crate) fn history(command: &HistoryCommand, extensions: &Extensions) -> Result<(), Failure> {
    match &command.what {
        HistoryAction::List(arguments) => list(arguments),
        HistoryAction::Show(arguments) => show(arguments),
        HistoryAction::Export(arguments) => export(arguments),
        HistoryAction::Prune(arguments) => prune(arguments),
        HistoryAction::Import(arguments) => import(arguments, extensions),
    }
}

/// The file that is meant.
fn file(arguments: &HistoryArgs) -> Result<PathBuf, Failure> {
    let given = arguments.history.clone().or_else(default_history).filter(|file| file != Path::new("none"));
    given.ok_or_else(|| {
        Failure::BadArguments(anyhow!(
            "no history is kept here: SECATEUR_HISTORY is `none`, or there is no home; name a file with --history"
        ))
    })
}

pub(crate) fn open(arguments: &HistoryArgs) -> Result<History, Failure> {
    Ok(History::open_existing(&file(arguments)?)?)
}

fn list(arguments: &ListArgs) -> Result<(), Failure> {
    let history = open(&arguments.history)?;
    let runs = history.runs()?;
    if arguments.json {
        return json(&runs);
    }
    let mut table =
        Table::new(&[">run", "began (UTC)", "status", "agent", ">tasks", ">walks", ">seconds", "directory"]);
    for run in &runs {
        let RunRow { id, started, status, wall_s, agent, tasks, walks, directory } = run;
        table.row([
            id.to_string(),
            started.clone(),
            status.clone(),
            agent.clone().unwrap_or_default(),
            tasks.to_string(),
            walks.to_string(),
            wall_s.map_or_else(String::new, |s| format!("{s:.0}")),
            directory.clone(),
        ]);
    }
    Ok(screen::result(format_args!("{table}\n{} runs in '{}'", runs.len(), history.path().display()))?)
}

fn show(arguments: &ShowArgs) -> Result<(), Failure> {
    let details = open(&arguments.history)?.run(&arguments.run)?;
    if arguments.json { json(&details) } else { Ok(screen::result(to_text(&details))?) }
}

fn to_text(details: &RunDetails) -> String {
    let RunDetails { run, scene_file, seed, device, program, build, instructions, policy, results } = details;
    let mut out = format!("run {}, {}, began {}, in '{}'\n", run.id, run.status, run.started, run.directory);
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let build = build.as_ref().and_then(|build| build.get(..12)).unwrap_or("unknown");
    let seed = seed.map_or_else(|| "unknown".to_owned(), |seed| seed.to_string());
    let lines = [
        ("scene", format!("{}, seed {seed}, agent {}", or_unknown(scene_file), or_unknown(&run.agent))),
        (
            "program",
            format!("{} (build {build}), {} on {}", or_unknown(program), or_unknown(instructions), or_unknown(device)),
        ),
    ];
    for (name, text) in lines {
        // Text cannot fail to grow.
        let _ = writeln!(out, "{name}: {text}");
    }
    if let Some(policy) = policy {
        let _ = writeln!(out, "policy: {}", policy.display());
    }
    let mut table =
        Table::new(&["task", "network", "data set", ">walks", ">best reward", ">MACs", ">share", ">test", ">of"]);
    let percent = |x: Option<f64>| x.map_or_else(String::new, |x| format!("{:.2} %", 100.0 * x));
    for task in results {
        table.row([
            task.name.clone(),
            task.network.clone(),
            task.dataset.clone(),
            task.walks.to_string(),
            task.reward.map_or_else(String::new, |reward| format!("{reward:.4}")),
            task.macs.map_or_else(String::new, |macs| macs.to_string()),
            task.macs_share.map_or_else(String::new, |share| format!("{share:.3}")),
            match task.test_output_error {
                Some(error) => format!("error {error:.4}"),
                None => percent(task.test_accuracy),
            },
            percent(task.test_accuracy_original),
        ]);
    }
    out + &table.to_string()
}

fn export(arguments: &ExportArgs) -> Result<(), Failure> {
    let files = open(&arguments.history)?.export(&arguments.csv)?;
    if arguments.json {
        let row = |(file, rows): &(PathBuf, u64)| serde_json::json!({ "file": file, "rows": rows });
        return json(&files.iter().map(row).collect::<Vec<_>>());
    }
    let mut table = Table::new(&["file", ">rows"]);
    files.iter().for_each(|(file, rows)| table.row([file.display().to_string(), rows.to_string()]));
    Ok(screen::result(table)?)
}

fn prune(arguments: &PruneArgs) -> Result<(), Failure> {
    let pruned = open(&arguments.history)?.prune(arguments.older_than)?;
    if arguments.json {
        return json(&pruned);
    }
    let text = format!(
        "forgot {} runs, {} networks, {} scores and {} policies",
        pruned.runs, pruned.networks, pruned.scores, pruned.policies
    );
    Ok(screen::result(text)?)
}

fn import(arguments: &ImportArgs, extensions: &Extensions) -> Result<(), Failure> {
    let mut history = History::open(&file(&arguments.history)?)?;
    let agents = extensions.spec(secateur_run::RunSpec::new("")).agents;
    for run in &arguments.runs {
        let (id, notes) = import_run(&mut history, run, &agents).map_err(Failure::BadArguments)?;
        notes.iter().for_each(|note| screen::note(format_args!("'{}': {note}", run.display())));
        screen::result(format_args!("'{}' is run {id}", run.display()))?;
    }
    Ok(())
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Missing { .. } | HistoryError::NoRun { .. } | HistoryError::Foreign { .. } => {
                Self::BadArguments(error.into())
            }
            _ => Self::Failed(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::age;
    use std::time::Duration;

    #[test]
    fn ages_are_read_as_people_write_them() {
        for (text, hours) in [("12h", 12), ("90d", 2160), ("8 w", 1344), ("0d", 0)] {
            assert_eq!(age(text), Ok(Duration::from_secs(3600 * hours)), "{text}");
        }
        for bad in ["", "d", "90", "-1d", "1.5d", "9y", "9é", "99999999999999999d", "18446744073709551615w"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }
}
