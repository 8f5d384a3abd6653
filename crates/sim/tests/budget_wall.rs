//! No policy can cross the budget wall: random policies on real architectures and random graphs, every cost, every
//! multiple.

use std::sync::Arc;

use secateur_net::random::{SplitMix, random_graph};
use secateur_net::{ChannelGroups, Cost, CostModel, Graph, Protocol, Shape, arch};
use secateur_sim::{BudgetWall, CostBound, Unreachable, WidthBounds, WidthRules};

const COSTS: [Cost; 3] = [Cost::Macs, Cost::Params, Cost::ActivationBytes];
const CIFAR: Shape = Shape { c: 3, h: 32, w: 32 };

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
    fn full(&self, cost: Cost) -> u64 {
        self.model.count(cost, &self.groups.full_widths())
    }
    fn wall(&self, cost: Cost, max: u64, multiple: usize) -> Result<BudgetWall, u64> {
        match self.joint(&WidthRules::new(multiple, 0.1), &[CostBound { cost, max }]) {
            Ok(wall) => Ok(wall),
            Err(Unreachable::Bound { minimum, .. }) => Err(minimum),
            Err(Unreachable::Width { group }) => panic!("group {group} has no width"),
        }
    }
    fn joint(&self, rules: &WidthRules, limits: &[CostBound]) -> Result<BudgetWall, Unreachable> {
        BudgetWall::new(&self.groups, self.model.clone(), rules, limits)
    }
    /// Walks of a policy that asks for anything at all, checked against a count of the finished widths.
    fn check_random_walks(&self, wall: &BudgetWall, n_walks: usize, rng: &mut SplitMix, what: &str) {
        for _ in 0..n_walks {
            let mut widths = wall.least_widths().to_vec();
            for layer in 0..wall.order().len() {
                let wanted = match rng.below(4) {
                    0 => 1.0,
                    1 => 1e9 * rng.signed(),
                    _ => 0.5 + 0.5 * rng.signed(),
                };
                wall.clamp(&mut widths, layer, wanted);
            }
            for limit in wall.limits() {
                let cost = self.model.count(limit.cost, &widths);
                assert!(cost <= limit.max, "{what}: {cost} > {limit:?}");
            }
            for (layer, &group) in wall.order().iter().enumerate() {
                assert!(wall.bounds(layer).widths().contains(&widths[group]), "{what}: width {}", widths[group]);
            }
        }
    }
}

#[test]
fn random_policies_never_exceed_a_budget_on_known_architectures() {
    let mut rng = SplitMix(1);
    for (name, protocol) in [
        ("resnet20", Protocol::Inner),
        ("resnet20", Protocol::Full),
        ("resnet56", Protocol::Inner),
        ("vgg16", Protocol::Inner),
        ("mobilenet_v1", Protocol::Inner),
    ] {
        let ground = Ground::new(&arch::build(name, CIFAR, 10).unwrap(), protocol);
        for multiple in [1, 4, 8] {
            // 10,000 walks per network and multiple, over budgets from the least reachable to nearly everything.
            let full = ground.full(Cost::Macs);
            let least = ground.wall(Cost::Macs, 0, multiple).unwrap_err();
            for step in 0..10 {
                let max = least + (full - least) * step / 10;
                let wall = ground.wall(Cost::Macs, max, multiple).unwrap();
                let what = format!("{name} {protocol:?} multiple {multiple} budget {max}");
                ground.check_random_walks(&wall, 1000, &mut rng, &what);
            }
        }
    }
}

#[test]
fn random_policies_never_exceed_any_budget_on_random_graphs() {
    let mut rng = SplitMix(2);
    for seed in 0..200 {
        let ground = Ground::new(&random_graph(seed), Protocol::Full);
        for (cost, multiple) in COSTS.into_iter().flat_map(|c| [1, 4, 8].map(|m| (c, m))) {
            let full = ground.full(cost);
            let Err(least) = ground.wall(cost, 0, multiple) else { panic!("a budget of 0 was accepted") };
            for max in [least, (least + full) / 2, full] {
                let wall = ground.wall(cost, max, multiple).unwrap();
                ground.check_random_walks(&wall, 20, &mut rng, &format!("seed {seed} {cost:?} multiple {multiple}"));
            }
        }
    }
}

#[test]
fn a_budget_below_the_minimum_is_refused_with_the_minimum() {
    let ground = Ground::new(&arch::build("resnet20", CIFAR, 10).unwrap(), Protocol::Inner);
    let minimum = ground.wall(Cost::Macs, 1, 8).unwrap_err();
    // design.md 4: about 0.3055 of the MACs at channel_multiple 8.
    let share = minimum as f64 / ground.full(Cost::Macs) as f64;
    assert!((share - 0.3055).abs() < 1e-4, "{share}");
    assert_eq!(ground.wall(Cost::Macs, minimum - 1, 8).unwrap_err(), minimum);
    assert!(ground.wall(Cost::Macs, minimum, 8).is_ok());
}

#[test]
fn widths_are_multiples_above_the_least_ratio_and_the_full_width() {
    assert_eq!(WidthBounds::new(16, 1, 0.1).widths(), (2..=16).collect::<Vec<_>>());
    assert_eq!(WidthBounds::new(16, 4, 0.3).widths(), [8, 12, 16]);
    assert_eq!(WidthBounds::new(13, 8, 0.1).widths(), [8, 13]);
    assert_eq!(WidthBounds::new(3, 8, 0.1).widths(), [3]);
    assert_eq!(WidthBounds::new(30, 1, 0.1).least(), 3);
    assert_eq!(WidthBounds::new(1, 1, 0.1).widths(), [1]);
    let bounds = WidthBounds::new(16, 4, 0.1);
    assert_eq!([0.0, 0.36, 0.375, 0.9, 7.0].map(|r| bounds.nearest(r)), [4, 4, 8, 16, 16]);
}

#[test]
fn the_nearest_width_is_the_one_that_a_search_through_all_finds() {
    for (n, multiple) in [(1, 1), (7, 1), (16, 4), (30, 8), (64, 1), (64, 16)] {
        let bounds = WidthBounds::new(n, multiple, 0.1);
        for i in -10..=1100 {
            let keep_ratio = i as f32 / 1000.0;
            let wanted = f64::from(keep_ratio) * n as f64;
            let distance = |w: usize| (w as f64 - wanted).abs();
            // Of two equally near, the larger.
            let slow = bounds.widths().iter().copied().rev().min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
            assert_eq!(Some(bounds.nearest(keep_ratio)), slow, "{n} {multiple} {keep_ratio}");
        }
    }
}

#[test]
fn leftover_budget_is_spent_to_the_last_affordable_step() {
    let mut rng = SplitMix(3);
    for seed in 0..60 {
        let ground = Ground::new(&random_graph(seed), Protocol::Full);
        let least = ground.wall(Cost::Macs, 0, 1).unwrap_err();
        let wall = ground.wall(Cost::Macs, (least + ground.full(Cost::Macs)) / 2, 1).unwrap();
        let mut widths = wall.least_widths().to_vec();
        let errors: Vec<f64> = (0..64).map(|_| f64::from(rng.signed())).collect();
        wall.spend_leftover(&mut widths, |layer, width| errors[(7 * layer + width) % 64]);
        assert!(wall.allows(&widths));
        for (layer, &group) in wall.order().iter().enumerate() {
            let Some(wider) = wall.bounds(layer).above(widths[group]) else { continue };
            let mut more = widths.clone();
            more[group] = wider;
            assert!(!wall.allows(&more), "seed {seed}: group {group} could still grow");
        }
    }
}

#[test]
fn leftover_goes_first_to_the_group_that_gains_most_per_mac() {
    let ground = Ground::new(&arch::build("resnet20", CIFAR, 10).unwrap(), Protocol::Inner);
    let wall = ground.wall(Cost::Macs, ground.wall(Cost::Macs, 0, 1).unwrap_err() + 2 * 300_000, 1).unwrap();
    let mut widths = wall.least_widths().to_vec();
    // Only the fourth group has anything to gain.
    wall.spend_leftover(&mut widths, |layer, width| if layer == 3 { 1.0 / width as f64 } else { 0.0 });
    let grown: Vec<usize> = wall.order().iter().map(|&g| widths[g] - wall.least_widths()[g]).collect();
    assert!(grown[3] >= 2 && grown.iter().enumerate().all(|(i, &n)| i == 3 || n <= 1), "{grown:?}");
}

#[test]
fn even_ratio_meets_the_budget_and_leaves_little_of_it() {
    let ground = Ground::new(&arch::build("resnet56", CIFAR, 10).unwrap(), Protocol::Inner);
    for share in [0.3, 0.5, 0.7] {
        let max = (ground.full(Cost::Macs) as f64 * share) as u64;
        let wall = ground.wall(Cost::Macs, max, 1).unwrap();
        let mut widths = wall.least_widths().to_vec();
        for layer in 0..wall.order().len() {
            let ratio = wall.even_ratio(&mut widths.clone(), layer);
            wall.clamp(&mut widths, layer, ratio);
        }
        let cost = ground.model.count(Cost::Macs, &widths);
        assert!(cost <= max && cost as f64 > 0.98 * max as f64, "{share}: {cost} of {max}");
        let ratios: Vec<f64> =
            wall.order().iter().map(|&g| widths[g] as f64 / ground.groups.group(g).n_channels as f64).collect();
        let (low, high) = ratios.iter().fold((1.0f64, 0.0f64), |(l, h), &r| (l.min(r), h.max(r)));
        assert!(high - low < 0.15, "{ratios:?}");
    }
}
