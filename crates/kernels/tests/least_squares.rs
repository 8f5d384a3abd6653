//! Normal equations, refits and channel selection against naive f64 computations.
#![allow(clippy::unwrap_used, reason = "tests")]

use secateur_kernels::{LinearMap, NormalEquations, RIDGE, Reader, calibrate, eliminate, exchange, run_reference};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{ChannelGroups, Conv2d, GraphBuilder, Network, NodeId, Op, Pointwise, Protocol, Shape};

fn pool(n: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()
}

fn images(shape: Shape, n: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed);
    (0..n * shape.len()).map(|_| rng.signed()).collect()
}

/// image -> 3x3 convolution -> ReLU -> `conv` -> ReLU -> (Flatten or mean) -> Linear
fn network_around(conv: Conv2d, flatten: bool) -> Network {
    let mut b = GraphBuilder::new(Shape { c: 2, h: 7, w: 6 });
    let before = Conv2d { bias: true, ..Conv2d::square(2, conv.in_channels, 3, 1, 1) };
    let first = b.push("first", Op::Conv2d(before), &[0]);
    let relu = b.push("relu", Op::Pointwise(Pointwise::Relu), &[first]);
    let middle = b.push("middle", Op::Conv2d(Conv2d { bias: true, ..conv.clone() }), &[relu]);
    let relu = b.push("relu2", Op::Pointwise(Pointwise::Relu), &[middle]);
    let flat = b.push("flat", if flatten { Op::Flatten } else { Op::GlobalAvgPool }, &[relu]);
    let pixels = |n: usize, i: usize| {
        (n + 2 * conv.padding[i] - conv.dilation[i] * (conv.kernel[i] - 1) - 1) / conv.stride[i] + 1
    };
    let in_features = conv.out_channels * if flatten { pixels(7, 0) * pixels(6, 1) } else { 1 };
    b.push("last", Op::Linear { in_features, out_features: 3, bias: true }, &[flat]);
    with_random_weights(b.finish().unwrap(), 5)
}

/// Output of one node for one image, by the reference.
fn output_of(net: &Network, node: NodeId, image: &[f32]) -> Vec<f32> {
    run_reference(net, image).unwrap().swap_remove(node)
}

/// Rows (columns channel-major, then 1) and targets of a node's conv group over all pixels of all images.
fn naive_rows(net: &Network, node: NodeId, group: usize, images: &[f32]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let graph = net.graph();
    let source = graph.node(node).inputs[0];
    let (input, output) = (graph.shape(source), graph.shape(node));
    let conv = match &graph.node(node).op {
        Op::Conv2d(c) => c.clone(),
        _ => Conv2d::square(input.c, output.c, 1, 1, 0),
    };
    let (n_in, n_out) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
    let (mut xs, mut ys) = (Vec::new(), Vec::new());
    for image in images.chunks(graph.input().len()) {
        let (x, y) = (output_of(net, source, image), output_of(net, node, image));
        for oy in 0..output.h {
            for ox in 0..output.w {
                let mut row = Vec::new();
                for c in group * n_in..(group + 1) * n_in {
                    for ky in 0..conv.kernel[0] {
                        for kx in 0..conv.kernel[1] {
                            let at = |o: usize, k: usize, i: usize| {
                                (o * conv.stride[i] + k * conv.dilation[i]) as i64 - conv.padding[i] as i64
                            };
                            let (iy, ix) = (at(oy, ky, 0), at(ox, kx, 1));
                            let inside = iy >= 0 && ix >= 0 && iy < input.h as i64 && ix < input.w as i64;
                            let index = || (iy as usize * input.w + ix as usize) * input.c + c;
                            row.push(if inside { f64::from(x[index()]) } else { 0.0 });
                        }
                    }
                }
                row.push(1.0);
                xs.push(row);
                let from = (oy * output.w + ox) * output.c + group * n_out;
                ys.push(y[from..from + n_out].iter().map(|&v| f64::from(v)).collect());
            }
        }
    }
    (xs, ys)
}

/// Solves `a x = b` by Gaussian elimination with pivoting.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|&p, &q| a[p][i].abs().total_cmp(&a[q][i].abs())).unwrap();
        a.swap(i, pivot);
        b.swap(i, pivot);
        let (pivot_row, pivot_b) = (a[i].clone(), b[i]);
        for (row, b) in a.iter_mut().zip(&mut b).skip(i + 1) {
            let f = row[i] / pivot_row[i];
            row.iter_mut().zip(&pivot_row).for_each(|(v, p)| *v -= f * p);
            *b -= f * pivot_b;
        }
    }
    for i in (0..n).rev() {
        let rest: f64 = (i + 1..n).map(|c| a[i][c] * b[c]).sum();
        b[i] = (b[i] - rest) / a[i][i];
    }
    b
}

/// What the ridge adds to the diagonal of X^T X.
fn ridge_of(xs: &[Vec<f64>]) -> f64 {
    let d = xs[0].len();
    RIDGE * (0..d).map(|i| xs.iter().map(|x| x[i] * x[i]).sum::<f64>()).sum::<f64>() / d as f64
}

/// The weights of a conv group of a node, `[outputs, columns]`, the intercept's (which nothing is pulled towards) zero.
fn weights_of(net: &Network, map: &LinearMap) -> Vec<Vec<f64>> {
    let weight = net.parameter(&net.graph().node(map.node).name, "weight");
    let filters = weight.data().chunks(map.columns() - 1).skip(map.outputs.first).take(map.outputs.len);
    filters.map(|filter| filter.iter().map(|&w| f64::from(w)).chain([0.0]).collect()).collect()
}

/// X^T X of some columns with the ridge (not on the last, the intercept), and X^T y of one target.
fn ridge_system(xs: &[Vec<f64>], ys: &[Vec<f64>], columns: &[usize], o: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let d = xs[0].len();
    let of_weights = ridge_of(xs);
    let dot = |i: usize, j: usize| xs.iter().map(|x| x[i] * x[j]).sum::<f64>();
    let ridge = |i: usize, j: usize| if i == j && i != d - 1 { of_weights } else { 0.0 };
    let a = columns.iter().map(|&i| columns.iter().map(|&j| dot(i, j) + ridge(i, j)).collect()).collect();
    let b = columns.iter().map(|&i| xs.iter().zip(ys).map(|(x, y)| x[i] * y[o]).sum()).collect();
    (a, b)
}

fn assert_near(got: f64, expected: f64, scale: f64, what: &str) {
    assert!((got - expected).abs() <= 2e-5 * scale, "{what}: got {got}, expected {expected} (scale {scale})");
}

/// With `n_images` images, few enough that every pixel is used.
fn check_equations(conv: Conv2d, flatten: bool, n_images: usize) {
    let net = network_around(conv, flatten);
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let images = images(net.graph().input(), n_images, 9);
    let mut told = 0;
    let all = calibrate(&pool(2), &net, &groups, &images, |done| told = done).unwrap().equations;
    assert_eq!(told, n_images);
    assert!(all.iter().any(|e| e.map.node == 3) && all.iter().any(|e| e.map.node == 6));
    for equations in &all {
        let (xs, ys) = naive_rows(&net, equations.map.node, equations.map.conv_group, &images);
        let (d, n_out) = (xs[0].len(), ys[0].len());
        assert_eq!((equations.n_rows as usize, equations.map.columns()), (xs.len(), d));
        let scale = xs.len() as f64;
        let weights = weights_of(&net, &equations.map);
        for i in 0..d {
            for j in 0..d {
                let expected: f64 = xs.iter().map(|x| x[i] * x[j]).sum();
                assert_near(equations.gram[i * d + j], expected, scale, "X^T X");
            }
            for o in 0..n_out {
                let pull = ridge_of(&xs) * weights[o][i];
                let expected: f64 = xs.iter().zip(&ys).map(|(x, y)| x[i] * y[o]).sum::<f64>() + pull;
                assert_near(equations.moment[i * n_out + o], expected, scale, "X^T Y");
            }
        }
        let energy = |o: usize| {
            let mean = ys.iter().map(|y| y[o]).sum::<f64>() / ys.len() as f64;
            ys.iter().map(|y| (y[o] - mean).powi(2)).sum::<f64>()
        };
        assert_near(equations.target_energy, (0..n_out).map(energy).sum(), scale, "target energy");
        check_refit(equations, &xs, &ys, &weights);
    }
}

/// A refit on every second input is the least-squares solution whose ridge pulls towards `weights`.
fn check_refit(equations: &NormalEquations, xs: &[Vec<f64>], ys: &[Vec<f64>], weights: &[Vec<f64>]) {
    let taps = equations.map.taps();
    let kept: Vec<usize> = (0..equations.map.inputs.len).step_by(2).collect();
    let mut columns: Vec<usize> = kept.iter().flat_map(|&c| c * taps..(c + 1) * taps).collect();
    columns.push(xs[0].len() - 1);
    let refit = equations.refit(&kept).unwrap();
    for (o, before) in weights.iter().enumerate() {
        let (a, mut b) = ridge_system(xs, ys, &columns, o);
        b.iter_mut().zip(&columns).for_each(|(b, &c)| *b += ridge_of(xs) * before[c]);
        let expected = solve(a, b);
        let n = columns.len() - 1;
        let scale = expected.iter().fold(1.0f64, |m, w| m.max(w.abs()));
        for (i, w) in expected.iter().enumerate() {
            let got = if i < n { refit.weight[o * n + i] } else { refit.bias[o] };
            assert!((f64::from(got) - w).abs() <= 2e-3 * scale, "output {o}, column {i}: got {got}, expected {w}");
        }
    }
}

#[test]
fn equations_and_refits_of_plain_convolutions_equal_the_naive_ones() {
    check_equations(Conv2d::square(4, 5, 3, 1, 1), false, 70);
    check_equations(Conv2d::square(4, 3, 1, 1, 0), false, 15);
}

#[test]
fn equations_and_refits_of_hundreds_of_columns_equal_the_naive_ones() {
    // 145, 208 and 262 columns: the matrix is made in tiles of rows, none of which these fill evenly.
    for n_in in [16, 23, 29] {
        check_equations(Conv2d::square(n_in, 3, 3, 1, 1), false, 12);
    }
}

#[test]
fn a_refit_on_a_thousand_inputs_leaves_no_gradient() {
    let (n_in, n_out) = (2011, 3);
    let net = network_around(Conv2d::square(n_in, n_out, 1, 1, 0), false);
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let images = images(net.graph().input(), 50, 9);
    let equations = calibrate(&pool(1), &net, &groups, &images, |_| ()).unwrap().equations.swap_remove(0);
    assert_eq!((equations.map.node, equations.map.columns()), (3, n_in + 1));
    let (xs, ys) = naive_rows(&net, 3, 0, &images);
    let kept: Vec<usize> = (0..n_in).step_by(2).collect();
    let refit = equations.refit(&kept).unwrap();
    let n = kept.len();
    let before = weights_of(&net, &equations.map);
    for o in 0..n_out {
        let weights = &refit.weight[o * n..(o + 1) * n];
        let fit = |x: &[f64]| kept.iter().zip(weights).map(|(&c, &w)| x[c] * f64::from(w)).sum::<f64>();
        let left: Vec<f64> = xs.iter().zip(&ys).map(|(x, y)| y[o] - fit(x) - f64::from(refit.bias[o])).collect();
        let towards = |c: usize| xs.iter().zip(&left).map(|(x, l)| x[c] * l).sum::<f64>();
        let scale = ys.iter().map(|y| y[o].abs()).sum::<f64>();
        for (&c, &w) in kept.iter().zip(weights) {
            assert_near(towards(c), ridge_of(&xs) * (f64::from(w) - before[o][c]), scale, "gradient");
        }
        assert_near(towards(n_in), 0.0, scale, "gradient of the intercept");
        // Half of the inputs explain the output that all of them make.
        let energy = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        assert!(energy(&mut left.iter().copied()) < 0.01 * energy(&mut ys.iter().map(|y| y[o])));
    }
}

#[test]
fn equations_of_uneven_kernels_strides_paddings_and_dilations_equal_the_naive_ones() {
    let conv =
        Conv2d { kernel: [1, 3], stride: [2, 1], padding: [0, 2], dilation: [1, 2], ..Conv2d::square(4, 3, 3, 1, 1) };
    check_equations(conv, false, 70);
    check_equations(Conv2d { kernel: [5, 2], ..Conv2d::square(4, 3, 5, 2, 2) }, false, 70);
}

#[test]
fn equations_of_grouped_convolutions_and_flattened_inputs_equal_the_naive_ones() {
    check_equations(Conv2d { groups: 2, ..Conv2d::square(4, 6, 3, 2, 1) }, false, 70);
    check_equations(Conv2d::square(4, 2, 3, 3, 0), true, 70);
}

#[test]
fn calibration_does_not_depend_on_the_number_of_threads() {
    let net = network_around(Conv2d::square(4, 5, 3, 1, 1), false);
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let images = images(net.graph().input(), 130, 1);
    let runs = [1, 2, 3].map(|n| calibrate(&pool(n), &net, &groups, &images, |_| ()).unwrap().equations);
    for run in &runs[1..] {
        assert!(run.iter().zip(&runs[0]).all(|(a, b)| a.gram == b.gram && a.moment == b.moment));
    }
}

#[test]
fn calibration_refuses_images_that_are_cut_or_not_finite() {
    let net = network_around(Conv2d::square(4, 5, 3, 1, 1), false);
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let mut images = images(net.graph().input(), 3, 1);
    assert!(calibrate(&pool(1), &net, &groups, &images[1..], |_| ()).unwrap_err().to_string().contains("84"));
    assert!(calibrate(&pool(1), &net, &groups, &[], |_| ()).is_err());
    images[100] = f32::NAN;
    assert!(calibrate(&pool(1), &net, &groups, &images, |_| ()).unwrap_err().to_string().contains("NaN"));
}

/// Random equations of a 1x2 convolution of 5 inputs, with the rows they are of.
fn random_equations(seed: u64) -> (NormalEquations, Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut b = GraphBuilder::new(Shape { c: 5, h: 3, w: 4 });
    let conv = Conv2d { kernel: [1, 2], bias: true, ..Conv2d::square(5, 3, 1, 1, 0) };
    let node = b.push("conv", Op::Conv2d(conv), &[0]);
    let map = LinearMap::of(&b.finish().unwrap(), node).remove(0);
    let mut rng = SplitMix(seed);
    let d = map.columns();
    let mix: Vec<f64> = (0..d * 3).map(|_| f64::from(rng.signed())).collect();
    let xs: Vec<Vec<f64>> = (0..60)
        .map(|_| {
            let common = f64::from(rng.signed());
            (0..d).map(|i| if i + 1 < d { f64::from(rng.signed()) + common } else { 1.0 }).collect()
        })
        .collect();
    let target = |x: &Vec<f64>, o: usize| (0..d).map(|i| x[i] * mix[i * 3 + o]).sum::<f64>();
    let ys: Vec<Vec<f64>> =
        xs.iter().map(|x| (0..3).map(|o| target(x, o) + 0.3 * f64::from(rng.signed())).collect()).collect();
    let gram = (0..d * d).map(|i| xs.iter().map(|x| x[i / d] * x[i % d]).sum()).collect();
    let moment = (0..d * 3).map(|i| xs.iter().zip(&ys).map(|(x, y)| x[i / 3] * y[i % 3]).sum()).collect();
    let equations = NormalEquations { map, gram, moment, pull: vec![0.0; d], target_energy: 7.0, n_rows: 60 };
    (equations, xs, ys)
}

/// Least penalised squared error (less the energy of Y) with the inputs in `kept`.
fn brute_force_error(xs: &[Vec<f64>], ys: &[Vec<f64>], kept: &[usize]) -> f64 {
    let columns: Vec<usize> = kept.iter().flat_map(|&c| 2 * c..2 * c + 2).chain([10]).collect();
    let error = |o: usize| {
        let (a, b) = ridge_system(xs, ys, &columns, o);
        -solve(a, b.clone()).iter().zip(&b).map(|(w, b)| w * b).sum::<f64>()
    };
    (0..ys[0].len()).map(error).sum()
}

#[test]
fn elimination_removes_what_brute_force_would_and_counts_the_same_error() {
    for seed in 0..20 {
        let (first, xs1, ys1) = random_equations(seed);
        let (second, xs2, ys2) = random_equations(seed + 1000);
        let readers = [&first, &second].map(|e| Reader::new(e, Some, 5));
        let path = eliminate(&pool(2), &readers, 5, 1, None).unwrap();
        let error = |kept: &[usize]| (brute_force_error(&xs1, &ys1, kept) + brute_force_error(&xs2, &ys2, kept)) / 7.0;
        let mut alive: Vec<usize> = (0..5).collect();
        let full = error(&alive);
        assert_eq!((path.removed.len(), path.errors.len(), path.errors[0]), (4, 5, 0.0));
        for (step, removed) in path.removed.iter().enumerate() {
            let without = |c: usize| alive.iter().copied().filter(|&a| a != c).collect::<Vec<_>>();
            let best =
                alive.iter().copied().min_by(|&a, &b| error(&without(a)).total_cmp(&error(&without(b)))).unwrap();
            assert_eq!(*removed, best, "seed {seed}, step {step}");
            alive = without(best);
            let expected = error(&alive) - full;
            assert!((path.errors[step + 1] - expected).abs() < 1e-8 * expected.max(1.0), "seed {seed}, step {step}");
            assert_eq!(path.kept(5, alive.len()), alive, "kept sets are nested");
        }
    }
}

#[test]
fn errors_of_a_removal_are_those_of_refits_that_are_pulled_towards_the_weights() {
    let (equations, xs, ys) = random_equations(5);
    let mut rng = SplitMix(8);
    let before: Vec<f32> = (0..30).map(|_| rng.signed()).collect();
    let equations = equations.pulled_towards(&before);
    let path = eliminate(&pool(2), &[Reader::new(&equations, Some, 5)], 5, 1, None).unwrap();
    // Squared error and penalty of a refit, by its definition.
    let error = |kept: &[usize]| -> f64 {
        let (refit, n) = (equations.refit(kept).unwrap(), 2 * kept.len());
        let column = |i: usize| 2 * kept[i / 2] + i % 2;
        let of_output = |o: usize| {
            let weights = &refit.weight[o * n..][..n];
            let fit = |x: &[f64]| (0..n).map(|i| x[column(i)] * f64::from(weights[i])).sum::<f64>();
            let left = |(x, y): (&Vec<f64>, &Vec<f64>)| (y[o] - fit(x) - f64::from(refit.bias[o])).powi(2);
            let penalty = (0..n).map(|i| f64::from(weights[i] - before[o * 10 + column(i)]).powi(2)).sum::<f64>();
            xs.iter().zip(&ys).map(left).sum::<f64>() + ridge_of(&xs) * penalty
        };
        (0..3).map(of_output).sum()
    };
    let full = error(&[0, 1, 2, 3, 4]);
    for step in 1..5 {
        let expected = (error(&path.kept(5, 5 - step)) - full) / 7.0;
        assert!((path.errors[step] - expected).abs() < 1e-5 * expected, "{step}: {} {expected}", path.errors[step]);
    }
}

#[test]
fn a_given_order_of_removal_is_followed() {
    let (equations, xs, ys) = random_equations(3);
    let readers = [Reader::new(&equations, Some, 5)];
    let path = eliminate(&pool(1), &readers, 5, 2, Some(&[4, 0, 2, 1, 3])).unwrap();
    assert_eq!(path.removed, [4, 0, 2]);
    let expected = (brute_force_error(&xs, &ys, &[1, 3]) - brute_force_error(&xs, &ys, &[0, 1, 2, 3, 4])) / 7.0;
    assert!((path.errors[3] - expected).abs() < 1e-8 * expected.max(1.0));
    assert_eq!(path.kept(5, 3), [1, 2, 3]);
}

/// All choices of `n` of five channels.
fn choices(n: usize) -> Vec<Vec<usize>> {
    let sets = (0..32_u32).filter(|set| set.count_ones() as usize == n);
    sets.map(|set| (0..5).filter(|i| set >> i & 1 == 1).collect()).collect()
}

/// From every choice there is, so that errors far from those of an elimination are exchanged, too.
#[test]
fn an_exchange_ends_where_brute_force_finds_no_better_pair_and_tells_how_far_the_error_fell() {
    let mut n_exchanged = 0;
    for seed in 0..8 {
        let (first, xs1, ys1) = random_equations(seed);
        let (second, xs2, ys2) = random_equations(seed + 1000);
        let readers = [&first, &second].map(|e| Reader::new(e, Some, 5));
        let error = |kept: &[usize]| (brute_force_error(&xs1, &ys1, kept) + brute_force_error(&xs2, &ys2, kept)) / 7.0;
        let full = error(&[0, 1, 2, 3, 4]);
        for n in 1..5 {
            for kept in choices(n) {
                let before = error(&kept) - full;
                let exchanged = exchange(&pool(2), &readers, 5, &kept, before).unwrap();
                let after = error(&exchanged.kept) - full;
                assert_eq!(exchanged.kept.len(), n);
                let fall = before - after;
                assert!(
                    (exchanged.fall - fall).abs() < 1e-8 * before,
                    "seed {seed}, {kept:?}: {exchanged:?}, not {fall}"
                );
                let one_apart = choices(n)
                    .into_iter()
                    .filter(|other| other.iter().filter(|channel| !exchanged.kept.contains(channel)).count() == 1);
                // What is left to gain is less than is asked for.
                let best = one_apart.map(|other| error(&other) - full).fold(f64::INFINITY, f64::min);
                assert!(
                    after - best <= 1e-3 * after + 1e-9,
                    "seed {seed}, {kept:?}: {after}, and {best} is next to it"
                );
                n_exchanged += usize::from(exchanged.kept != kept);
            }
        }
    }
    assert!(n_exchanged > 100, "only {n_exchanged} of 240 choices were exchanged");
}

/// The elimination takes the sum of two others first, since it says nothing that they do not; of one channel, it is best.
#[test]
fn an_exchange_takes_back_what_an_elimination_took_too_early() {
    let (mut equations, ..) = random_equations(1);
    let (d, n_out) = (equations.map.columns(), 3);
    let mut rng = SplitMix(4);
    let mut draw = |n: usize| -> Vec<f64> { (0..n).map(|_| f64::from(rng.signed())).collect() };
    let xs: Vec<Vec<f64>> = (0..200)
        .map(|_| {
            let [mut x, noise] = [draw(d), draw(2)];
            (0..2).for_each(|tap| x[4 + tap] = x[tap] + x[2 + tap] + 0.3 * noise[tap]);
            x[d - 1] = 1.0;
            x
        })
        .collect();
    let ys: Vec<Vec<f64>> =
        xs.iter().map(|x| (0..n_out).map(|o| x[0] + x[2] + 0.1 * o as f64 * x[1]).collect()).collect();
    equations.gram = (0..d * d).map(|i| xs.iter().map(|x| x[i / d] * x[i % d]).sum()).collect();
    equations.moment =
        (0..d * n_out).map(|i| xs.iter().zip(&ys).map(|(x, y)| x[i / n_out] * y[i % n_out]).sum()).collect();
    let readers = [Reader::new(&equations, Some, 5)];
    let path = eliminate(&pool(1), &readers, 5, 1, None).unwrap();
    let exchanged = exchange(&pool(1), &readers, 5, &path.kept(5, 1), path.errors[4]).unwrap();
    assert!(path.kept(5, 1) != [2] && exchanged.kept == [2], "{path:?} {exchanged:?}");
    let error = |kept: usize| brute_force_error(&xs, &ys, &[kept]);
    assert!((0..5).all(|kept| error(2) <= error(kept)));
}

#[test]
fn an_exchange_does_not_depend_on_the_number_of_threads_and_leaves_alone_what_cannot_be_exchanged() {
    let (equations, ..) = random_equations(11);
    let readers = [Reader::new(&equations, Some, 5)];
    let of = |n_threads, kept: &[usize]| exchange(&pool(n_threads), &readers, 5, kept, 1.0).unwrap();
    assert_eq!(of(1, &[0, 1]), of(3, &[0, 1]));
    assert_eq!(of(1, &[0, 1, 2, 3, 4]).kept, [0, 1, 2, 3, 4]);
    assert_eq!(of(1, &[]).kept, [0; 0]);
}

#[test]
fn equations_that_hold_nan_are_an_error() {
    let (mut equations, ..) = random_equations(3);
    equations.moment[4] = f64::NAN;
    assert!(equations.refit(&[0, 1, 2, 3, 4]).is_err());
    assert!(eliminate(&pool(1), &[Reader::new(&equations, Some, 5)], 5, 1, None).is_err());
    assert!(exchange(&pool(1), &[Reader::new(&equations, Some, 5)], 5, &[0, 1], 1.0).is_err());
    equations.gram[0] = f64::NAN;
    assert!(equations.refit(&[0]).unwrap_err().to_string().contains("NaN"));
}
