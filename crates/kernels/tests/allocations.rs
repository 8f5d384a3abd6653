//! A compiled plan reuses its buffers: a call allocates the logits and the pool's tasks, however many images there are.
#![allow(unsafe_code, clippy::unwrap_used, reason = "a counting allocator; tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use secateur_kernels::{Isa, Plan, Precision, TrainLoss, TrainPlan, WeightedLoss};
use secateur_net::random::with_random_weights;
use secateur_net::{Graph, Shape, arch, fold_batch_norm};

struct Counting;

static N_ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test: a second one beside it would allocate while this one counts.
#[test]
fn a_compiled_plan_reuses_its_buffers() {
    evaluating_allocates_the_logits_and_a_task_per_thread();
    a_training_step_allocates_next_to_nothing();
}

fn evaluating_allocates_the_logits_and_a_task_per_thread() {
    // The larger images have channels in the lanes of a vector.
    for (name, side) in [("resnet20", 32), ("mobilenet_v1", 32), ("resnet20", 96), ("mobilenet_v1", 96)] {
        let network = with_random_weights(arch::build(name, Shape { c: 3, h: side, w: side }, 10).unwrap(), 3);
        let network = fold_batch_norm(&network).unwrap();
        for precision in [Precision::F32, Precision::Bf16].into_iter().filter(|p| p.is_available()) {
            let plan = Plan::compile(&network, precision).unwrap();
            for n_threads in [1, 2] {
                let context = format!("{name} at {side} {precision:?}");
                check(&plan, network.graph(), n_threads, &context);
            }
        }
    }
}

fn check(plan: &Plan, graph: &Graph, n_threads: usize, context: &str) {
    let (n_nodes, len) = (graph.nodes().len(), graph.input().len());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    let images = vec![0.5; 100 * len];
    let count = |n: usize| {
        let before = N_ALLOCATIONS.load(Ordering::Relaxed);
        plan.logits(&pool, &images[..n * len]).unwrap();
        N_ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    for n_images in [1, 16, 33, 100] {
        // The least of several calls: buffers grow in the first that two threads share.
        let n = (0..5).map(|_| count(n_images)).min().unwrap();
        let context = format!("{context}, {n_images} images on {n_threads} threads: {n} allocations");
        if n_threads == 1 || n_images > 16 {
            assert!(n <= 1 + n_threads, "{context}");
        } else {
            // The threads share rows: a task more for each in every step.
            assert!(n <= 2 + n_threads * n_nodes, "{context}");
        }
    }
}

fn a_training_step_allocates_next_to_nothing() {
    let shape = Shape { c: 3, h: 8, w: 8 };
    let network = with_random_weights(arch::build("resnet20", shape, 10).unwrap(), 3);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let images: Vec<f32> = (0..64 * shape.len()).map(|i| (i % 19) as f32 / 19.0).collect();
    let losses = [WeightedLoss { loss: TrainLoss::CrossEntropy { labels: &[1; 64], smoothing: 0.0 }, weight: 1.0 }];
    let mut plan = TrainPlan::compile(&network, Isa::detect(), 64).unwrap();
    let mut count = || {
        let before = N_ALLOCATIONS.load(Ordering::Relaxed);
        plan.step(&pool, &images, &losses).unwrap();
        N_ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    // The least of several steps: buffers grow in the first ones.
    let n = (0..20).map(|_| count()).min().unwrap();
    assert!(n <= 4, "{n} allocations");
}
