//! A trainer's step reuses its buffers: this file has one test, since the allocator that counts counts everything.
#![allow(unsafe_code, clippy::unwrap_used, reason = "a counting allocator; tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use secateur_kernels::{Isa, OutputMatch, Teacher};
use secateur_net::random::with_random_weights;
use secateur_net::{Shape, arch, fold_batch_norm};
use secateur_tune::{
    AdamSettings, Decay, LossSettings, OptimiserSettings, SgdSettings, StepTargets, Trainer, TrainerSettings,
};

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

const IMAGE: Shape = Shape { c: 3, h: 8, w: 8 };
const BATCH: usize = 32;

fn settings(optimiser: OptimiserSettings) -> TrainerSettings {
    TrainerSettings {
        batch: BATCH,
        n_steps: 20,
        rate: 0.01,
        warm_up: 0.1,
        decay: Decay::Linear,
        optimiser,
        clip: 5.0,
        half_life: 0.1,
        loss: LossSettings { distillation: 0.5, temperature: 2.0, smoothing: 0.0 },
    }
}

/// Allocations of a step, the least of twenty: buffers grow in the first ones.
fn n_allocations(trainer: &mut Trainer, n_threads: usize, targets: StepTargets<'_>) -> usize {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    let images: Vec<f32> = (0..BATCH * IMAGE.len()).map(|i| (i % 19) as f32 / 19.0).collect();
    let count = |_| {
        let before = N_ALLOCATIONS.load(Ordering::Relaxed);
        trainer.step(&pool, &images, targets).unwrap();
        N_ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    (0..20).map(count).min().unwrap()
}

#[test]
fn a_step_of_a_trainer_allocates_nothing() {
    let network = with_random_weights(arch::build("resnet20", IMAGE, 10).unwrap(), 3);
    let folded = fold_batch_norm(&network).unwrap();
    let outputs = OutputMatch::Divergence { temperature: 1.0, weight: 1.0 };
    let teacher = Teacher { network: &folded, outputs, values: Vec::new() };
    let (labels, logits) = ([1; BATCH], [0.5; 10 * BATCH]);
    let targets = StepTargets { labels: Some(&labels), teacher: Some(&logits) };
    for optimiser in [OptimiserSettings::Sgd(SgdSettings::default()), OptimiserSettings::Adam(AdamSettings::default())]
    {
        for n_threads in [1, 2] {
            // With BatchNorm, whose running statistics are averaged; and with another network beside it.
            let mut alone = Trainer::new(&network, Isa::detect(), settings(optimiser)).unwrap();
            let mut taught = Trainer::with_teacher(&folded, &teacher, Isa::detect(), settings(optimiser)).unwrap();
            let of_alone = n_allocations(&mut alone, n_threads, targets);
            let of_taught = n_allocations(&mut taught, n_threads, StepTargets::default());
            assert_eq!([of_alone, of_taught], [0, 0], "{optimiser:?} on {n_threads} threads");
        }
    }
}
