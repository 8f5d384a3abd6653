//! Operations that move values: some become an operation, some only another layout.

use secateur_net::{Op, Tap};

use super::layout::{by_channel, by_pixel};
use super::{Carried, Import, Layout};
use crate::facts::{Movement, axis_of};
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
                    return self.gathered(node);
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
        let id = self.resized(node, x.node, vec![Tap::nearest(0); h], vec![Tap::nearest(0); w])?;
        Ok(Carried { node: id, ..x })
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
            let is_first =
                axis.checked_sub(1).is_some_and(|axis| axis < axes.extents().len() && axes.around(axis)[0] == 1);
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
