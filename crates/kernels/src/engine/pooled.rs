//! A convolution and the pooling behind it, a few rows of each in turns: the map between them, often the largest of a
//! network, stays in the cache and is never written to memory.

use std::ops::Range;
use std::time::Instant;

use crate::engine::conv::direct::Epilogue;
use crate::engine::op_kernel::{OpKernel, Scratch};
use crate::engine::pool::ImageRows;

/// Values of a map from which on it is better pooled as it is computed: what a second-level cache holds.
const MIN_VALUES: usize = 512 << 10;
/// A good part of it.
const KEPT_VALUES: usize = 256 << 10;

/// Two operations that pass together: a convolution, and a pooling of its output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PooledConvolution<'a> {
    convolution: &'a OpKernel,
    pooling: &'a OpKernel,
    /// Of the convolution; without residual.
    epilogue: Epilogue<'a>,
    /// Values of the rows between them that are kept, if they are enough for a window.
    kept_values: usize,
}

/// Rows of the map between the two, those from `rows.start` on at the front of `values`.
struct KeptRows<'a> {
    values: &'a mut [f32],
    rows: Range<usize>,
    row_len: usize,
    /// Values that are kept, if they are enough.
    most: usize,
}

impl<'a> PooledConvolution<'a> {
    /// Of a pooling that is the only reader of a convolution whose epilogue is `epilogue`; `None` where the map between
    /// them is small, or where they are something else.
    pub(crate) fn of(convolution: &'a OpKernel, pooling: &'a OpKernel, epilogue: Epilogue<'a>) -> Option<Self> {
        let map = convolution.out_shape();
        let is_large = map.len() * convolution.lanes() >= MIN_VALUES;
        let both = convolution.is_convolution() && pooling.pooling_window().is_some();
        let kept_values = KEPT_VALUES;
        (both && is_large && epilogue.residual.is_none()).then_some(Self {
            convolution,
            pooling,
            epilogue,
            kept_values,
        })
    }

    /// Computes the pooling's output `out` of the convolution's input `x`, rows spread over as many tasks as there is
    /// working memory for; `map`, as long as the convolution's output, is room for rows of it. Returns the seconds that
    /// each of the two took, those of tasks side by side once.
    pub(crate) fn run(self, x: &[f32], map: &mut [f32], out: &mut [f32], scratch: &mut [Scratch]) -> [f64; 2] {
        let out_shape = self.pooling.out_shape();
        let row_len = out_shape.w * out_shape.c * self.pooling.lanes();
        // Each part has room for the rows of a window, and those that are computed at a time in front and behind.
        let window = self.pooling.pooling_window().expect("is a pooling");
        let needed = window.kernel[0] + 2 * self.convolution.row_step();
        let n_parts = (self.convolution.out_shape().h / needed).clamp(1, scratch.len());
        let n_rows = out_shape.h.div_ceil(n_parts);
        let n_parts = out_shape.h.div_ceil(n_rows);
        let room = map.len() / self.map_row_len() / n_parts * self.map_row_len();
        let mut seconds = vec![[0.0; 2]; n_parts];
        rayon::scope(|scope| {
            let parts = out.chunks_mut(n_rows * row_len).zip(map.chunks_exact_mut(room)).zip(scratch);
            for ((part, ((out, room), scratch)), seconds) in parts.enumerate().zip(&mut seconds) {
                scope.spawn(move |_| *seconds = self.run_rows(x, part * n_rows, room, out, scratch));
            }
        });
        [0, 1].map(|of| seconds.iter().map(|both| both[of]).sum::<f64>() / n_parts as f64)
    }

    fn map_row_len(&self) -> usize {
        let map = self.convolution.out_shape();
        map.w * map.c * self.convolution.lanes()
    }

    /// Output rows from `first` on, as many as `out` holds.
    fn run_rows(&self, x: &[f32], first: usize, room: &mut [f32], out: &mut [f32], scratch: &mut Scratch) -> [f64; 2] {
        let Self { convolution, pooling, epilogue, kept_values } = *self;
        let window = pooling.pooling_window().expect("is a pooling");
        let (map, out_shape) = (convolution.out_shape(), pooling.out_shape());
        let (row_len, step) = (self.map_row_len(), convolution.row_step());
        let row_len_out = out_shape.w * out_shape.c * pooling.lanes();
        let start = window.inside(0, first, map.h).start / step * step;
        let mut kept = KeptRows { values: room, rows: start..start, row_len, most: kept_values };
        let mut seconds = [0.0; 2];
        for (row, out) in (first..).zip(out.chunks_exact_mut(row_len_out)) {
            let seen = window.inside(0, row, map.h);
            let begun = Instant::now();
            while kept.rows.end < seen.end {
                let (rows, room) = kept.next(seen.start, step, map.h);
                convolution.convolve_rows(x, rows, epilogue, room, scratch);
            }
            let convolved = Instant::now();
            pooling.pool_rows(ImageRows { values: kept.values, first: kept.rows.start }, row, out);
            seconds[0] += (convolved - begun).as_secs_f64();
            seconds[1] += convolved.elapsed().as_secs_f64();
        }
        seconds
    }
}

impl KeptRows<'_> {
    /// The next `step` rows of a map of `height` rows, and room for them, for which rows in front of `needed` make way
    /// where it is scarce.
    fn next(&mut self, needed: usize, step: usize, height: usize) -> (Range<usize>, &mut [f32]) {
        let rows = self.rows.end..(self.rows.end + step).min(height);
        let needed = needed.clamp(self.rows.start, self.rows.end);
        let most = self.values.len().min(self.most.max((rows.end - needed) * self.row_len));
        if (rows.end - self.rows.start) * self.row_len > most {
            let dropped = (needed - self.rows.start) * self.row_len;
            self.values.copy_within(dropped..self.rows.len() * self.row_len, 0);
            self.rows.start = needed;
        }
        let at = self.rows.len() * self.row_len;
        self.rows.end = rows.end;
        let room = &mut self.values[at..at + rows.len() * self.row_len];
        (rows, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::engine::op_kernel::Tail;
    use secateur_net::random::{SplitMix, with_random_weights};
    use secateur_net::{Conv2d, GraphBuilder, Op, Pointwise, Shape, Window};

    /// A convolution and a pooling, each run as a whole and both in turns; whether all bits are the same.
    fn check(input: Shape, conv: &Conv2d, pool: Op, isa: Isa) {
        let context = format!("{input:?}, {conv:?}, {pool:?}, {isa:?}");
        let mut b = GraphBuilder::new(input);
        let convolved = b.push("convolved", Op::Conv2d(conv.clone()), &[0]);
        let pooled = b.push("pooled", pool, &[convolved]);
        let net = with_random_weights(b.finish().unwrap(), 3);
        let kernel = |node| OpKernel::new(net.graph(), net.weights(), node, isa).unwrap();
        let (convolution, pooling) = (kernel(convolved), kernel(pooled));
        let len = |shape: Shape| shape.len() * isa.lanes();
        let mut rng = SplitMix(5);
        let x: Vec<f32> = (0..len(input)).map(|_| rng.signed()).collect();
        let tail = Tail { residual: None, activation: Some(Pointwise::Relu) };
        let mut map = vec![0.0; len(convolution.out_shape())];
        let mut expected = vec![0.0; len(pooling.out_shape())];
        convolution.run(&|_| &x[..], tail, &mut map, &mut Scratch::new());
        pooling.run(&|_| &map[..], Tail::default(), &mut expected, &mut Scratch::new());
        assert!(expected.iter().any(|&value| value > 0.0), "{context}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for (n_parts, kept_values) in [(1, 0), (1, usize::MAX), (2, 0), (3, 1000), (50, 0)] {
            let epilogue = tail.epilogue().unwrap();
            let both = PooledConvolution { convolution: &convolution, pooling: &pooling, epilogue, kept_values };
            let mut out = vec![f32::NAN; expected.len()];
            let mut scratch: Vec<Scratch> = (0..n_parts).map(|_| Scratch::new()).collect();
            map.fill(f32::NAN);
            pool.install(|| both.run(&x, &mut map, &mut out, &mut scratch));
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&out), bits(&expected), "{context}, {n_parts} parts, {kept_values} kept");
        }
    }

    #[test]
    fn in_turns_they_compute_what_they_do_one_after_the_other() {
        let square = Conv2d::square;
        let depthwise = Conv2d { groups: 5, ..square(5, 5, 3, 1, 1) };
        for isa in Isa::available() {
            for (c, h, w) in [(3, 21, 18), (5, 40, 9), (1, 2, 3)] {
                for conv in [square(c, 7, 7, 2, 3), square(c, 9, 3, 1, 1), square(c, 4, 1, 1, 0)] {
                    for (kernel, stride, padding) in [(3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 3, 0), (1, 2, 0)] {
                        let window = Window::new([kernel; 2], [stride; 2], [padding; 2]);
                        let (h, w) = (h / conv.stride[0], w / conv.stride[0]);
                        if h + 2 * padding < kernel || w + 2 * padding < kernel {
                            continue;
                        }
                        let input = Shape { c, h: h * conv.stride[0], w: w * conv.stride[0] };
                        check(input, &conv, Op::MaxPool(window.clone()), isa);
                        check(input, &conv, Op::AvgPool(window), isa);
                    }
                }
            }
            check(Shape { c: 5, h: 12, w: 7 }, &depthwise, Op::MaxPool(Window::new([3, 3], [2, 2], [1, 1])), isa);
        }
    }
}
