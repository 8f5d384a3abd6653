//! What of a run's records does not depend on the clock.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;

use serde_json::Value;

/// `summary.json` without its times.
pub(crate) fn summary(out: &Path) -> Value {
    without_times(&fs::read_to_string(out.join("summary.json")).unwrap())
}

/// The lines of `metrics.jsonl` without their times.
pub(crate) fn events(out: &Path) -> Vec<Value> {
    fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().map(without_times).collect()
}

fn without_times(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    value.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_s"));
    value
}
