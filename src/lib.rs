//! Secateur prunes trained convolutional networks to a provable budget. This crate is the command line, and the door to
//! the library: the other crates under their short names. Only this crate prints, reads arguments, listens to signals
//! and knows exit codes.
//!
//! `secateur::cli().run()` is the whole binary. To run a scene from a program:
//!
//! ```
//! use secateur::run::RunSpec;
//! use secateur::sim::PluginList;
//!
//! # let folder = std::env::temp_dir().join(format!("secateur-doc-{}", std::process::id()));
//! let spec = RunSpec {
//!     sets: vec![
//!         "walks_per_task=4".into(),
//!         "budgets=[Macs(ratio: 0.6)]".into(),
//!         "controls=[]".into(),
//!         "images=(reward: 50, calibration: 20, walk: 10, refit: 20)".into(),
//!     ],
//!     out: Some(folder.join("first")),
//!     ..RunSpec::new("scenes/quickstart.ron")
//! };
//! let result = secateur::run(&spec, &PluginList::default(), &mut ())?;
//! for task in &result.summary.tasks {
//!     assert!(task.macs <= task.budget.max, "every network fits its budget");
//!     println!("{}: {} of {} MACs", task.name, task.macs, task.original.macs);
//! }
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where to go on:
//! * [`run::RunSpec`] and [`run::Observer`]: what a run can be told, and who watches it;
//! * [`sim::PruningPlugin`]: how to write a plugin, with systems in the steps of [`sim::Step`];
//! * [`rl::AgentKind`], [`rl::Policy`] and [`rl::Learner`]: how to write an agent, which [`Cli::add_agent`] or
//!   [`scene::AgentList::add`] lets scenes name (`examples/evolution.rs`);
//! * [`sim::Criterion`]: how to write a criterion of selection, which a plugin brings (`examples/nearest_twin.rs`);
//! * [`report::HtmlReport`]: the page of a run. The command line writes `report.html` at the end of every run; programs
//!   that call [`run()`] do so themselves, by `HtmlReport::of(&[result.directory])`: `secateur-run` knows no pages;
//! * [`certify::certify`]: counting a written network again, by code that shares nothing with the search.
//!
//! Words are explained in [`net::glossary`].

pub use secateur_alloc as alloc;
pub use secateur_certify as certify;
pub use secateur_formats as formats;
pub use secateur_gpu as gpu;
pub use secateur_kernels as kernels;
pub use secateur_net as net;
pub use secateur_onnx as onnx;
pub use secateur_report as report;
pub use secateur_rl as rl;
pub use secateur_run as run;
pub use secateur_run::run;
pub use secateur_run::scene;
pub use secateur_sim as sim;
pub use secateur_train as train;

mod arguments;
mod bench;
mod budget_argument;
mod check;
mod cli;
mod closing_table;
mod compare;
mod compare_networks;
mod curves;
mod doctor;
mod eval;
mod eval_against;
mod extensions;
mod failure;
mod history;
mod inspect;
mod inspect_onnx;
mod interrupt;
mod options;
mod plan;
mod progress;
mod report_command;
mod retarget;
mod run_command;
mod screen;
mod serve;
mod shell;
mod table;
mod tune;
mod watch;

pub use cli::{Cli, cli};
pub use failure::Failure;
