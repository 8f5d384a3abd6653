//! Operations that mix channels, and norms over several of them.

use secateur_net::{NodeId, Shape};

use super::writer::NodeDraft;
use super::{FloatList, NetworkExport};

/// Constants of a local response norm.
#[derive(Clone, Copy)]
pub(super) struct LocalResponse {
    pub(super) size: usize,
    pub(super) alpha: f32,
    pub(super) beta: f32,
    pub(super) bias: f32,
}

impl NetworkExport<'_> {
    /// Channels as rows of one channel, over which a convolution runs; of a single pixel, over one axis.
    pub(super) fn channel_convolution(&mut self, id: NodeId, ends: [usize; 2], bias: bool) -> NodeDraft {
        let Shape { c, h, w } = self.shape(id);
        let ([front, behind], is_pixel) = (ends, self.is_pixel(id));
        let taps = front + behind + 1;
        let (apart, kernel, pads, taps_of) = if is_pixel {
            (vec![1, c], vec![taps], vec![front, behind], vec![1, 1, taps])
        } else {
            (vec![1, c, h * w], vec![taps, 1], vec![front, 0, behind, 0], vec![1, 1, taps, 1])
        };
        let x = self.image(self.node(id).inputs[0]);
        let rows = self.reshaped(id, x, apart.clone());
        let mut inputs = vec![self.inner(id, rows), self.parameter(id, "weight", &taps_of)];
        if bias {
            inputs.push(self.parameter(id, "bias", &[1]));
        }
        let mixed = NodeDraft::new("Conv", inputs, apart).ints("kernel_shape", &kernel).ints("pads", &pads);
        let mixed = self.inner(id, mixed);
        self.reshaped(id, mixed, vec![c, h, w])
    }

    /// A norm of as many groups as channels is one node; else groups are normalised as channels, and scaled behind.
    pub(super) fn group_norm(&mut self, id: NodeId, groups: usize, eps: f32) -> NodeDraft {
        let Shape { c, h, w } = self.shape(id);
        let x = self.image(self.node(id).inputs[0]);
        if groups == c {
            let parameters = ["weight", "bias"].map(|name| self.parameter(id, name, &[c]));
            let draft = NodeDraft::new("InstanceNormalization", vec![x], vec![c, h, w]);
            return draft.reading(parameters).float("epsilon", eps);
        }
        let apart = vec![groups, c / groups * h * w];
        let rows = self.reshaped(id, x, apart.clone());
        let rows = self.inner(id, rows);
        let ones = self.floats(id, "ones", &FloatList { extents: &[groups], values: &vec![1.0; groups] });
        let zeros = self.floats(id, "zeros", &FloatList { extents: &[groups], values: &vec![0.0; groups] });
        let normal = NodeDraft::new("InstanceNormalization", vec![rows, ones, zeros], apart).float("epsilon", eps);
        let normal = self.inner(id, normal);
        let image = self.reshaped(id, normal, vec![c, h, w]);
        let image = self.inner(id, image);
        let scale = self.parameter(id, "weight", &[c, 1, 1]);
        let scaled = self.inner(id, NodeDraft::new("Mul", vec![image, scale], vec![c, h, w]));
        let shift = self.parameter(id, "bias", &[c, 1, 1]);
        NodeDraft::new("Add", vec![scaled, shift], vec![c, h, w])
    }

    /// An even window is written out, since ONNX Runtime refuses it: the mean of squares over channels, zeros counted,
    /// is what [`secateur_net::Op::LocalResponseNorm`] calls `s / size`.
    pub(super) fn local_response_norm(&mut self, id: NodeId, norm: LocalResponse) -> NodeDraft {
        if norm.size.is_multiple_of(2) {
            return self.even_local_response_norm(id, norm);
        }
        let draft = self.of_image(id, "LRN").int("size", norm.size);
        draft.float("alpha", norm.alpha).float("beta", norm.beta).float("bias", norm.bias)
    }

    fn even_local_response_norm(&mut self, id: NodeId, norm: LocalResponse) -> NodeDraft {
        let Shape { c, h, w } = self.shape(id);
        let (image, rows) = (vec![c, h, w], vec![1, c, h * w]);
        let x = self.image(self.node(id).inputs[0]);
        let squares = self.inner(id, NodeDraft::new("Mul", vec![x.clone(), x.clone()], image.clone()));
        let apart = self.reshaped(id, squares, rows.clone());
        let apart = self.inner(id, apart);
        let window = NodeDraft::new("AveragePool", vec![apart], rows)
            .ints("kernel_shape", &[norm.size, 1])
            .ints("pads", &[(norm.size - 1) / 2, 0, norm.size / 2, 0])
            .int("count_include_pad", 1);
        let means = self.inner(id, window);
        let means = self.reshaped(id, means, image.clone());
        let mut base = self.inner(id, means);
        for (op, what, value) in [("Mul", "alpha", norm.alpha), ("Add", "bias", norm.bias), ("Pow", "beta", norm.beta)]
        {
            let number = self.floats(id, what, &FloatList { extents: &[], values: &[value] });
            base = self.inner(id, NodeDraft::new(op, vec![base, number], image.clone()));
        }
        NodeDraft::new("Div", vec![x, base], image)
    }

    /// Over the channels of each pixel.
    pub(super) fn over_channels(&mut self, id: NodeId, op: &str) -> NodeDraft {
        self.of_image(id, op).ints("axes", &[1]).int("keepdims", 1)
    }

    /// The node's input with branches as an axis of their own, in front of the channels of a branch.
    fn branches(&mut self, id: NodeId, branches: usize) -> NodeDraft {
        let input = self.node(id).inputs[0];
        let Shape { c, h, w } = self.shape(input);
        let x = self.image(input);
        self.reshaped(id, x, vec![branches, c / branches, h, w])
    }

    pub(super) fn branch_sum(&mut self, id: NodeId, branches: usize) -> NodeDraft {
        let apart = self.branches(id, branches);
        let apart = self.inner(id, apart);
        let axes = self.integers(id, "axes", &[1]);
        NodeDraft::new("ReduceSum", vec![apart, axes], self.extents(id, false)).int("keepdims", 0)
    }

    pub(super) fn branch_softmax(&mut self, id: NodeId, branches: usize) -> NodeDraft {
        let Shape { c, h, w } = self.shape(id);
        let apart = self.branches(id, branches);
        let apart = self.inner(id, apart);
        let shares = NodeDraft::new("Softmax", vec![apart], vec![branches, c / branches, h, w]).int("axis", 1);
        let shares = self.inner(id, shares);
        self.reshaped(id, shares, vec![c, h, w])
    }
}
