//! Counts against the released models' figures, groups of known architectures, counts after surgery on random graphs.

use secateur_net::random::{
    SplitMix, random_graph, random_graph_of_every_operation, random_network, random_network_of_every_operation,
};
use secateur_net::{
    ChannelGroups, Conv2d, Cost, CostModel, Graph, GraphBuilder, KeptChannels, NetError, Op, Protocol, Shape, arch,
    prune,
};

const CIFAR: Shape = Shape { c: 3, h: 32, w: 32 };

fn count(graph: &Graph, cost: Cost) -> u64 {
    let groups = ChannelGroups::derive(graph, Protocol::Inner);
    CostModel::new(graph, &groups).count(cost, &groups.full_widths())
}

#[test]
fn counts_equal_the_published_figures() {
    // ResNets and MobileNet: PyTorch hooks on the released models (golden/models.json); VGG-16: AMC, 313.20 M and 14.73
    // M.
    for (name, macs, params) in [
        ("resnet20", 40_551_040, 269_722),
        ("resnet56", 125_485_696, 853_018),
        ("mobilenet_v1", 11_596_288, 3_217_226),
        ("vgg16", 313_201_664, 14_728_266),
    ] {
        let graph = arch::build(name, CIFAR, 10).unwrap();
        assert_eq!(count(&graph, Cost::Macs), macs, "{name}");
        assert_eq!(count(&graph, Cost::Params), params, "{name}");
    }
    let flowers = arch::build("mobilenet_v1", Shape { c: 3, h: 224, w: 224 }, 102).unwrap();
    assert_eq!(count(&flowers, Cost::Macs) / 10_000, 56_782, "MTACP table I: 567.82 M for Flower-102 at 224x224");
}

#[test]
fn depth_of_every_resnet_follows_its_name() {
    for (name, depth) in [("resnet20", 20), ("resnet32", 32), ("resnet44", 44), ("resnet56", 56), ("resnet110", 110)] {
        let graph = arch::build(name, CIFAR, 10).unwrap();
        let layers = graph.nodes().iter().filter(|n| matches!(n.op, Op::Conv2d(_) | Op::Linear { .. })).count();
        assert_eq!(layers, depth);
    }
    let unknown = arch::build("resnet21", CIFAR, 10).unwrap_err();
    assert!(unknown.to_string().contains("resnet20"), "{unknown}");
}

#[test]
fn inner_protocol_prunes_the_first_convolution_of_each_block() {
    let graph = arch::build("resnet20", CIFAR, 10).unwrap();
    let groups = ChannelGroups::derive(&graph, Protocol::Inner);
    let names: Vec<&str> = groups.prunable().iter().map(|&g| groups.group(g).name.as_str()).collect();
    let expected: Vec<String> = (1..=3).flat_map(|l| (0..3).map(move |b| format!("layer{l}.{b}.conv1"))).collect();
    assert_eq!(names, expected);
    let frozen: Vec<&str> = groups.groups().iter().filter_map(|g| g.frozen.as_deref()).collect();
    assert!(frozen.contains(&"network input") && frozen.contains(&"network output"), "{frozen:?}");
    assert!(frozen.iter().any(|r| r.contains("protocol `inner`")), "{frozen:?}");
}

#[test]
fn full_protocol_follows_option_a_shortcuts_through_all_stages() {
    let graph = arch::build("resnet20", CIFAR, 10).unwrap();
    let groups = ChannelGroups::derive(&graph, Protocol::Full);
    // The 16 stem channels live on in the middle of stages 2 and 3; each later stage adds 16 and 32 channels of its
    // own.
    let streams: Vec<(&str, usize)> = groups
        .prunable()
        .iter()
        .map(|&g| groups.group(g))
        .filter(|g| !g.name.ends_with(".conv1") || g.name == "conv1")
        .map(|g| (g.name.as_str(), g.n_channels))
        .collect();
    assert_eq!(streams, [("conv1", 16), ("layer2.0.conv2", 16), ("layer3.0.conv2", 32)]);
    let stem = groups.prunable()[0];
    let last_add = graph.nodes().iter().position(|n| n.name == "layer3.2.add").unwrap();
    let positions: Vec<usize> = groups.positions(last_add, stem).concat();
    assert_eq!(positions, (24..40).collect::<Vec<_>>());
}

#[test]
fn depthwise_convolutions_pass_their_group_on() {
    let graph = arch::build("mobilenet_v1", CIFAR, 10).unwrap();
    let groups = ChannelGroups::derive(&graph, Protocol::Inner);
    assert_eq!(groups.prunable().len(), 14);
    let first = groups.group(groups.prunable()[0]);
    assert_eq!((first.name.as_str(), first.n_channels), ("conv1.0", 32));
    assert_eq!(first.consumers.iter().map(|&c| graph.node(c).name.as_str()).collect::<Vec<_>>(), ["features.0.3"]);
}

#[test]
fn hand_worked_network_has_the_counts_on_paper() {
    // 2x4x4 -> conv 3x3 to 4 channels -> conv 1x1 to 3 -> flatten 48 -> linear 5
    let mut g = GraphBuilder::new(Shape { c: 2, h: 4, w: 4 });
    let a = g.push("a", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(2, 4, 3, 1, 1) }), &[0]);
    let b = g.push("b", Op::Conv2d(Conv2d::square(4, 3, 1, 1, 0)), &[a]);
    let f = g.push("f", Op::Flatten, &[b]);
    g.push("l", Op::Linear { in_features: 48, out_features: 5, bias: true }, &[f]);
    let graph = g.finish().unwrap();
    let groups = ChannelGroups::derive(&graph, Protocol::Inner);
    let model = CostModel::new(&graph, &groups);
    let full = groups.full_widths();
    assert_eq!(full, [2, 4, 3, 5]);
    assert_eq!(model.count(Cost::Macs, &full), (2 * 4 * 9 + 4 * 3) * 16 + 48 * 5);
    assert_eq!(model.count(Cost::Params, &full), 2 * 4 * 9 + 4 + 12 + 48 * 5 + 5);
    // input + a: 96 floats; a + b: 112 floats; b + f: 96
    assert_eq!(model.count(Cost::ActivationBytes, &full), 4 * (64 + 48));
    let less = [2, 3, 1, 5];
    assert_eq!(model.count(Cost::Macs, &less), (2 * 3 * 9 + 3) * 16 + 16 * 5);
    assert_eq!(model.count(Cost::ActivationBytes, &less), 4 * (32 + 48));
}

/// Random non-empty subset of every prunable group.
fn random_kept(groups: &ChannelGroups, rng: &mut SplitMix) -> KeptChannels {
    let lists = groups.groups().iter().map(|g| {
        let mut list: Vec<usize> = (0..g.n_channels).filter(|_| g.frozen.is_some() || rng.below(2) == 0).collect();
        if list.is_empty() {
            list.push(rng.below(g.n_channels));
        }
        list
    });
    KeptChannels::new(groups, lists.collect()).expect("the lists are subsets of prunable groups")
}

#[test]
fn counts_of_widths_equal_counts_of_the_compact_graph() {
    let networks =
        (0..300).flat_map(|seed| [(seed, random_network(seed)), (seed, random_network_of_every_operation(seed))]);
    for (seed, network) in networks {
        for protocol in [Protocol::Inner, Protocol::Full] {
            let groups = ChannelGroups::derive(network.graph(), protocol);
            let model = CostModel::new(network.graph(), &groups);
            let kept = random_kept(&groups, &mut SplitMix(seed));
            let compact = prune(&network, &groups, &kept).unwrap();
            for cost in [Cost::Macs, Cost::Params, Cost::ActivationBytes] {
                assert_eq!(model.count(cost, &kept.widths()), count(compact.graph(), cost), "seed {seed} {cost:?}");
            }
        }
    }
}

#[test]
fn counts_grow_with_every_width() {
    for graph in (0..100).flat_map(|seed| [random_graph(seed), random_graph_of_every_operation(seed)]) {
        let groups = ChannelGroups::derive(&graph, Protocol::Full);
        let model = CostModel::new(&graph, &groups);
        let mut widths = groups.full_widths();
        for g in groups.prunable() {
            for cost in [Cost::Macs, Cost::Params, Cost::ActivationBytes] {
                let full = model.count(cost, &widths);
                let w = std::mem::replace(&mut widths[g], 1);
                assert!(model.count(cost, &widths) <= full);
                widths[g] = w;
            }
        }
    }
}

#[test]
fn kept_sets_that_do_not_fit_are_refused() {
    let graph = arch::build("resnet20", CIFAR, 10).unwrap();
    let groups = ChannelGroups::derive(&graph, Protocol::Inner);
    let all = KeptChannels::all(&groups);
    let first = groups.prunable()[0];
    let frozen = groups.groups().iter().position(|g| g.frozen.is_some()).unwrap();
    for (group, list, expected) in [
        (first, vec![], "not empty"),
        (first, vec![3, 1], "ascending"),
        (first, vec![1, 16], "has 16 channels"),
        (frozen, vec![0], "is frozen"),
    ] {
        let mut lists = all.lists().to_vec();
        lists[group] = list;
        let error = KeptChannels::new(&groups, lists).unwrap_err();
        assert!(matches!(error, NetError::KeptSet { .. }) && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn malformed_graphs_are_refused_with_the_node() {
    let conv = |i, o| Op::Conv2d(Conv2d::square(i, o, 3, 1, 1));
    let mut g = GraphBuilder::new(CIFAR);
    g.push("a", conv(4, 8), &[0]);
    assert!(g.finish().unwrap_err().to_string().starts_with("node 'a'"));
    let mut g = GraphBuilder::new(CIFAR);
    g.push("a", conv(3, 8), &[0]);
    g.push("a", conv(8, 8), &[1]);
    assert!(g.finish().unwrap_err().to_string().contains("repeated name"));
    let mut g = GraphBuilder::new(CIFAR);
    g.push("a", conv(3, 8), &[1]);
    assert!(g.finish().unwrap_err().to_string().contains("does not come before"));
    let huge = Shape { c: usize::MAX, h: 2, w: 2 };
    let mut g = GraphBuilder::new(huge);
    g.push("a", Op::Flatten, &[0]);
    assert!(g.finish().is_err());
}
