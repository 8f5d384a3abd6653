//! Labels of the operations that move or weigh channels.

use super::frozen::Frozen;
use super::labels::{AxisLabels, Labels};

/// Labels of the sum or product of `inputs`: those of an input that has all channels. Same positions go together;
/// a single channel for all must stay, or it would make one of them all.
pub(super) fn broadcast(labels: &mut Labels, inputs: &[&AxisLabels], n_channels: usize) -> AxisLabels {
    let full = inputs.iter().find(|axis| axis.len() == n_channels).copied();
    let full = full.expect("an input has the shape of the output");
    for axis in inputs {
        if axis.len() == n_channels {
            full.iter().zip(axis.iter()).for_each(|(&a, &b)| labels.join(a, b));
        } else {
            labels.freeze(axis.iter().copied(), Frozen::Broadcast);
        }
    }
    full.clone()
}

/// Labels of `n_pixels` pixels' channels, one pixel after the other.
pub(super) fn flatten_pixels(input: &AxisLabels, n_pixels: usize) -> AxisLabels {
    let mut out = Vec::with_capacity(n_pixels * input.len());
    (0..n_pixels).for_each(|_| out.extend_from_slice(input));
    out.into()
}

/// The same place of every group goes together, so that the groups stay equal; the groups are then interleaved.
pub(super) fn shuffle(labels: &mut Labels, input: &AxisLabels, n_groups: usize) -> AxisLabels {
    join_conv_groups(labels, input, n_groups);
    let per_group = input.len() / n_groups;
    (0..input.len()).map(|o| input[o % n_groups * per_group + o / n_groups]).collect()
}

/// The `per_channel` channels that become the pixels of one go together.
pub(super) fn depth_to_space(
    labels: &mut Labels,
    input: &AxisLabels,
    per_channel: usize,
    columns_rows_depth: bool,
) -> AxisLabels {
    let n = input.len() / per_channel;
    let first = |out: usize| if columns_rows_depth { out * per_channel } else { out };
    for (i, &label) in input.iter().enumerate() {
        labels.join(input[first(if columns_rows_depth { i / per_channel } else { i % n })], label);
    }
    (0..n).map(|out| input[first(out)]).collect()
}

/// In an ordinary grouped convolution the same position of every conv group goes together, so that the groups stay
/// equal.
pub(super) fn join_conv_groups(labels: &mut Labels, axis: &[u32], n_groups: usize) {
    let per_group = axis.len() / n_groups;
    for (position, &label) in axis.iter().enumerate().skip(per_group) {
        labels.join(axis[position % per_group], label);
    }
}

/// The same labels, which may not be removed.
pub(super) fn frozen(labels: &mut Labels, axis: &AxisLabels, why: Frozen) -> AxisLabels {
    labels.freeze(axis.iter().copied(), why);
    axis.clone()
}
