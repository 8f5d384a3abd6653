//! Operations without parameters that combine, move or cut values.

use secateur_net::{NodeId, Shape};

use super::NetworkExport;
use super::writer::{NodeDraft, whole};

impl NetworkExport<'_> {
    /// The node's inputs with the same number of axes each: flat where all are flat already.
    fn alike(&mut self, id: NodeId) -> AlikeInputs {
        let inputs = &self.node(id).inputs;
        let is_flat = inputs.iter().all(|&input| self.values[input].is_flat);
        let names = inputs.iter().map(|&input| self.ranked(input, is_flat)).collect();
        AlikeInputs { names, is_flat }
    }

    pub(super) fn sum(&mut self, id: NodeId) -> NodeDraft {
        let AlikeInputs { names, is_flat } = self.alike(id);
        let op = if names.len() == 2 { "Add" } else { "Sum" };
        NodeDraft::new(op, names, self.extents(id, is_flat))
    }

    /// The largest (smallest) of the inputs, value by value.
    pub(super) fn extreme(&mut self, id: NodeId, op: &str) -> NodeDraft {
        let AlikeInputs { names, is_flat } = self.alike(id);
        NodeDraft::new(op, names, self.extents(id, is_flat))
    }

    /// Two at a time: Mul takes no more.
    pub(super) fn product(&mut self, id: NodeId) -> NodeDraft {
        let AlikeInputs { names, is_flat } = self.alike(id);
        let factors: Vec<Vec<usize>> = self.node(id).inputs.iter().map(|&i| self.extents(i, is_flat)).collect();
        let last = names.len() - 1;
        let (mut product, mut extents) = (names[0].clone(), factors[0].clone());
        for i in 1..last {
            extents = extents.iter().zip(&factors[i]).map(|(&a, &b)| a.max(b)).collect();
            product = self.inner(id, NodeDraft::new("Mul", vec![product, names[i].clone()], extents.clone()));
        }
        NodeDraft::new("Mul", vec![product, names[last].clone()], self.extents(id, is_flat))
    }

    pub(super) fn concatenation(&mut self, id: NodeId) -> NodeDraft {
        let AlikeInputs { names, is_flat } = self.alike(id);
        NodeDraft::new("Concat", names, self.extents(id, is_flat)).int("axis", 1)
    }

    /// All values of a node in one row, channel after channel.
    pub(super) fn flattening(&self, id: NodeId) -> NodeDraft {
        NodeDraft::new("Flatten", vec![self.values[id].name.clone()], self.extents(id, true)).int("axis", 1)
    }

    /// A row of values as channels of one pixel.
    pub(super) fn unflattening(&mut self, id: NodeId) -> NodeDraft {
        let axes = self.integers(id, "axes", &[2, 3]);
        NodeDraft::new("Unsqueeze", vec![self.values[id].name.clone(), axes], self.extents(id, false))
    }

    /// All values of the node's input in one row, pixel after pixel.
    pub(super) fn pixel_flattening(&mut self, id: NodeId) -> NodeDraft {
        let input = self.node(id).inputs[0];
        if self.is_pixel(input) {
            return self.flattening(input);
        }
        let behind = self.channels_behind(id);
        NodeDraft::new("Flatten", vec![behind], self.extents(id, true)).int("axis", 1)
    }

    /// The node's input as `[batch, h, w, c]`.
    pub(super) fn channels_behind(&mut self, id: NodeId) -> String {
        let input = self.node(id).inputs[0];
        let Shape { c, h, w } = self.shape(input);
        let x = self.image(input);
        self.inner(id, NodeDraft::new("Transpose", vec![x], vec![h, w, c]).ints("perm", &[0, 2, 3, 1]))
    }

    pub(super) fn shuffle(&mut self, id: NodeId, groups: usize) -> NodeDraft {
        let x = self.image(self.node(id).inputs[0]);
        let Shape { c, h, w } = self.shape(id);
        let per_group = c / groups;
        let apart = self.reshaped(id, x, vec![groups, per_group, h, w]);
        let apart = self.inner(id, apart);
        let turned = NodeDraft::new("Transpose", vec![apart], vec![per_group, groups, h, w]);
        let turned = self.inner(id, turned.ints("perm", &[0, 2, 1, 3, 4]));
        self.reshaped(id, turned, vec![c, h, w])
    }

    /// `x` with other extents behind the batch.
    pub(super) fn reshaped(&mut self, id: NodeId, x: String, extents: Vec<usize>) -> NodeDraft {
        // 0 takes the batch over.
        let sizes: Vec<i64> = std::iter::once(0).chain(extents.iter().map(|&n| whole(n))).collect();
        let sizes = self.integers(id, "shape", &sizes);
        NodeDraft::new("Reshape", vec![x, sizes], extents)
    }

    /// Zeros in front of and behind channels, rows and columns.
    pub(super) fn pad(&mut self, id: NodeId, around: [[usize; 2]; 3]) -> NodeDraft {
        if around == [[0; 2]; 3] {
            return self.same(id, "Identity");
        }
        let draft = self.of_image(id, "Pad");
        let pads = self.pads(id, around);
        draft.reading([pads]).word("mode", "constant")
    }

    /// `x`, the input of a node, with zeros around.
    pub(super) fn padded(&mut self, id: NodeId, x: String, around: [[usize; 2]; 3]) -> String {
        let Shape { c, h, w } = self.shape(self.node(id).inputs[0]);
        let extents = [c, h, w].iter().zip(around).map(|(n, [front, behind])| front + n + behind).collect();
        let pads = self.pads(id, around);
        self.inner(id, NodeDraft::new("Pad", vec![x, pads], extents).word("mode", "constant"))
    }

    fn pads(&mut self, id: NodeId, around: [[usize; 2]; 3]) -> String {
        let side = |side: usize| std::iter::once(0).chain(around.map(|sides| whole(sides[side])));
        let pads: Vec<i64> = side(0).chain(side(1)).collect();
        self.integers(id, "pads", &pads)
    }

    /// Channels from the first to the second of `channels`, and every so many-th row and column.
    pub(super) fn slice(&mut self, id: NodeId, channels: [usize; 2], step: [usize; 2]) -> NodeDraft {
        let input = self.node(id).inputs[0];
        let Shape { c, h, w } = self.shape(input);
        let mut ranges: Vec<CutAxis> = Vec::new();
        if channels != [0, c] {
            ranges.push(CutAxis { axis: 1, start: channels[0], end: channels[1], step: 1 });
        }
        for (axis, size, step) in [(2, h, step[0]), (3, w, step[1])] {
            if size > 1 && step > 1 {
                // A longer step than the axis takes the first place alone as well.
                ranges.push(CutAxis { axis, start: 0, end: size, step: step.min(size) });
            }
        }
        if ranges.is_empty() {
            return self.same(id, "Identity");
        }
        let draft = self.same(id, "Slice");
        let mut list = |what: &str, number: fn(&CutAxis) -> usize| {
            let numbers: Vec<i64> = ranges.iter().map(|range| whole(number(range))).collect();
            self.integers(id, what, &numbers)
        };
        let lists = [
            list("starts", |range| range.start),
            list("ends", |range| range.end),
            list("axes", |range| range.axis),
            list("steps", |range| range.step),
        ];
        draft.reading(lists)
    }
}

/// Inputs of a node that have the same number of axes.
struct AlikeInputs {
    names: Vec<String>,
    is_flat: bool,
}

/// What is kept along an axis.
struct CutAxis {
    axis: usize,
    start: usize,
    end: usize,
    step: usize,
}
