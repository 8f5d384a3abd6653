//! Operations that cut, pad, and put side by side.

use secateur_net::{NodeId, Op, Tap};

use super::layout::by_channel;
use super::{Carried, Import, Layout};
use crate::facts::{AxisRange, Movement, axis_of, pads};
use crate::schema::NodeProto;

/// Rows and columns of the largest block that becomes channels.
const BLOCK_MAX: usize = 8;
/// Most rows or columns that are added by repeating others.
const LINES_MAX: i64 = 1 << 16;

impl Import<'_> {
    pub(super) fn parts(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let axis = if let Layout::Grouped(_) = x.layout { 1 } else { x.layout.channel_axis()? };
        let rank = self.facts.at(node).shape(0)?.len();
        if node.op_type() == "Split" {
            if axis_of(node.int("axis", 0), rank)? != axis {
                return self.split_lines(node, x);
            }
            let mut from = 0;
            if let Layout::Grouped(_) = x.layout {
                return self.split_groups(node, x);
            }
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
        if let Layout::Grouped(_) = x.layout {
            return self.channels_moved(node, x, &Movement::Slice(ranges));
        }
        let shape = self.shapes[x.node];
        let mut channels = [0, shape.c];
        let mut lines = LinesKept::default();
        for range in ranges {
            let full = self.facts.at(node).shape(0)?[range.axis];
            if range.axis == axis && range.step == 1 {
                channels = [range.start, range.start + range.count];
            } else if let Some(i) = range.axis.checked_sub(2).filter(|&i| i < 2 && x.layout == Layout::Image) {
                lines.0[i] = Some(lines_of(&range)?);
            } else if range.count != full || range.step != 1 {
                return Err("cuts otherwise than rows, columns and channels, which is not computed".into());
            }
        }
        let step = [lines.step(0, shape.h), lines.step(1, shape.w)];
        if step == [Some(1), Some(1)] {
            return self.channels(node, x, channels, &node.output[0]);
        }
        if let [Some(rows), Some(cols)] = step {
            let id = self.push(node, Op::Slice { channels, step: [rows, cols] }, &[x.node])?;
            self.carry(&node.output[0], Carried { node: id, layout: x.layout });
            return Ok(());
        }
        let id = self.lines_picked(node, x.node, &lines)?;
        self.channels(node, Carried { node: id, ..x }, channels, &node.output[0])
    }

    /// Parts along the first axis of channels in groups.
    fn split_groups(&mut self, node: &NodeProto, x: Carried) -> Result<(), String> {
        let per_row = match x.layout {
            Layout::Grouped(axes) => axes.around(0)[1],
            _ => 1,
        };
        let mut from = 0;
        for output in &node.output {
            let to = self.facts.shape(output).ok_or("makes parts of unknown size")?.to_vec();
            let n = to.get(1).copied().unwrap_or(0) * per_row;
            let id = self.push(node, Op::Slice { channels: [from, from + n], step: [1, 1] }, &[x.node])?;
            let layout = by_channel(self.shapes[id], &to[1..]);
            let layout = layout.ok_or_else(|| format!("makes {to:?} in a way that is not computed"))?;
            self.carry(output, Carried { node: id, layout });
            from += n;
        }
        Ok(())
    }

    /// Parts of an image's rows or columns.
    fn split_lines(&mut self, node: &NodeProto, x: Carried) -> Result<(), String> {
        let axis = axis_of(node.int("axis", 0), self.facts.at(node).shape(0)?.len())?;
        let Some(i) = axis.checked_sub(2).filter(|&i| i < 2 && x.layout == Layout::Image) else {
            return Err("splits otherwise than along channels, rows or columns".into());
        };
        let mut from = 0;
        for output in &node.output {
            let n = self.facts.shape(output).ok_or("makes parts of unknown size")?[axis];
            let mut lines = LinesKept::default();
            lines.0[i] = Some((from..from + n).collect());
            let id = self.lines_picked(node, x.node, &lines)?;
            self.carry(output, Carried { node: id, ..x });
            from += n;
        }
        Ok(())
    }

    /// The pixels of each block one behind the other, as channels.
    pub(super) fn space_to_depth(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let block = usize::try_from(node.int("blocksize", 0)).map_err(|_| "has negative blocks")?;
        let shape = self.shapes[x.node];
        let fits = (1..=BLOCK_MAX).contains(&block) && shape.h.is_multiple_of(block) && shape.w.is_multiple_of(block);
        if x.layout != Layout::Image || !fits {
            return Err(format!("makes channels of blocks of {block}x{block}, which is not computed"));
        }
        self.check_room()?;
        let mut parts = Vec::with_capacity(block * block);
        for (row, col) in (0..block).flat_map(|row| (0..block).map(move |col| (row, col))) {
            let every = |from: usize, n: usize| Some((from..n.min(LINES_MAX as usize)).step_by(block).collect());
            let lines = LinesKept([every(row, shape.h), every(col, shape.w)]);
            parts.push(self.lines_picked(node, x.node, &lines)?);
        }
        let id = if let [only] = parts[..] { only } else { self.push(node, Op::Concat, &parts)? };
        self.carry(&node.output[0], Carried { node: id, ..x });
        Ok(())
    }

    /// These rows and columns, in this order.
    fn lines_picked(&mut self, node: &NodeProto, x: NodeId, lines: &LinesKept) -> Result<NodeId, String> {
        let shape = self.shapes[x];
        if shape.h.max(shape.w) > LINES_MAX as usize {
            return Err(format!("picks rows and columns of {shape}, which is more than any network has"));
        }
        let taps = |i: usize, n: usize| match &lines.0[i] {
            Some(lines) => lines.iter().map(|&at| Tap::nearest(at)).collect::<Vec<_>>(),
            None => (0..n).map(Tap::nearest).collect(),
        };
        let (rows, cols) = (taps(0, shape.h), taps(1, shape.w));
        self.resized(node, x, rows, cols)
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
        let ([batch, channels, rows, cols], Layout::Image) = (all.as_slice(), x.layout) else {
            return Err("pads otherwise than images".into());
        };
        if *batch != [0, 0] {
            return Err("adds images".into());
        }
        let mode = node.string("mode").unwrap_or("constant");
        let is_cut = [rows, cols].iter().any(|ends| ends.iter().any(|&n| n < 0));
        if mode != "constant" || is_cut {
            let shape = self.shapes[x.node];
            let is_mixed = mode == "constant" && [rows, cols].iter().any(|ends| ends.iter().any(|&n| n > 0));
            if *channels != [0, 0] || is_mixed {
                return Err("pads channels by others, or pads and cuts at once, which is not computed".into());
            }
            let lines = LinesKept([Some(padded(mode, shape.h, *rows)?), Some(padded(mode, shape.w, *cols)?)]);
            let id = self.lines_picked(node, x.node, &lines)?;
            self.carry(&node.output[0], Carried { node: id, ..x });
            return Ok(());
        }
        if value != 0.0 {
            return Err("pads with other numbers than zero, which is not computed".into());
        }
        let grow = |[front, behind]: [i64; 2]| -> Result<[usize; 2], String> {
            let size = |n: i64| usize::try_from(n).map_err(|_| "cuts off channels, which is not computed".to_owned());
            Ok([size(front)?, size(behind)?])
        };
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

/// Which rows, and which columns, come out, in which order; where there is none, all.
#[derive(Default)]
struct LinesKept([Option<Vec<usize>>; 2]);

impl LinesKept {
    /// The step that leaves these of `n` rows (columns), if they begin with the first and go to the end.
    fn step(&self, axis: usize, n: usize) -> Option<usize> {
        self.0[axis].as_ref().map_or(Some(1), |lines| step_of(lines, n))
    }
}

fn lines_of(range: &AxisRange) -> Result<Vec<usize>, String> {
    if range.count > LINES_MAX as usize {
        return Err("picks more rows or columns than any network has".into());
    }
    Ok(range.places())
}

fn step_of(lines: &[usize], n: usize) -> Option<usize> {
    let step = lines.get(1).copied().unwrap_or_else(|| n.max(1));
    let is_every = lines.iter().copied().eq((0..n).step_by(step.max(1)));
    is_every.then_some(step.max(1))
}

/// Where the rows of a padded image come from.
fn padded(mode: &str, n: usize, [front, behind]: [i64; 2]) -> Result<Vec<usize>, String> {
    let last = i64::try_from(n).map_err(|_| "has more rows than 64 bits count")? - 1;
    if front.max(behind) > LINES_MAX || front.min(behind) < -LINES_MAX || last > LINES_MAX {
        return Err("pads with more rows or columns than any network".into());
    }
    let source = |at: i64| match mode {
        "edge" => Ok(at.clamp(0, last)),
        "wrap" => Ok(at.rem_euclid(last + 1)),
        // There and back again takes twice the way.
        "reflect" if last > 0 => {
            let at = at.rem_euclid(2 * last);
            Ok(at.min(2 * last - at))
        }
        "constant" | "reflect" if (0..=last).contains(&at) => Ok(at),
        _ => Err(format!("pads by '{mode}', which is not computed")),
    };
    (-front..=last + behind).map(|at| source(at).map(|at| at as usize)).collect()
}
