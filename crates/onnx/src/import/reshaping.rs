//! Operations that move values: some become an operation, some only another layout.

use secateur_net::Op;

use super::{Carried, Import, Layout};
use crate::facts::{Movement, axis_of, pads};
use crate::schema::NodeProto;

impl Import<'_> {
    pub(super) fn reshaped(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let facts = self.facts.at(node);
        let from = facts.shape(0)?;
        let to = self.facts.shape(&node.output[0]).ok_or("makes an unknown shape")?;
        let carried = match Movement::of(node, &facts)? {
            Some(Movement::Transpose(perm)) => Carried { layout: transposed(x.layout, &perm)?, ..x },
            _ if from == to => x,
            _ => self.refolded(node, x, to)?,
        };
        self.carry(&node.output[0], carried);
        Ok(())
    }

    /// The same elements with axes of other lengths.
    fn refolded(&mut self, node: &NodeProto, x: Carried, to: &[usize]) -> Result<Carried, String> {
        let shape = self.shapes[x.node];
        let (n, is_pixel) = (shape.len(), shape.h * shape.w == 1);
        let with = |layout: Layout| Ok(Carried { layout, ..x });
        // Of one pixel all layouts are the same, unless its channels are in groups.
        let is_pixel = is_pixel && !matches!(x.layout, Layout::Grouped { .. });
        match (x.layout, to) {
            (_, &[_, c]) if c == n && is_pixel => with(Layout::Flat),
            (Layout::Image, &[_, c]) if c == n => {
                let id = self.push(node, Op::Flatten, &[x.node])?;
                Ok(Carried { node: id, layout: Layout::Flat })
            }
            (Layout::ChannelsLast, &[_, c]) if c == n => {
                let id = self.push(node, Op::FlattenPixels, &[x.node])?;
                Ok(Carried { node: id, layout: Layout::Flat })
            }
            (_, &[_, c, 1, 1]) if c == n && is_pixel => with(Layout::Image),
            (_, &[_, 1, 1, c]) if c == n && is_pixel => with(Layout::ChannelsLast),
            (Layout::Image, &[_, groups, per_group, h, w])
                if groups * per_group == shape.c && [h, w] == [shape.h, shape.w] =>
            {
                with(Layout::Grouped { groups, is_transposed: false })
            }
            (Layout::Grouped { groups, is_transposed }, &[_, c, h, w]) if [c, h, w] == [shape.c, shape.h, shape.w] => {
                if !is_transposed {
                    return with(Layout::Image);
                }
                let id = self.push(node, Op::ChannelShuffle { groups }, &[x.node])?;
                Ok(Carried { node: id, layout: Layout::Image })
            }
            (layout, _) => Err(format!("makes {to:?} of {layout:?} of {shape}, which is not computed")),
        }
    }

    pub(super) fn concatenation(&mut self, node: &NodeProto) -> Result<(), String> {
        let parts: Vec<Carried> = (0..node.input.len()).map(|i| self.input(node, i)).collect::<Result<_, _>>()?;
        let layout = parts.first().ok_or("joins nothing")?.layout;
        let rank = self.facts.at(node).shape(0)?.len();
        if parts.iter().any(|part| part.layout != layout)
            || axis_of(node.int("axis", 1), rank)? != layout.channel_axis()?
        {
            return Err("joins otherwise than along channels".into());
        }
        let ids: Vec<usize> = parts.iter().map(|part| part.node).collect();
        let id = if let [only] = ids.as_slice() { *only } else { self.push(node, Op::Concat, &ids)? };
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
            // The first place alone is every so many-th of an axis that is no longer.
            let by = if range.count == 1 { Ok(full) } else { usize::try_from(range.step) };
            if range.axis == axis && range.step == 1 {
                channels = [range.start, range.start + range.count];
            } else if let (Some(i), 0, Ok(by)) = (spatial, range.start, by) {
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

fn transposed(layout: Layout, perm: &[usize]) -> Result<Layout, String> {
    match (layout, perm) {
        (layout, perm) if perm.iter().enumerate().all(|(axis, &from)| axis == from) => Ok(layout),
        (Layout::Image, [0, 2, 3, 1]) => Ok(Layout::ChannelsLast),
        (Layout::ChannelsLast, [0, 3, 1, 2]) => Ok(Layout::Image),
        (Layout::Grouped { groups, is_transposed }, [0, 2, 1, 3, 4]) => {
            Ok(Layout::Grouped { groups, is_transposed: !is_transposed })
        }
        _ => Err(format!("orders the axes of {layout:?} as {perm:?}, which is not computed")),
    }
}
