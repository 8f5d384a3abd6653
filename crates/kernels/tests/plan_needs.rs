//! What a plan is said to need is what it takes. Alone in its program, because the peak is that of the whole process.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Instant;

use peak_alloc::PeakAlloc;
use secateur_kernels::{Plan, PlanNeeds, Precision};
use secateur_net::random::{random_network, random_network_of_every_operation, with_random_weights};
use secateur_net::{Conv2d, GraphBuilder, Network, NodeId, Op, Pointwise, Shape, Window, arch, fold_batch_norm};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Beside the plan: temporary lists, the pool's tasks.
const SLACK: u64 = 24 << 10;

/// Peak bytes of compiling `network` and evaluating `n_images` images on `n_threads` threads, without the logits.
fn taken(network: &Network, precision: Precision, n_images: usize, n_threads: usize) -> u64 {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    let images = vec![0.5; n_images * network.graph().input().len()];
    // The pool's threads make their own lists when they first work.
    pool.broadcast(|_| ());
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let plan = Plan::compile_for_calls(network, precision, n_images).unwrap();
    plan.logits(&pool, &images).unwrap();
    (MEMORY.peak_usage() - before) as u64 - 4 * (n_images * plan.n_classes()) as u64
}

fn check(network: &Network, n_images: usize, context: &str) {
    for precision in [Precision::F32, Precision::Bf16].into_iter().filter(|p| p.is_available()) {
        let needs = PlanNeeds::for_calls(network.graph(), precision, n_images).unwrap();
        for n_threads in [1, 3] {
            let (said, took) = (needs.bytes(n_images, n_threads), taken(network, precision, n_images, n_threads));
            let context =
                format!("{context}, {precision:?}, {n_images} images on {n_threads} threads: said {said}, took {took}");
            assert!(took <= said + said / 50 + SLACK, "{context}");
            // Threads that come too late for any image take nothing.
            if n_threads == 1 {
                assert!(said <= took + took / 10 + SLACK, "{context}");
            }
        }
    }
}

/// One test, for two at a time would measure each other.
#[test]
fn a_plan_takes_what_it_is_said_to_need() {
    sizes_beyond_any_machine_are_told_and_not_allocated();
    for seed in 0..60 {
        check(&random_network(seed), 1 + seed as usize % 40, &format!("seed {seed}"));
        check(&random_network_of_every_operation(seed), 1 + seed as usize % 40, &format!("every operation, {seed}"));
        check(&fold_batch_norm(&random_network(seed)).unwrap(), 33, &format!("seed {seed}, folded"));
    }
    for name in ["resnet20", "vgg16", "mobilenet_v1"] {
        let network = with_random_weights(arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap(), 3);
        check(&network, 20, name);
        check(&fold_batch_norm(&network).unwrap(), 60, &format!("{name}, folded"));
    }
    // Images so large that the lanes of a vector are channels.
    for (name, side) in [("resnet20", 96), ("mobilenet_v1", 130), ("vgg16", 96)] {
        let network = with_random_weights(arch::build(name, Shape { c: 3, h: side, w: side }, 10).unwrap(), 3);
        for n_images in [1, 5, 20] {
            check(&network, n_images, &format!("{name} at {side}"));
            check(&fold_batch_norm(&network).unwrap(), n_images, &format!("{name} at {side}, folded"));
        }
    }
    // Flat, long, with many channels, many blocks, many planes alive.
    for (shape, n_groups) in
        [((64, 1, 1), 64), ((1, 1, 5000), 1), ((2, 3000, 1), 1), ((600, 3, 3), 300), ((512, 2, 2), 1)]
    {
        let (c, h, w) = shape;
        let conv = Conv2d { groups: n_groups, bias: true, ..Conv2d::square(c, 2 * c, 3, 1, 1) };
        check(&after(Shape { c, h, w }, Op::Conv2d(conv)), 5, &format!("{shape:?} in {n_groups} groups"));
    }
    check(&many_planes(40), 1, "40 planes");
}

fn after(input: Shape, op: Op) -> Network {
    let mut b = GraphBuilder::new(input);
    b.push("op", op, &[0]);
    with_random_weights(b.finish().unwrap(), 1)
}

fn many_planes(n: usize) -> Network {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 16, w: 16 });
    let padded = b.push("pad", Op::Pad { channels: [0; 2], rows: [9; 2], cols: [9; 2] }, &[0]);
    let planes: Vec<NodeId> =
        (0..n).map(|i| b.push(format!("s{i}"), Op::Pointwise(Pointwise::Sigmoid), &[padded])).collect();
    let sum = b.push("sum", Op::Add, &planes);
    b.push("mean", Op::GlobalAvgPool, &[sum]);
    with_random_weights(b.finish().unwrap(), 1)
}

fn sizes_beyond_any_machine_are_told_and_not_allocated() {
    let start = Instant::now();
    let before = MEMORY.current_usage();
    let big = Shape { c: 1, h: 1 << 14, w: 1 << 14 };
    for op in [
        Op::Conv2d(Conv2d::square(1, 1, 3, 1, 1)),
        Op::Conv2d(Conv2d::square(1, 1, 1, 1, 0)),
        Op::Conv2d(Conv2d { groups: 1, ..Conv2d::square(1, 1, 7, 1, 3) }),
        Op::AvgPool(Window::new([9; 2], [1; 2], [4; 2])),
        Op::AvgPool(Window { ceil: true, padding: [[8, 0], [0, 7]], ..Window::new([9; 2], [1; 2], [4; 2]) }),
        Op::PRelu { channels: 1 },
        Op::Pointwise(Pointwise::Tanh),
        Op::Flatten,
    ] {
        let mut b = GraphBuilder::new(big);
        b.push("op", op, &[0]);
        let graph = b.finish().unwrap();
        MEMORY.reset_peak_usage();
        for precision in [Precision::F32, Precision::Bf16].into_iter().filter(|p| p.is_available()) {
            let needs = PlanNeeds::of(&graph, precision).unwrap();
            // A plane of 2^28 values at least, where channels are in lanes; two, with an image to each of at least 8
            // lanes, where images are.
            let least = if precision == Precision::F32 { 1 << (28 + 2) } else { 2 << (28 + 3 + 2) };
            assert!(needs.bytes(1, 1) >= least, "{needs:?}");
            assert!(needs.operations >= 1 << 28, "{needs:?}");
        }
        assert!(MEMORY.peak_usage() - before < 1 << 20);
    }
    assert!(start.elapsed().as_secs() < 20);
}
