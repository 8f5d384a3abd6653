//! Measurements as files.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, anyhow};
use secateur_formats::write_atomic;
use serde::Serialize;

use crate::Failure;

/// Writes `measured` to `file`, if there is one.
pub(super) fn write(file: Option<&Path>, measured: &impl Serialize) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(measured).context("measurements as JSON")?;
    Ok(write_atomic(file, (text + "\n").as_bytes()).with_context(|| format!("'{}'", file.display()))?)
}

/// Refuses a file that could not be written, before anything is measured.
pub(super) fn check(file: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let fail =
        |why: String| Err(Failure::BadArguments(anyhow!("--json '{}' cannot be written: {why}", file.display())));
    if file.is_dir() {
        return fail("it is a folder".to_owned());
    }
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let trial = folder.join(format!(".secateur-{}.tmp", std::process::id()));
    match File::create(&trial).and_then(|_| std::fs::remove_file(&trial)) {
        Ok(()) => Ok(()),
        Err(error) => fail(error.to_string()),
    }
}
