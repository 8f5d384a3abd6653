//! Maxima and means over windows.
//!
//! `ceil_mode` is not used: which windows it adds, and what their means divide by, is not the same in all versions of
//! runtimes. What the last windows reach over is written as padding.

use secateur_net::{NodeId, Window};

use super::NetworkExport;
use super::writer::NodeDraft;

/// Padding in front of and behind rows and columns.
type Sides = [[usize; 2]; 2];

impl NetworkExport<'_> {
    pub(super) fn max_pool(&mut self, id: NodeId, window: &Window) -> NodeDraft {
        let x = self.image(self.node(id).inputs[0]);
        let sides = self.reached(id, window);
        self.pool("MaxPool", id, window).reading([x]).ints("pads", &flattened(sides))
    }

    /// Where zeros are counted and the last windows reach beyond them, the zeros are there for real, and what lies
    /// beyond is padding that does not count.
    pub(super) fn average_pool(&mut self, id: NodeId, window: &Window) -> NodeDraft {
        let x = self.image(self.node(id).inputs[0]);
        let reached = self.reached(id, window);
        let beyond = [0, 1].map(|axis| [0, reached[axis][1].saturating_sub(window.padding[axis][1])]);
        let draft = self.pool("AveragePool", id, window);
        if !window.counts_padding {
            return draft.reading([x]).ints("pads", &flattened(reached)).int("count_include_pad", 0);
        }
        if beyond == [[0; 2]; 2] {
            return draft.reading([x]).ints("pads", &flattened(reached)).int("count_include_pad", 1);
        }
        let [rows, cols] = window.padding;
        let padded = self.padded(id, x, [[0; 2], rows, cols]);
        draft.reading([padded]).ints("pads", &flattened(beyond)).int("count_include_pad", 0)
    }

    fn pool(&self, op: &str, id: NodeId, window: &Window) -> NodeDraft {
        let draft = NodeDraft::new(op, Vec::new(), self.extents(id, false));
        draft.ints("kernel_shape", &window.kernel).ints("strides", &window.stride)
    }

    /// Padding with which windows that all end within it are as many as the window has.
    fn reached(&self, id: NodeId, window: &Window) -> Sides {
        let (input, output) = (self.shape(self.node(id).inputs[0]), self.shape(id));
        let axes = [[input.h, output.h], [input.w, output.w]];
        [0, 1].map(|axis| {
            let ([size, n], [before, behind]) = (axes[axis], window.padding[axis]);
            let end = ((n - 1) * window.stride[axis]).saturating_add(window.kernel[axis]);
            [before, if window.ceil { end.saturating_sub(before.saturating_add(size)) } else { behind }]
        })
    }
}

/// As the attribute has it: all in front, then all behind.
fn flattened(sides: Sides) -> [usize; 4] {
    let [[above, below], [left, right]] = sides;
    [above, left, below, right]
}
