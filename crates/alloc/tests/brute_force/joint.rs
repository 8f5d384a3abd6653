//! Several bounds at once.

use secateur_alloc::{AllocError, Allocation, Allocator};
use secateur_net::random::{SplitMix, random_graph, random_graph_of_every_operation};
use secateur_net::{ChannelGroups, Cost, GraphBuilder, Op, Protocol, Shape, arch};

use crate::ground::{COSTS, Ground, chain, conv, widths_for};

/// Every combination of at least two costs, in more than one order.
const COMBINATIONS: [&[Cost]; 5] = [
    &[Cost::Macs, Cost::Params],
    &[Cost::Params, Cost::ActivationBytes],
    &[Cost::ActivationBytes, Cost::Macs],
    &[Cost::Macs, Cost::Params, Cost::ActivationBytes],
    &[Cost::ActivationBytes, Cost::Params, Cost::Macs],
];

impl Ground {
    fn within(&self, found: &Allocation, limits: &[(Cost, u64)], what: &str) {
        for (&(cost, max), &value) in limits.iter().zip(&found.costs) {
            assert_eq!(self.model.count(cost, &found.widths), value, "{what}");
            assert!(value <= max, "{what}: {} of {value}", cost.name());
        }
        let of_curve = |curve: &secateur_alloc::GroupCurve| {
            curve.errors[curve.widths.binary_search(&found.widths[curve.group]).unwrap()]
        };
        assert!((self.curves.iter().map(of_curve).sum::<f64>() - found.error).abs() < 1e-9, "{what}");
        assert!(found.lower_bound.is_none_or(|bound| bound <= found.error + 1e-12), "{what}");
    }

    /// Compares combinations of bounds all over the range with the best of all choices; returns how many, and in how
    /// many of them no single bound alone leads to the same widths.
    fn check_joint(&self, what: &str, rng: &mut SplitMix) -> [usize; 2] {
        let counts = |widths: &Vec<usize>| COSTS.map(|cost| self.model.count(cost, widths));
        let all: Vec<([u64; 3], f64)> = self.all().iter().map(|(widths, error)| (counts(widths), *error)).collect();
        let place = |cost: Cost| COSTS.iter().position(|&known| known == cost).unwrap();
        let mut n = [0, 0];
        for costs in COMBINATIONS {
            for _ in 0..8 {
                let limit = |cost: Cost, percent: u64| {
                    let of =
                        |f: fn(u64, u64) -> u64| all.iter().map(|(counts, _)| counts[place(cost)]).reduce(f).unwrap();
                    let (least, most) = (of(u64::min), of(u64::max));
                    (cost, least + (most - least) * percent / 100)
                };
                let limits: Vec<(Cost, u64)> =
                    costs.iter().map(|&cost| limit(cost, [0, 3, 10, 20, 35, 50, 70, 90, 100][rng.below(9)])).collect();
                let meets = |counts: &[u64; 3], limits: &[(Cost, u64)]| {
                    limits.iter().all(|&(cost, max)| counts[place(cost)] <= max)
                };
                let best = |limits: &[(Cost, u64)]| {
                    let within = all.iter().filter(|(counts, _)| meets(counts, limits));
                    within.map(|(_, error)| *error).fold(f64::INFINITY, f64::min)
                };
                let what = format!("{what}, {limits:?}");
                let found = self.allocate(&limits).unwrap();
                self.within(&found, &limits, &what);
                let expected = best(&limits);
                assert!(
                    (found.error - expected).abs() <= 1e-9 * (1.0 + expected),
                    "{what}: {} for {expected}",
                    found.error
                );
                n[0] += 1;
                n[1] += usize::from(limits.iter().all(|&single| best(&[single]) < expected - 1e-9));
            }
        }
        n
    }
}

#[test]
fn random_graphs_get_the_optimum_of_all_widths_for_every_combination_of_costs() {
    let (mut rng, mut n) = (SplitMix(7), [0, 0]);
    for seed in 0..60 {
        for (graph, protocol) in [
            (random_graph(seed), Protocol::Inner),
            (random_graph(seed), Protocol::Full),
            (random_graph_of_every_operation(seed), Protocol::Full),
        ] {
            let groups = ChannelGroups::derive(&graph, protocol).prunable().len();
            let Some(n_widths) = widths_for(groups) else { continue };
            let Some(ground) = Ground::new(&graph, protocol, n_widths, seed) else { continue };
            let more = ground.check_joint(&format!("graph {seed}, protocol {}", protocol.name()), &mut rng);
            n = [n[0] + more[0], n[1] + more[1]];
        }
    }
    // Often enough the bounds bind together.
    assert!(n[0] > 2000 && n[1] > 100, "{n:?}");
}

#[test]
fn a_chain_gets_the_optimum_of_every_single_width_for_every_combination_of_costs() {
    let (mut rng, mut n) = (SplitMix(8), 0);
    for seed in 0..3 {
        let ground = Ground::new(&chain(&[9, 14, 7, 12]), Protocol::Inner, 64, seed).unwrap();
        n += ground.check_joint("chain", &mut rng)[1];
    }
    assert!(n > 5, "{n}");
}

/// Where all choices are too many to count: within a thousandth of what no choice can be better than.
#[test]
fn known_networks_are_within_a_thousandth_of_the_optimum() {
    for (name, protocol) in [
        ("resnet20", Protocol::Inner),
        ("resnet20", Protocol::Full),
        ("resnet56", Protocol::Inner),
        ("vgg16", Protocol::Inner),
        ("mobilenet_v1", Protocol::Full),
    ] {
        let graph = arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        let ground = Ground::new(&graph, protocol, 24, 5).unwrap();
        let full = COSTS.map(|cost| ground.model.count(cost, &ground.groups.full_widths()));
        for percents in [[50, 50, 100], [60, 40, 100], [40, 60, 90], [70, 70, 80]] {
            let limits: Vec<(Cost, u64)> = (0..3).map(|i| (COSTS[i], full[i] * percents[i] / 100)).collect();
            let Ok(found) = ground.allocate(&limits) else { continue };
            let what = format!("{name} {protocol:?} {percents:?}");
            ground.within(&found, &limits, &what);
            let bound = found.lower_bound.expect("tables of these networks are small");
            assert!(found.error <= bound * 1.001 + 1e-12, "{what}: {} for {bound}", found.error);
        }
    }
}

/// No table: what is found is within the bounds, and better than equal shares.
#[test]
fn dense_concatenations_stay_within_all_bounds_and_beat_equal_shares() {
    let mut builder = GraphBuilder::new(Shape { c: 3, h: 8, w: 8 });
    let mut parts = vec![builder.push("stem", conv(3, 24), &[0])];
    let mut width = 24;
    for i in 0..14 {
        let all = if parts.len() == 1 { parts[0] } else { builder.push(format!("cat{i}"), Op::Concat, &parts) };
        parts.push(builder.push(format!("conv{i}"), conv(width, 24), &[all]));
        width += 24;
    }
    let all = builder.push("cat", Op::Concat, &parts);
    let pool = builder.push("pool", Op::GlobalAvgPool, &[all]);
    builder.push("fc", Op::Linear { in_features: width, out_features: 4, bias: true }, &[pool]);
    let ground = Ground::new(&builder.finish().unwrap(), Protocol::Inner, 64, 11).unwrap();
    for costs in COMBINATIONS {
        let limit = |(i, &cost): (usize, &Cost)| {
            (cost, ground.model.count(cost, &ground.groups.full_widths()) * [6, 7, 8][i] / 10)
        };
        let limits: Vec<(Cost, u64)> = costs.iter().enumerate().map(limit).collect();
        let found = ground.allocate(&limits).unwrap();
        ground.within(&found, &limits, "concatenations");
        let even = |share: f64| -> (Vec<usize>, f64) {
            let mut widths = ground.groups.full_widths();
            let mut error = 0.0;
            for curve in &ground.curves {
                let at = curve.widths.partition_point(|&w| w as f64 <= share * 24.0).saturating_sub(1);
                widths[curve.group] = curve.widths[at];
                error += curve.errors[at];
            }
            (widths, error)
        };
        let fits = |widths: &[usize]| limits.iter().all(|&(cost, max)| ground.model.count(cost, widths) <= max);
        let shares = (1..=100).rev().map(|percent| even(f64::from(percent) / 100.0));
        let (_, error) = shares.into_iter().find(|(widths, _)| fits(widths)).unwrap();
        assert!(found.error < error, "{limits:?}: {} for {error}", found.error);
    }
}

#[test]
fn two_bounds_on_one_cost_are_the_smaller_and_an_unmet_one_is_told_with_its_minimum() {
    let ground = Ground::new(&chain(&[6, 6]), Protocol::Inner, 64, 1).unwrap();
    let most = |cost| ground.model.count(cost, &ground.groups.full_widths());
    let (loose, tight) = ((Cost::Macs, most(Cost::Macs)), (Cost::Macs, most(Cost::Macs) / 2));
    let both = ground.allocate(&[loose, tight]).unwrap();
    assert_eq!(both.widths, ground.allocate(&[tight]).unwrap().widths);
    assert_eq!(both.costs[0], both.costs[1]);
    let refused = ground.allocate(&[tight, (Cost::Params, 1)]).unwrap_err();
    assert!(matches!(refused, AllocError::Unreachable { cost: "params", max: 1, minimum } if minimum > 1), "{refused}");
    let prepared = Allocator::new(&ground.groups, &ground.model, &ground.curves, &[Cost::Macs]).unwrap();
    assert_eq!(prepared.within(&[(Cost::Params, 1)]).unwrap_err(), AllocError::Unprepared { cost: "params" });
    // Without a bound nothing is lost.
    assert_eq!(prepared.within(&[]).unwrap().error, 0.0);
}
