//! Channels whose filters lie near the geometric median of their group's go first, because the others can stand in for
//! them (FPGM; He, Liu, Wang, Hu and Yang 2019, "Filter Pruning via Geometric Median").

use secateur_net::Op;

use super::criterion::{Criterion, RankedGroup};

/// The sum of the distances to all other filters, which is least near their geometric median.
pub(crate) struct GeometricMedian;

/// All weights that produce each channel of the group.
fn filters(of: &RankedGroup<'_>) -> Vec<Vec<f32>> {
    let mut filters = vec![Vec::new(); of.n_channels()];
    for (id, node) in of.network.graph().nodes().iter().enumerate() {
        let weight = of.network.weights().get(&format!("{}.weight", node.name));
        let Some(weight) = weight.filter(|weight| weight.shape().len() > 1) else { continue };
        let axis = of.groups.axis(id);
        if let Op::ConvTranspose2d(conv) = &node.op {
            let [_, per_group, rows, columns] = conv.weight_shape();
            for (at, kernel) in weight.data().chunks_exact(rows * columns).enumerate() {
                let (input, within) = (at / per_group, at % per_group);
                let slot = axis[input / (conv.in_channels / conv.groups) * per_group + within];
                if slot.group == of.group {
                    filters[slot.channel].extend_from_slice(kernel);
                }
            }
            continue;
        }
        let per_filter: usize = weight.shape()[1..].iter().product();
        for (slot, filter) in axis.iter().zip(weight.data().chunks_exact(per_filter.max(1))) {
            if slot.group == of.group {
                filters[slot.channel].extend_from_slice(filter);
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

    fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
        let filters = filters(of);
        Ok(filters.iter().map(|a| filters.iter().map(|b| distance(a, b)).sum()).collect())
    }
}
