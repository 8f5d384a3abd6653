//! `compare`: agents side by side, at equal numbers of scored candidates and over several seeds.

mod arguments;
mod csv;
mod drawing;
mod text;

use std::path::Path;

use secateur_formats::write_atomic;
use secateur_run::{CompareSpec, compare};

pub(crate) use arguments::{COMPARE_EXAMPLES, CompareArgs};

use crate::extensions::Extensions;
use crate::interrupt::Interrupt;
use crate::progress::RunProgress;
use crate::screen::show;
use crate::{Failure, report_command};

pub(crate) fn compare_agents(arguments: &CompareArgs, extensions: &Extensions) -> Result<(), Failure> {
    let mut progress = RunProgress::new(arguments.quiet, Interrupt::install()?);
    let spec = CompareSpec { run: extensions.spec(arguments.spec()), ..arguments.compare_spec()? };
    let comparison = compare(&spec, &extensions.plugins, &mut progress)?;
    let write = |name: &str, text: String| -> anyhow::Result<()> {
        Ok(write_atomic(&Path::new(&comparison.directory).join(name), text.as_bytes())?)
    };
    write("compare.json", serde_json::to_string_pretty(&comparison).map_err(anyhow::Error::from)?)?;
    write("curves.csv", csv::csv(&comparison))?;
    write("curves.svg", drawing::svg(&comparison))?;
    show(&comparison, arguments.json, text::text)?;
    report_command::write_beside(&comparison.directory, arguments.quiet);
    Ok(())
}
