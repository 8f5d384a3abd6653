//! What the kernels here do beside their operation.

use secateur_net::{Conv2d, Fusion, Graph, Op, Schedule};

/// A kernel of weights adds a residual in its epilogue, any applies an activation; images lie in vector lanes, so one
/// channel or one pixel is flat already.
const FUSION: Fusion = Fusion {
    adds: |op| matches!(op, Op::Conv2d(_) | Op::Linear { .. }),
    activates: |_, _| true,
    scales: |_| false,
    is_flat: |shape| shape.h * shape.w == 1 || shape.c == 1,
};

/// The same where the lanes are channels: pixels of the same channel lie apart, and a kernel that is a product of whole
/// pixels multiplies their channels by factors first.
pub(crate) const BY_CHANNEL: Fusion = Fusion {
    scales: |op| matches!(op, Op::Conv2d(conv) if is_of_pixels(conv) && conv.groups == 1 && !conv.is_depthwise()),
    is_flat: |shape| shape.h * shape.w == 1,
    ..FUSION
};

/// Whether an output pixel reads the input's pixel of the same place alone.
pub(crate) fn is_of_pixels(conv: &Conv2d) -> bool {
    conv.kernel == [1, 1] && conv.stride == [1, 1] && conv.padding == [0, 0]
}

/// The steps of `graph`, and its buffers in values per image.
pub(crate) fn schedule(graph: &Graph) -> Schedule {
    Schedule::new(graph, FUSION, |node| graph.shape(node).len())
}
