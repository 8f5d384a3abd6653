//! The output error: how far the outputs of a network are from those of the dense network, for outputs of any meaning.
//!
//! Of an output t, over images i and its elements k,
//!
//! `e_t = sum (y_ik - d_ik)^2 / sum (d_ik - mean_i d_ik)^2`
//!
//! with `d` the dense network's: the share of the dense output's variance that is lost, as `1 - R^2` in regression. 0
//! is the dense network, 1 is no better than one that answers every image alike. The plain relative error, by
//! `sum d^2`, is not used: where an output is far from 0 whatever the image (a detector's scores of the background), it
//! calls a network good that lost all that depends on the image. SPDY (Frantar and Alistarh, 2022) sums relative
//! squared errors in the same way over layers.
//!
//! The error of a network is the mean of its outputs' by weight. Sums are in f64 and in the order of the images, so
//! that they do not depend on threads.

use serde::{Deserialize, Serialize};

/// Share of an output's energy that its variance must exceed: below, rounding of f32 would be a large part of it.
const VARIANCE_MIN: f64 = 1e-10;

/// One output of a network: a stretch of the numbers that it makes of an image, which have all outputs one behind the
/// other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputPart {
    /// Its name in the network's file.
    pub name: String,
    /// Numbers of one image.
    pub len: usize,
    /// How much its error counts, at least 0.
    pub weight: f64,
}

impl OutputPart {
    /// Of weight 1.
    pub fn new(name: &str, len: usize) -> Self {
        Self { name: name.to_owned(), len, weight: 1.0 }
    }
}

/// What the squared error of an output is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorUnit {
    /// The variance of the dense output over the images.
    Variance,
    /// The sum of squares of the dense output, where that hardly depends on the image.
    Energy,
    /// The number of its elements, where the dense output is 0: the error is a mean square.
    Count,
}

impl ErrorUnit {
    /// As reports name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Variance => "variance",
            Self::Energy => "energy",
            Self::Count => "count",
        }
    }
}

/// What the squared error of one output is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorScale {
    /// The divisor, above 0.
    pub sum: f64,
    /// What it is.
    pub unit: ErrorUnit,
}

/// Gathers what the dense network's outputs are like, image by image.
#[derive(Clone, Debug)]
pub struct DenseOutputs {
    lens: Vec<usize>,
    n_images: usize,
    /// Outputs of the first image, from which deviations are counted: sums of squares then lose nothing.
    first: Vec<f32>,
    /// Sum over images of each deviation.
    deviations: Vec<f64>,
    /// Of each output, the sum of squared deviations.
    squared_deviations: Vec<f64>,
    /// Of each output, the sum of squares.
    energies: Vec<f64>,
}

impl DenseOutputs {
    /// Before the first image.
    pub fn new(parts: &[OutputPart]) -> Self {
        let lens: Vec<usize> = parts.iter().map(|part| part.len).collect();
        Self {
            n_images: 0,
            first: Vec::new(),
            deviations: vec![0.0; lens.iter().sum()],
            squared_deviations: vec![0.0; lens.len()],
            energies: vec![0.0; lens.len()],
            lens,
        }
    }

    /// Counts the outputs of one more image.
    pub fn add(&mut self, outputs: &[f32]) {
        if self.n_images == 0 {
            self.first = outputs.to_vec();
        }
        self.n_images += 1;
        let mut from = 0;
        for (part, &len) in self.lens.iter().enumerate() {
            let (mut squares, mut energy) = (0.0, 0.0);
            let deviations = &mut self.deviations[from..from + len];
            let first = &self.first[from..from + len];
            for ((&y, &first), sum) in outputs[from..from + len].iter().zip(first).zip(deviations) {
                let (y, deviation) = (f64::from(y), f64::from(y) - f64::from(first));
                *sum += deviation;
                squares += deviation * deviation;
                energy += y * y;
            }
            self.squared_deviations[part] += squares;
            self.energies[part] += energy;
            from += len;
        }
    }

    /// What the squared error of each output over the same images is divided by.
    pub fn scales(&self) -> Vec<ErrorScale> {
        let n = self.n_images.max(1) as f64;
        let (mut from, mut scales) = (0, Vec::with_capacity(self.lens.len()));
        for (part, &len) in self.lens.iter().enumerate() {
            let shifts: f64 = self.deviations[from..from + len].iter().map(|sum| sum * sum / n).sum();
            from += len;
            let (variance, energy) = (self.squared_deviations[part] - shifts, self.energies[part]);
            scales.push(if variance > VARIANCE_MIN * energy {
                ErrorScale { sum: variance, unit: ErrorUnit::Variance }
            } else if energy > 0.0 {
                ErrorScale { sum: energy, unit: ErrorUnit::Energy }
            } else {
                ErrorScale { sum: n * len.max(1) as f64, unit: ErrorUnit::Count }
            });
        }
        scales
    }
}

/// Sums squared differences of each output, image by image.
#[derive(Clone, Debug, PartialEq)]
pub struct SquaredErrors {
    lens: Vec<usize>,
    sums: Vec<f64>,
}

impl SquaredErrors {
    /// Before the first image.
    pub fn new(parts: &[OutputPart]) -> Self {
        Self { lens: parts.iter().map(|part| part.len).collect(), sums: vec![0.0; parts.len()] }
    }

    /// Counts one more image: what the dense network makes of it, and what another does.
    pub fn add(&mut self, dense: &[f32], outputs: &[f32]) {
        let mut from = 0;
        for (sum, &len) in self.sums.iter_mut().zip(&self.lens) {
            let pairs = dense[from..from + len].iter().zip(&outputs[from..from + len]);
            *sum += pairs.map(|(&d, &y)| (f64::from(y) - f64::from(d)).powi(2)).sum::<f64>();
            from += len;
        }
    }

    /// The error of each output.
    pub fn relative_to(&self, scales: &[ErrorScale]) -> Vec<f64> {
        self.sums.iter().zip(scales).map(|(sum, scale)| sum / scale.sum).collect()
    }
}

/// The error of a network: the mean of its outputs' by their weights; 0 where all weights are 0.
pub fn mean_error(parts: &[OutputPart], errors: &[f64]) -> f64 {
    let weights: f64 = parts.iter().map(|part| part.weight).sum();
    let weighted = parts.iter().zip(errors).filter(|(part, _)| part.weight > 0.0);
    let sum: f64 = weighted.map(|(part, error)| part.weight * error).sum();
    if weights > 0.0 { sum / weights } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(len: usize, weight: f64) -> OutputPart {
        OutputPart { name: format!("o{len}"), len, weight }
    }

    fn scales(parts: &[OutputPart], rows: &[&[f32]]) -> Vec<ErrorScale> {
        let mut dense = DenseOutputs::new(parts);
        rows.iter().for_each(|row| dense.add(row));
        dense.scales()
    }

    /// Two images: an output of two elements with means 2 and 10, and one of one element with mean 1.
    #[test]
    fn errors_are_those_worked_out_by_hand() {
        let parts = [part(2, 1.0), part(1, 3.0)];
        let dense: [&[f32]; 2] = [&[1.0, 8.0, 0.0], &[3.0, 12.0, 2.0]];
        let got: [&[f32]; 2] = [&[1.0, 9.0, 0.5], &[2.0, 12.0, 2.0]];
        let scales = scales(&parts, &dense);
        assert_eq!(scales.iter().map(|scale| scale.sum).collect::<Vec<_>>(), [10.0, 2.0]);
        let mut errors = SquaredErrors::new(&parts);
        dense.iter().zip(&got).for_each(|(dense, got)| errors.add(dense, got));
        let errors = errors.relative_to(&scales);
        assert_eq!(errors, [0.2, 0.125]);
        assert!((mean_error(&parts, &errors) - (0.2 + 3.0 * 0.125) / 4.0).abs() < 1e-15);
    }

    #[test]
    fn answering_every_image_with_the_mean_is_an_error_of_one() {
        let parts = [part(1, 1.0)];
        let dense: [&[f32]; 3] = [&[100.0], &[101.0], &[105.0]];
        let mut errors = SquaredErrors::new(&parts);
        dense.iter().for_each(|dense| errors.add(dense, &[102.0]));
        assert_eq!(errors.relative_to(&scales(&parts, &dense)), [1.0]);
    }

    #[test]
    fn an_output_that_is_the_same_for_every_image_is_measured_by_its_energy_and_zeros_by_their_number() {
        let parts = [part(1, 1.0), part(2, 1.0), part(1, 1.0)];
        let rows: [&[f32]; 2] = [&[3.0, 0.0, 0.0, 1e6], &[3.0, 0.0, 0.0, 1_000_000.06]];
        let units: Vec<(f64, ErrorUnit)> = scales(&parts, &rows).iter().map(|s| (s.sum, s.unit)).collect();
        assert_eq!(units[..2], [(18.0, ErrorUnit::Energy), (4.0, ErrorUnit::Count)]);
        assert_eq!(units[2].1, ErrorUnit::Energy, "what varies by a rounding error does not vary");
        assert_eq!(scales(&parts[..1], &[&[2.0]])[0], ErrorScale { sum: 4.0, unit: ErrorUnit::Energy }, "one image");
    }

    #[test]
    fn an_output_of_weight_zero_does_not_count_whatever_its_error() {
        let parts = [part(1, 0.0), part(1, 2.0)];
        assert_eq!(mean_error(&parts, &[f64::INFINITY, 0.5]), 0.5);
        assert_eq!(mean_error(&parts[..1], &[7.0]), 0.0);
    }
}
