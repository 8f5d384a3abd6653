//! Another network that the trained one is to follow, computed in the same step on the same images.

use secateur_net::{Network, NodeId};

use crate::KernelError;
use crate::grad::loss::{DivergingOutputs, check_setting};

/// A network whose outputs, and values on the way, a training brings the trained network closer to. No label is needed.
#[derive(Clone, Debug)]
pub struct Teacher<'a> {
    /// The network, as it is used: BatchNorm folded, or with its running statistics.
    pub network: &'a Network,
    /// What is made of the outputs.
    pub outputs: OutputMatch,
    /// Values on the way.
    pub values: Vec<MatchedValue>,
}

/// How the outputs of a trained network are held against its teacher's; what is minimised is the mean over images.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputMatch {
    /// `weight temperature² KL(softmax(teacher / temperature) | softmax(outputs / temperature))`
    Divergence {
        /// Above 0.
        temperature: f32,
        /// Its factor.
        weight: f32,
    },
    /// The sum over stretches of the outputs of a factor times the sum of squared differences.
    SquaredError {
        /// Length and factor of every stretch.
        parts: Vec<(usize, f32)>,
    },
}

/// A value that is held against the teacher's: `weight` times the sum of squared differences as a share of the sum of
/// the teacher's squares, of every image on its own, as SPDY (Frantar and Alistarh, 2022) has it of layers.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchedValue {
    /// The node that leaves the value behind, of the trained network and of its teacher. What a plan fuses to the node,
    /// such as a rectifier, counts to it.
    pub nodes: [NodeId; 2],
    /// For each of its channels, which of the teacher's it is held against.
    pub channels: Vec<usize>,
    /// Its factor.
    pub weight: f32,
}

/// Less energy of the teacher's values than this is no base to measure errors by.
const ENERGY_MIN: f64 = 1e-6;
/// Images in a vector at most.
const LANES_MAX: usize = 16;

impl OutputMatch {
    /// Refuses settings out of range.
    pub(crate) fn check(&self, n_outputs: usize) -> Result<(), KernelError> {
        match self {
            Self::Divergence { temperature, weight } => {
                let is_sound = *temperature > 0.0 && temperature.is_finite();
                check_setting("temperature", *temperature, is_sound, "above 0 and finite")?;
                check_setting("weight of the divergence", *weight, weight.is_finite() && *weight >= 0.0, "at least 0")
            }
            Self::SquaredError { parts } => {
                let got = parts.iter().map(|(len, _)| len).sum();
                if got != n_outputs {
                    let what = "stretches of the outputs".into();
                    return Err(KernelError::Length { what, expected: n_outputs, got });
                }
                parts.iter().try_for_each(|&(_, factor)| {
                    check_setting("factor of an output", factor, factor.is_finite() && factor >= 0.0, "at least 0")
                })
            }
        }
    }

    /// The loss of one of `n_images` images; adds the gradient of the mean to `gradient`.
    pub(crate) fn of_image(
        &self,
        [outputs, teacher]: [&[f64]; 2],
        n_images: usize,
        gradient: &mut [f64],
        room: &mut [Vec<f64>; 2],
    ) -> f64 {
        match self {
            Self::Divergence { temperature, weight } => {
                let outputs = DivergingOutputs { outputs, temperature: f64::from(*temperature) };
                let weight = f64::from(*weight);
                outputs.divergence(teacher.iter().copied(), [weight, weight / n_images as f64], gradient, room)
            }
            Self::SquaredError { parts } => {
                let (mut from, mut total) = (0, 0.0);
                for &(len, factor) in parts {
                    let factor = f64::from(factor);
                    for at in from..from + len {
                        let difference = outputs[at] - teacher[at];
                        total += factor * difference * difference;
                        gradient[at] += 2.0 * factor * difference / n_images as f64;
                    }
                    from += len;
                }
                total
            }
        }
    }
}

/// A matched value of a group of images.
pub(crate) struct MatchedGroup<'a> {
    pub matched: &'a MatchedValue,
    /// `[pixels, channels, LANES]`, of the trained network and of the teacher.
    pub values: [&'a [f32]; 2],
    pub n_teacher_channels: usize,
    pub lanes: usize,
    /// Images that there are, of the batch and of the group.
    pub n_images: [usize; 2],
}

impl MatchedGroup<'_> {
    /// The summed loss of the group's images; writes the gradient, added to `previous`, to `out`.
    pub(crate) fn run(&self, previous: Option<&[f32]>, out: &mut [f32]) -> f64 {
        let (lanes, [n_images, n_present]) = (self.lanes, self.n_images);
        let weight = f64::from(self.matched.weight);
        let (mut loss, mut factors) = (0.0, [0.0; LANES_MAX]);
        for (lane, [error, energy]) in self.sums().into_iter().enumerate().take(n_present) {
            let base = energy.max(ENERGY_MIN);
            loss += weight * error / base;
            factors[lane] = (2.0 * weight / (base * n_images as f64)) as f32;
        }
        match previous {
            Some(previous) => out.copy_from_slice(previous),
            None => out.fill(0.0),
        }
        self.each_channel(|at, y, t| {
            let to = &mut out[at * lanes..][..lanes];
            to.iter_mut().zip(y.iter().zip(t)).zip(&factors).for_each(|((to, (y, t)), factor)| *to += factor * (y - t));
        });
        loss
    }

    /// Of every image of the group: the squared differences, and the teacher's squares.
    fn sums(&self) -> [[f64; 2]; LANES_MAX] {
        let (mut sums, mut of_pixel) = ([[0.0; 2]; LANES_MAX], [[0.0f32; LANES_MAX]; 2]);
        let n_channels = self.matched.channels.len();
        self.each_channel(|at, y, t| {
            let [errors, energies] = &mut of_pixel;
            for ((y, t), (error, energy)) in y.iter().zip(t).zip(errors.iter_mut().zip(energies)) {
                *error += (y - t) * (y - t);
                *energy += t * t;
            }
            if (at + 1).is_multiple_of(n_channels) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    (0..2).for_each(|i| sum[i] += f64::from(std::mem::take(&mut of_pixel[i][lane])));
                }
            }
        });
        sums
    }

    /// Calls `see` with the place of every channel of every pixel, and the values of both networks there.
    fn each_channel(&self, mut see: impl FnMut(usize, &[f32], &[f32])) {
        let (lanes, channels) = (self.lanes, &self.matched.channels);
        let [y, t] = self.values;
        let pixels = y.chunks_exact(channels.len() * lanes).zip(t.chunks_exact(self.n_teacher_channels * lanes));
        for (pixel, (y, t)) in pixels.enumerate() {
            for (c, (y, &from)) in y.chunks_exact(lanes).zip(channels).enumerate() {
                see(pixel * channels.len() + c, y, &t[from * lanes..][..lanes]);
            }
        }
    }
}
