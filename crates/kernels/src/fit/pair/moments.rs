//! Products of a map's inputs with what its outputs are to become, over whole images.

use crate::fit::gram::GramSums;
use crate::fit::image_groups::ImageGroups;
use crate::fit::linear_map::GroupMaps;
use crate::fit::map_sums::{MapProducts, MapSums, Maps};
use crate::simd::aligned::AlignedVec;
use crate::simd::products::{Columns, F32_ROWS, add_products};
use crate::{Isa, LinearMap, NormalEquations};

/// Rows that are written out at a time, where the columns of a map's inputs are not one map, shifted.
const BLOCK_ROWS: usize = 64;

/// How the moments of one map are made.
pub(crate) struct MapMoments<'a> {
    isa: Isa,
    map: &'a LinearMap,
    channels: Vec<usize>,
    /// For a stride of 1.
    products: Option<MapProducts<'a>>,
    with_gram: bool,
}

/// One group of some images.
#[derive(Clone, Copy)]
pub(crate) struct GroupOfImages<'a> {
    pub images: &'a ImageGroups,
    pub group: usize,
}

impl GroupOfImages<'_> {
    fn clear_missing(self, values: &mut [f32]) {
        self.images.clear_missing(self.group, values);
    }
}

/// X^T Y, and X^T X where it was asked for.
pub(crate) enum MomentSums {
    Moment(Vec<f64>),
    OfMaps(MapSums),
    OfRows(GramSums),
}

/// Working memory.
#[derive(Debug, Default)]
pub(crate) struct MomentBuffers {
    x: AlignedVec,
}

impl<'a> MapMoments<'a> {
    /// Of `map`, with the Gram matrix of its inputs or without.
    pub(crate) fn new(map: &'a LinearMap, with_gram: bool) -> Self {
        let isa = Isa::detect();
        let [n_in, n_out] = [map.inputs.len, map.outputs.len];
        let products = MapProducts::suits(map).then(|| MapProducts::new(isa, map, n_in, n_out));
        Self { isa, map, channels: (0..n_in).collect(), products, with_gram }
    }

    /// No images yet.
    pub(crate) fn empty(&self) -> MomentSums {
        match &self.products {
            _ if !self.with_gram => MomentSums::Moment(vec![0.0; self.map.columns() * self.map.outputs.len]),
            Some(products) => MomentSums::OfMaps(products.empty()),
            None => MomentSums::OfRows(GramSums::new(self.isa, self.map)),
        }
    }

    /// Adds a group of images: inputs `[H, W, inputs, LANES]`, and what the outputs are multiplied with, zero where
    /// there is no image.
    pub(crate) fn add(
        &self,
        place: GroupOfImages<'_>,
        [x, y]: [&[f32]; 2],
        buffers: &mut MomentBuffers,
        sums: &mut MomentSums,
    ) {
        match &self.products {
            Some(products) => {
                let x = self.write_ones(place, x, buffers);
                let maps = Maps { x, y, n_groups: 1 };
                match sums {
                    MomentSums::Moment(moment) => products.add_moment(maps, moment),
                    MomentSums::OfMaps(sums) => products.add(maps, sums),
                    MomentSums::OfRows(_) => unreachable!("sums are of the form that `empty` gives"),
                }
            }
            None => self.add_rows(place, [x, y], buffers, sums),
        }
    }

    /// The inputs with a channel of ones, zero where there is no image.
    fn write_ones<'b>(&self, place: GroupOfImages<'_>, x: &[f32], buffers: &'b mut MomentBuffers) -> &'b [f32] {
        let (lanes, n_in) = (self.isa.lanes(), self.channels.len());
        let len = x.len() / n_in * (n_in + 1);
        buffers.x.grow(len);
        let with_ones = &mut buffers.x[..len];
        for (to, pixel) in with_ones.chunks_exact_mut((n_in + 1) * lanes).zip(x.chunks_exact(n_in * lanes)) {
            let (inputs, one) = to.split_at_mut(n_in * lanes);
            inputs.copy_from_slice(pixel);
            one.fill(1.0);
        }
        place.clear_missing(with_ones);
        with_ones
    }

    fn add_rows(
        &self,
        place: GroupOfImages<'_>,
        [x, y]: [&[f32]; 2],
        buffers: &mut MomentBuffers,
        sums: &mut MomentSums,
    ) {
        let (lanes, n_columns, n_out) = (self.isa.lanes(), self.map.columns(), self.map.outputs.len);
        let maps = GroupMaps { values: x, n_channels: self.channels.len(), lanes };
        buffers.x.grow(BLOCK_ROWS * n_columns * lanes);
        for (block, y) in y.chunks(BLOCK_ROWS * n_out * lanes).enumerate() {
            let n_rows = y.len() / (n_out * lanes);
            let rows = &mut buffers.x[..n_rows * n_columns * lanes];
            for (i, row) in rows.chunks_exact_mut(n_columns * lanes).enumerate() {
                self.map.write_inputs(maps, block * BLOCK_ROWS + i, &self.channels, row);
            }
            place.clear_missing(rows);
            match sums {
                MomentSums::Moment(moment) => {
                    let pair = [Columns::of_rows(rows, n_columns, 0, n_columns), Columns::of_rows(y, n_out, 0, n_out)];
                    add_products(self.isa, pair, [1, 1, n_rows], false, moment, n_out);
                }
                MomentSums::OfRows(sums) => sums.add(rows, y),
                MomentSums::OfMaps(_) => unreachable!("sums are of the form that `empty` gives"),
            }
        }
    }
}

const _: () = assert!(BLOCK_ROWS <= F32_ROWS);

impl MomentSums {
    /// Adds another's sums, of the same form.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Moment(sums), Self::Moment(more)) => sums.iter_mut().zip(more).for_each(|(s, m)| *s += m),
            (Self::OfMaps(sums), Self::OfMaps(more)) => sums.merge(more),
            (Self::OfRows(sums), Self::OfRows(more)) => sums.merge(more),
            _ => unreachable!("sums of one pass have one form"),
        }
    }

    /// X^T Y `[columns, outputs]`, channel by channel as in a weight tensor, and the equations where X^T X is known.
    pub(crate) fn finish(self, map: &LinearMap, n_rows: u64) -> (Vec<f64>, Option<NormalEquations>) {
        let n_out = map.outputs.len;
        let equations = match self {
            Self::Moment(moment) => return (NormalEquations::channels_first(map, &moment, n_out), None),
            Self::OfMaps(sums) => MapProducts::new(Isa::detect(), map, map.inputs.len, n_out).finish(&sums, n_rows),
            Self::OfRows(sums) => sums.finish(map.clone(), n_rows),
        };
        (equations.moment.clone(), Some(equations))
    }
}
