//! A compiled plan reuses its buffers: how much it allocates does not depend on the number of images.
#![allow(unsafe_code, clippy::unwrap_used, reason = "a counting allocator; tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use secateur_kernels::{Plan, Precision};
use secateur_net::random::with_random_weights;
use secateur_net::{Shape, arch, fold_batch_norm};

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

#[test]
fn evaluating_more_images_allocates_no_more() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let network = with_random_weights(arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap(), 3);
    let network = fold_batch_norm(&network).unwrap();
    for precision in [Precision::F32, Precision::Bf16].into_iter().filter(|p| p.is_available()) {
        check(&pool, &Plan::compile_with(&network, precision).unwrap());
    }
}

fn check(pool: &rayon::ThreadPool, plan: &Plan) {
    let images = vec![0.5; 200 * 3072];
    let count = |n: usize| {
        let before = N_ALLOCATIONS.load(Ordering::Relaxed);
        plan.logits(pool, &images[..n * 3072]).unwrap();
        N_ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    count(200);
    let (few, many) = (count(16), count(200));
    assert_eq!(few, many, "allocations of one group of images and of thirteen");
    assert!(many < 20, "{many} allocations for the logits and the pool");
}
