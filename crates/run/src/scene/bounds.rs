//! Checks of what a scene bounds: costs of networks, and shares of channels that groups keep.

use std::collections::BTreeMap;

use secateur_net::Cost;
use secateur_scene::{MapEntry, clip};
use secateur_sim::KeepRange;

use super::check::Checker;
use super::file::{BudgetFile, KeepFile, KeepRangeFile};
use super::parsed::{BoundSpec, BudgetBound, BudgetSpec, KeepSpec};
use super::tasks::bound_name;

impl Checker<'_> {
    pub(super) fn budgets(&mut self, files: &[BudgetFile]) -> Vec<BudgetSpec> {
        if files.is_empty() {
            self.problem("budgets", "is empty, so the scene has zero tasks");
        }
        let mut first_of = BTreeMap::new();
        let mut budgets = Vec::new();
        for (i, file) in files.iter().enumerate() {
            let path = format!("budgets[{i}]");
            let Some(budget) = self.budget(&path, file) else { continue };
            let mut names: Vec<String> = budget.bounds.iter().map(bound_name).collect();
            let what = if names.len() > 1 { "has the same bounds as" } else { "is the same bound as" };
            names.sort_unstable();
            if let Some(first) = first_of.insert(names, i) {
                self.problem(&path, format!("{what} `budgets[{first}]`"));
            }
            budgets.push(budget);
        }
        budgets
    }

    fn budget(&mut self, path: &str, file: &BudgetFile) -> Option<BudgetSpec> {
        let BudgetFile::Budget(files) = file else {
            return Some(BudgetSpec { bounds: vec![self.bound(path, file)?] });
        };
        if files.is_empty() {
            self.problem(path, "has no bound, expected at least one, such as `Macs(ratio: 0.5)`");
        }
        let mut bounds: Vec<BoundSpec> = Vec::new();
        for (i, file) in files.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let Some(bound) = self.bound(&path, file) else { continue };
            if let Some(first) = bounds.iter().position(|earlier| earlier.kind == bound.kind) {
                let kind = bound.kind.name();
                self.problem(&path, format!("bounds {kind} again, as entry [{first}] does; leave the larger out"));
            }
            bounds.push(bound);
        }
        (!bounds.is_empty()).then_some(BudgetSpec { bounds })
    }

    fn bound(&mut self, path: &str, file: &BudgetFile) -> Option<BoundSpec> {
        let (kind, ratio, max) = match *file {
            BudgetFile::Macs { ratio, max } => (Cost::Macs, ratio, max),
            BudgetFile::Params { ratio, max } => (Cost::Params, ratio, max),
            BudgetFile::ActivationBytes { ratio, max } => (Cost::ActivationBytes, ratio, max),
            BudgetFile::Budget(_) => {
                self.problem(path, "is a list of bounds in another, expected Macs, Params or ActivationBytes");
                return None;
            }
        };
        let bound = match (ratio, max) {
            (Some(ratio), None) => {
                self.ratio(&format!("{path}.ratio"), ratio);
                BudgetBound::Ratio(ratio)
            }
            (None, Some(max)) => {
                self.at_least_one(&format!("{path}.max"), max);
                BudgetBound::Max(max)
            }
            (ratio, _) => {
                let got = if ratio.is_some() { "both" } else { "neither" };
                self.problem(path, format!("has {got}, expected exactly one of `ratio` and `max`"));
                return None;
            }
        };
        Some(BoundSpec { kind, bound })
    }

    /// The entries of a network's `keep`, in the order of their patterns.
    pub(super) fn keep(&mut self, network: usize, files: &BTreeMap<String, KeepFile>) -> Vec<KeepSpec> {
        let path = format!("networks[{network}].keep");
        let entries: Vec<MapEntry> = self.document.map(&path);
        for (i, entry) in entries.iter().enumerate() {
            if entries[..i].iter().any(|earlier| earlier.name == entry.name) {
                let twice = format!("`{path}`: the pattern `{}` is there twice", clip(&entry.name));
                self.problems.push(entry.problem(twice));
            }
        }
        let mut out = Vec::new();
        for (pattern, file) in files {
            match keep_range(pattern, *file) {
                Ok(range) => out.push(KeepSpec { pattern: pattern.clone(), range }),
                Err(what) => {
                    let message = format!("`{path}`: `{}` {what}", clip(pattern));
                    // A key with escapes is spelt otherwise in the text.
                    let entry = entries.iter().find(|entry| entry.name == *pattern);
                    let problem = entry.map(|entry| entry.problem(&*message));
                    self.problems.push(problem.unwrap_or_else(|| self.document.problem(&path, &*message, None)));
                }
            }
        }
        out
    }
}

/// What an entry asks for, or what is wrong with it.
fn keep_range(pattern: &str, file: KeepFile) -> Result<KeepRange, String> {
    let range = match file {
        KeepFile::Share(share) => KeepRange { min: share, max: share },
        KeepFile::Range(KeepRangeFile { min: None, max: None }) => {
            return Err("has neither `min` nor `max`, expected at least one of them".to_owned());
        }
        KeepFile::Range(KeepRangeFile { min, max }) => KeepRange { min: min.unwrap_or(0.0), max: max.unwrap_or(1.0) },
    };
    // NaN is in no range.
    let shares = [(range.min, range.min >= 0.0 && range.min <= 1.0), (range.max, range.max > 0.0 && range.max <= 1.0)];
    if let Some((share, _)) = shares.into_iter().find(|(_, is_share)| !is_share) {
        return Err(format!("keeps {share} of the channels, expected a share in (0, 1]"));
    }
    if range.min > range.max {
        return Err(format!("keeps from {} to {} of the channels, which is no range", range.min, range.max));
    }
    if pattern.is_empty() {
        return Err("names nothing, expected the name of a group, or a pattern such as `layer4.*`".to_owned());
    }
    Ok(range)
}
