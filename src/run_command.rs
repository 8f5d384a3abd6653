//! `run`: a run as the command line does it, with a bar, signals and a closing table.

use secateur_run::{RunError, run};

use crate::arguments::RunArgs;
use crate::closing_table::closing_table;
use crate::extensions::Extensions;
use crate::interrupt::Interrupt;
use crate::progress::RunProgress;
use crate::screen::show;
use crate::{Failure, report_command};

pub(crate) fn run_scene(arguments: &RunArgs, extensions: &Extensions) -> Result<(), Failure> {
    let mut progress = RunProgress::new(arguments.quiet, Interrupt::install()?);
    let spec = extensions.spec(arguments.spec());
    let ended = run(&spec, &extensions.plugins, &mut progress);
    let result = match &ended {
        Ok(result) => Some(result),
        Err(RunError::Incomplete { result, .. }) => Some(&**result),
        Err(_) => None,
    };
    if let Some(result) = result {
        show(&result.summary, arguments.json, |_| closing_table(result))?;
        report_command::write_beside(&result.directory, arguments.quiet);
    }
    Ok(ended.map(drop)?)
}
