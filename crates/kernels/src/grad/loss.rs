//! What training makes smaller: losses of a network's outputs, and their gradients.

use crate::KernelError;

/// A loss of one image's outputs; what is minimised is the mean over images.
#[derive(Clone, Copy, Debug)]
pub enum TrainLoss<'a> {
    /// Cross-entropy of the softmax over outputs with the labels.
    CrossEntropy {
        /// `[N]`
        labels: &'a [u16],
        /// Share of the target that is spread over all classes, from 0 to below 1.
        smoothing: f32,
    },
    /// `temperature² KL(softmax(teacher / temperature) | softmax(outputs / temperature))`: distillation, and at a
    /// temperature of 1 the divergence from another network's predictions.
    Divergence {
        /// The teacher's outputs, `[N, outputs]`.
        teacher: &'a [f32],
        /// Above 0.
        temperature: f32,
    },
    /// Mean over outputs of the squared difference.
    SquaredError {
        /// `[N, outputs]`
        targets: &'a [f32],
    },
}

/// A loss and the factor it is multiplied with; several are added up.
#[derive(Clone, Copy, Debug)]
pub struct WeightedLoss<'a> {
    /// The loss.
    pub loss: TrainLoss<'a>,
    /// Its factor.
    pub weight: f32,
}

/// What a training step saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Mean over images of the sum of losses, before the step's gradient is used.
    pub loss: f64,
    /// Images whose largest output is their label; 0 without labels.
    pub n_correct: usize,
}

/// The losses of some images.
#[derive(Debug)]
pub(crate) struct BatchLoss<'a> {
    pub losses: &'a [WeightedLoss<'a>],
    pub n_images: usize,
}

impl<'a> BatchLoss<'a> {
    /// Checks that targets fit `n_images` images with `n_outputs` outputs.
    ///
    /// # Errors
    /// Labels or targets that are too many or too few, a label that is no class, a target that is not finite, a
    /// temperature or smoothing out of range.
    pub(crate) fn checked(
        losses: &'a [WeightedLoss<'a>],
        n_images: usize,
        n_outputs: usize,
    ) -> Result<Self, KernelError> {
        for WeightedLoss { loss, .. } in losses {
            match *loss {
                TrainLoss::CrossEntropy { labels, smoothing } => {
                    if labels.len() != n_images {
                        return Err(KernelError::LabelCount { expected: n_images, got: labels.len() });
                    }
                    if let Some(image) = labels.iter().position(|&label| usize::from(label) >= n_outputs) {
                        let label = labels[image];
                        return Err(KernelError::LabelRange { image, label, n_classes: n_outputs });
                    }
                    check_setting("label smoothing", smoothing, (0.0..1.0).contains(&smoothing), "from 0 to below 1")?;
                }
                TrainLoss::Divergence { teacher, temperature } => {
                    check_targets("the teacher's outputs", teacher, n_images * n_outputs)?;
                    let is_sound = temperature > 0.0 && temperature.is_finite();
                    check_setting("temperature", temperature, is_sound, "above 0 and finite")?;
                }
                TrainLoss::SquaredError { targets } => {
                    check_targets("targets of the squared error", targets, n_images * n_outputs)?;
                }
            }
        }
        Ok(Self { losses, n_images })
    }

    /// The loss of image `image` with these outputs, and whether it is predicted as its label; adds the gradient of
    /// the mean over all images to `gradient`. `room` is working memory.
    pub(crate) fn of_image(
        &self,
        image: usize,
        outputs: &[f64],
        gradient: &mut [f64],
        room: &mut [Vec<f64>; 2],
    ) -> (f64, bool) {
        let (n, mut total, mut is_correct) = (outputs.len(), 0.0, false);
        for WeightedLoss { loss, weight } in self.losses {
            let weight = f64::from(*weight);
            let factor = weight / self.n_images as f64;
            match *loss {
                TrainLoss::CrossEntropy { labels, smoothing } => {
                    let label = usize::from(labels[image]);
                    let spread = f64::from(smoothing) / n as f64;
                    log_softmax(outputs.iter().copied(), &mut room[0]);
                    let target = |k: usize| spread + if k == label { 1.0 - f64::from(smoothing) } else { 0.0 };
                    total -= weight * room[0].iter().enumerate().map(|(k, log_p)| target(k) * log_p).sum::<f64>();
                    let values = gradient.iter_mut().zip(&room[0]).enumerate();
                    values.for_each(|(k, (g, log_p))| *g += factor * (log_p.exp() - target(k)));
                    is_correct = first_largest(outputs) == label;
                }
                TrainLoss::Divergence { teacher, temperature } => {
                    let teacher = teacher[image * n..][..n].iter().map(|&x| f64::from(x));
                    let outputs = DivergingOutputs { outputs, temperature: f64::from(temperature) };
                    total += outputs.divergence(teacher, [weight, factor], gradient, room);
                }
                TrainLoss::SquaredError { targets } => {
                    for ((g, y), &target) in gradient.iter_mut().zip(outputs).zip(&targets[image * n..][..n]) {
                        let difference = y - f64::from(target);
                        total += weight * difference * difference / n as f64;
                        *g += factor * 2.0 * difference / n as f64;
                    }
                }
            }
        }
        (total, is_correct)
    }
}

/// One image's outputs, to be held against a teacher's.
pub(crate) struct DivergingOutputs<'a> {
    pub outputs: &'a [f64],
    pub temperature: f64,
}

impl DivergingOutputs<'_> {
    /// The divergence from the teacher's outputs, times the first of `weights`; adds its gradient, times the second, to
    /// `gradient`.
    pub(crate) fn divergence(
        &self,
        teacher: impl Iterator<Item = f64>,
        [weight, factor]: [f64; 2],
        gradient: &mut [f64],
        room: &mut [Vec<f64>; 2],
    ) -> f64 {
        let t = self.temperature;
        let ([of_student, of_teacher], mut total) = (room, 0.0);
        log_softmax(self.outputs.iter().map(|x| x / t), of_student);
        log_softmax(teacher.map(|x| x / t), of_teacher);
        for ((g, log_p), log_q) in gradient.iter_mut().zip(&*of_student).zip(&*of_teacher) {
            let q = log_q.exp();
            total += if q > 0.0 { weight * t * t * q * (log_q - log_p) } else { 0.0 };
            *g += factor * t * (log_p.exp() - q);
        }
        total
    }
}

fn check_targets(what: &str, targets: &[f32], expected: usize) -> Result<(), KernelError> {
    if targets.len() != expected {
        return Err(KernelError::Length { what: what.into(), expected, got: targets.len() });
    }
    if targets.iter().any(|x| !x.is_finite()) {
        return Err(KernelError::NotFinite { what: what.into() });
    }
    Ok(())
}

pub(crate) fn check_setting(
    name: &'static str,
    value: f32,
    is_sound: bool,
    range: &'static str,
) -> Result<(), KernelError> {
    if is_sound { Ok(()) } else { Err(KernelError::Setting { name, value: value.to_string(), range }) }
}

fn log_softmax(values: impl Iterator<Item = f64>, out: &mut Vec<f64>) {
    out.clear();
    out.extend(values);
    let max = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = max + out.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    out.iter_mut().for_each(|x| *x -= log_sum);
}

fn first_largest(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, &x)| if x > values[best] { i } else { best })
}
