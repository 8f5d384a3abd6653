//! Layers with parameters.

use secateur_net::{Conv2d, ConvTranspose2d, NodeId};

use super::NetworkExport;
use super::writer::NodeDraft;

impl NetworkExport<'_> {
    pub(super) fn convolution(&mut self, id: NodeId, conv: &Conv2d) -> NodeDraft {
        let x = self.image(self.node(id).inputs[0]);
        let [kh, kw] = conv.kernel;
        let weight = [conv.out_channels, conv.in_channels / conv.groups, kh, kw];
        let mut inputs = vec![x, self.parameter(id, "weight", &weight)];
        if conv.bias {
            inputs.push(self.parameter(id, "bias", &[conv.out_channels]));
        }
        let [rows, cols] = conv.padding;
        NodeDraft::new("Conv", inputs, self.extents(id, false))
            .ints("dilations", &conv.dilation)
            .int("group", conv.groups)
            .ints("kernel_shape", &conv.kernel)
            .ints("pads", &[rows, cols, rows, cols])
            .ints("strides", &conv.stride)
    }

    pub(super) fn transposed_convolution(&mut self, id: NodeId, conv: &ConvTranspose2d) -> NodeDraft {
        let x = self.image(self.node(id).inputs[0]);
        let mut inputs = vec![x, self.parameter(id, "weight", &conv.weight_shape())];
        if conv.bias {
            inputs.push(self.parameter(id, "bias", &[conv.out_channels]));
        }
        let [[above, below], [left, right]] = conv.padding;
        NodeDraft::new("ConvTranspose", inputs, self.extents(id, false))
            .ints("dilations", &conv.dilation)
            .int("group", conv.groups)
            .ints("kernel_shape", &conv.kernel)
            .ints("output_padding", &conv.output_padding)
            .ints("pads", &[above, left, below, right])
            .ints("strides", &conv.stride)
    }

    pub(super) fn linear(&mut self, id: NodeId, bias: bool) -> NodeDraft {
        let input = self.node(id).inputs[0];
        let (n_in, n_out) = (self.shape(input).c, self.shape(id).c);
        let mut inputs = vec![self.flat(input), self.parameter(id, "weight", &[n_out, n_in])];
        if bias {
            inputs.push(self.parameter(id, "bias", &[n_out]));
        }
        NodeDraft::new("Gemm", inputs, vec![n_out]).int("transB", 1)
    }

    pub(super) fn batch_norm(&mut self, id: NodeId, eps: f32) -> NodeDraft {
        let draft = self.same(id, "BatchNormalization");
        let channels = self.shape(id).c;
        let parameters = ["weight", "bias", "running_mean", "running_var"];
        let parameters = parameters.map(|parameter| self.parameter(id, parameter, &[channels]));
        draft.reading(parameters).float("epsilon", eps)
    }

    pub(super) fn prelu(&mut self, id: NodeId, channels: usize) -> NodeDraft {
        let draft = self.same(id, "PRelu");
        // Slopes are broadcast from the last axis on.
        let slopes: &[usize] = if draft.is_flat() { &[channels] } else { &[channels, 1, 1] };
        let slopes = self.parameter(id, "weight", slopes);
        draft.reading([slopes])
    }

    /// Over the last axis, where the channels of an image are put for it.
    pub(super) fn layer_norm(&mut self, id: NodeId, eps: f32) -> NodeDraft {
        let input = self.node(id).inputs[0];
        let shape = self.shape(id);
        let parameters = ["weight", "bias"].map(|parameter| self.parameter(id, parameter, &[shape.c]));
        if self.is_pixel(id) {
            let x = self.flat(input);
            let draft = NodeDraft::new("LayerNormalization", vec![x], vec![shape.c]).reading(parameters);
            return draft.int("axis", 1).float("epsilon", eps);
        }
        let behind = self.channels_behind(id);
        let draft = NodeDraft::new("LayerNormalization", vec![behind], vec![shape.h, shape.w, shape.c]);
        let normal = self.inner(id, draft.reading(parameters).int("axis", 3).float("epsilon", eps));
        NodeDraft::new("Transpose", vec![normal], self.extents(id, false)).ints("perm", &[0, 3, 1, 2])
    }
}
