//! The wall of several bounds at once, and of groups with widths of their own: random policies on random graphs.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::sync::Arc;

use secateur_net::random::{SplitMix, random_graph, random_graph_of_every_operation};
use secateur_net::{ChannelGroups, Cost, CostModel, Graph, GroupId, Protocol};
use secateur_sim::{BudgetWall, CostBound, KeepRange, Unreachable, WidthBounds, WidthRules};

const COSTS: [Cost; 3] = [Cost::Macs, Cost::Params, Cost::ActivationBytes];

struct Ground {
    groups: ChannelGroups,
    model: Arc<CostModel>,
}

impl Ground {
    fn new(graph: &Graph, protocol: Protocol) -> Self {
        let groups = ChannelGroups::derive(graph, protocol);
        let model = Arc::new(CostModel::new(graph, &groups));
        Self { groups, model }
    }

    fn wall(&self, rules: &WidthRules, limits: &[CostBound]) -> Result<BudgetWall, Unreachable> {
        BudgetWall::new(&self.groups, self.model.clone(), rules, limits)
    }

    fn count(&self, cost: Cost, widths: &[usize]) -> u64 {
        self.model.count(cost, widths)
    }

    /// Ranges for about half of the groups, none without a width: both ends are allowed widths.
    fn rules(&self, multiple: usize, rng: &mut SplitMix) -> WidthRules {
        let mut rules = WidthRules::new(multiple, 0.1);
        for group in self.groups.prunable() {
            let n = self.groups.group(group).n_channels;
            let all = WidthBounds::new(n, multiple, 0.1);
            let share = |rng: &mut SplitMix| all.widths()[rng.below(all.widths().len())] as f64 / n as f64;
            let (a, b) = (share(rng), share(rng));
            if rng.below(2) == 0 {
                rules.keep.insert(group, KeepRange { min: a.min(b), max: a.max(b) });
            }
        }
        rules
    }

    /// One to three bounds on different costs, each from the least that can be reached to everything.
    fn limits(&self, rules: &WidthRules, rng: &mut SplitMix) -> Vec<CostBound> {
        let least = self.wall(rules, &[]).unwrap().least_widths().to_vec();
        let full = self.groups.full_widths();
        let mut costs = COSTS.to_vec();
        costs.rotate_left(rng.below(3));
        costs.truncate(1 + rng.below(3));
        let bound = |cost: Cost| {
            let (least, full) = (self.count(cost, &least), self.count(cost, &full));
            CostBound { cost, max: least + (full - least) * [0, 1, 10, 30, 60, 100][rng.below(6)] / 100 }
        };
        costs.into_iter().map(bound).collect()
    }
}

fn wanted(rng: &mut SplitMix) -> f32 {
    match rng.below(4) {
        0 => 1.0,
        1 => 1e9 * rng.signed(),
        _ => 0.5 + 0.5 * rng.signed(),
    }
}

fn grounds(seed: u64) -> [Ground; 3] {
    [
        Ground::new(&random_graph(seed), Protocol::Inner),
        Ground::new(&random_graph(seed), Protocol::Full),
        Ground::new(&random_graph_of_every_operation(seed), Protocol::Full),
    ]
}

#[test]
fn random_policies_end_within_every_bound_and_every_range() {
    let mut rng = SplitMix(11);
    for seed in 0..150 {
        for (ground, multiple) in grounds(seed).iter().flat_map(|ground| [1, 4].map(|multiple| (ground, multiple))) {
            let rules = ground.rules(multiple, &mut rng);
            let limits = ground.limits(&rules, &mut rng);
            let wall = ground.wall(&rules, &limits).unwrap();
            for _ in 0..10 {
                let mut widths = wall.least_widths().to_vec();
                for layer in 0..wall.order().len() {
                    assert!(wall.allows(&widths), "seed {seed}: a dead end before layer {layer}");
                    wall.clamp(&mut widths, layer, wanted(&mut rng));
                }
                if rng.below(2) == 0 {
                    wall.spend_leftover(&mut widths, |layer, width| (7 * layer + width) as f64 % 5.0);
                }
                for limit in &limits {
                    let cost = ground.count(limit.cost, &widths);
                    assert!(cost <= limit.max, "seed {seed}: {cost} for {limit:?} of {limits:?}");
                }
                check_ranges(&ground.groups, &rules, &widths);
            }
        }
    }
}

fn check_ranges(groups: &ChannelGroups, rules: &WidthRules, widths: &[usize]) {
    for (&group, range) in &rules.keep {
        let share = widths[group] as f64 / groups.group(group).n_channels as f64;
        assert!(share >= range.min - 1e-9 && share <= range.max + 1e-9, "group {group}: {share} of {range:?}");
    }
    let frozen = (0..widths.len()).filter(|group| groups.group(*group).frozen.is_some());
    frozen.for_each(|group| assert_eq!(widths[group], groups.group(group).n_channels));
}

/// A joint wall is the tightest of the single walls, whatever was decided before.
#[test]
fn a_decision_is_the_least_of_those_of_the_single_walls() {
    let mut rng = SplitMix(12);
    for seed in 0..100 {
        for ground in grounds(seed) {
            let rules = ground.rules(1, &mut rng);
            let limits = ground.limits(&rules, &mut rng);
            let joint = ground.wall(&rules, &limits).unwrap();
            let single: Vec<BudgetWall> = limits.iter().map(|&limit| ground.wall(&rules, &[limit]).unwrap()).collect();
            let mut widths = joint.least_widths().to_vec();
            for layer in 0..joint.order().len() {
                let wanted = wanted(&mut rng);
                let tightest = single.iter().map(|wall| wall.clamp(&mut widths.clone(), layer, wanted)).min();
                assert_eq!(Some(joint.clamp(&mut widths, layer, wanted)), tightest, "seed {seed}, layer {layer}");
            }
        }
    }
}

/// All allowed widths of the groups from `layer` on, beside those decided.
fn completions(wall: &BudgetWall, layer: usize, widths: &[usize]) -> Vec<Vec<usize>> {
    let mut out = vec![widths.to_vec()];
    for later in layer..wall.order().len() {
        let group: GroupId = wall.order()[later];
        let with = |widths: &Vec<usize>, width: usize| {
            let mut widths = widths.clone();
            widths[group] = width;
            widths
        };
        let options = wall.bounds(later).widths();
        out = out.iter().flat_map(|widths| options.iter().map(move |&width| with(widths, width))).collect();
    }
    out
}

/// Checked against every network there is: a width is refused only where no completion meets all bounds, and a task
/// only where no network does.
#[test]
fn only_what_no_completion_reaches_is_refused() {
    let mut rng = SplitMix(13);
    let mut n_checked = 0;
    for seed in 0..80 {
        for ground in grounds(seed) {
            let rules = ground.rules(4, &mut rng);
            let free = ground.wall(&rules, &[]).unwrap();
            let n_all: usize = (0..free.order().len()).map(|layer| free.bounds(layer).widths().len()).product();
            if n_all > 300 || free.order().is_empty() {
                continue;
            }
            let all = completions(&free, 0, free.least_widths());
            for _ in 0..4 {
                // Some of them cannot be met.
                let limits: Vec<CostBound> = ground
                    .limits(&rules, &mut rng)
                    .into_iter()
                    .map(|limit| CostBound { max: limit.max - limit.max * rng.below(2) as u64 / 7, ..limit })
                    .collect();
                let meets = |widths: &Vec<usize>| limits.iter().all(|l| ground.count(l.cost, widths) <= l.max);
                let wall = ground.wall(&rules, &limits);
                assert_eq!(wall.is_ok(), all.iter().any(meets), "seed {seed}: {limits:?}");
                n_checked += 1;
                let Ok(wall) = wall else { continue };
                let mut widths = wall.least_widths().to_vec();
                for layer in 0..wall.order().len() {
                    let before = widths.clone();
                    let width = wall.clamp(&mut widths, layer, 1.0);
                    let possible = |&&width: &&usize| {
                        let mut tried = before.clone();
                        tried[wall.order()[layer]] = width;
                        completions(&wall, layer + 1, &tried).iter().any(meets)
                    };
                    let widest = wall.bounds(layer).widths().iter().rev().find(possible);
                    assert_eq!(Some(&width), widest, "seed {seed}, layer {layer}: {limits:?}");
                }
            }
        }
    }
    assert!(n_checked > 100, "{n_checked}");
}

#[test]
fn the_first_bound_that_cannot_be_met_is_told_with_its_minimum() {
    let ground = Ground::new(&random_graph(3), Protocol::Full);
    let rules = WidthRules::new(1, 0.1);
    let least = ground.wall(&rules, &[]).unwrap().least_widths().to_vec();
    let at = |cost: Cost, less: u64| CostBound { cost, max: ground.count(cost, &least) - less };
    let limits = [at(Cost::Macs, 0), at(Cost::Params, 1), at(Cost::ActivationBytes, 1)];
    let minimum = ground.count(Cost::Params, &least);
    assert_eq!(ground.wall(&rules, &limits).unwrap_err(), Unreachable::Bound { bound: limits[1], minimum });
}

#[test]
fn a_range_leaves_the_widths_inside_and_a_single_share_the_nearest() {
    let all = WidthBounds::new(16, 4, 0.1);
    let widths = |min: f64, max: f64| all.within(KeepRange { min, max }).map(|bounds| bounds.widths().to_vec());
    assert_eq!(widths(0.0, 1.0), Some(vec![4, 8, 12, 16]));
    assert_eq!(widths(0.5, 1.0), Some(vec![8, 12, 16]));
    assert_eq!(widths(0.3, 0.8), Some(vec![8, 12]));
    assert_eq!(widths(0.3, 0.4), None);
    assert_eq!(widths(0.4, 0.4), Some(vec![8]));
    assert_eq!(widths(1.0, 1.0), Some(vec![16]));
    let narrow = all.within(KeepRange { min: 0.0, max: 0.5 }).unwrap();
    assert_eq!((narrow.least(), narrow.most(), narrow.n_channels()), (4, 8, 16));
    assert_eq!([0.0, 0.3, 0.4, 0.9, 1.0, 1e9].map(|ratio| narrow.nearest(ratio)), [4, 4, 8, 8, 8, 8]);
    let rules = |keep_ratio_min: f64, range: KeepRange| {
        WidthRules { keep: [(0, range)].into(), ..WidthRules::new(1, keep_ratio_min) }.bounds(0, 10)
    };
    let tenth = KeepRange { min: 0.1, max: 0.1 };
    assert_eq!(rules(0.1, tenth).map(|bounds| bounds.widths().to_vec()), Some(vec![1]));
    assert_eq!(rules(0.2, tenth), None);
}
