//! One step of a network on large images: an operation on maps whose vectors are channels, with what is fused to it.

use std::ops::Range;

use secateur_net::{Conv2d, FusedStep, Graph, Location, Op, Pointwise, Shape, Weights};

use super::conv::{ChannelConvKernel, ScaledMap};
use super::depthwise::ChannelDepthwiseKernel;
use super::maps::{self, ChannelMap};
use super::tiles::ChannelTilesKernel;
use crate::KernelError;
use crate::engine::conv::direct::Epilogue;
use crate::engine::elementwise;
use crate::engine::op_kernel::{OpKernel, Scratch, Tail};
use crate::engine::parameters::Linear;
use crate::engine::winograd::geometry::{POINTS, TILE};
use crate::simd::aligned::AlignedVec;
use crate::simd::isa::Isa;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelWay {
    /// As a product with what lies under the kernel.
    Product,
    /// By minimal filtering of square tiles.
    Tiles,
    /// Channel by channel.
    Depthwise,
}

/// Transformed filters of more bytes would take longer to read than to multiply with.
const MAX_TRANSFORMED: usize = 16 << 20;

impl ChannelWay {
    /// The cheapest way for a convolution; `None` for those of several channels in several groups.
    pub(crate) fn of(conv: &Conv2d, [input, output]: [ChannelMap; 2], lanes: usize) -> Option<Self> {
        if conv.is_depthwise() {
            let is_same = conv.out_channels == conv.in_channels && input.pitch == output.pitch;
            return is_same.then_some(Self::Depthwise);
        }
        if conv.groups > 1 {
            return None;
        }
        let is_filtered = conv.kernel == [3, 3] && conv.stride == [1, 1] && conv.dilation == [1, 1];
        let transformed = POINTS * input.shape.c * output.pitch * size_of::<f32>();
        if !is_filtered || input.pitch % lanes != 0 || transformed > MAX_TRANSFORMED {
            return Some(Self::Product);
        }
        // In cycles of two multiply-adds. Transforms take as long per vector as those of images in lanes.
        let vectors = |map: &ChannelMap| (map.pitch / lanes) as f64;
        let products = input.shape.c as f64 * vectors(&output) / 2.0;
        let Shape { h, w, .. } = output.shape;
        let n_tiles = (h.div_ceil(TILE) * w.div_ceil(TILE)) as f64;
        let tiles = n_tiles * (POINTS as f64 * products + 110.0 * (vectors(&input) + vectors(&output)));
        Some(if tiles < (h * w) as f64 * 9.0 * products { Self::Tiles } else { Self::Product })
    }
}

/// Working memory of the kernels.
#[derive(Debug, Default)]
pub(crate) struct ChannelScratch {
    /// What lies under the kernels of some pixels.
    pub gathered: AlignedVec,
    /// Transformed inputs, and sums, of some tiles.
    pub points: [AlignedVec; 2],
    /// Inputs without padding of an operation that knows none.
    pub dense: Vec<AlignedVec>,
    /// Its output.
    pub dense_out: AlignedVec,
    /// Of operations that run as on small images.
    pub common: Scratch,
}

/// An operation with its parameters prepared.
#[derive(Debug)]
pub(crate) enum ChannelForm {
    Product(Box<ChannelConvKernel>),
    Tiles(Box<ChannelTilesKernel>),
    Depthwise(Box<ChannelDepthwiseKernel>),
    Concat,
    /// First channel.
    Slice(usize),
    /// Groups.
    Shuffle(usize),
    /// Treats all channels alike, those behind the last as well.
    Whole(OpKernel),
    /// Takes maps without padding.
    Dense(OpKernel),
}

/// A value that a step reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelInput {
    pub location: Location,
    pub map: ChannelMap,
}

/// One step, compiled.
#[derive(Debug)]
pub(crate) struct ChannelStep {
    pub form: ChannelForm,
    pub inputs: Vec<ChannelInput>,
    pub residual: Option<ChannelInput>,
    pub activation: Option<Pointwise>,
    pub out_buffer: usize,
    pub out: ChannelMap,
    pub isa: Isa,
}

/// The maps that a step reads and writes.
#[derive(Debug)]
pub(crate) struct StepMaps {
    pub inputs: Vec<ChannelInput>,
    pub residual: Option<ChannelInput>,
    pub out: ChannelMap,
    /// Which rows of the inputs an output's rows read; `None` where that may be any.
    pub reach: Option<RowReach>,
}

/// Which rows of an input the rows of an output read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowReach {
    stride: usize,
    /// From the first tap to the last.
    last_tap: usize,
    padding: usize,
    rows_in: usize,
    /// Rows at whose multiples parts of the output may begin.
    pub row_step: usize,
}

impl RowReach {
    /// Rows of the input that those before `end` of the output read.
    pub(crate) fn rows_read(&self, end: usize) -> usize {
        let behind_last = end.saturating_sub(1) * self.stride + self.last_tap + 1;
        behind_last.saturating_sub(self.padding).min(self.rows_in)
    }

    fn of(graph: &Graph, step: &FusedStep, pair: [ChannelMap; 2], lanes: usize) -> Option<Self> {
        let same = Self { stride: 1, last_tap: 0, padding: 0, rows_in: pair[0].shape.h, row_step: 1 };
        let op = &graph.node(step.node).op;
        if let Some(conv) = op.as_conv2d() {
            let row_step = if ChannelWay::of(&conv, pair, lanes) == Some(ChannelWay::Tiles) { TILE } else { 1 };
            let last_tap = (conv.kernel[0] - 1) * conv.dilation[0];
            return Some(Self { stride: conv.stride[0], last_tap, padding: conv.padding[0], row_step, ..same });
        }
        let moves = matches!(op, Op::Concat | Op::ChannelShuffle { .. } | Op::Slice { step: [1, 1], .. });
        moves.then_some(same)
    }
}

impl StepMaps {
    /// Of a step of `graph`.
    pub(crate) fn of(graph: &Graph, step: &FusedStep, lanes: usize) -> Self {
        let input = |operand: &secateur_net::Operand| ChannelInput {
            location: operand.location,
            map: match operand.location {
                Location::Image => ChannelMap::dense(graph.shape(operand.node)),
                Location::Buffer(_) => ChannelMap::padded(graph.shape(operand.node), lanes),
            },
        };
        let inputs: Vec<ChannelInput> = step.inputs.iter().map(input).collect();
        let out = ChannelMap::padded(graph.shape(step.value), lanes);
        let reach = RowReach::of(graph, step, [inputs[0].map, out], lanes);
        Self { inputs, residual: step.residual.as_ref().map(input), out, reach }
    }

    fn pair(&self) -> [ChannelMap; 2] {
        [self.inputs[0].map, self.out]
    }
}

/// Whether there is a form for every step.
pub(crate) fn has_forms(graph: &Graph, steps: &[FusedStep], isa: Isa) -> bool {
    steps.iter().all(|step| {
        let maps = StepMaps::of(graph, step, isa.lanes());
        let op = &graph.node(step.node).op;
        let has_form = match op.as_conv2d() {
            Some(conv) => ChannelWay::of(&conv, maps.pair(), isa.lanes()).is_some(),
            None => !matches!(op, Op::ConvTranspose2d(_)),
        };
        has_form && maps.residual.is_none_or(|residual| residual.map.pitch == maps.out.pitch)
    })
}

impl ChannelStep {
    /// Prepares a step for which [`has_forms`] is true.
    ///
    /// # Errors
    /// A missing or misshapen parameter, or an output that is too large.
    pub(crate) fn new(graph: &Graph, weights: &Weights, step: &FusedStep, isa: Isa) -> Result<Self, KernelError> {
        let maps = StepMaps::of(graph, step, isa.lanes());
        let form = form(graph, weights, step, &maps, isa)?;
        let StepMaps { inputs, residual, out, .. } = maps;
        Ok(Self { form, inputs, residual, activation: step.activation, out_buffer: step.buffer, out, isa })
    }

    /// Runs a group of images in as many parts as there is working memory for. `input(i)` is the `i`-th input of all of
    /// them; `out`, the same, is wholly overwritten.
    pub(crate) fn run<'a>(
        &self,
        input: &(dyn Fn(usize) -> &'a [f32] + Sync),
        residual: Option<&'a [f32]>,
        out: &mut [f32],
        scratch: &mut [ChannelScratch],
    ) {
        let align = match &self.form {
            ChannelForm::Tiles(_) => TILE,
            ChannelForm::Product(_) | ChannelForm::Depthwise(_) => 1,
            _ => return self.run_whole(input, out, &mut scratch[0]),
        };
        let n_images = out.len() / self.out.len();
        let h = self.out.shape.h;
        let per_image = h.div_ceil(align);
        let (n_units, n_parts) = (n_images * per_image, scratch.len());
        let row = |unit: usize| unit / per_image * h + (unit % per_image * align).min(h);
        let x = self.map_read(input);
        if n_parts == 1 {
            return self.run_rows(x, 0..n_images * h, residual, out, &mut scratch[0]);
        }
        let row_len = self.out.shape.w * self.out.pitch;
        rayon::scope(|scope| {
            let mut left = out;
            for (part, scratch) in scratch.iter_mut().enumerate() {
                let rows = row(part * n_units / n_parts)..row((part + 1) * n_units / n_parts);
                let (out, rest) = left.split_at_mut(rows.len() * row_len);
                left = rest;
                if !rows.is_empty() {
                    let residual = residual.map(|r| &r[rows.start * row_len..rows.end * row_len]);
                    scope.spawn(move |_| self.run_rows(x, rows, residual, out, scratch));
                }
            }
        });
    }

    /// What a convolution reads.
    fn map_read<'a>(&self, input: &(dyn Fn(usize) -> &'a [f32] + '_)) -> ScaledMap<'a> {
        ScaledMap { values: input(0), factors: (self.inputs.len() > 1).then(|| input(1)) }
    }

    /// Computes some rows, counted through all images; `out` and the residual are these rows alone.
    fn run_rows(
        &self,
        map: ScaledMap<'_>,
        rows: Range<usize>,
        residual: Option<&[f32]>,
        out: &mut [f32],
        scratch: &mut ChannelScratch,
    ) {
        let clamp = self.activation.and_then(elementwise::clamp_bounds);
        let epilogue = Epilogue { residual, clamp: clamp.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]) };
        let function = self.activation.filter(|_| clamp.is_none());
        let finish = |values: &mut [f32]| {
            if let Some(function) = function {
                elementwise::activate_all(self.isa, function, values);
            }
        };
        let x = map.values;
        match &self.form {
            ChannelForm::Product(kernel) => {
                kernel.run_rows(map, rows, epilogue, out, &mut scratch.gathered, finish);
            }
            ChannelForm::Tiles(kernel) => {
                let [inputs, sums] = &mut scratch.points;
                kernel.run_rows(x, rows, epilogue, out, [inputs, sums]);
                finish(out);
            }
            ChannelForm::Depthwise(kernel) => {
                // What is finished by a second pass is still in the nearest cache.
                let row_len = self.out.shape.w * self.out.pitch;
                let band = if function.is_some() { (4096 / row_len).max(1) } else { rows.len() };
                for (at, out) in out.chunks_mut(band * row_len).enumerate() {
                    let start = rows.start + at * band;
                    let part = at * band * row_len..at * band * row_len + out.len();
                    kernel.run_rows(x, start..start + out.len() / row_len, epilogue.part(part), out);
                    finish(out);
                }
            }
            _ => unreachable!("has no rows of its own"),
        }
    }

    /// Computes some rows of one image. Inputs, residual and `out` are whole images.
    pub(crate) fn run_band<'a>(
        &self,
        input: &dyn Fn(usize) -> &'a [f32],
        residual: Option<&'a [f32]>,
        rows: Range<usize>,
        out: &mut [f32],
        scratch: &mut ChannelScratch,
    ) {
        let part = |map: ChannelMap| {
            let row_len = map.shape.w * map.pitch;
            rows.start * row_len..rows.end * row_len
        };
        let out = &mut out[part(self.out)];
        match &self.form {
            ChannelForm::Product(_) | ChannelForm::Tiles(_) | ChannelForm::Depthwise(_) => {
                let residual = residual.map(|r| &r[part(self.out)]);
                self.run_rows(self.map_read(input), rows, residual, out, scratch);
            }
            _ => self.run_whole(&|i| &input(i)[part(self.inputs[i].map)], out, scratch),
        }
    }

    /// Runs what is no convolution, image by image.
    fn run_whole<'a>(&self, input: &dyn Fn(usize) -> &'a [f32], out: &mut [f32], scratch: &mut ChannelScratch) {
        let map = |i: usize| self.inputs[i].map;
        let pitch = self.out.pitch;
        match &self.form {
            ChannelForm::Concat => {
                let mut to = 0;
                for i in 0..self.inputs.len() {
                    maps::copy_channels(input(i), out, map(i).shape.c, [0, to], [map(i).pitch, pitch]);
                    to += map(i).shape.c;
                }
            }
            &ChannelForm::Slice(from) => {
                maps::copy_channels(input(0), out, self.out.shape.c, [from, 0], [map(0).pitch, pitch]);
            }
            &ChannelForm::Shuffle(groups) => {
                maps::shuffle(input(0), out, self.out.shape.c, groups, [map(0).pitch, pitch]);
            }
            ChannelForm::Whole(kernel) => {
                let tail = Tail { residual: None, activation: self.activation };
                for (image, out) in out.chunks_exact_mut(self.out.len()).enumerate() {
                    let input = |i: usize| &input(i)[image * map(i).len()..][..map(i).len()];
                    kernel.run(&input, tail, out, &mut scratch.common);
                }
                return;
            }
            ChannelForm::Dense(kernel) => {
                for (image, out) in out.chunks_exact_mut(self.out.len()).enumerate() {
                    let input = |i: usize| &input(i)[image * map(i).len()..][..map(i).len()];
                    self.run_dense(kernel, &input, out, scratch);
                }
                return;
            }
            ChannelForm::Product(_) | ChannelForm::Tiles(_) | ChannelForm::Depthwise(_) => {
                unreachable!("computed row by row")
            }
        }
        if let Some(function) = self.activation {
            elementwise::activate_all(self.isa, function, out);
        }
    }

    fn run_dense<'a>(
        &self,
        kernel: &OpKernel,
        input: &dyn Fn(usize) -> &'a [f32],
        out: &mut [f32],
        scratch: &mut ChannelScratch,
    ) {
        let ChannelScratch { dense: copies, dense_out: last, common, .. } = scratch;
        if copies.len() < self.inputs.len() {
            copies.resize_with(self.inputs.len(), AlignedVec::default);
        }
        for (i, copy) in copies.iter_mut().take(self.inputs.len()).enumerate() {
            let map = self.inputs[i].map;
            if map.pitch != map.shape.c {
                copy.reset(map.shape.len());
                maps::copy_channels(input(i), copy, map.shape.c, [0, 0], [map.pitch, map.shape.c]);
            }
        }
        let copies = &*copies;
        let input = |i: usize| {
            let map = self.inputs[i].map;
            if map.pitch == map.shape.c { input(i) } else { &copies[i][..] }
        };
        let tail = Tail { residual: None, activation: self.activation };
        let (c, pitch) = (self.out.shape.c, self.out.pitch);
        if c == pitch {
            kernel.run(&input, tail, out, common);
        } else {
            last.reset(self.out.shape.len());
            kernel.run(&input, tail, last, common);
            maps::copy_channels(last, out, c, [0, 0], [c, pitch]);
        }
    }
}

fn form(
    graph: &Graph,
    weights: &Weights,
    step: &FusedStep,
    maps: &StepMaps,
    isa: Isa,
) -> Result<ChannelForm, KernelError> {
    if let Some(Linear { conv, weight, bias }) = Linear::of(graph, weights, step.node)? {
        let pair = maps.pair();
        crate::engine::op_kernel::check_size(&graph.node(step.node).name, pair[1].shape)?;
        let way = ChannelWay::of(&conv, pair, isa.lanes()).expect("`has_forms` was true");
        return Ok(match way {
            ChannelWay::Product => {
                ChannelForm::Product(Box::new(ChannelConvKernel::new(isa, &conv, pair, weight, bias)))
            }
            ChannelWay::Tiles => ChannelForm::Tiles(Box::new(ChannelTilesKernel::new(isa, &conv, pair, weight, bias))),
            ChannelWay::Depthwise => {
                ChannelForm::Depthwise(Box::new(ChannelDepthwiseKernel::new(isa, &conv, pair, weight, bias)))
            }
        });
    }
    let kernel = OpKernel::of_one_image(graph, weights, step.node, isa)?;
    let op = &graph.node(step.node).op;
    Ok(if matches!(op, Op::Concat) {
        ChannelForm::Concat
    } else if let Op::Slice { channels, step: [1, 1] } = op {
        ChannelForm::Slice(channels[0])
    } else if let Op::ChannelShuffle { groups } = op {
        ChannelForm::Shuffle(*groups)
    } else {
        match kernel.on_whole_pixels(|i| maps.inputs[i].map.whole(), maps.out.whole()) {
            Some(kernel) => ChannelForm::Whole(kernel),
            None => ChannelForm::Dense(kernel),
        }
    })
}
