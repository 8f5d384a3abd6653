//! What would make a budget reachable that is below the least a network can cost: only what does, by counting.

use secateur_net::{ChannelGroups, Cost, Graph, Protocol};
use secateur_sim::{CostBound, WidthRules};

use super::keep::{NamedGroups, keep_ranges};
use super::reachable::Reachable;
use crate::scene::{KeepSpec, Scene};

/// Keep ratios that are proposed, largest first: a change that is no larger than it must be.
const KEEP_RATIOS: [f64; 12] = [0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.075, 0.05, 0.025, 0.01, 0.005, 0.001];

/// The settings that decide what a network can reach.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rules {
    protocol: Protocol,
    multiple: usize,
    keep_ratio_min: f64,
    /// Whether the network's `keep` holds.
    keeps: bool,
}

/// A network that does not reach a bound.
#[derive(Clone, Copy)]
struct Subject<'a> {
    keep: &'a [KeepSpec],
    graph: &'a Graph,
}

impl Rules {
    /// The least that a candidate costs; beyond all bounds where `keep` does not fit the other settings.
    fn minimum(self, of: Subject<'_>, cost: Cost) -> u64 {
        let Subject { keep, graph } = of;
        let groups = ChannelGroups::derive(graph, self.protocol);
        let rules = WidthRules::new(self.multiple, self.keep_ratio_min);
        let named = NamedGroups { network: "", graph, groups: &groups };
        let Ok(keep) = keep_ranges(named, if self.keeps { keep } else { &[] }, &rules) else { return u64::MAX };
        let least = Reachable::new(graph, groups, &WidthRules { keep, ..rules });
        least.map_or(u64::MAX, |least| least.minimum(cost))
    }

    /// Those that differ from `other`, as a scene spells them.
    fn changes(self, other: Self) -> String {
        let mut out = Vec::new();
        if self.keep_ratio_min != other.keep_ratio_min {
            out.push(format!("`keep_ratio_min: {}`", self.keep_ratio_min));
        }
        if self.multiple != other.multiple {
            out.push(format!("`channel_multiple: {}`", self.multiple));
        }
        if self.protocol != other.protocol {
            out.push(format!("`protocol: {:?}`", self.protocol));
        }
        if self.keeps != other.keeps {
            out.push("no `keep`".to_owned());
        }
        out.join(" with ")
    }
}

/// Which settings would reach `bound` with a network of the scene, given by its place and its graph, or that none does:
/// as few of them as suffice, each changed no more than it must be.
pub(crate) fn what_reaches(scene: &Scene, network: usize, graph: &Graph, bound: CostBound) -> String {
    let ours = Rules {
        protocol: scene.protocol,
        multiple: scene.channel_multiple,
        keep_ratio_min: scene.keep_ratio_min,
        keeps: true,
    };
    let of = Subject { keep: &scene.networks[network].keep, graph };
    let without_keep = (!of.keep.is_empty()).then_some(Rules { keeps: false, ..ours });
    let reaches = |rules: &Rules| rules.minimum(of, bound.cost) <= bound.max;
    let ratios: Vec<f64> = KEEP_RATIOS.into_iter().filter(|&ratio| ratio < ours.keep_ratio_min).collect();
    let multiples: Vec<usize> = (0..6).rev().map(|n| 1 << n).filter(|&multiple| multiple < ours.multiple).collect();
    let with_ratio = |rules: Rules| ratios.iter().map(move |&keep_ratio_min| Rules { keep_ratio_min, ..rules });
    let with_multiple = |rules: Rules| multiples.iter().map(move |&multiple| Rules { multiple, ..rules });
    let with_protocol =
        |rules: Rules| (ours.protocol == Protocol::Inner).then_some(Rules { protocol: Protocol::Full, ..rules });
    let smallest = |rules: Rules| Rules { multiple: multiples.last().copied().unwrap_or(rules.multiple), ..rules };
    let singles = [
        without_keep.filter(reaches),
        with_ratio(ours).find(reaches),
        with_multiple(ours).find(reaches),
        with_protocol(ours).into_iter().find(reaches),
    ];
    let found: Vec<Rules> = singles.into_iter().flatten().collect();
    let found = if found.is_empty() {
        let pairs = [
            with_ratio(smallest(ours)).find(reaches),
            with_protocol(ours).and_then(|rules| with_ratio(rules).find(reaches)),
            with_protocol(ours).and_then(|rules| with_multiple(rules).find(reaches)),
        ];
        pairs.into_iter().flatten().collect()
    } else {
        found
    };
    let all = || {
        let kept = with_protocol(smallest(ours)).and_then(|rules| with_ratio(rules).find(reaches));
        let loosest = without_keep.map_or(smallest(ours), smallest);
        kept.or_else(|| with_ratio(loosest).find(reaches))
            .or_else(|| with_protocol(loosest).and_then(|rules| with_ratio(rules).find(reaches)))
    };
    let found = if found.is_empty() { all().into_iter().collect() } else { found };
    if found.is_empty() {
        let widest = Rules { protocol: Protocol::Full, multiple: 1, keep_ratio_min: f64::MIN_POSITIVE, keeps: false };
        return format!(
            "no setting reaches it: with one channel in every group {} are left",
            widest.minimum(of, bound.cost)
        );
    }
    let told: Vec<String> = found
        .iter()
        .map(|rules| format!("{} (down to {})", rules.changes(ours), rules.minimum(of, bound.cost)))
        .collect();
    format!("or {}", told.join(", or "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Shape, arch};

    fn scene(rules: &str) -> Scene {
        let text = format!(
            "(version: 1, seed: 1, networks: [(name: \"n\", file: \"n\")], datasets: [(name: \"d\", source: Cifar10)],
              budgets: [Macs(max: 1)], {rules})"
        );
        Scene::parse("scene.ron", &text).unwrap()
    }

    /// Every change that is proposed reaches the budget when it is made, and where none is, the loosest rules do not.
    #[test]
    fn what_is_proposed_helps() {
        let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        let full = 40_551_040;
        let mut n_none = 0;
        for rules in ["", "channel_multiple: 8", "keep_ratio_min: 0.6", "channel_multiple: 16, keep_ratio_min: 0.9"] {
            for protocol in [Protocol::Inner, Protocol::Full] {
                let rules = format!("protocol: {protocol:?}, {rules}");
                let scene = scene(&rules);
                let least = |protocol: Protocol, multiple: usize, ratio: f64| {
                    let groups = ChannelGroups::derive(&graph, protocol);
                    Reachable::new(&graph, groups, &WidthRules::new(multiple, ratio)).unwrap().minimum(Cost::Macs)
                };
                for max in [1, full / 1000, full / 100, full / 20, full / 10, full / 4, full / 2] {
                    if least(protocol, scene.channel_multiple, scene.keep_ratio_min) <= max {
                        continue;
                    }
                    let text = what_reaches(&scene, 0, &graph, CostBound { cost: Cost::Macs, max });
                    if text.starts_with("no setting") {
                        n_none += 1;
                        assert!(least(Protocol::Full, 1, 1e-9) > max, "{text}");
                        continue;
                    }
                    for proposal in text.trim_start_matches("or ").split(", or ") {
                        let told: Vec<&str> = proposal.split('`').skip(1).step_by(2).collect();
                        let changed = told.iter().try_fold(scene.to_ron(), |text, change| {
                            crate::scene::edit(&text, &change.replacen(": ", "=", 1))
                        });
                        let changed = Scene::parse("changed.ron", &changed.unwrap()).unwrap();
                        let (multiple, ratio) = (changed.channel_multiple, changed.keep_ratio_min);
                        let minimum = least(changed.protocol, multiple, ratio);
                        assert!(!told.is_empty() && minimum <= max, "{rules}, {max}: {text}");
                        assert!(proposal.ends_with(&format!("(down to {minimum})")), "{proposal}: {minimum}");
                    }
                }
            }
        }
        assert!(n_none > 4, "{n_none}");
    }
}
