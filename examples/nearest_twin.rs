//! A plugin that brings a criterion of selection: channels whose filter points the same way as another's go first,
//! because a refit can make one of the other. `cargo run --release --example nearest_twin -- run scenes/quickstart.ron
//! --set 'selection=Custom("nearest_twin")'`

use std::sync::Arc;

use secateur::sim::{Criterion, PruningPlugin, RankedGroup};

/// The criterion.
pub struct NearestTwin;

/// All weights that produce each channel of the group.
fn filters(of: &RankedGroup<'_>) -> Vec<Vec<f32>> {
    let mut filters = vec![Vec::new(); of.n_channels()];
    for (id, node) in of.network.graph().nodes().iter().enumerate() {
        let Some(weight) = of.network.weights().get(&format!("{}.weight", node.name)) else { continue };
        let per_filter: usize = weight.shape()[1..].iter().product();
        for (position, slot) in of.groups.axis(id).iter().enumerate() {
            if slot.group == of.group {
                filters[slot.channel].extend_from_slice(&weight.data()[position * per_filter..][..per_filter]);
            }
        }
    }
    filters
}

/// The absolute cosine of the angle between two filters: a zero filter is like every other, and none is like it.
fn likeness(a: &[f32], b: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    match [product(a, a), product(b, b)] {
        [0.0, _] => 1.0,
        [_, 0.0] => 0.0,
        squares => product(a, b).abs() / squares.iter().product::<f64>().sqrt(),
    }
}

impl Criterion for NearestTwin {
    fn name(&self) -> &str {
        "nearest_twin"
    }

    /// One less the largest likeness to another filter.
    fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
        let filters = filters(of);
        let twin = |i: usize| {
            let others = (0..filters.len()).filter(|&other| other != i);
            others.map(|other| likeness(&filters[i], &filters[other])).fold(0.0, f64::max)
        };
        Ok((0..filters.len()).map(|i| 1.0 - twin(i)).collect())
    }
}

struct NearestTwinPlugin;

impl PruningPlugin for NearestTwinPlugin {
    fn name(&self) -> &str {
        "nearest_twin"
    }
    fn criteria(&self) -> Vec<Arc<dyn Criterion>> {
        vec![Arc::new(NearestTwin)]
    }
}

fn main() -> std::process::ExitCode {
    secateur::cli().add_plugins(NearestTwinPlugin).run()
}
