//! Allocations against all allowed widths, counted one by one, for every cost.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use secateur_alloc::{AllocError, Allocation, Allocator, GroupCurve};
use secateur_net::random::{SplitMix, random_graph, random_graph_of_every_operation};
use secateur_net::{ChannelGroups, Conv2d, Cost, CostModel, Graph, GraphBuilder, Op, Protocol, Shape, arch};

const COSTS: [Cost; 3] = [Cost::Macs, Cost::Params, Cost::ActivationBytes];

struct Ground {
    groups: ChannelGroups,
    model: CostModel,
    curves: Vec<GroupCurve>,
}

impl Ground {
    /// Random curves over at most `n_widths` widths of every group; `None` if nothing may be pruned.
    fn new(graph: &Graph, protocol: Protocol, n_widths: usize, seed: u64) -> Option<Self> {
        let groups = ChannelGroups::derive(graph, protocol);
        let model = CostModel::new(graph, &groups);
        let mut rng = SplitMix(seed);
        let curves: Vec<GroupCurve> = groups
            .prunable()
            .into_iter()
            .map(|group| {
                let n = groups.group(group).n_channels;
                let mut widths: Vec<usize> = (0..n_widths).map(|_| 1 + rng.below(n)).collect();
                widths.push(n);
                widths.sort_unstable();
                widths.dedup();
                let mut error = 0.0;
                let mut errors: Vec<f64> = widths
                    .iter()
                    .rev()
                    .map(|_| {
                        let now = error;
                        // Flat stretches, steep ones, and everything between.
                        error += [0.0, 1e-4, 0.1][rng.below(3)] * (1.0 + f64::from(rng.signed()));
                        now
                    })
                    .collect();
                errors.reverse();
                GroupCurve { group, widths, errors }
            })
            .collect();
        (!curves.is_empty()).then_some(Self { groups, model, curves })
    }

    /// Every choice of widths with its error.
    fn all(&self) -> Vec<(Vec<usize>, f64)> {
        let mut out = vec![(self.groups.full_widths(), 0.0)];
        for curve in &self.curves {
            let with = |(widths, error): &(Vec<usize>, f64)| {
                let levels = curve.widths.iter().zip(&curve.errors);
                let of = |width: usize, more: f64| {
                    let mut widths = widths.clone();
                    widths[curve.group] = width;
                    (widths, error + more)
                };
                levels.map(|(&width, &more)| of(width, more)).collect::<Vec<_>>()
            };
            out = out.iter().flat_map(with).collect();
        }
        out
    }

    fn allocate(&self, cost: Cost, max: u64) -> Result<Allocation, AllocError> {
        Allocator::new(&self.groups, &self.model, &self.curves, cost)?.within(max)
    }

    /// Compares budgets all over the range; returns how many.
    fn check(&self, what: &str) -> usize {
        let all = self.all();
        let mut n_checked = 0;
        for cost in COSTS {
            let counted: Vec<(u64, f64)> = all.iter().map(|(w, error)| (self.model.count(cost, w), *error)).collect();
            let (least, most) =
                (counted.iter().map(|c| c.0).min().unwrap(), counted.iter().map(|c| c.0).max().unwrap());
            for percent in [0, 1, 7, 20, 35, 50, 65, 80, 95, 99, 100, 130] {
                let max = least + (most - least) * percent / 100;
                let best = counted.iter().filter(|c| c.0 <= max).map(|c| c.1).fold(f64::INFINITY, f64::min);
                let found = self.allocate(cost, max).unwrap();
                let what = format!("{what}, {} of at most {max}", cost.name());
                assert_eq!(self.model.count(cost, &found.widths), found.cost, "{what}");
                assert!(found.cost <= max, "{what}: {}", found.cost);
                assert!((found.error - best).abs() <= 1e-9 * (1.0 + best), "{what}: {} for {best}", found.error);
                assert!(found.lower_bound.is_none_or(|bound| bound <= best + 1e-9), "{what}: {:?}", found.lower_bound);
                let of_curves =
                    |curve: &GroupCurve| curve.errors[curve.widths.binary_search(&found.widths[curve.group]).unwrap()];
                assert!((self.curves.iter().map(of_curves).sum::<f64>() - found.error).abs() < 1e-9, "{what}");
                n_checked += 1;
            }
            if least > 0 {
                let refused = self.allocate(cost, least - 1).unwrap_err();
                assert_eq!(
                    refused,
                    AllocError::Unreachable { cost: cost.name(), max: least - 1, minimum: least },
                    "{what}"
                );
            }
        }
        n_checked
    }
}

/// Widths of each of `n` groups so that all choices can be counted.
fn widths_for(n: usize) -> Option<usize> {
    (1..=4).rev().find(|&n_widths| (n_widths as f64 + 1.0).powi(n as i32) <= 8000.0)
}

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

fn conv(from: usize, to: usize) -> Op {
    Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(from, to, 3, 1, 1) })
}

/// Convolutions one after the other, `(inputs, outputs)` and a classifier.
fn chain(channels: &[usize]) -> Graph {
    let mut builder = GraphBuilder::new(Shape { c: 3, h: 8, w: 8 });
    let (mut node, mut width) = (0, 3);
    for (i, &n) in channels.iter().enumerate() {
        node = builder.push(format!("conv{i}"), conv(width, n), &[node]);
        width = n;
    }
    node = builder.push("pool", Op::GlobalAvgPool, &[node]);
    builder.push("fc", Op::Linear { in_features: width, out_features: 4, bias: true }, &[node]);
    builder.finish().unwrap()
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
                let Ok(found) = ground.allocate(cost, full * percent / 100) else { continue };
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
        let found = ground.allocate(cost, max).unwrap();
        assert!(found.cost <= max);
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
        Allocator::new(&ground.groups, &ground.model, &curves, Cost::Macs).map(drop)
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

/// A wider group that loses more than a narrower one is a fault of measuring.
#[test]
fn an_error_that_rises_with_the_width_counts_as_that_of_the_narrower() {
    let graph = chain(&[4]);
    let mut ground = Ground::new(&graph, Protocol::Inner, 64, 1).unwrap();
    ground.curves[0] =
        GroupCurve { widths: vec![1, 2, 3, 4], errors: vec![0.5, 0.2, 0.3, 0.0], ..ground.curves[0].clone() };
    let mut widths = ground.groups.full_widths();
    widths[ground.curves[0].group] = 3;
    let found = ground.allocate(Cost::Macs, ground.model.count(Cost::Macs, &widths)).unwrap();
    assert_eq!((found.widths[ground.curves[0].group], found.error), (2, 0.2));
}
