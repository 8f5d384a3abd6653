//! From arguments to commands, and from their outcome to an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use secateur_rl::AgentKind;
use secateur_sim::PruningPlugin;

use crate::arguments::{Arguments, Command};
use crate::extensions::Extensions;
use crate::{
    Failure, bench, check, compare, compare_networks, doctor, eval, history, inspect, interrupt, plan, report_command,
    retarget, run_command, screen, shell, tune, watch,
};

/// The program, ready to run.
#[derive(Default)]
pub struct Cli {
    extensions: Extensions,
}

/// The program. `secateur::cli().run()` is the whole binary.
pub fn cli() -> Cli {
    Cli::default()
}

impl Cli {
    /// Compiles a plugin in: scenes can name it in their `plugins` field.
    #[must_use]
    pub fn add_plugins(mut self, plugin: impl PruningPlugin + 'static) -> Self {
        self.extensions.plugins.add(plugin);
        self
    }

    /// Compiles an agent in: scenes can name it in their `agent` and `controls` fields, with settings that serde reads
    /// as a `K`. An agent of the same name is replaced.
    #[must_use]
    pub fn add_agent<K: AgentKind>(mut self) -> Self {
        self.extensions.agents.add::<K>();
        self
    }

    /// Does what the process's arguments ask for.
    pub fn run(self) -> ExitCode {
        self.run_with(std::env::args_os())
    }

    /// Does what `arguments` ask for; the first is the program's name.
    pub fn run_with(self, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
        let arguments = match Arguments::try_parse_from(arguments) {
            Ok(arguments) => arguments,
            Err(usage) => {
                // Help goes to stdout, mistakes to stderr; there is nobody to tell when either is closed.
                let _ = usage.print();
                return if usage.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
            }
        };
        match self.execute(arguments.command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                screen::failure(&failure);
                ExitCode::from(failure.exit_code())
            }
        }
    }

    fn execute(&self, command: Command) -> Result<(), Failure> {
        interrupt::survive_size_limits().context("the signal of a limit on the size of files")?;
        match command {
            Command::Run(arguments) => run_command::run_scene(&arguments, &self.extensions),
            Command::Check(arguments) => check::check(&arguments, &self.extensions),
            Command::Inspect(arguments) => inspect::inspect(&arguments),
            Command::Plan(arguments) => plan::plan_scene(&arguments, &self.extensions),
            Command::Eval(arguments) => eval::eval(&arguments),
            Command::Train(arguments) => tune::train::train(&arguments),
            Command::Tune(arguments) => tune::tune(&arguments),
            Command::Retarget(arguments) => retarget::retarget_run(&arguments, &self.extensions),
            Command::Compare(arguments) => compare::compare_agents(&arguments, &self.extensions),
            Command::CompareNetworks(arguments) => compare_networks::compare_networks(&arguments),
            Command::History(arguments) => history::history(&arguments, &self.extensions),
            Command::Report(arguments) => report_command::report(&arguments),
            Command::Watch(arguments) => watch::watch(&arguments),
            Command::Bench(arguments) => bench::bench(&arguments.what, &self.extensions),
            Command::Doctor(arguments) => doctor::doctor(&arguments),
            Command::Completions(arguments) => shell::completions(&arguments, Arguments::command()),
            Command::Man(arguments) => shell::man(&arguments, Arguments::command()),
        }
    }
}
