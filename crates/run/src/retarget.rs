//! Budgets that were not in the scene, answered by the policy that a run learned.

use std::path::{Path, PathBuf};

use secateur_sim::PluginList;

use crate::error::RunError;
use crate::learned_policy::{LearnedPolicy, scene_of};
use crate::observer::Observer;
use crate::spec::RunSpec;
use crate::summary::RunResult;
use crate::{Card, run_on};

/// Walks the tasks of an earlier run's scene, with the changes of `spec`, by the policy that the run learned. Nothing
/// is learned any more, and there are no controls. The scene of `spec` is not read, its changes (`sets`) are, such as
/// other budgets and fewer `walks_per_task`; the last walk of each task is free of noise.
///
/// A budget between two that were learned begins between them, one outside at the nearest. Another network or data set
/// takes the policy of the budgets, group by group at the same depth.
///
/// # Errors
/// As [`run`](crate::run); a directory without a policy, or one that does not fit the scene.
pub fn retarget(
    run: &Path,
    spec: &RunSpec,
    plugins: &PluginList,
    observer: &mut dyn Observer,
) -> Result<RunResult, RunError> {
    let policy = LearnedPolicy::read(run).map_err(RunError::BadArguments)?;
    let scene = scene_of(run).map_err(RunError::BadArguments)?;
    let sets = spec.sets.iter().cloned().chain(["controls=[]".to_owned()]).collect();
    let out = spec.out.clone().unwrap_or_else(|| beside(run));
    let spec = RunSpec { scene, sets, out: Some(out), resume: false, ..spec.clone() };
    run_on(&spec, plugins, observer, Card::of, Some(policy), None)
}

/// `<run>-retargeted`, or with a number behind it where that is taken.
fn beside(run: &Path) -> PathBuf {
    let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let numbered = |n: usize| {
        let number = if n > 1 { format!("-{n}") } else { String::new() };
        run.with_file_name(format!("{name}-retargeted{number}"))
    };
    (1..10_000).map(numbered).find(|path| !path.exists()).unwrap_or_else(|| numbered(1))
}
