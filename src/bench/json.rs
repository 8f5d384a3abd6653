//! Measurements as files.

use std::path::Path;

use anyhow::Context;
use secateur_formats::write_atomic;
use serde::Serialize;

use crate::Failure;

/// Writes `measured` to `file`, if there is one.
pub(super) fn write(file: Option<&Path>, measured: &impl Serialize) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(measured).context("measurements as JSON")?;
    Ok(write_atomic(file, (text + "\n").as_bytes()).with_context(|| format!("'{}'", file.display()))?)
}
