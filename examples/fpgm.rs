//! A plugin that brings a criterion of selection: channels whose filters lie near the geometric median of their layer's
//! go first, because the others can stand in for them (FPGM; He, Liu, Wang, Hu and Yang 2019, "Filter Pruning via
//! Geometric Median"). `cargo run --release --example fpgm -- run scenes/quickstart.ron --set
//! 'selection=Custom("fpgm")'`

use std::sync::Arc;

use secateur::sim::{Criterion, PruningPlugin, RankedGroup};

/// The criterion.
pub struct GeometricMedian;

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

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

impl Criterion for GeometricMedian {
    fn name(&self) -> &str {
        "fpgm"
    }

    /// The sum of the distances to all other filters, which is least near their geometric median.
    fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
        let filters = filters(of);
        Ok(filters.iter().map(|a| filters.iter().map(|b| distance(a, b)).sum()).collect())
    }
}

struct FpgmPlugin;

impl PruningPlugin for FpgmPlugin {
    fn name(&self) -> &str {
        "fpgm"
    }
    fn criteria(&self) -> Vec<Arc<dyn Criterion>> {
        vec![Arc::new(GeometricMedian)]
    }
}

fn main() -> std::process::ExitCode {
    secateur::cli().add_plugins(FpgmPlugin).run()
}
