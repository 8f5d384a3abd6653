//! Operations that move values: some become an operation, some only another layout.

use secateur_net::{Op, Tap};

use super::layout::{by_channel, by_pixel};
use super::{Carried, Import, Layout};
use crate::facts::{Movement, axis_of, pads};
use crate::schema::NodeProto;

/// Rows or columns that one is repeated to: no network has as many.
const AXIS_MAX: usize = 1 << 16;

impl Import<'_> {
    pub(super) fn reshaped(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let facts = self.facts.at(node);
        let from = facts.shape(0)?;
        let to = self.facts.shape(&node.output[0]).ok_or("makes an unknown shape")?;
        let movement = Movement::of(node, &facts)?;
        let carried = match movement {
            _ if from == to && !matches!(movement, Some(Movement::Transpose(_) | Movement::Gather { .. })) => x,
            Some(Movement::Transpose(perm)) => match transposed(x.layout, &perm) {
                Some(layout) => Carried { layout, ..x },
                None => return self.transposed_channels(node, x, perm),
            },
            Some(ref gather @ Movement::Gather { axis, .. }) => {
                let is_of_channels = match x.layout {
                    Layout::Grouped(axes) => (1..=axes.extents().len()).contains(&axis),
                    layout => layout.channel_axis()? == axis,
                };
                if !is_of_channels {
                    return Err("picks otherwise than channels, which is not computed".into());
                }
                return self.channels_moved(node, x, gather);
            }
            Some(Movement::Expand(_)) => self.expanded(node, x, to)?,
            _ => self.refolded(node, x, to)?,
        };
        self.carry(&node.output[0], carried);
        Ok(())
    }

    /// Axes of channels in another order; rows and columns stay behind them.
    fn transposed_channels(&mut self, node: &NodeProto, x: Carried, perm: Vec<usize>) -> Result<(), String> {
        let shape = self.shapes[x.node];
        let n_channel_axes = match x.layout {
            Layout::Grouped(axes) => axes.extents().len(),
            _ if shape.h * shape.w == 1 => perm.len() - 1,
            _ => 0,
        };
        let stay = |axis: usize| axis == 0 || axis > n_channel_axes;
        if n_channel_axes == 0 || perm.iter().enumerate().any(|(axis, &from)| stay(axis) && axis != from) {
            return Err(format!("orders the axes of {:?} as {perm:?}, which is not computed", x.layout));
        }
        self.channels_moved(node, x, &Movement::Transpose(perm))
    }

    /// One pixel for all; channels do not become more.
    fn expanded(&mut self, node: &NodeProto, x: Carried, to: &[usize]) -> Result<Carried, String> {
        let shape = self.shapes[x.node];
        let (Layout::Image, &[_, c, h, w], true) = (x.layout, to, shape.h * shape.w == 1) else {
            return Err("repeats otherwise than one pixel for all, which is not computed".into());
        };
        if c != shape.c || h.max(w) > AXIS_MAX {
            return Err("repeats channels, or more often than any network does".into());
        }
        let op = Op::Resize { rows: vec![Tap::nearest(0); h], cols: vec![Tap::nearest(0); w] };
        Ok(Carried { node: self.push(node, op, &[x.node])?, ..x })
    }

    /// The same elements with axes of other lengths.
    fn refolded(&mut self, node: &NodeProto, x: Carried, to: &[usize]) -> Result<Carried, String> {
        let shape = self.shapes[x.node];
        let is_pixel = shape.h * shape.w == 1;
        let refuse = || format!("makes {to:?} of {:?} of {shape}, which is not computed", x.layout);
        let (layout, inner) = match to {
            &[n] if n == shape.len() => (Layout::Merged, to),
            [batch, inner @ ..] if self.is_batch(node, x, *batch) => (Layout::Flat, inner),
            _ => return Err(refuse()),
        };
        let is_by_channel = is_pixel || x.layout.is_by_channel();
        let seen = if is_by_channel { by_channel(shape, inner) } else { by_pixel(shape, inner) };
        if let Some(seen) = seen {
            return Ok(Carried { layout: if layout == Layout::Merged { layout } else { seen }, ..x });
        }
        if *inner != [shape.len()] {
            return Err(refuse());
        }
        let flatten = if is_by_channel { Op::Flatten } else { Op::FlattenPixels };
        Ok(Carried { node: self.push(node, flatten, &[x.node])?, layout })
    }

    /// Whether the first of the new axes is the batch.
    fn is_batch(&self, node: &NodeProto, x: Carried, n: usize) -> bool {
        let from = self.facts.at(node).shape(0).ok().and_then(|shape| shape.first().copied());
        if x.layout == Layout::Merged { n == 1 } else { from == Some(n) }
    }

    pub(super) fn concatenation(&mut self, node: &NodeProto) -> Result<(), String> {
        let parts: Vec<Carried> = (0..node.input.len()).map(|i| self.input(node, i)).collect::<Result<_, _>>()?;
        let layout = parts.first().ok_or("joins nothing")?.layout;
        let rank = self.facts.at(node).shape(0)?.len();
        let axis = axis_of(node.int("axis", 1), rank)?;
        if let Layout::Grouped(_) = layout {
            return self.grouped_concatenation(node, &parts, axis);
        }
        if parts.iter().any(|part| part.layout != layout) || axis != layout.channel_axis()? {
            return Err("joins otherwise than along channels".into());
        }
        let ids: Vec<usize> = parts.iter().map(|part| part.node).collect();
        let id = if let [only] = ids.as_slice() { *only } else { self.push(node, Op::Concat, &ids)? };
        self.carry(&node.output[0], Carried { node: id, layout });
        Ok(())
    }

    /// Along the first axis of channels that is not one.
    fn grouped_concatenation(&mut self, node: &NodeProto, parts: &[Carried], axis: usize) -> Result<(), String> {
        for part in parts {
            let Layout::Grouped(axes) = part.layout else { return Err("joins tensors of unlike layouts".into()) };
            let is_first = axis.checked_sub(1).is_some_and(|axis| axis < axes.extents().len() && axes.around(axis)[0] == 1);
            if !is_first {
                return Err("joins otherwise than along the first axis of channels".into());
            }
        }
        let ids: Vec<usize> = parts.iter().map(|part| part.node).collect();
        let id = if let [only] = ids.as_slice() { *only } else { self.push(node, Op::Concat, &ids)? };
        let to = self.facts.shape(&node.output[0]).ok_or("makes an unknown shape")?;
        let layout = by_channel(self.shapes[id], to.get(1..).unwrap_or_default());
        let layout = layout.ok_or_else(|| format!("makes {to:?} in a way that is not computed"))?;
        self.carry(&node.output[0], Carried { node: id, layout });
        Ok(())
    }

    pub(super) fn parts(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let axis = x.layout.channel_axis()?;
        let rank = self.facts.at(node).shape(0)?.len();
        if node.op_type() == "Split" {
            if axis_of(node.int("axis", 0), rank)? != axis {
                return Err("splits otherwise than along channels".into());
            }
            let mut from = 0;
            for output in &node.output {
                let n = self.facts.shape(output).ok_or("makes parts of unknown size")?[axis];
                self.channels(node, x, [from, from + n], output)?;
                from += n;
            }
            return Ok(());
        }
        let Some(Movement::Slice(ranges)) = Movement::of(node, &self.facts.at(node))? else {
            return Err("cuts nothing".into());
        };
        let shape = self.shapes[x.node];
        let mut channels = [0, shape.c];
        let mut step = [1, 1];
        for range in ranges {
            let spatial = range.axis.checked_sub(2).filter(|&i| i < 2 && x.layout == Layout::Image);
            let full = self.facts.at(node).shape(0)?[range.axis];
            if range.axis == axis && range.step == 1 {
                channels = [range.start, range.start + range.count];
            } else if let (Some(i), 0, Ok(by)) = (spatial, range.start, usize::try_from(range.step)) {
                if range.count != full.div_ceil(by.max(1)) {
                    return Err("cuts rows or columns off, which is not computed".into());
                }
                step[i] = by;
            } else if range.count != full || range.step != 1 {
                return Err("cuts otherwise than channels, which is not computed".into());
            }
        }
        if step == [1, 1] {
            return self.channels(node, x, channels, &node.output[0]);
        }
        let id = self.push(node, Op::Slice { channels, step }, &[x.node])?;
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }

    /// Some of the channels; all of them are no operation.
    fn channels(&mut self, node: &NodeProto, x: Carried, channels: [usize; 2], output: &str) -> Result<(), String> {
        let is_whole = channels == [0, self.shapes[x.node].c];
        let id = if is_whole { x.node } else { self.push(node, Op::Slice { channels, step: [1, 1] }, &[x.node])? };
        self.carry(output, Carried { node: id, layout: x.layout });
        Ok(())
    }

    pub(super) fn pad(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let facts = self.facts.at(node);
        let value = match node.attribute_named("value") {
            Some(attribute) => attribute.f(),
            None => self.number(node, 2, 0.0)?,
        };
        let all = pads(&facts)?;
        if all.iter().flatten().all(|&n| n == 0) {
            self.carry(&node.output[0], x);
            return Ok(());
        }
        let is_zero = value == 0.0 && matches!(node.string("mode"), None | Some("constant"));
        let ([batch, channels, rows, cols], Layout::Image, true) = (all.as_slice(), x.layout, is_zero) else {
            return Err("pads otherwise than images with zeros".into());
        };
        let grow = |[front, behind]: [i64; 2]| -> Result<[usize; 2], String> {
            let size = |n: i64| usize::try_from(n).map_err(|_| "cuts off, which is not computed".to_owned());
            Ok([size(front)?, size(behind)?])
        };
        if *batch != [0, 0] {
            return Err("adds images".into());
        }
        let op = Op::Pad { channels: grow(*channels)?, rows: grow(*rows)?, cols: grow(*cols)? };
        let id = self.push(node, op, &[x.node])?;
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }

    pub(super) fn depth_to_space(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let block = usize::try_from(node.int("blocksize", 0)).map_err(|_| "has negative blocks")?;
        if x.layout != Layout::Image {
            return Err("reads no image".into());
        }
        let columns_rows_depth = node.string("mode") == Some("CRD");
        let id = self.push(node, Op::DepthToSpace { block, columns_rows_depth }, &[x.node])?;
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }
}

/// The layout that axes in another order make, where that is all it takes.
fn transposed(layout: Layout, perm: &[usize]) -> Option<Layout> {
    match (layout, perm) {
        (layout, perm) if perm.iter().enumerate().all(|(axis, &from)| axis == from) => Some(layout),
        (Layout::Image, [0, 2, 3, 1]) => Some(Layout::ChannelsLast),
        (Layout::ChannelsLast, [0, 3, 1, 2]) => Some(Layout::Image),
        (Layout::Pixels, [0, 2, 1]) => Some(Layout::PixelsFirst),
        (Layout::PixelsFirst, [0, 2, 1]) => Some(Layout::Pixels),
        _ => None,
    }
}
