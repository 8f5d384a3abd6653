//! Widths that a user brings, from another tool or by hand.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::planned::Planned;
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights};
use crate::error::RlError;
use crate::setting::BadSetting;
use crate::task_plan::{GroupWidths, TaskPlans, TaskWidths};

/// Names of groups that an error lists.
const LISTED_MAX: usize = 4;
/// Factors on the widths that are tried to tell what would fit, in steps of a hundredth.
const SCALES: usize = 100;

/// How much of a group stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected channels such as 12, or a share such as 0.5")]
pub enum KeptWidth {
    /// So many channels, exactly.
    Channels(usize),
    /// This share of its channels, (0, 1], or the allowed width nearest to it.
    Share(f64),
}

/// Settings of the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FixedSettings {
    /// By name of a group, or a pattern in which `*` stands for any characters: channels (`12`) or a share (`0.5`). A
    /// name counts before a pattern, a pattern with more characters before one with fewer; what none names stays as wide
    /// as it may.
    pub widths: BTreeMap<String, KeptWidth>,
}

impl AgentSettings for FixedSettings {
    fn check(&self) -> Vec<BadSetting> {
        let is_wrong = |kept: &KeptWidth| match *kept {
            KeptWidth::Channels(n) => n == 0,
            KeptWidth::Share(share) => !(share > 0.0 && share <= 1.0),
        };
        let problem = |(name, kept): (&String, &KeptWidth)| match *kept {
            KeptWidth::Channels(n) => BadSetting::new(path(name), n, EXPECTED),
            KeptWidth::Share(share) => BadSetting::new(path(name), share, EXPECTED),
        };
        self.widths.iter().filter(|(_, kept)| is_wrong(kept)).map(problem).collect()
    }

    fn check_tasks(&self, tasks: &[TaskWidths]) -> Vec<BadSetting> {
        let mut problems: Vec<BadSetting> =
            self.widths.keys().filter_map(|pattern| matches_nothing(pattern, tasks)).collect();
        // Of an entry, the first group that it does not suit.
        let mut told = BTreeSet::new();
        let not_allowed = tasks.iter().flat_map(|task| &task.groups).filter_map(|group| self.not_allowed(group));
        problems.extend(not_allowed.filter(|bad| told.insert(bad.path.clone())));
        if problems.is_empty() {
            problems.extend(tasks.iter().filter_map(|task| self.over_budget(task)));
        }
        problems
    }

    fn build(&self, _environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(Planned::unknown())
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        Some(ErrorWeights::Equal)
    }

    fn build_planned(&self, _environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        Ok(Planned::agent(plans, |plan| self.widths_of(&plan.widths)))
    }
}

const EXPECTED: &str = "a number of channels, at least 1, or a share above 0, at most 1.0";

impl AgentKind for FixedSettings {
    const ENTRY: AgentEntry = AgentEntry::single("Fixed", "fixed", "the widths that you bring: one candidate");
}

fn path(pattern: &str) -> String {
    format!("widths[{pattern:?}]")
}

impl FixedSettings {
    /// The entry that decides a group.
    fn entry(&self, group: &str) -> Option<(&String, KeptWidth)> {
        let fits = self.widths.iter().filter(|(pattern, _)| matches(pattern, group));
        fits.max_by_key(|(pattern, _)| (*pattern == group, pattern.len())).map(|(pattern, &kept)| (pattern, kept))
    }

    fn width(&self, group: &GroupWidths) -> usize {
        match self.entry(&group.name) {
            Some((_, KeptWidth::Channels(n))) => n,
            Some((_, KeptWidth::Share(share))) => group.nearest(share * group.n_channels as f64),
            None => group.nearest(group.n_channels as f64),
        }
    }

    fn widths_of(&self, task: &TaskWidths) -> Vec<usize> {
        task.groups.iter().map(|group| self.width(group)).collect()
    }

    fn not_allowed(&self, group: &GroupWidths) -> Option<BadSetting> {
        let (pattern, KeptWidth::Channels(n)) = self.entry(&group.name)? else { return None };
        if group.allowed.binary_search(&n).is_ok() {
            return None;
        }
        let above = group.allowed.partition_point(|&width| width < n);
        let near = [above.checked_sub(1), Some(above)].into_iter().flatten().filter_map(|i| group.allowed.get(i));
        let near: Vec<String> = near.map(ToString::to_string).collect();
        let (name, whole, near) = (&group.name, group.n_channels, near.join(" and "));
        let problem =
            format!("is {n}, which group \"{name}\" of {whole} channels may not keep; nearest allowed: {near}");
        Some(BadSetting { path: path(pattern), problem })
    }

    fn over_budget(&self, task: &TaskWidths) -> Option<BadSetting> {
        let widths = self.widths_of(task);
        if task.groups.is_empty() || task.fits(&widths) {
            return None;
        }
        let scaled = |step: usize| -> Vec<usize> {
            let scale = 1.0 - step as f64 / SCALES as f64;
            let width = |(group, &width): (&GroupWidths, &usize)| group.nearest(scale * width as f64).min(width);
            task.groups.iter().zip(&widths).map(width).collect()
        };
        let nearest = task.first_that_fits(SCALES, scaled);
        let changed: Vec<String> = task
            .groups
            .iter()
            .zip(nearest.iter().zip(&widths))
            .filter(|(_, (near, given))| near != given)
            .map(|(group, (near, _))| format!("{:?}: {near}", group.name))
            .collect();
        let more = if changed.len() > LISTED_MAX { ", …" } else { "" };
        let problem = format!(
            "of task {} cost {}; nearest that fit: {{{}{more}}}",
            task.name,
            task.tell(&widths),
            changed[..changed.len().min(LISTED_MAX)].join(", ")
        );
        Some(BadSetting { path: "widths".to_owned(), problem })
    }
}

/// A pattern that names no group of any task.
fn matches_nothing(pattern: &str, tasks: &[TaskWidths]) -> Option<BadSetting> {
    let names: BTreeSet<&str> = tasks.iter().flat_map(|task| &task.groups).map(|group| group.name.as_str()).collect();
    if names.is_empty() || names.iter().any(|name| matches(pattern, name)) {
        return None;
    }
    let mut near: Vec<(usize, &str)> = names.iter().map(|name| (strsim::levenshtein(pattern, name), *name)).collect();
    near.sort_unstable();
    let near: Vec<String> = near.iter().take(LISTED_MAX).map(|(_, name)| format!("{name:?}")).collect();
    let problem = format!("names no group that may be pruned; the nearest are {}", near.join(", "));
    Some(BadSetting { path: path(pattern), problem })
}

/// Whether a name fits a pattern, in which `*` stands for any characters, none included.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.len() >= end.len() && name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::super::planned::widths_of;
    use super::*;
    use crate::task_plan::hand_made;

    fn fixed(widths: &[(&str, KeptWidth)]) -> FixedSettings {
        FixedSettings { widths: widths.iter().map(|&(name, kept)| (name.to_owned(), kept)).collect() }
    }

    fn told(settings: &FixedSettings, task: &TaskWidths) -> Vec<String> {
        settings.check_tasks(std::slice::from_ref(task)).iter().map(|b| format!("{} {}", b.path, b.problem)).collect()
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, name) in [
            ("a", "a"),
            ("*", ""),
            ("*", "x"),
            ("a*", "a"),
            ("a*b*c", "abc"),
            ("a*b*c", "a1b2b3c"),
            ("*.conv1", "l.0.conv1"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("a*a", "a"), ("a*b*c", "acb"), ("*.conv1", "l.conv2"), ("l?", "l1")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn names_count_before_patterns_and_what_is_not_named_stays_whole() {
        let plan = hand_made::curved(&[8, 6, 5], &[1, 1, 1], 99);
        let widths = |given: &[(&str, KeptWidth)]| widths_of(&fixed(given), &plan);
        let (channels, share) = (KeptWidth::Channels, KeptWidth::Share);
        assert_eq!(widths(&[]), [8, 6, 5]);
        assert_eq!(widths(&[("*", share(0.5))]), [4, 3, 3]);
        assert_eq!(widths(&[("*", share(0.5)), ("b", channels(6)), ("b*", share(0.1))]), [4, 6, 3]);
    }

    #[test]
    fn what_is_not_allowed_too_much_or_of_no_group_is_told_with_what_is_near() {
        let mut task = hand_made::widths(&[8, 6], &[1, 2], 12);
        task.groups[0].allowed = vec![2, 4, 8];
        let (channels, share) = (KeptWidth::Channels, KeptWidth::Share);
        let problems = told(&fixed(&[("a", channels(5)), ("c*", share(0.5))]), &task);
        assert_eq!(
            problems,
            [
                "widths[\"c*\"] names no group that may be pruned; the nearest are \"a\", \"b\"",
                "widths[\"a\"] is 5, which group \"a\" of 8 channels may not keep; nearest allowed: 4 and 8",
            ]
        );
        let problems = told(&fixed(&[("a", channels(4)), ("b", channels(5))]), &task);
        assert_eq!(problems, ["widths of task task cost 14 of 12; nearest that fit: {\"b\": 4}"]);
        assert_eq!(told(&fixed(&[("a", channels(4)), ("b", channels(4))]), &task), [""; 0]);
        let bad = fixed(&[("a", channels(0)), ("b", share(f64::NAN)), ("c", share(1.5)), ("d", share(1.0))]).check();
        let paths: Vec<&str> = bad.iter().map(|bad| bad.path.as_str()).collect();
        assert_eq!(paths, ["widths[\"a\"]", "widths[\"b\"]", "widths[\"c\"]"]);
        assert!(bad[0].problem.starts_with("is 0, expected a number of channels"), "{}", bad[0].problem);
    }
}
