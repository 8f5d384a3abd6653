//! `run`: a run as the command line does it, with a bar, signals and a closing table.

use std::path::Path;

use anyhow::anyhow;
use secateur_run::{RunError, run};

use crate::arguments::RunArgs;
use crate::closing_table::closing_table;
use crate::extensions::Extensions;
use crate::interrupt::Interrupt;
use crate::progress::RunProgress;
use crate::screen::show;
use crate::{Failure, report_command};

pub(crate) fn run_scene(arguments: &RunArgs, extensions: &Extensions) -> Result<(), Failure> {
    if let Some(address) = &arguments.workers {
        return Err(on_a_cluster(address, arguments));
    }
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

/// What to call instead: Ray is Python's.
fn on_a_cluster(address: &str, arguments: &RunArgs) -> Failure {
    let out = arguments.out.as_deref().unwrap_or(Path::new("runs/first"));
    let (scene, out) = (arguments.scene.display(), out.display());
    Failure::BadArguments(anyhow!(
        "--workers: the Python package hands candidates to workers: `pip install ./python ray`, then `python -m \
         secateur.ray {scene} --out {out} --address {address}`, which takes --set, --resume, --data-root and \
         --model-root, too; the run directory is the same"
    ))
}
