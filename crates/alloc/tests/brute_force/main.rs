//! Allocations against all allowed widths, counted one by one, for every cost.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use secateur_alloc::{Allocator, GroupCurve};
use secateur_net::random::{SplitMix, random_graph, random_graph_of_every_operation};
use secateur_net::{ChannelGroups, Cost, GraphBuilder, Op, Protocol, Shape, arch};

mod ground;
mod joint;

use ground::{COSTS, Ground, chain, conv, widths_for};

#[test]
fn random_graphs_get_the_optimum_of_all_widths_for_every_cost() {
    let mut n_checked = 0;
    for seed in 0..60 {
        for (graph, protocol) in [
            (random_graph(seed), Protocol::Inner),
            (random_graph(seed), Protocol::Full),
            (random_graph_of_every_operation(seed), Protocol::Full),
        ] {
            let n = ChannelGroups::derive(&graph, protocol).prunable().len();
            let Some(n_widths) = widths_for(n) else { continue };
            let Some(ground) = Ground::new(&graph, protocol, n_widths, seed) else { continue };
            n_checked += ground.check(&format!("graph {seed}, protocol {}", protocol.name()));
        }
    }
    assert!(n_checked > 2000, "{n_checked}");
}

#[test]
fn a_chain_gets_the_optimum_of_every_single_width() {
    for seed in 0..3 {
        Ground::new(&chain(&[9, 14, 7, 12]), Protocol::Inner, 64, seed).unwrap().check("chain");
    }
}

#[test]
fn known_networks_are_solved_exactly_and_within_the_budget() {
    for (name, protocol) in [
        ("resnet20", Protocol::Inner),
        ("resnet20", Protocol::Full),
        ("resnet56", Protocol::Inner),
        ("vgg16", Protocol::Inner),
        ("mobilenet_v1", Protocol::Full),
    ] {
        let graph = arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        let ground = Ground::new(&graph, protocol, 24, 5).unwrap();
        for cost in COSTS {
            let full = ground.model.count(cost, &ground.groups.full_widths());
            for percent in [50, 90] {
                let Ok(found) = ground.allocate(&[(cost, full * percent / 100)]) else { continue };
                let bound = found.lower_bound.expect("tables of these networks are small");
                assert!(found.error <= bound * 1.001 + 1e-12, "{name} {cost:?}: {} for {bound}", found.error);
            }
        }
    }
}

/// Every layer reads all before it: no table holds what each width depends on.
#[test]
fn dense_concatenations_stay_within_the_budget_and_beat_equal_shares() {
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
    for cost in COSTS {
        let full = ground.model.count(cost, &ground.groups.full_widths());
        let max = full * 6 / 10;
        let found = ground.allocate(&[(cost, max)]).unwrap();
        assert!(found.costs[0] <= max);
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
        let shares = (1..=100).rev().map(|percent| even(f64::from(percent) / 100.0));
        let (_, error) = shares.into_iter().find(|(widths, _)| ground.model.count(cost, widths) <= max).unwrap();
        assert!(found.error < error, "{cost:?}: {} for {error}", found.error);
    }
}

#[test]
fn curves_that_cannot_be_used_are_refused_with_group_and_width() {
    let graph = chain(&[4, 4]);
    let ground = Ground::new(&graph, Protocol::Inner, 64, 1).unwrap();
    let with = |change: &dyn Fn(&mut Vec<GroupCurve>)| {
        let mut curves = ground.curves.clone();
        change(&mut curves);
        Allocator::new(&ground.groups, &ground.model, &curves, &[Cost::Macs]).map(drop)
    };
    assert_eq!(with(&|_| ()), Ok(()));
    for bad in [f64::NAN, f64::INFINITY, -0.5] {
        let message = with(&|curves| curves[1].errors[0] = bad).unwrap_err().to_string();
        let width = ground.curves[1].widths[0];
        assert!(message.contains(&format!("group 'conv1' has error {bad} at width {width}")), "{message}");
    }
    for (change, expected) in [
        (
            (&|curves: &mut Vec<GroupCurve>| drop(curves.pop())) as &dyn Fn(&mut Vec<GroupCurve>),
            "'conv1' is not at place 1",
        ),
        (&|curves| curves.swap(0, 1), "'conv0' is not at place 0"),
        (&|curves| curves[0].widths.reverse(), "ascending widths from 1 to 4"),
        (&|curves| curves[0].widths[0] = 0, "ascending widths from 1 to 4"),
        (&|curves| *curves[0].widths.last_mut().unwrap() = 5, "ascending widths from 1 to 4"),
        (&|curves| curves[0].errors.truncate(1), "one error for each of at least one width"),
    ] {
        let message = with(change).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

/// Losses below 0, and such as rise with the width, come from what was learned, not measured.
#[test]
fn any_losses_get_the_optimum_of_all_widths() {
    let (mut n_checked, mut n_narrower) = (0, 0);
    for seed in 0..40 {
        for graph in [random_graph(seed), chain(&[6, 5, 7])] {
            let n = ChannelGroups::derive(&graph, Protocol::Full).prunable().len();
            let Some(n_widths) = widths_for(n) else { continue };
            let Some(mut ground) = Ground::new(&graph, Protocol::Full, n_widths, seed) else { continue };
            let allocator = Allocator::new(&ground.groups, &ground.model, &ground.curves, &COSTS).unwrap();
            let mut rng = SplitMix(seed);
            for curve in &mut ground.curves {
                curve.errors.iter_mut().for_each(|loss| *loss = 3.0 * f64::from(rng.signed()));
            }
            let all = ground.all();
            for cost in COSTS {
                let counted: Vec<u64> = all.iter().map(|(widths, _)| ground.model.count(cost, widths)).collect();
                let (least, most) = (counted.iter().min().unwrap(), counted.iter().max().unwrap());
                for percent in [0, 30, 60, 100] {
                    let max = least + (most - least) * percent / 100;
                    let within = all.iter().zip(&counted).filter(|(_, count)| **count <= max);
                    let best = within.map(|((_, loss), _)| *loss).fold(f64::INFINITY, f64::min);
                    let found = allocator.least_loss(&ground.groups, &ground.curves, &[(cost, max)]).unwrap();
                    let of = |curve: &GroupCurve| {
                        curve.errors[curve.widths.binary_search(&found.widths[curve.group]).unwrap()]
                    };
                    let loss: f64 = ground.curves.iter().map(of).sum();
                    assert!((loss - best).abs() < 1e-9, "seed {seed}, {cost:?}, {percent} %: {loss} for {best}");
                    assert!((found.error - best).abs() < 1e-9 && found.costs[0] <= max);
                    assert_eq!(found.costs, [ground.model.count(cost, &found.widths)]);
                    n_checked += 1;
                    n_narrower += usize::from(percent == 100 && found.costs[0] < *most);
                }
            }
        }
    }
    assert!(n_checked > 200 && n_narrower > 50, "{n_checked}, of which {n_narrower} gain by less width");
    let ground = Ground::new(&chain(&[4, 4]), Protocol::Inner, 64, 1).unwrap();
    let allocator = Allocator::new(&ground.groups, &ground.model, &ground.curves, &[Cost::Macs]).unwrap();
    let mut nan = ground.curves.clone();
    nan[1].errors[0] = f64::NAN;
    assert!(allocator.least_loss(&ground.groups, &nan, &[(Cost::Macs, 1_000_000)]).is_err());
}

/// A wider group that loses more than a narrower one is a fault of measuring.
#[test]
fn an_error_that_rises_with_the_width_counts_as_that_of_the_narrower() {
    let graph = chain(&[4]);
    let mut ground = Ground::new(&graph, Protocol::Inner, 64, 1).unwrap();
    ground.curves[0] =
        GroupCurve { widths: vec![1, 2, 3, 4], errors: vec![0.5, 0.2, 0.3, 0.0], ..ground.curves[0].clone() };
    let mut widths = ground.groups.full_widths();
    widths[ground.curves[0].group] = 3;
    let found = ground.allocate(&[(Cost::Macs, ground.model.count(Cost::Macs, &widths))]).unwrap();
    assert_eq!((found.widths[ground.curves[0].group], found.error), (2, 0.2));
}
