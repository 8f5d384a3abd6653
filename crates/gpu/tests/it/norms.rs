//! Filter norms against `channel_norms` of the CPU.

use secateur_gpu::{Gpu, GpuError, GpuOptions, Norms, filter_norms, group_norms, norm_order};
use secateur_kernels::{Norm, channel_norms};
use secateur_net::random::{random_network, with_random_weights};
use secateur_net::{ChannelGroups, Conv2d, GraphBuilder, Network, Op, Protocol, Shape, Tensor, arch};

use crate::adapter::{checked, open};

/// f32 sums in pieces of 64 against f64.
const TOLERANCE: f64 = 1e-5;

fn check(gpu: &Gpu, network: &Network, name: &str) {
    let layers = filter_norms(gpu, network).unwrap();
    let groups = ChannelGroups::derive(network.graph(), Protocol::Full);
    for group in 0..groups.groups().len() {
        for norm in [Norm::L1, Norm::L2] {
            let got = group_norms(network, &groups, group, &layers, norm);
            let expected = channel_norms(network, &groups, group, norm);
            assert_eq!(got.len(), expected.len());
            for (channel, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let error = (got - expected).abs();
                assert!(
                    error <= TOLERANCE * expected,
                    "{name}: {norm:?} of channel {channel} of group {group}: {got} {expected}"
                );
            }
        }
    }
    for layer in &layers {
        let node = network.graph().node(layer.node);
        let weight = network.parameter(&node.name, "weight");
        let per_filter = weight.data().len() / layer.filters.len();
        for (filter, &Norms { l1, l2 }) in weight.data().chunks(per_filter).zip(&layer.filters) {
            let sum: f64 = filter.iter().map(|w| f64::from(w.abs())).sum();
            let squares: f64 = filter.iter().map(|w| f64::from(*w).powi(2)).sum();
            assert!((f64::from(l1) - sum).abs() <= TOLERANCE * sum, "{name} '{}': {l1} {sum}", node.name);
            assert!((f64::from(l2) - squares.sqrt()).abs() <= TOLERANCE * squares.sqrt(), "{name} '{}'", node.name);
        }
    }
}

#[test]
fn filter_norms_of_any_network_are_those_of_the_cpu() {
    let Some(gpu) = checked() else { return };
    for seed in 0..40 {
        check(&gpu, &random_network(seed), &format!("random network {seed}"));
    }
    for name in ["resnet56", "mobilenet_v1"] {
        let graph = arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        check(&gpu, &with_random_weights(graph, 1), name);
    }
}

/// Filters of 1, 63, 64, 65 and 4,608 weights: around the length of a segment, and far beyond.
#[test]
fn filters_of_odd_lengths_lose_no_weight() {
    let Some(gpu) = checked() else { return };
    for (n_in, kernel) in [(1, [1, 1]), (7, [3, 3]), (64, [1, 1]), (13, [1, 5]), (512, [3, 3])] {
        let mut b = GraphBuilder::new(Shape { c: n_in, h: 5, w: 5 });
        let conv = Conv2d { kernel, ..Conv2d::square(n_in, 3, 1, 1, 2) };
        let x = b.push("a", Op::Conv2d(conv), &[0]);
        b.push("b", Op::GlobalAvgPool, &[x]);
        check(&gpu, &with_random_weights(b.finish().unwrap(), 3), &format!("{n_in} inputs, kernel {kernel:?}"));
    }
}

#[test]
fn weights_larger_than_a_binding_are_split_and_one_filter_too_large_is_refused() {
    // The largest layer of ResNet-20 has 64 filters of 64 * 9 weights of 4 bytes: as a whole, in two, in 22 and in 64
    // pieces.
    let filter = 64 * 9 * 4;
    let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
    let network = with_random_weights(graph, 1);
    for n_filters in [64, 63, 3, 1] {
        let Some(gpu) = open(&GpuOptions { binding_max: Some(n_filters * filter), ..GpuOptions::default() }) else {
            return;
        };
        check(&gpu, &network, &format!("resnet20, {n_filters} filters at a time"));
    }
    // Groups, depthwise filters, Linear.
    let gpu = open(&GpuOptions { binding_max: Some(8192), ..GpuOptions::default() }).unwrap();
    for seed in 0..20 {
        check(&gpu, &random_network(seed), &format!("random network {seed} in pieces"));
    }
    let gpu = open(&GpuOptions { binding_max: Some(filter - 4), ..GpuOptions::default() }).unwrap();
    let error = filter_norms(&gpu, &network).unwrap_err();
    assert!(
        matches!(&error, GpuError::TooLarge { what, .. } if what.contains("one filter of node 'layer3.0.conv2'")),
        "{error}"
    );
}

/// An order by the card is the order of sums of 64 bits, or there is none: for any network, and for filters that are
/// equal, nearly equal, tiny or huge.
#[test]
fn orders_by_norm_are_those_of_the_cpu_wherever_they_are_given() {
    let Some(gpu) = checked() else { return };
    let (mut n_given, mut n_groups) = (0, 0);
    let mut compare = |network: &Network, norm: Norm, is_clear: Option<bool>| {
        let groups = ChannelGroups::derive(network.graph(), Protocol::Full);
        let layers = filter_norms(&gpu, network).unwrap();
        for group in groups.prunable() {
            let norms = channel_norms(network, &groups, group, norm);
            let mut expected: Vec<usize> = (0..norms.len()).collect();
            expected.sort_by(|&a, &b| norms[a].total_cmp(&norms[b]).then(b.cmp(&a)));
            let got = norm_order(network, &groups, group, &layers, norm);
            n_given += usize::from(got.is_some());
            n_groups += 1;
            assert!(is_clear.is_none_or(|clear| clear == got.is_some()), "{norm:?}: {norms:?}");
            assert!(got.as_ref().is_none_or(|got| *got == expected), "{got:?} {expected:?}");
        }
    };
    for norm in [Norm::L1, Norm::L2] {
        (0..20).for_each(|seed| compare(&random_network(seed), norm, None));
        for (filters, is_clear) in [
            ([1.0, 2.0, 3.0], true),
            ([1.0, 1.0, 3.0], false),
            ([1.0, 1.000_001, 3.0], false),
            ([1e-20, 2e-20, 1.0], false),
            ([1.0, 2.0, 3e25], false),
            // Squares that are infinite in 32 bits; weights that are not finite are refused by networks.
            ([1.0, 2.0, 3e38], false),
        ] {
            let mut b = GraphBuilder::new(Shape { c: 1, h: 2, w: 2 });
            let a = b.push("a", Op::Conv2d(Conv2d::square(1, 3, 1, 1, 0)), &[0]);
            let c = b.push("b", Op::Conv2d(Conv2d::square(3, 2, 1, 1, 0)), &[a]);
            b.push("c", Op::GlobalAvgPool, &[c]);
            let mut network = with_random_weights(b.finish().unwrap(), 1);
            for (name, shape, data) in
                [("a", vec![3, 1, 1, 1], filters.to_vec()), ("b", vec![2, 3, 1, 1], vec![0.0; 6])]
            {
                network.set_parameter(name, "weight", Tensor::new(shape, data).unwrap()).unwrap();
            }
            compare(&network, norm, Some(is_clear));
        }
    }
    assert!(2 * n_given > n_groups, "{n_given} of {n_groups} orders are given");
}
