//! Pooling, and reductions over rows, columns or channels.

use secateur_net::{NodeId, Op, Pointwise, Window};

use super::layout::by_channel;
use super::{Carried, Import, Layout};
use crate::facts::{Pads, axes, axis_of};
use crate::schema::NodeProto;

impl Import<'_> {
    pub(super) fn pool(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.image(node)?;
        let pads = Pads::of(&self.facts.at(node), None)?;
        if pads.dilations.iter().any(|&d| d != 1) || pads.kernel.len() != 2 {
            return Err("pools with gaps, or over other than two axes".into());
        }
        let pair = |list: &[usize]| [list[0], list[1]];
        let is_max = node.op_type() == "MaxPool";
        let window = Window {
            kernel: pair(&pads.kernel),
            stride: pair(&pads.strides),
            padding: [[pads.begin[0], pads.end[0]], [pads.begin[1], pads.end[1]]],
            ceil: pads.is_ceil,
            counts_padding: is_max || node.int("count_include_pad", 0) == 1,
        };
        let op = if is_max { Op::MaxPool(window) } else { Op::AvgPool(window) };
        let id = self.push(node, op, &[x])?;
        self.carry(&node.output[0], Carried { node: id, layout: Layout::Image });
        Ok(())
    }

    pub(super) fn global_pool(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        if matches!(node.op_type(), "ReduceL2" | "ReduceSumSquare") {
            return self.sum_of_squares(node, x);
        }
        self.reduced(node, x)
    }

    /// ReduceSumSquare, or ReduceL2, its square root.
    fn sum_of_squares(&mut self, node: &NodeProto, x: Carried) -> Result<(), String> {
        let square = self.push(node, Op::Mul, &[x.node, x.node])?;
        self.reduced(node, Carried { node: square, ..x })?;
        let made = self.carried.get(&node.output[0]).copied().filter(|_| node.op_type() == "ReduceL2");
        made.map_or(Ok(()), |sum| self.function(node, sum, Pointwise::Sqrt))
    }

    fn reduced(&mut self, node: &NodeProto, x: Carried) -> Result<(), String> {
        let facts = self.facts.at(node);
        let rank = facts.shape(0)?.len();
        let is_reduction = node.op_type().starts_with("Reduce");
        let spatial = match x.layout {
            Layout::Image => vec![2, 3],
            Layout::ChannelsLast => vec![1, 2],
            Layout::Pixels => vec![2],
            Layout::PixelsFirst => vec![1],
            Layout::Grouped(_) if is_reduction => return self.branch_sum(node, x),
            layout => return Err(format!("pools {layout:?}")),
        };
        if is_reduction {
            let given = axes(node, &facts)?.unwrap_or_default();
            let mut gone: Vec<usize> = given.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?;
            gone.sort_unstable();
            if gone == [x.layout.channel_axis()?] {
                return self.over_channels(node, x);
            }
            if let (Layout::Image, &[axis @ (2 | 3)], 1) = (x.layout, gone.as_slice(), node.int("keepdims", 1)) {
                return self.lines(node, x, axis - 2);
            }
            if gone != spatial {
                return Err(format!("reduces axes {gone:?}; rows and columns are computed"));
            }
        }
        if !is_reduction && !matches!(x.layout, Layout::Image | Layout::Pixels) {
            return Err("pools channels, which lie behind".into());
        }
        let is_max = matches!(node.op_type(), "GlobalMaxPool" | "ReduceMax");
        let id = self.push(node, if is_max { Op::GlobalMaxPool } else { Op::GlobalAvgPool }, &[x.node])?;
        let layout = if is_reduction && node.int("keepdims", 1) == 0 { Layout::Flat } else { x.layout };
        let (shape, layout) = (self.shapes[x.node], self.of_pixel(layout, id));
        self.summed(node, Carried { node: id, layout }, [shape.h, shape.w])
    }

    /// Mean, sum or maximum over rows only, or columns only.
    fn lines(&mut self, node: &NodeProto, x: Carried, axis: usize) -> Result<(), String> {
        let shape = self.shapes[x.node];
        let mut kernel = [1, 1];
        kernel[axis] = [shape.h, shape.w][axis];
        let window = Window::new(kernel, kernel, [0, 0]);
        let is_max = node.op_type() == "ReduceMax";
        let id = self.push(node, if is_max { Op::MaxPool(window) } else { Op::AvgPool(window) }, &[x.node])?;
        self.summed(node, Carried { node: id, ..x }, kernel)
    }

    /// The layout of what was reduced to a single pixel.
    fn of_pixel(&self, layout: Layout, id: NodeId) -> Layout {
        let shape = self.shapes[id];
        match layout {
            Layout::Pixels | Layout::PixelsFirst => by_channel(shape, &layout.extents(shape)).unwrap_or(layout),
            _ => layout,
        }
    }

    /// A mean over so many values is the node's result, or, of a ReduceSum, a part of it.
    fn summed(&mut self, node: &NodeProto, x: Carried, [rows, cols]: [usize; 2]) -> Result<(), String> {
        if !matches!(node.op_type(), "ReduceSum" | "ReduceL2" | "ReduceSumSquare") {
            self.carry(&node.output[0], x);
            return Ok(());
        }
        let c = self.shapes[x.node].c;
        self.scale_shift(node, x, vec![(rows * cols) as f32; c], vec![0.0; c])
    }

    /// Mean, sum or maximum over the channels of each pixel.
    fn over_channels(&mut self, node: &NodeProto, x: Carried) -> Result<(), String> {
        if node.int("keepdims", 1) == 0 {
            return Err("leaves out the axis of channels, which is not computed".into());
        }
        let op = if node.op_type() == "ReduceMax" { Op::ChannelMax } else { Op::ChannelMean };
        let n = self.shapes[x.node].c;
        let id = self.push(node, op, &[x.node])?;
        self.summed(node, Carried { node: id, ..x }, [n, 1])
    }
}
