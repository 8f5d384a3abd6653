//! Operations that mix the channels of a pixel, or all values of some channels, of a group of images,
//! `[H, W, C, LANES]`.

use crate::engine::maps::GroupValue;

/// One such operation with its parameters.
#[derive(Clone, Debug)]
pub(crate) enum Mixing {
    /// See [`secateur_net::Op::ChannelConv`].
    Convolution {
        /// `[taps]`
        weight: Vec<f32>,
        /// Zero channels in front.
        front: usize,
        /// Added.
        bias: f32,
    },
    /// See [`secateur_net::Op::GroupNorm`].
    GroupNorm {
        /// `[channels]`
        scale: Vec<f32>,
        /// `[channels]`
        shift: Vec<f32>,
        /// Divides the channels.
        groups: usize,
        /// Added to the variance.
        eps: f32,
    },
    /// See [`secateur_net::Op::LocalResponseNorm`].
    LocalResponse {
        /// Channels in front and behind whose squares are summed.
        reach: [usize; 2],
        /// Factor of the sum.
        factor: f32,
        /// Exponent.
        beta: f32,
        /// Addend.
        bias: f32,
    },
    /// Mean over channels.
    Mean,
    /// Largest channel.
    Max,
    /// Sum over so many branches.
    BranchSum(usize),
    /// Softmax over so many branches.
    BranchSoftmax(usize),
}

impl Mixing {
    /// `out` is wholly overwritten.
    pub(crate) fn run(&self, x: GroupValue<'_>, out: &mut [f32]) {
        let GroupValue { values, shape, lanes } = x;
        if let Self::GroupNorm { scale, shift, groups, eps } = self {
            for group in 0..*groups {
                let per_group = scale.len() / groups;
                let channels = group * per_group..(group + 1) * per_group;
                let [mean, factor] = statistics(x, channels.clone(), *eps);
                for (x, out) in values.chunks_exact(shape.c * lanes).zip(out.chunks_exact_mut(shape.c * lanes)) {
                    for (c, lane) in channels.clone().flat_map(|c| (0..lanes).map(move |lane| (c, lane))) {
                        let normalised = (x[c * lanes + lane] - mean[lane]) * factor[lane];
                        out[c * lanes + lane] = normalised * scale[c] + shift[c];
                    }
                }
            }
            return;
        }
        let n_out = out.len() / (shape.h * shape.w);
        for (x, out) in values.chunks_exact(shape.c * lanes).zip(out.chunks_exact_mut(n_out)) {
            self.pixel(x, out, lanes);
        }
    }

    /// The channels of one pixel, `[C, LANES]`.
    fn pixel(&self, x: &[f32], out: &mut [f32], lanes: usize) {
        let n = x.len() / lanes;
        let add = |out: &mut [f32], x: &[f32]| out.iter_mut().zip(x).for_each(|(o, x)| *o += x);
        match self {
            Self::Convolution { weight, front, bias } => {
                out.fill(*bias);
                for (o, out) in out.chunks_exact_mut(lanes).enumerate() {
                    for (i, w) in weight.iter().enumerate() {
                        let Some(from) = (o + i).checked_sub(*front).filter(|&from| from < n) else { continue };
                        out.iter_mut().zip(&x[from * lanes..]).for_each(|(o, x)| *o += w * x);
                    }
                }
            }
            Self::LocalResponse { reach: [front, behind], factor, beta, bias } => {
                for o in 0..n {
                    let window = o.saturating_sub(*front)..n.min(o.saturating_add(*behind).saturating_add(1));
                    for lane in 0..lanes {
                        let sum: f32 = window.clone().map(|c| x[c * lanes + lane] * x[c * lanes + lane]).sum();
                        out[o * lanes + lane] = x[o * lanes + lane] / (bias + factor * sum).powf(*beta);
                    }
                }
            }
            Self::Mean => {
                out.fill(0.0);
                x.chunks_exact(lanes).for_each(|x| add(out, x));
                out.iter_mut().for_each(|o| *o /= n as f32);
            }
            Self::Max => crate::engine::maps::global_max(x, lanes, out),
            Self::BranchSum(branches) => {
                let (first, rest) = x.split_at(x.len() / branches);
                out.copy_from_slice(first);
                rest.chunks_exact(first.len()).for_each(|x| add(out, x));
            }
            Self::BranchSoftmax(branches) => {
                let len = x.len() / branches;
                for at in 0..len {
                    let values = || x[at..].iter().step_by(len);
                    let max = values().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f32 = values().map(|x| (x - max).exp()).sum();
                    out[at..].iter_mut().step_by(len).zip(values()).for_each(|(o, x)| *o = (x - max).exp() / sum);
                }
            }
            Self::GroupNorm { .. } => unreachable!("works on all pixels"),
        }
    }
}

/// Mean, and one over the square root of variance plus `eps`, over all pixels of some channels, by lane.
fn statistics(x: GroupValue<'_>, channels: std::ops::Range<usize>, eps: f32) -> [Vec<f32>; 2] {
    let GroupValue { values, shape, lanes } = x;
    let n = (channels.len() * shape.h * shape.w) as f64;
    let pixels = || values.chunks_exact(shape.c * lanes).map(|x| &x[channels.start * lanes..channels.end * lanes]);
    let mut means = vec![0.0f64; lanes];
    for x in pixels().flat_map(|x| x.chunks_exact(lanes)) {
        means.iter_mut().zip(x).for_each(|(m, &x)| *m += f64::from(x));
    }
    means.iter_mut().for_each(|m| *m /= n);
    let mut variances = vec![0.0f64; lanes];
    for x in pixels().flat_map(|x| x.chunks_exact(lanes)) {
        variances.iter_mut().zip(&means).zip(x).for_each(|((v, m), &x)| *v += (f64::from(x) - m).powi(2));
    }
    let factors = variances.iter().map(|v| (1.0 / (v / n + f64::from(eps)).sqrt()) as f32).collect();
    [means.iter().map(|&m| m as f32).collect(), factors]
}
