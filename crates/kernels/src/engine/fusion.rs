//! What the kernels here do beside their operation.

use secateur_net::{Fusion, Graph, Op, Schedule};

/// A kernel of weights adds a residual in its epilogue, any applies an activation; images lie in vector lanes, so one
/// channel or one pixel is flat already.
const FUSION: Fusion = Fusion {
    adds: |op| matches!(op, Op::Conv2d(_) | Op::Linear { .. }),
    activates: |_, _| true,
    is_flat: |shape| shape.h * shape.w == 1 || shape.c == 1,
};

/// The steps of `graph`, and its buffers in values per image.
pub(crate) fn schedule(graph: &Graph) -> Schedule {
    Schedule::new(graph, FUSION, |node| graph.shape(node).len())
}
