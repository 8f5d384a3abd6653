//! `run`: a run as the command line does it, with a bar, signals and a closing table.

use secateur_run::{RunError, RunSpec, run};

use crate::additions::Additions;
use crate::arguments::RunArgs;
use crate::closing_table::closing_table;
use crate::interrupt::Interrupt;
use crate::progress::RunProgress;
use crate::{Failure, screen};

pub(crate) fn run_scene(arguments: &RunArgs, additions: &Additions) -> Result<(), Failure> {
    let mut progress = RunProgress::new(arguments.quiet, Interrupt::install()?);
    let spec = RunSpec { agents: additions.agents.clone(), ..arguments.spec() };
    let ended = run(&spec, &additions.plugins, &mut progress);
    let result = match &ended {
        Ok(result) => Some(result),
        Err(RunError::Incomplete { result, .. }) => Some(&**result),
        Err(_) => None,
    };
    if let Some(result) = result {
        screen::result(closing_table(result))?;
    }
    Ok(ended.map(drop)?)
}
