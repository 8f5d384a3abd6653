//! Memory of refits of wide layers: this file has one test, since the allocator that counts counts everything.
#![allow(clippy::unwrap_used, reason = "tests")]

use peak_alloc::PeakAlloc;
use secateur_kernels::{Effort, RefitData, SequentialRefit, wide_refit_bytes};
use secateur_net::random::with_random_weights;
use secateur_net::{ChannelGroups, Conv2d, GraphBuilder, KeptChannels, Op, Protocol, Shape};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn a_refit_of_a_wide_layer_takes_no_more_than_is_told() {
    let (channels, pixels, n_out, n_images) = (16, 1024, 12, 300);
    let mut b = GraphBuilder::new(Shape { c: 1, h: 32, w: 32 });
    let conv = b.push("conv", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(1, channels, 1, 1, 0) }), &[0]);
    let flat = b.push("flat", Op::Flatten, &[conv]);
    let wide = Op::Linear { in_features: channels * pixels, out_features: n_out, bias: true };
    b.push("wide", wide, &[flat]);
    let net = with_random_weights(b.finish().unwrap(), 3);
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let mut kept = KeptChannels::all(&groups);
    kept.set(groups.prunable()[0], (0..12).collect());
    let images: Vec<f32> = (0..n_images * pixels).map(|i| ((i * 7919 % 1000) as f32) / 1000.0 - 0.5).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let data = RefitData::new(&pool, &net, &groups, &images, Effort::Thorough).unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    SequentialRefit::new(&pool, &net, &groups, &data).run(&kept, false).unwrap();
    let took = MEMORY.peak_usage() - before;
    let activations = 4 * n_images.div_ceil(16) * 16 * 12 * pixels;
    let weights = 4 * n_out * channels * pixels;
    // Weights of copies, of the compact network, of the kernels and of the refit, a row of vectors; blocks of columns
    // in f64.
    let slack = 8 * weights + 8 * 256 * n_images + (4 << 20);
    let told = wide_refit_bytes(n_images, 12 * pixels, n_out);
    assert!(took <= activations + told + slack, "took {took}: activations {activations}, told {told}, slack {slack}");
    assert!(took >= told / 2, "took {took}, told {told}");
}
