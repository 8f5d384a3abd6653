//! Reports: one HTML page of what a run, several, or a comparison of agents found, for people.
//!
//! Reads only files that a run or comparison left (`summary.json`, `metrics.jsonl`, certificates, `compare.json`, ...)
//! and knows nothing of how they came about. What is missing, damaged or of another version is said on the page, and
//! the rest is shown. The page is one file: no script, nothing from elsewhere, light or dark as the reader's system is,
//! printable, every drawing with its content in words.
//!
//! ```no_run
//! use std::path::PathBuf;
//!
//! use secateur_report::HtmlReport;
//!
//! let report = HtmlReport::of(&[PathBuf::from("runs/first")])?;
//! std::fs::write("report.html", &report.html)?;
//! for drawing in &report.drawings {
//!     std::fs::write(format!("{}.svg", drawing.name), drawing.standalone())?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Words are explained in the glossary of `secateur-net`.

mod accuracy_cost;
mod block;
mod compared;
mod environment;
mod error_curves;
mod learned;
mod metrics;
mod numbers;
mod page;
mod paired_tests;
mod plot;
mod progress;
mod recorded;
mod report;
mod run_files;
mod search_curves;
mod style;
mod take_away;
mod training_curves;
mod watched;
mod widths;

pub use page::LiveRefresh;
pub use plot::{Axis, AxisScale, Chart, Curve, CurveShape, Drawing, HeatMap, TickFormat};
pub use progress::{FileProgress, LoggedStage, RunProgressState};
pub use recorded::{RecordedResult, RecordedRun};
pub use report::{HtmlReport, NothingToShow};
pub use watched::{WatchedAgent, WatchedCurve, WatchedLearner, WatchedResult, WatchedRun, WatchedTask};
