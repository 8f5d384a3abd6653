//! The 13 features of MTACP (Ma & Fang 2023), column by column, on networks counted by hand.

use secateur_net::{ChannelGroups, Conv2d, Cost, CostModel, Graph, GraphBuilder, GroupId, Op, Protocol, Shape};
use secateur_sim::{FeatureScale, GroupShape, IndexOf, N_FEATURES, Standing, observation_len, observe};

const COLUMNS: [&str; N_FEATURES] =
    ["l", "c", "n", "h", "w", "stride", "k", "alpha", "beta", "FLOPs", "Reduced", "Rest", "last action"];

/// A network whose every prunable group was described.
struct Described {
    groups: ChannelGroups,
    model: CostModel,
    shapes: Vec<GroupShape>,
}

impl Described {
    fn new(graph: &Graph) -> Self {
        let groups = ChannelGroups::derive(graph, Protocol::Full);
        let model = CostModel::new(graph, &groups);
        let shapes = groups.prunable().iter().map(|&g| GroupShape::of(graph, &groups, &model, g)).collect();
        Self { groups, model, shapes }
    }

    fn order(&self) -> Vec<GroupId> {
        self.groups.prunable()
    }

    /// At a place of the walk, with an alpha of 0.4 and no other network or data set.
    fn standing(&self, place: usize, last_action: f32) -> Standing<'_> {
        Standing {
            layer: IndexOf { index: place, of: self.shapes.len() },
            shapes: &self.shapes,
            macs_full: self.model.count(Cost::Macs, &self.groups.full_widths()),
            budget_ratio: 0.4,
            network: IndexOf::ONLY,
            dataset: IndexOf::ONLY,
            last_action,
        }
    }

    /// What is seen there after these widths were decided, later groups whole.
    fn see(&self, at: &Standing<'_>, decided: &[usize]) -> Vec<f32> {
        let mut widths = self.groups.full_widths();
        self.order().iter().zip(decided).for_each(|(&group, &width)| widths[group] = width);
        let mut out = vec![9.0; 3];
        observe(at, &FeatureScale::of(self.shapes.iter()), &self.model, &widths, &mut out);
        out
    }
}

fn check(seen: &[f32], expected: [f64; N_FEATURES], what: &str) {
    assert_eq!(seen.len(), N_FEATURES, "{what}");
    for ((name, &seen), expected) in COLUMNS.iter().zip(seen).zip(expected) {
        assert!((f64::from(seen) - expected).abs() < 1e-6, "{what}, {name}: {seen}, expected {expected}");
        assert!((0.0..=1.0).contains(&seen), "{what}, {name}: {seen}");
    }
}

fn square(from: usize, to: usize, kernel: usize, stride: usize, padding: usize) -> Op {
    Op::Conv2d(Conv2d::square(from, to, kernel, stride, padding))
}

fn linear(in_features: usize, out_features: usize) -> Op {
    Op::Linear { in_features, out_features, bias: true }
}

/// Three convolutions and a linear map behind Flatten:
/// 3 to 4, 3x3, on 8x6 pixels: 4·3·9·48 = 5184 multiply-accumulates;
/// 4 to 5, 5x5 at stride 2, to 4x3 pixels: 5·4·25·12 = 6000;
/// 5 to 2, 1x1: 2·5·12 = 120;
/// 24 to 10: 240. Together 11544.
fn chain() -> Graph {
    let mut g = GraphBuilder::new(Shape { c: 3, h: 8, w: 6 });
    let first = g.push("first", square(3, 4, 3, 1, 1), &[0]);
    let second = g.push("second", square(4, 5, 5, 2, 2), &[first]);
    let third = g.push("third", square(5, 2, 1, 1, 0), &[second]);
    let flat = g.push("flat", Op::Flatten, &[third]);
    g.push("out", linear(24, 10), &[flat]);
    g.finish().unwrap()
}

#[test]
fn every_column_is_the_one_worked_out_by_hand() {
    let chain = Described::new(&chain());
    // The largest of each column: 24 c, 10 n, 8 h, 6 w, stride 2, 5x5, 11184 FLOPs. The FLOPs of the three groups are
    // 11184 (first and second), 6120 (second and third) and 360 (third and linear), together 17664.
    let (most, all) = (11184.0, 17664.0);
    // Read by the second convolution: 4 channels of 8x6 pixels to 5.
    let at_first = [1. / 3., 4. / 24., 5. / 10., 1., 1., 1., 1., 0.4, 1., 1., 0., (6120. + 360.) / all, 0.];
    check(&chain.see(&chain.standing(0, 0.0), &[]), at_first, "first");
    // Read by the third: 5 channels of 4x3 pixels to 2. With 2 of 4 channels kept, 2592 and 3000 are gone.
    let (reduced, rest) = ((2592. + 3000.) / 11544., 360. / all);
    let at_second =
        [2. / 3., 5. / 24., 2. / 10., 4. / 8., 3. / 6., 1. / 2., 1. / 5., 0.4, 1., 6120. / most, reduced, rest, 0.5];
    check(&chain.see(&chain.standing(1, 0.5), &[2]), at_second, "second");
    // Read by the linear map: 24 inputs to 10. With 1 of 5 channels kept as well, 2592, 600, 24 and 240 are left.
    let (h, w, reduced) = (1. / 8., 1. / 6., 1. - 3456. / 11544.);
    let at_third = [1., 1., 1., h, w, 1. / 2., 1. / 5., 0.4, 1., 360. / most, reduced, 0., 0.2];
    check(&chain.see(&chain.standing(2, 0.2), &[2, 1]), at_third, "third");
}

#[test]
fn a_group_is_described_by_its_first_consumer_and_counted_with_all_that_touches_it() {
    let second = GroupShape { n: 5, c: 4, h: 8, w: 6, kernel: 5, stride: 2, macs: 11184 };
    let third = GroupShape { n: 2, c: 5, h: 4, w: 3, kernel: 1, stride: 1, macs: 6120 };
    let out = GroupShape { n: 10, c: 24, h: 1, w: 1, kernel: 1, stride: 1, macs: 360 };
    assert_eq!(Described::new(&chain()).shapes, [second, third, out]);
}

#[test]
fn a_column_that_is_the_same_for_all_groups_is_1() {
    let mut g = GraphBuilder::new(Shape { c: 3, h: 5, w: 5 });
    let mut x = 0;
    for (i, from) in [3, 3, 3].into_iter().enumerate() {
        x = g.push(format!("c{i}"), square(from, 3, 3, 1, 1), &[x]);
    }
    let same = Described::new(&g.finish().unwrap());
    // Both groups are made and read by convolutions of 3 to 3 channels; the third convolution's channels are the
    // output.
    let all = |l, reduced, rest, last| [l, 1., 1., 1., 1., 1., 1., 0.4, 1., 1., reduced, rest, last];
    check(&same.see(&same.standing(0, 0.0), &[]), all(0.5, 0., 0.5, 0.), "first");
    // With 2 of 3 channels kept, of three equal convolutions a third of two is gone.
    check(&same.see(&same.standing(1, 2. / 3.), &[2]), all(1., 2. / 9., 0., 2. / 3.), "second");
}

#[test]
fn a_depthwise_convolution_counts_for_the_group_it_passes_on_and_is_not_its_consumer() {
    let mut g = GraphBuilder::new(Shape { c: 3, h: 6, w: 6 });
    let first = g.push("first", square(3, 4, 1, 1, 0), &[0]);
    let wise = Conv2d { groups: 4, ..Conv2d::square(4, 4, 3, 2, 1) };
    let wise = g.push("wise", Op::Conv2d(wise), &[first]);
    let second = g.push("second", square(4, 6, 1, 1, 0), &[wise]);
    let pooled = g.push("pool", Op::GlobalAvgPool, &[second]);
    g.push("out", linear(6, 10), &[pooled]);
    let net = Described::new(&g.finish().unwrap());
    // 4·3·36 = 432, 4·9·9 = 324, 6·4·9 = 216 and 60, together 1032.
    let first = GroupShape { n: 6, c: 4, h: 3, w: 3, kernel: 1, stride: 1, macs: 432 + 324 + 216 };
    let second = GroupShape { n: 10, c: 6, h: 1, w: 1, kernel: 1, stride: 1, macs: 216 + 60 };
    assert_eq!(net.shapes, [first, second]);
    // With 1 of 4 channels kept, 108, 81, 54 and 60 are left.
    let (h, flops, reduced) = (1. / 3., 276. / 972., 1. - 303. / 1032.);
    let expected = [1., 1., 1., h, h, 1., 1., 0.4, 1., flops, reduced, 0., 0.25];
    check(&net.see(&net.standing(1, 0.25), &[1]), expected, "behind the depthwise convolution");
}

#[test]
fn a_group_that_two_read_is_described_by_the_first_and_counted_with_both() {
    let mut g = GraphBuilder::new(Shape { c: 2, h: 4, w: 4 });
    let stem = g.push("stem", square(2, 3, 1, 1, 0), &[0]);
    let left = g.push("left", square(3, 4, 3, 1, 1), &[stem]);
    let right = g.push("right", square(3, 4, 1, 1, 0), &[stem]);
    let sum = g.push("sum", Op::Add, &[left, right]);
    let pooled = g.push("pool", Op::GlobalAvgPool, &[sum]);
    g.push("out", linear(4, 10), &[pooled]);
    let net = Described::new(&g.finish().unwrap());
    // 3·2·16 = 96, 4·3·9·16 = 1728, 4·3·16 = 192 and 40, together 2056.
    let stem = GroupShape { n: 4, c: 3, h: 4, w: 4, kernel: 3, stride: 1, macs: 96 + 1728 + 192 };
    // Left and right are added up, so their channels go together.
    let sum = GroupShape { n: 10, c: 4, h: 1, w: 1, kernel: 1, stride: 1, macs: 1728 + 192 + 40 };
    assert_eq!(net.shapes, [stem, sum]);
    let (rest, flops) = (1960. / (2016. + 1960.), 1.);
    let expected = [0.5, 3. / 4., 4. / 10., 1., 1., 1., 1., 0.4, 1., flops, 0., rest, 0.];
    check(&net.see(&net.standing(0, 0.0), &[]), expected, "stem");
    // With 1 of 3 channels kept, 32, 576, 64 and 40 are left.
    let (c, h, k, flops) = (1., 1. / 4., 1. / 3., 1960. / 2016.);
    let expected = [1., c, 1., h, h, 1., k, 0.4, 1., flops, 1. - 712. / 2056., 0., 1. / 3.];
    check(&net.see(&net.standing(1, 1. / 3.), &[1]), expected, "sum");
}

#[test]
fn of_a_kernel_that_is_not_square_the_rows_are_seen() {
    let mut g = GraphBuilder::new(Shape { c: 1, h: 9, w: 9 });
    let first = g.push("first", square(1, 2, 1, 1, 0), &[0]);
    let tall = Conv2d { kernel: [5, 3], stride: [2, 1], ..Conv2d::square(2, 3, 1, 1, 0) };
    g.push("tall", Op::Conv2d(tall), &[first]);
    let shape = Described::new(&g.finish().unwrap()).shapes[0];
    assert_eq!((shape.kernel, shape.stride), (5, 2));
}

#[test]
fn columns_are_scaled_by_the_largest_of_all_networks_of_a_run() {
    let (small, large) =
        (Described::new(&chain()), GroupShape { n: 20, c: 48, h: 80, w: 60, kernel: 7, stride: 4, macs: 1 });
    let scale = FeatureScale::of(small.shapes.iter().chain([&large]));
    let mut out = Vec::new();
    observe(&small.standing(1, 0.0), &scale, &small.model, &small.groups.full_widths(), &mut out);
    let (h, w, flops) = (4. / 80., 3. / 60., 6120. / 11184.);
    let expected = [2. / 3., 5. / 48., 2. / 20., h, w, 1. / 4., 1. / 7., 0.4, 1., flops, 0., 360. / 17664., 0.];
    check(&out, expected, "beside a larger network");
}

#[test]
fn alpha_is_the_budgets_share_and_never_leaves_its_range() {
    let chain = Described::new(&chain());
    for (budget_ratio, alpha) in [(0.0, 0.0), (0.7, 0.7), (1.0, 1.0), (1.5, 1.0), (-0.5, 0.0)] {
        let at = Standing { budget_ratio, ..chain.standing(0, 0.0) };
        assert_eq!(chain.see(&at, &[])[7], alpha);
    }
}

#[test]
fn networks_and_data_sets_are_told_apart_where_a_run_has_several() {
    let chain = Described::new(&chain());
    let cases = [
        ((0, 1), (0, 1), 1.0, &[][..]),
        ((1, 3), (0, 1), 1.0, &[0.0, 1.0, 0.0]),
        ((0, 1), (0, 2), 0.5, &[1.0, 0.0]),
        ((2, 3), (1, 2), 1.0, &[0.0, 0.0, 1.0, 0.0, 1.0]),
        ((0, 2), (1, 4), 0.5, &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
    ];
    for (network, dataset, beta, embedding) in cases {
        let index_of = |(index, of)| IndexOf { index, of };
        let (network, dataset) = (index_of(network), index_of(dataset));
        let seen = chain.see(&Standing { network, dataset, ..chain.standing(0, 0.0) }, &[]);
        assert_eq!((seen[8], &seen[N_FEATURES..]), (beta, embedding), "{network:?} {dataset:?}");
        assert_eq!(seen.len(), observation_len(network.of, dataset.of));
    }
}
