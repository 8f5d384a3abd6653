//! A network with random error curves, and every choice of widths in it.

use secateur_alloc::{AllocError, Allocation, Allocator, GroupCurve};
use secateur_net::random::SplitMix;
use secateur_net::{ChannelGroups, Conv2d, Cost, CostModel, Graph, GraphBuilder, Op, Protocol, Shape};

pub(crate) const COSTS: [Cost; 3] = [Cost::Macs, Cost::Params, Cost::ActivationBytes];

pub(crate) struct Ground {
    pub(crate) groups: ChannelGroups,
    pub(crate) model: CostModel,
    pub(crate) curves: Vec<GroupCurve>,
}

impl Ground {
    /// Random curves over at most `n_widths` widths of every group; `None` if nothing may be pruned.
    pub(crate) fn new(graph: &Graph, protocol: Protocol, n_widths: usize, seed: u64) -> Option<Self> {
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
    pub(crate) fn all(&self) -> Vec<(Vec<usize>, f64)> {
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

    pub(crate) fn allocate(&self, limits: &[(Cost, u64)]) -> Result<Allocation, AllocError> {
        Allocator::new(&self.groups, &self.model, &self.curves, &COSTS)?.within(limits)
    }

    /// Compares budgets all over the range; returns how many.
    pub(crate) fn check(&self, what: &str) -> usize {
        let all = self.all();
        let mut n_checked = 0;
        for cost in COSTS {
            let counted: Vec<(u64, f64)> = all.iter().map(|(w, error)| (self.model.count(cost, w), *error)).collect();
            let (least, most) =
                (counted.iter().map(|c| c.0).min().unwrap(), counted.iter().map(|c| c.0).max().unwrap());
            for percent in [0, 1, 7, 20, 35, 50, 65, 80, 95, 99, 100, 130] {
                let max = least + (most - least) * percent / 100;
                let best = counted.iter().filter(|c| c.0 <= max).map(|c| c.1).fold(f64::INFINITY, f64::min);
                let found = self.allocate(&[(cost, max)]).unwrap();
                let what = format!("{what}, {} of at most {max}", cost.name());
                assert_eq!(found.costs, [self.model.count(cost, &found.widths)], "{what}");
                assert!(found.costs[0] <= max, "{what}: {:?}", found.costs);
                assert!((found.error - best).abs() <= 1e-9 * (1.0 + best), "{what}: {} for {best}", found.error);
                assert!(found.lower_bound.is_none_or(|bound| bound <= best + 1e-9), "{what}: {:?}", found.lower_bound);
                let of_curves =
                    |curve: &GroupCurve| curve.errors[curve.widths.binary_search(&found.widths[curve.group]).unwrap()];
                assert!((self.curves.iter().map(of_curves).sum::<f64>() - found.error).abs() < 1e-9, "{what}");
                n_checked += 1;
            }
            if least > 0 {
                let refused = self.allocate(&[(cost, least - 1)]).unwrap_err();
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
pub(crate) fn widths_for(n: usize) -> Option<usize> {
    (1..=4).rev().find(|&n_widths| (n_widths as f64 + 1.0).powi(n as i32) <= 8000.0)
}

pub(crate) fn conv(from: usize, to: usize) -> Op {
    Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(from, to, 3, 1, 1) })
}

/// Convolutions one after the other, `(inputs, outputs)` and a classifier.
pub(crate) fn chain(channels: &[usize]) -> Graph {
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
