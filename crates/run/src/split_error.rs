//! What a network's outputs have in common with the dense network's, over many images.

use anyhow::Context;
use rayon::ThreadPool;
use secateur_kernels::{Arithmetic, KernelError, Plan};
use secateur_net::Network;
use secateur_sim::{DenseOutputs, ErrorUnit, OutputPart, SquaredErrors, class_divergence, largest_output, mean_error};

use crate::split_accuracy::{CountEvent, FirstImages};

/// Images that pass through both networks at a time: outputs of detectors take a megabyte each.
const CHUNK_IMAGES: usize = 64;

/// How much two networks agree on the same images.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputAgreement {
    /// The error of each output, in the order of the outputs.
    pub errors: Vec<f64>,
    /// What each error is relative to.
    pub units: Vec<ErrorUnit>,
    /// Their mean by weight.
    pub error: f64,
    /// What every image adds to that, times the number of images: the error is the mean of these.
    pub image_errors: Vec<f64>,
    /// Mean Kullback-Leibler divergence from the dense network's class probabilities, nats; none of outputs that are no
    /// logits.
    pub divergence: Option<f64>,
    /// Share of images with the same most likely class; none of outputs that are no logits.
    pub same_class: Option<f64>,
}

/// Two networks of the same outputs.
#[derive(Clone, Copy, Debug)]
pub struct ComparedNetworks<'a> {
    /// The one that the other is held against, BatchNorm folded.
    pub dense: &'a Network,
    /// The other.
    pub other: &'a Network,
    /// What both have as their output, one behind the other.
    pub outputs: &'a [OutputPart],
    /// Whether the output are the logits of classes.
    pub are_logits: bool,
}

/// How much the outputs of a network are those of the dense network, on the first images of a data set. Labels are not
/// read. Sums are in the order of the images, whatever the number of threads.
///
/// # Errors
/// As [`Plan::compile`] and [`Plan::logits`]; NaN or infinity among the outputs, with the images where it happened.
pub fn compare_outputs(
    networks: &ComparedNetworks<'_>,
    images: FirstImages<'_>,
    pool: &ThreadPool,
    mut tell: impl FnMut(CountEvent),
) -> anyhow::Result<OutputAgreement> {
    let FirstImages { data, preprocessing, n, .. } = images;
    let compile = |network: &Network| Plan::compile(network, Arithmetic::default());
    let plans = [compile(networks.dense)?, compile(networks.other)?];
    let mut sums = AgreementSums::new(networks);
    for from in (0..n).step_by(CHUNK_IMAGES) {
        let to = n.min(from + CHUNK_IMAGES);
        let order = images.places(from..to);
        let pixels = data.load_first(order.len(), &order, preprocessing, pool)?.images;
        let outputs = |plan: &Plan| plan.logits(pool, &pixels);
        let [dense, other] = [outputs(&plans[0])?, outputs(&plans[1])?];
        sums.add(&dense, &other).with_context(|| format!("images {from} to {}", to - 1))?;
        tell(CountEvent::Done(to as u64));
    }
    Ok(sums.agreement())
}

struct AgreementSums<'a> {
    networks: &'a ComparedNetworks<'a>,
    dense: DenseOutputs,
    errors: SquaredErrors,
    /// Of each image on its own.
    image_errors: Vec<SquaredErrors>,
    divergence: f64,
    n_same: u64,
    n_images: usize,
}

impl<'a> AgreementSums<'a> {
    fn new(networks: &'a ComparedNetworks<'a>) -> Self {
        let outputs = networks.outputs;
        let (dense, errors) = (DenseOutputs::new(outputs), SquaredErrors::new(outputs));
        Self { networks, dense, errors, image_errors: Vec::new(), divergence: 0.0, n_same: 0, n_images: 0 }
    }

    fn add(&mut self, dense: &[f32], other: &[f32]) -> Result<(), KernelError> {
        let len = self.networks.dense.graph().n_classes();
        for (image, (dense, other)) in dense.chunks_exact(len).zip(other.chunks_exact(len)).enumerate() {
            if dense.iter().chain(other).any(|x| !x.is_finite()) {
                return Err(KernelError::NanLogits { image });
            }
            self.n_images += 1;
            self.dense.add(dense);
            self.errors.add(dense, other);
            let mut of_image = SquaredErrors::new(self.networks.outputs);
            of_image.add(dense, other);
            self.image_errors.push(of_image);
            if self.networks.are_logits {
                self.divergence += class_divergence(dense, other);
                self.n_same += u64::from(largest_output(dense) == largest_output(other));
            }
        }
        Ok(())
    }

    fn agreement(&self) -> OutputAgreement {
        let scales = self.dense.scales();
        let errors = self.errors.relative_to(&scales);
        let outputs = self.networks.outputs;
        let of_image = |error: &SquaredErrors| self.n_images as f64 * mean_error(outputs, &error.relative_to(&scales));
        let mean = |sum: f64| self.networks.are_logits.then_some(sum / self.n_images.max(1) as f64);
        OutputAgreement {
            error: mean_error(outputs, &errors),
            image_errors: self.image_errors.iter().map(of_image).collect(),
            units: scales.iter().map(|scale| scale.unit).collect(),
            errors,
            divergence: mean(self.divergence),
            same_class: mean(self.n_same as f64),
        }
    }
}
