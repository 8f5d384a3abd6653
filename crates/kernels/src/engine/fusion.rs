//! What the kernels here do beside their operation.

use secateur_net::{Fusion, Graph, Op, Schedule};

/// A kernel of weights adds a residual in its epilogue, any applies an activation; images lie in vector lanes, so one
/// channel or one pixel is flat already.
const FUSION: Fusion = Fusion {
    adds: |op| matches!(op, Op::Conv2d(_) | Op::Linear { .. }),
    activates: |_, _| true,
    scales: |_| false,
    is_flat: |shape| shape.h * shape.w == 1 || shape.c == 1,
};

/// The same where the lanes are channels: pixels of the same channel lie apart.
pub(crate) const BY_CHANNEL: Fusion = Fusion { is_flat: |shape| shape.h * shape.w == 1, ..FUSION };

/// The steps of `graph`, and its buffers in values per image.
pub(crate) fn schedule(graph: &Graph) -> Schedule {
    Schedule::new(graph, FUSION, |node| graph.shape(node).len())
}
