//! BatchNorm in training: statistics of the batch, running statistics, and the gradient through both.

use std::ops::Range;

/// One BatchNorm's parameters and statistics.
#[derive(Clone, Debug)]
pub(crate) struct TrainedNorm {
    /// Name of the node.
    pub name: String,
    pub channels: usize,
    pub eps: f32,
    /// Pixels of an image.
    pub n_pixels: usize,
    /// Factor and addend, among the trained parameters.
    pub gamma: Range<usize>,
    pub beta: Range<usize>,
    /// Where a group's sums are: `[2, channels]`.
    pub sums: Range<usize>,
    pub running_mean: Vec<f32>,
    pub running_var: Vec<f32>,
    /// Of the batch.
    pub mean: Vec<f32>,
    inverse_deviation: Vec<f64>,
    /// What normalising multiplies with and adds.
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    /// Coefficients of the input's gradient: of the output's gradient, of the input, and the addend.
    pub coefficients: [Vec<f32>; 3],
}

/// What does not change of a BatchNorm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormSettings {
    /// Added to the variance.
    pub eps: f32,
    /// Pixels of an image.
    pub n_pixels: usize,
}

/// Share of a batch's statistics in the running ones, as PyTorch has it.
const MOMENTUM: f64 = 0.1;

impl TrainedNorm {
    /// With these running statistics.
    pub(crate) fn new(
        name: String,
        NormSettings { eps, n_pixels }: NormSettings,
        [gamma, beta, sums]: [Range<usize>; 3],
        [mean, var]: [&[f32]; 2],
    ) -> Self {
        let zeros = || vec![0.0; mean.len()];
        Self {
            name,
            channels: mean.len(),
            eps,
            n_pixels,
            gamma,
            beta,
            sums,
            running_mean: mean.to_vec(),
            running_var: var.to_vec(),
            mean: zeros(),
            inverse_deviation: vec![0.0; mean.len()],
            scale: zeros(),
            shift: zeros(),
            coefficients: [zeros(), zeros(), zeros()],
        }
    }

    /// Takes the batch's statistics from `sums(channel)` over all groups: differences from the running mean, and their
    /// squares. Moves the running statistics on.
    pub(crate) fn take_statistics(&mut self, n_images: usize, parameters: &[f32], sums: impl Fn(usize) -> f64) {
        let count = (n_images * self.n_pixels) as f64;
        for c in 0..self.channels {
            let centre = f64::from(self.running_mean[c]);
            let offset = sums(c) / count;
            let mean = centre + offset;
            let variance = (sums(self.channels + c) / count - offset * offset).max(0.0);
            let inverse = 1.0 / (variance + f64::from(self.eps)).sqrt();
            let scale = f64::from(parameters[self.gamma.start + c]) * inverse;
            self.mean[c] = mean as f32;
            self.inverse_deviation[c] = inverse;
            self.scale[c] = scale as f32;
            self.shift[c] = (f64::from(parameters[self.beta.start + c]) - mean * scale) as f32;
            // Of a single value there is no better estimate.
            let unbiased = if count > 1.0 { variance * count / (count - 1.0) } else { variance };
            let mix = |old: f32, new: f64| ((1.0 - MOMENTUM) * f64::from(old) + MOMENTUM * new) as f32;
            self.running_mean[c] = mix(self.running_mean[c], mean);
            self.running_var[c] = mix(self.running_var[c], unbiased);
        }
    }

    /// Takes the gradient from `sums(channel)` over all groups: of the output's gradient, and of its products with the
    /// input's differences from the mean. Writes those of factors and addends.
    pub(crate) fn take_gradient(
        &mut self,
        n_images: usize,
        parameters: &[f32],
        gradient: &mut [f32],
        sums: impl Fn(usize) -> f64,
    ) {
        let count = (n_images * self.n_pixels) as f64;
        for c in 0..self.channels {
            let (of_output, with_input) = (sums(c), sums(self.channels + c));
            let inverse = self.inverse_deviation[c];
            gradient[self.beta.start + c] = of_output as f32;
            gradient[self.gamma.start + c] = (with_input * inverse) as f32;
            let scale = f64::from(parameters[self.gamma.start + c]) * inverse;
            let of_input = -scale * inverse * inverse * with_input / count;
            let shift = -scale * of_output / count - of_input * f64::from(self.mean[c]);
            let [a, b, addend] = &mut self.coefficients;
            (a[c], b[c], addend[c]) = (scale as f32, of_input as f32, shift as f32);
        }
    }
}
