//! Resizing: as one Resize where its rows and columns are those of a standard way, else as rows and columns that are
//! gathered and weighed.

use secateur_net::{NodeId, Tap};

use super::writer::{NodeDraft, whole};
use super::{FloatList, NetworkExport};
use crate::import::Resized;

/// What a share may differ by from that of a standard way: runtimes compute coordinates in 32 bits.
const SHARE_TOLERANCE: f64 = 2e-6;

/// Ways of Resize to find where a row comes from, those in use first, and their ways to round.
const COORDINATES: [&str; 4] = ["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"];
const ROUNDINGS: [&str; 4] = ["floor", "round_prefer_floor", "round_prefer_ceil", "ceil"];

/// A standard way of Resize; without rounding it is linear.
#[derive(Clone, Copy)]
struct ResizeWay {
    coordinates: &'static str,
    rounding: Option<&'static str>,
}

/// Rows or columns that are resized.
struct ResizedAxis<'a> {
    name: &'static str,
    /// Axis of `[batch, c, h, w]`.
    axis: usize,
    from: usize,
    taps: &'a [Tap],
}

impl NetworkExport<'_> {
    pub(super) fn resize(&mut self, id: NodeId, taps: [&[Tap]; 2]) -> NodeDraft {
        let input = self.node(id).inputs[0];
        let shape = self.shape(input);
        let rows = ResizedAxis { name: "rows", axis: 2, from: shape.h, taps: taps[0] };
        let cols = ResizedAxis { name: "columns", axis: 3, from: shape.w, taps: taps[1] };
        let axes: Vec<&ResizedAxis<'_>> = [&rows, &cols].into_iter().filter(|axis| !axis.is_unchanged()).collect();
        let Some((last, before)) = axes.split_last() else { return self.same(id, "Identity") };
        if let Some(way) = ways().find(|&way| rows.is_resized_by(way) && cols.is_resized_by(way)) {
            return self.standard(id, way, [rows.scale(), cols.scale()]);
        }
        let mut gathered = GatheredImage { value: self.image(input), extents: self.extents(input, false) };
        for axis in before {
            let extents = axis.behind(&gathered.extents);
            let draft = self.gather(id, axis, &gathered);
            gathered = GatheredImage { value: self.inner(id, draft), extents };
        }
        self.gather(id, last, &gathered)
    }

    fn standard(&mut self, id: NodeId, way: ResizeWay, scales: [f32; 2]) -> NodeDraft {
        let scales = [1.0, 1.0, scales[0], scales[1]];
        let scales = self.floats(id, "scales", &FloatList { extents: &[4], values: &scales });
        let draft = self.of_image(id, "Resize").reading([String::new(), scales]);
        let draft = draft.word("coordinate_transformation_mode", way.coordinates);
        match way.rounding {
            Some(rounding) => draft.word("mode", "nearest").word("nearest_mode", rounding),
            None => draft.word("mode", "linear"),
        }
    }

    /// One axis of `x` with other places.
    fn gather(&mut self, id: NodeId, axis: &ResizedAxis<'_>, x: &GatheredImage) -> NodeDraft {
        let extents = axis.behind(&x.extents);
        let mut places = |what: &str, place: fn(&Tap) -> usize| {
            let places: Vec<i64> = axis.taps.iter().map(|tap| whole(place(tap))).collect();
            let places = self.integers(id, &format!("{}/{what}", axis.name), &places);
            NodeDraft::new("Gather", vec![x.value.clone(), places], extents.clone()).int("axis", axis.axis)
        };
        if axis.taps.iter().all(|tap| nearest(tap).is_some()) {
            return places("places", |tap| nearest(tap).unwrap_or(tap.first));
        }
        let gathers = [places("first", |tap| tap.first), places("second", |tap| tap.second)];
        let shares: [Vec<f32>; 2] =
            [axis.taps.iter().map(|tap| 1.0 - tap.share).collect(), axis.taps.iter().map(|tap| tap.share).collect()];
        let mut parts = Vec::new();
        for (i, (gather, share)) in gathers.into_iter().zip(&shares).enumerate() {
            // Broadcast from the last axis on.
            let (along_rows, along_columns) = ([share.len(), 1], [share.len()]);
            let share_extents: &[usize] = if axis.axis == 2 { &along_rows } else { &along_columns };
            let name = format!("{}/share{i}", axis.name);
            let share = self.floats(id, &name, &FloatList { extents: share_extents, values: share });
            let part = self.inner(id, gather);
            parts.push(self.inner(id, NodeDraft::new("Mul", vec![part, share], extents.clone())));
        }
        NodeDraft::new("Add", parts, extents)
    }
}

/// What was gathered so far.
struct GatheredImage {
    value: String,
    extents: Vec<usize>,
}

/// The one place that a tap takes, if it is one.
fn nearest(tap: &Tap) -> Option<usize> {
    let Tap { first, second, share } = *tap;
    if share == 0.0 || first == second { Some(first) } else { (share == 1.0).then_some(second) }
}

/// Where a tap lies between two neighbours, if it does.
fn position(tap: &Tap) -> Option<f64> {
    let between = tap.first as f64 + f64::from(tap.share);
    nearest(tap).map(|place| place as f64).or_else(|| (tap.second == tap.first + 1).then_some(between))
}

fn ways() -> impl Iterator<Item = ResizeWay> {
    let roundings = ROUNDINGS.into_iter().map(Some).chain([None]);
    roundings.flat_map(|rounding| COORDINATES.into_iter().map(move |coordinates| ResizeWay { coordinates, rounding }))
}

impl ResizedAxis<'_> {
    fn is_unchanged(&self) -> bool {
        self.taps.len() == self.from && self.taps.iter().enumerate().all(|(i, tap)| nearest(tap) == Some(i))
    }

    /// Extents of an image `[c, h, w]` once this axis is resized.
    fn behind(&self, extents: &[usize]) -> Vec<usize> {
        let mut out = extents.to_vec();
        out[self.axis - 1] = self.taps.len();
        out
    }

    /// The smallest factor with which no runtime, however it rounds, makes fewer places: a list of sizes would fix the
    /// batch.
    fn scale(&self) -> f32 {
        let (from, to) = (self.from as f64, self.taps.len() as f64);
        let scale = (to / from) as f32;
        if f64::from(scale) * from < to { scale.next_up() } else { scale }
    }

    /// Whether `way` takes the same places. The nearest place is one or the other, so it is trusted only where factors
    /// are exact; between two places a little more of one is a little more of its value.
    fn is_resized_by(&self, way: ResizeWay) -> bool {
        let scale = f64::from(self.scale());
        let is_exact = scale * self.from as f64 == self.taps.len() as f64;
        let resized = Resized {
            from: self.from,
            to: self.taps.len(),
            scale,
            coordinates: way.coordinates,
            rounding: way.rounding.unwrap_or_default(),
            is_linear: way.rounding.is_none(),
        };
        let Ok(theirs) = resized.taps() else { return false };
        let is_same = |ours: &Tap, theirs: &Tap| match way.rounding {
            Some(_) => is_exact && nearest(ours) == nearest(theirs),
            None => position(ours).zip(position(theirs)).is_some_and(|(a, b)| (a - b).abs() <= SHARE_TOLERANCE),
        };
        self.taps.iter().zip(&theirs).all(|(ours, theirs)| is_same(ours, theirs))
    }
}
