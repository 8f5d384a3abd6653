//! From the patterns of a network's `keep` to ranges of its channel groups.

use std::collections::BTreeMap;

use secateur_net::{ChannelGroup, ChannelGroups, Graph, GroupId};
use secateur_scene::{clip, nearest_names};
use secateur_sim::{KeepRange, WidthBounds, WidthRules};

use crate::scene::KeepSpec;

/// Names that are proposed in place of a pattern that matches nothing.
const PROPOSED: usize = 3;
/// Allowed widths and groups that are told.
const TOLD_MAX: usize = 8;

/// What is wrong with an entry of `keep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeepFault {
    /// The entry's place.
    pub(crate) entry: usize,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) help: Option<String>,
}

/// The groups of a network, and the graph whose nodes they name.
#[derive(Clone, Copy)]
pub(crate) struct NamedGroups<'a> {
    pub(crate) network: &'a str,
    pub(crate) graph: &'a Graph,
    pub(crate) groups: &'a ChannelGroups,
}

/// The range of every group that an entry of `keep` matches; `rules` are those of all groups.
///
/// # Errors
/// Entries that match nothing, that contradict each other, or that leave a group without an allowed width.
pub(crate) fn keep_ranges(
    of: NamedGroups<'_>,
    keep: &[KeepSpec],
    rules: &WidthRules,
) -> Result<BTreeMap<GroupId, KeepRange>, Vec<KeepFault>> {
    let mut faults = Vec::new();
    // With the entry that narrowed it last.
    let mut ranges: BTreeMap<GroupId, (KeepRange, usize)> = BTreeMap::new();
    for (entry, spec) in keep.iter().enumerate() {
        let mut fault = |(message, help)| faults.push(KeepFault { entry, message, help });
        let prunable = match of.matched(spec) {
            Ok(prunable) => prunable,
            Err(why) => {
                fault(why);
                continue;
            }
        };
        for group in prunable {
            let known = ranges.get(&group).copied();
            match known.map_or(Some(spec.range), |(range, _)| range.and(spec.range)) {
                Some(range) => drop(ranges.insert(group, (range, entry))),
                None => {
                    fault(of.contradiction(group, spec, known.map_or(spec, |(_, other)| &keep[other])));
                    break;
                }
            }
        }
    }
    let ranges_of = |ranges: &BTreeMap<GroupId, (KeepRange, usize)>| -> BTreeMap<GroupId, KeepRange> {
        ranges.iter().map(|(&group, &(range, _))| (group, range)).collect()
    };
    let with_ranges = WidthRules { keep: ranges_of(&ranges), ..rules.clone() };
    for (&group, &(range, entry)) in &ranges {
        let is_told = faults.iter().any(|fault| fault.entry == entry);
        if !is_told && with_ranges.bounds(group, of.groups.group(group).n_channels).is_none() {
            let (message, help) = of.no_width(group, range, rules);
            faults.push(KeepFault { entry, message, help });
        }
    }
    if faults.is_empty() { Ok(with_ranges.keep) } else { Err(faults) }
}

impl NamedGroups<'_> {
    /// Names that mean a group: its own, and those of the layers whose outputs it is.
    fn names<'a>(&'a self, group: &'a ChannelGroup) -> impl Iterator<Item = &'a str> {
        let producers = group.producers.iter().map(|&node| self.graph.node(node).name.as_str());
        std::iter::once(group.name.as_str()).chain(producers)
    }

    /// The groups that may be pruned among those that a pattern matches; what the others are asked for must hold.
    fn matched(&self, spec: &KeepSpec) -> Result<Vec<GroupId>, (String, Option<String>)> {
        let all = self.groups.groups();
        let matches = |group: &ChannelGroup| self.names(group).any(|name| is_match(&spec.pattern, name));
        let found: Vec<GroupId> = (0..all.len()).filter(|&group| matches(&all[group])).collect();
        if found.is_empty() {
            return Err(self.nothing(spec));
        }
        let prunable: Vec<GroupId> = found.iter().copied().filter(|&group| all[group].frozen.is_none()).collect();
        if prunable.is_empty() && spec.range.max < 1.0 {
            let why = |&group: &GroupId| {
                format!("'{}' ({})", all[group].name, all[group].frozen.as_deref().unwrap_or_default())
            };
            let told: Vec<String> = found.iter().take(TOLD_MAX).map(why).collect();
            let message = format!(
                "`{}` matches only groups of network '{}' that may not be pruned, and keep all their channels: {}",
                clip(&spec.pattern),
                self.network,
                told.join(", ")
            );
            return Err((message, Some("leave the entry out, or ask for 1.0".to_owned())));
        }
        Ok(prunable)
    }

    fn nothing(&self, spec: &KeepSpec) -> (String, Option<String>) {
        let message = format!("`{}` matches no group of network '{}'", clip(&spec.pattern), self.network);
        let mut known: Vec<String> =
            self.groups.groups().iter().flat_map(|group| self.names(group)).map(str::to_owned).collect();
        if spec.pattern.contains('*') {
            // Patterns that do match, made of the names' beginnings.
            let starts = |name: &String| -> Vec<String> {
                name.match_indices(['.', '/']).map(|(at, part)| format!("{}{part}*", &name[..at])).collect()
            };
            let starts: Vec<String> = known.iter().flat_map(starts).collect();
            known.extend(starts);
        }
        known.sort_unstable();
        known.dedup();
        let nearest = nearest_names(&spec.pattern, known.iter().map(String::as_str), PROPOSED);
        let told: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
        let help = match told.is_empty() {
            true => "`secateur inspect` lists the groups; `*` stands for any text".to_owned(),
            false => format!("nearest are {}; `secateur inspect` lists all groups", told.join(", ")),
        };
        (message, Some(help))
    }

    fn contradiction(&self, group: GroupId, spec: &KeepSpec, other: &KeepSpec) -> (String, Option<String>) {
        let message = format!(
            "`{}` ({}) contradicts `{}` ({}) for group '{}' of network '{}'",
            clip(&spec.pattern),
            told(spec.range),
            clip(&other.pattern),
            told(other.range),
            self.groups.group(group).name,
            self.network
        );
        (message, Some("all entries that match a group hold; make one of them narrower".to_owned()))
    }

    fn no_width(&self, group: GroupId, range: KeepRange, rules: &WidthRules) -> (String, Option<String>) {
        let ChannelGroup { name, n_channels, .. } = self.groups.group(group);
        let message = format!(
            "group '{name}' of network '{}' has no width that is {} of its {n_channels} channels (channel_multiple {}, \
             keep_ratio_min {})",
            self.network,
            told(range),
            rules.channel_multiple,
            rules.keep_ratio_min
        );
        let widths = WidthBounds::new(*n_channels, rules.channel_multiple, rules.keep_ratio_min);
        let mut list: Vec<String> = widths.widths().iter().take(TOLD_MAX).map(ToString::to_string).collect();
        if widths.widths().len() > TOLD_MAX {
            list.push(format!("… {n_channels}"));
        }
        (message, Some(format!("its widths are {}", list.join(", "))))
    }
}

/// A range as messages tell it.
fn told(range: KeepRange) -> String {
    match range {
        KeepRange { min, max } if min == max => format!("{min}"),
        KeepRange { min, max: 1.0 } => format!("at least {min}"),
        KeepRange { min: 0.0, max } => format!("at most {max}"),
        KeepRange { min, max } => format!("from {min} to {max}"),
    }
}

/// Whether a pattern matches the whole of a name; `*` stands for any text, nothing included, `?` for one character.
fn is_match(pattern: &str, name: &str) -> bool {
    let [pattern, name] = [pattern, name].map(|text| text.chars().collect::<Vec<char>>());
    let (mut p, mut n) = (0, 0);
    // The last star, and how much of the name it stands for.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Protocol, Shape, arch};

    fn ranges(
        keep: &[(&str, f64, f64)],
        protocol: Protocol,
        multiple: usize,
    ) -> Result<Vec<(String, KeepRange)>, String> {
        let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        let groups = ChannelGroups::derive(&graph, protocol);
        let spec = |&(pattern, min, max): &(&str, f64, f64)| KeepSpec {
            pattern: pattern.to_owned(),
            range: KeepRange { min, max },
        };
        let keep: Vec<KeepSpec> = keep.iter().map(spec).collect();
        let of = NamedGroups { network: "r", graph: &graph, groups: &groups };
        match keep_ranges(of, &keep, &WidthRules::new(multiple, 0.1)) {
            Ok(ranges) => Ok(ranges.into_iter().map(|(id, range)| (groups.group(id).name.clone(), range)).collect()),
            Err(faults) => {
                let told = |fault: KeepFault| format!("{}: {} | {}", fault.entry, fault.message, fault.help.unwrap());
                Err(faults.into_iter().map(told).collect::<Vec<_>>().join("\n"))
            }
        }
    }

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("layer4.*", "layer4.0.conv1", true),
            ("layer4.*", "layer40.conv1", false),
            ("*.conv1", "layer4.0.conv1", true),
            ("*.conv1", "conv1", false),
            ("l*1*1", "layer1.0.conv1", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbXb", false),
            ("**", "x", true),
            ("layer?.0", "layer1.0", true),
            ("layer?.0", "layer11.0", false),
            ("*ä?", "xäö", true),
        ] {
            assert_eq!(is_match(pattern, name), expected, "{pattern} {name}");
        }
        // Not exponential in the stars.
        assert!(!is_match(&"*a".repeat(200), &"a".repeat(199)));
    }

    #[test]
    fn every_entry_that_matches_holds() {
        let found =
            ranges(&[("layer1.*", 0.5, 1.0), ("layer1.0.*", 0.0, 0.75), ("conv1", 1.0, 1.0)], Protocol::Inner, 1);
        let found = found.unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], ("layer1.0.conv1".to_owned(), KeepRange { min: 0.5, max: 0.75 }));
        assert_eq!(found[2], ("layer1.2.conv1".to_owned(), KeepRange { min: 0.5, max: 1.0 }));
        // A stream is known by each layer that adds to it.
        let stream = ranges(&[("layer1.2.conv2", 0.5, 1.0)], Protocol::Full, 1).unwrap();
        assert_eq!(stream, ranges(&[("conv1", 0.5, 1.0)], Protocol::Full, 1).unwrap());
        assert_eq!(stream.len(), 1);
    }

    #[test]
    fn what_cannot_be_kept_is_told_with_what_helps() {
        for (keep, multiple, words) in [
            (&[("layer4.*", 0.5, 1.0)][..], 1, &["0: `layer4.*` matches no group of network 'r'", "`layer3.*`"][..]),
            (&[("layer1.0.conv", 0.5, 1.0)], 1, &["matches no group", "`layer1.0.conv1`"]),
            (&[("conv1", 0.5, 0.5)], 1, &["matches only groups", "'conv1' (", "ask for 1.0"]),
            (
                &[("layer1.*", 0.8, 1.0), ("*", 0.0, 0.5)],
                1,
                &["1: `*` (at most 0.5) contradicts `layer1.*` (at least 0.8) for group 'layer1.0.conv1'"],
            ),
            (
                &[("layer1.0.conv1", 0.3, 0.4)],
                8,
                &["'layer1.0.conv1'", "from 0.3 to 0.4 of its 16", "widths are 8, 16"],
            ),
            (&[("layer1.0.conv1", 0.05, 0.05)], 1, &["0.05 of its 16 channels", "keep_ratio_min 0.1"]),
        ] {
            let message = ranges(keep, Protocol::Inner, multiple).unwrap_err();
            for words in words {
                assert!(message.contains(words), "{words}: {message}");
            }
        }
    }
}
