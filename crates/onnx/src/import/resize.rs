//! Resizing: where every row and column comes from.

use secateur_net::{NodeId, Op, Tap};

use super::{Carried, Import, Layout};
use crate::facts::Movement;
use crate::schema::NodeProto;

/// How one axis is resized.
pub struct Resized<'a> {
    /// Rows in front.
    pub from: usize,
    /// Rows behind.
    pub to: usize,
    /// Rows behind for each row in front, as the node has it.
    pub scale: f64,
    /// ONNX's `coordinate_transformation_mode`.
    pub coordinates: &'a str,
    /// ONNX's `nearest_mode`.
    pub rounding: &'a str,
    /// Whether rows between two are the mean of both.
    pub is_linear: bool,
}

/// Most rows or columns that are made.
const LINES_MAX: usize = 1 << 16;

impl Import<'_> {
    /// A Resize; its taps count as numbers that the network holds, so that a small file cannot ask for any number.
    pub(super) fn resized(
        &mut self,
        node: &NodeProto,
        x: NodeId,
        rows: Vec<Tap>,
        cols: Vec<Tap>,
    ) -> Result<NodeId, String> {
        let left = self.numbers_left.checked_sub(rows.len() + cols.len());
        self.numbers_left = left.ok_or("picks rows and columns so often that lists of them would not fit in memory")?;
        self.push(node, Op::Resize { rows, cols }, &[x])
    }

    pub(super) fn resize(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let facts = self.facts.at(node);
        let (from, to) = (facts.shape(0)?, self.facts.shape(&node.output[0]).ok_or("makes an unknown shape")?);
        if x.layout != Layout::Image || from[..2] != to[..2] {
            return Err("resizes otherwise than rows and columns of images".into());
        }
        let mode = node.string("mode").unwrap_or("nearest");
        if from.contains(&0) || node.string("keep_aspect_ratio_policy").is_some_and(|policy| policy != "stretch") {
            return Err("resizes nothing, or by a policy that is not computed".into());
        }
        if !matches!(mode, "nearest" | "linear" | "bilinear") || node.int("antialias", 0) == 1 {
            return Err(format!("resizes by '{mode}', which is not computed"));
        }
        // Before operator set 11 coordinates were those of the asymmetric way, rounded down.
        let is_old = facts.opset() < 11 || node.op_type() == "Upsample";
        let coordinates = node.string("coordinate_transformation_mode");
        let coordinates = if is_old { "asymmetric" } else { coordinates.unwrap_or("half_pixel") };
        let rounding = if is_old { "floor" } else { node.string("nearest_mode").unwrap_or("round_prefer_floor") };
        let at_scales = if is_old { 1 } else { 2 };
        let given: Option<Vec<f64>> = facts.numbers(at_scales).map(|n| n.array.iter().copied().collect());
        let axis = |axis: usize| {
            let written = given.as_ref().filter(|scales| scales.len() == 4).map(|scales| scales[axis]);
            let (from, to) = (from[axis], to[axis]);
            let scale = written.unwrap_or(to as f64 / from as f64);
            Resized { from, to, scale, coordinates, rounding, is_linear: mode != "nearest" }.taps()
        };
        if to[2].max(to[3]) > LINES_MAX {
            return Err(format!("makes {to:?}, more rows or columns than any network has"));
        }
        let (rows, cols) = (axis(2)?, axis(3)?);
        let id = self.resized(node, x.node, rows, cols)?;
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }
}

impl Import<'_> {
    /// Rows or columns by number: a resizing without rounding.
    pub(super) fn gathered(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let shape = self.shapes[x.node];
        let movement = Movement::of(node, &self.facts.at(node))?;
        let (Some(Movement::Gather { axis, extents, indices }), Layout::Image) = (movement, x.layout) else {
            return Err("chooses otherwise than rows or columns of images".into());
        };
        let all = |n: usize| (0..n).map(Tap::nearest).collect::<Vec<Tap>>();
        let chosen = indices.into_iter().map(Tap::nearest).collect();
        let (rows, cols) = match (axis, extents.len()) {
            (2, 1) => (chosen, all(shape.w)),
            (3, 1) => (all(shape.h), chosen),
            _ => return Err("chooses otherwise than rows or columns of images".into()),
        };
        let id = self.push(node, Op::Resize { rows, cols }, &[x.node])?;
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }
}

impl Resized<'_> {
    /// Where every row behind comes from.
    ///
    /// # Errors
    /// Coordinates that are not computed.
    pub fn taps(&self) -> Result<Vec<Tap>, String> {
        (0..self.to).map(|at| self.source(at as f64).map(|source| self.tap(source))).collect()
    }

    /// Where in front a row behind lies.
    fn source(&self, at: f64) -> Result<f64, String> {
        let (from, to) = (self.from as f64, self.to as f64);
        Ok(match self.coordinates {
            "half_pixel" => (at + 0.5) / self.scale - 0.5,
            "pytorch_half_pixel" if self.to == 1 => 0.0,
            "pytorch_half_pixel" => (at + 0.5) / self.scale - 0.5,
            "asymmetric" => at / self.scale,
            "align_corners" if self.to == 1 => 0.0,
            "align_corners" => at * (from - 1.0) / (to - 1.0),
            other => return Err(format!("has coordinates '{other}', which are not computed")),
        })
    }

    fn tap(&self, source: f64) -> Tap {
        let last = self.from - 1;
        let place = |v: f64| (v.max(0.0) as usize).min(last);
        if self.is_linear {
            let source = source.clamp(0.0, last as f64);
            let first = place(source.floor());
            let share = (source - first as f64) as f32;
            return if share == 0.0 {
                Tap::nearest(first)
            } else {
                Tap { first, second: (first + 1).min(last), share }
            };
        }
        let rounded = match self.rounding {
            "floor" => source.floor(),
            "ceil" => source.ceil(),
            "round_prefer_ceil" => (source + 0.5).floor(),
            _ => (source - 0.5).ceil(),
        };
        Tap::nearest(place(rounded))
    }
}
