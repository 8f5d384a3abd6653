//! The images that walks are paid on, what the original network makes of them, and what another scores on them.

use secateur_kernels::{Arithmetic, KernelError, Plan, Precision};
use secateur_net::{Graph, Network};

use crate::output_error::{DenseOutputs, ErrorScale, OutputPart, SquaredErrors, mean_error};
use crate::score::{RewardKind, Score};

/// Bytes of outputs that are held beside the original's: a segmenter makes megabytes of every image.
const OUTPUT_BYTES: usize = 64 << 20;
/// Images that pass through a network together are a divisor of this.
const IMAGES_STEP: usize = 64;

/// What [`RewardImages::new`] works from.
#[derive(Clone, Debug)]
pub struct RewardInputs {
    /// `[N, H, W, C]`, normalised.
    pub images: Vec<f32>,
    /// `[N]`; none where classes are not known, or are not what the network tells.
    pub labels: Option<Vec<u16>>,
    /// What walks are paid for.
    pub kind: RewardKind,
    /// The network's outputs, one behind the other; one of all numbers where there is none.
    pub outputs: Vec<OutputPart>,
}

impl RewardInputs {
    /// Images of known classes for a classifier that is paid for its accuracy.
    pub const fn labelled(images: Vec<f32>, labels: Vec<u16>) -> Self {
        Self { images, labels: Some(labels), kind: RewardKind::Accuracy, outputs: Vec::new() }
    }
}

/// Images and what the original network says of them.
#[derive(Clone, Debug)]
pub struct RewardImages {
    /// `[N, H, W, C]`, normalised.
    pub images: Vec<f32>,
    /// `[N]`, if classes are known.
    pub labels: Option<Vec<u16>>,
    /// Number of images.
    pub n_images: usize,
    /// What walks are paid for.
    pub kind: RewardKind,
    /// The outputs that `original_logits` has of an image, one behind the other.
    pub outputs: Vec<OutputPart>,
    /// Outputs of the original network, `[N, classes]`.
    pub original_logits: Vec<f32>,
    /// What the errors of the outputs are measured by, where they are.
    scales: Option<Vec<ErrorScale>>,
}

/// The only output of a network whose file does not name it.
pub fn whole_output(graph: &Graph) -> OutputPart {
    OutputPart::new(&graph.node(graph.output()).name, graph.n_classes())
}

impl RewardImages {
    /// Runs the original network on the images.
    ///
    /// # Errors
    /// As [`Plan::logits`]; labels and images of different number; outputs of another length than the network's.
    pub fn new(pool: &rayon::ThreadPool, original: &Network, inputs: RewardInputs) -> Result<Self, KernelError> {
        let RewardInputs { images, labels, kind, mut outputs } = inputs;
        let original_logits = pool.install(|| Plan::compile(original, Arithmetic::default()))?.logits(pool, &images)?;
        let n_classes = original.graph().n_classes();
        let n_images = original_logits.len() / n_classes;
        if let Some(got) = labels.as_ref().map(Vec::len).filter(|&got| got != n_images) {
            return Err(KernelError::LabelCount { expected: n_images, got });
        }
        if outputs.is_empty() {
            outputs.push(whole_output(original.graph()));
        }
        let got = outputs.iter().map(|output| output.len).sum();
        if got != n_classes {
            return Err(KernelError::Length { what: "the network's outputs".into(), expected: n_classes, got });
        }
        let measures_errors = labels.is_none() || kind == RewardKind::OutputError;
        let scales = measures_errors.then(|| {
            let mut dense = DenseOutputs::new(&outputs);
            original_logits.chunks_exact(n_classes).for_each(|row| dense.add(row));
            dense.scales()
        });
        Ok(Self { images, labels, n_images, kind, outputs, original_logits, scales })
    }

    /// The first `n` of the images, or all where there are fewer.
    #[must_use]
    pub fn first(&self, n: usize) -> Self {
        let n = n.min(self.n_images);
        let first = |numbers: &[f32]| numbers[..numbers.len() / self.n_images.max(1) * n].to_vec();
        let (images, original_logits) = (first(&self.images), first(&self.original_logits));
        let labels = self.labels.as_ref().map(|labels| labels[..n].to_vec());
        let (kind, outputs, scales) = (self.kind, self.outputs.clone(), self.scales.clone());
        Self { images, labels, n_images: n, kind, outputs, original_logits, scales }
    }

    /// Whether the errors of the outputs are measured: labels do not say all that is asked for.
    pub const fn measures_errors(&self) -> bool {
        self.scales.is_some()
    }

    /// Scores a network, which is run in numbers of `precision`.
    ///
    /// # Errors
    /// As [`Plan::compile`] and [`Plan::logits`], and NaN or infinity among the logits.
    pub fn score(
        &self,
        pool: &rayon::ThreadPool,
        network: &Network,
        precision: Precision,
    ) -> Result<Score, KernelError> {
        let plan = pool.install(|| Plan::compile(network, precision))?;
        let n_classes = network.graph().n_classes();
        let n_chunk = (OUTPUT_BYTES / (4 * n_classes)).next_multiple_of(IMAGES_STEP).max(IMAGES_STEP);
        let mut tally = ScoreTally::new(self);
        for images in self.images.chunks(n_chunk.saturating_mul(network.graph().input().len())) {
            plan.logits(pool, images)?.chunks_exact(n_classes).try_for_each(|row| tally.add(row))?;
        }
        Ok(tally.score())
    }
}

/// What is counted image by image.
struct ScoreTally<'a> {
    of: &'a RewardImages,
    image: usize,
    n_correct: u64,
    divergence: f64,
    errors: Option<SquaredErrors>,
}

impl<'a> ScoreTally<'a> {
    fn new(of: &'a RewardImages) -> Self {
        let errors = of.scales.as_ref().map(|_| SquaredErrors::new(&of.outputs));
        Self { of, image: 0, n_correct: 0, divergence: 0.0, errors }
    }

    fn add(&mut self, row: &[f32]) -> Result<(), KernelError> {
        let image = self.image;
        if row.iter().any(|x| !x.is_finite()) {
            return Err(KernelError::NanLogits { image });
        }
        let original = &self.of.original_logits[image * row.len()..][..row.len()];
        if let Some(labels) = &self.of.labels {
            self.n_correct += u64::from(largest_output(row) == usize::from(labels[image]));
        }
        if self.of.kind != RewardKind::OutputError {
            self.divergence += class_divergence(original, row);
        }
        if let Some(errors) = &mut self.errors {
            errors.add(original, row);
        }
        self.image += 1;
        Ok(())
    }

    fn score(&self) -> Score {
        let n = self.of.n_images.max(1) as f64;
        let errors = self.errors.as_ref().zip(self.of.scales.as_ref());
        Score {
            accuracy: self.of.labels.as_ref().map(|_| self.n_correct as f64 / n),
            divergence: (self.of.kind != RewardKind::OutputError).then_some(self.divergence / n),
            output_error: errors.map(|(errors, scales)| mean_error(&self.of.outputs, &errors.relative_to(scales))),
        }
    }
}

/// Index of the largest value; of equals, the first.
pub fn largest_output(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// KL(softmax(p) || softmax(q)) in nats, at least 0: how far the class probabilities of logits `q` are from those of
/// `p`.
pub fn class_divergence(p: &[f32], q: &[f32]) -> f64 {
    let log_sum = |x: &[f32]| {
        let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(most) + x.iter().map(|&v| f64::from(v - most).exp()).sum::<f64>().ln()
    };
    let (sum_p, sum_q) = (log_sum(p), log_sum(q));
    p.iter()
        .zip(q)
        .map(|(&a, &b)| {
            let log_p = f64::from(a) - sum_p;
            log_p.exp() * (log_p - (f64::from(b) - sum_q))
        })
        .sum::<f64>()
        .max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{GraphBuilder, Op, Shape, Tensor};

    /// Two classes whose logits are `scale` times the two inputs.
    fn scaled(scale: f32) -> Network {
        let mut g = GraphBuilder::new(Shape { c: 2, h: 1, w: 1 });
        g.push("l", Op::Linear { in_features: 2, out_features: 2, bias: false }, &[0]);
        let weight = Tensor::new(vec![2, 2], vec![scale, 0.0, 0.0, scale]).unwrap();
        Network::new(g.finish().unwrap(), [("l.weight".to_owned(), weight)].into()).unwrap()
    }

    fn images_of() -> RewardInputs {
        RewardInputs::labelled(vec![1.0, 0.0, 0.0, 1.0, 2.0, 1.0, 0.0, 3.0], vec![0, 1, 1, 1])
    }

    fn images(pool: &rayon::ThreadPool) -> RewardImages {
        RewardImages::new(pool, &scaled(1.0), images_of()).unwrap()
    }

    #[test]
    fn scores_are_those_worked_out_by_hand() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let images = images(&pool);
        let same = images.score(&pool, &scaled(1.0), Precision::F32).unwrap();
        assert_eq!(same, Score::labelled(0.75, 0.0));
        assert_eq!(same.reward(RewardKind::Kl), 1.0);
        // Logits of 0: the class probabilities become (1/2, 1/2), the divergence ln 2 minus the entropy of the
        // original's.
        let flat = images.score(&pool, &scaled(0.0), Precision::F32).unwrap();
        let entropy = |d: f64| {
            let p = 1.0 / (1.0 + (-d).exp());
            -p * p.ln() - (1.0 - p) * (1.0 - p).ln()
        };
        let by_hand = 2.0f64.ln() - [1.0, 1.0, 1.0, 3.0].map(entropy).iter().sum::<f64>() / 4.0;
        assert_eq!(flat.accuracy, Some(0.25), "of equal logits the first class is chosen");
        assert!((flat.divergence.unwrap() - by_hand).abs() < 1e-12, "{flat:?} {by_hand}");
    }

    /// Inputs 1, 0, 2, 0 and 0, 1, 1, 3: both outputs have the mean 0.75 and 1.25.
    #[test]
    fn without_labels_there_is_no_accuracy_and_the_error_of_each_output_counts_by_its_weight() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let part = |name: &str, weight| OutputPart { name: name.into(), len: 1, weight };
        let inputs = |kind, outputs| RewardInputs { labels: None, kind, outputs, ..images_of() };
        let of = |kind, outputs| RewardImages::new(&pool, &scaled(1.0), inputs(kind, outputs)).unwrap();
        let half = |images: RewardImages| images.score(&pool, &scaled(0.5), Precision::F32).unwrap();
        // Half of the energy's root is lost: a quarter of 5 by a variance of 2.75, and of 11 by 4.75.
        let errors = [0.25 * 5.0 / 2.75, 0.25 * 11.0 / 4.75];
        let by_weight = half(of(RewardKind::OutputError, vec![part("a", 3.0), part("b", 1.0)]));
        assert_eq!((by_weight.accuracy, by_weight.divergence), (None, None));
        let expected = (3.0 * errors[0] + errors[1]) / 4.0;
        assert!((by_weight.output_error.unwrap() - expected).abs() < 1e-12, "{by_weight:?} {expected}");
        let whole = half(of(RewardKind::Kl, Vec::new()));
        assert!((whole.output_error.unwrap() - 0.25 * 16.0 / 7.5).abs() < 1e-12, "{whole:?}");
        assert!(whole.accuracy.is_none() && whole.divergence.unwrap() > 0.0);
        let wrong = RewardImages::new(&pool, &scaled(1.0), inputs(RewardKind::OutputError, vec![part("a", 1.0)]));
        let expected = KernelError::Length { what: "the network's outputs".into(), expected: 2, got: 1 };
        assert_eq!(wrong.unwrap_err(), expected);
    }

    /// Outputs that are large, so that images pass in several lots, and a number of threads that does not divide them.
    #[test]
    fn output_errors_do_not_depend_on_the_number_of_threads() {
        let mut g = GraphBuilder::new(Shape { c: 1, h: 1, w: 1 });
        g.push("l", Op::Linear { in_features: 1, out_features: 1 << 19, bias: false }, &[0]);
        let graph = g.finish().unwrap();
        let network = |slope: f32| {
            let weight = (0..1 << 19).map(|i| (i % 97) as f32 * slope).collect();
            let weights = [("l.weight".to_owned(), Tensor::new(vec![1 << 19, 1], weight).unwrap())];
            Network::new(graph.clone(), weights.into()).unwrap()
        };
        let score = |n_threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            let images = (0..70).map(|i| (i % 13) as f32).collect();
            let inputs = RewardInputs { images, labels: None, kind: RewardKind::OutputError, outputs: Vec::new() };
            let images = RewardImages::new(&pool, &network(1.0), inputs).unwrap();
            images.score(&pool, &network(1.1), Precision::F32).unwrap().output_error.unwrap()
        };
        let one = score(1);
        assert!(one > 0.01 && one < 0.1, "{one}");
        assert_eq!(one.to_bits(), score(3).to_bits());
    }

    #[test]
    fn logits_that_overflow_are_an_error_and_not_a_perfect_score() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let error = images(&pool).score(&pool, &scaled(3e38), Precision::F32).unwrap_err();
        assert_eq!(error, KernelError::NanLogits { image: 2 });
    }
}
