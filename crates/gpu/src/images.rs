//! Images on the card: sent once, read by every candidate.

use secateur_net::Shape;
use wgpu::Buffer;

use crate::layout::{NONE, quads};
use crate::{Gpu, GpuError};

/// Images of one data set on one device, with what is needed to judge predictions.
#[derive(Debug)]
pub struct GpuImages {
    pub(crate) shape: Shape,
    pub(crate) n: usize,
    pub(crate) parts: Vec<ImagePart>,
    /// Whether labels are there, and whether the original's logits are.
    pub(crate) judged: Option<Judged>,
}

/// What [`GpuImages`] know of labels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub(crate) n_classes: usize,
    pub(crate) has_original: bool,
}

/// As many images as a binding holds.
#[derive(Debug)]
pub(crate) struct ImagePart {
    pub(crate) first: usize,
    pub(crate) n: usize,
    pub(crate) images: Buffer,
    pub(crate) labels: Buffer,
    pub(crate) log_probabilities: Buffer,
}

/// What predictions are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Truth<'a> {
    /// `[N]`; none where classes are not known: no image counts as correct then.
    pub labels: Option<&'a [u16]>,
    /// Length of the network's output.
    pub n_classes: usize,
    /// Logits `[N, classes]` of the original network, for divergences.
    pub original_logits: Option<&'a [f32]>,
}

impl GpuImages {
    /// Sends `images` `[N, H, W, C]` of `shape` to the card.
    ///
    /// # Errors
    /// Lengths that do not fit, one image larger than a binding, failures of the device.
    pub fn new(gpu: &Gpu, shape: Shape, images: &[f32], truth: Option<Truth<'_>>) -> Result<Self, GpuError> {
        let n = images.len() / shape.len();
        check("images", n * shape.len(), images.len())?;
        if let Some(truth) = truth {
            check("labels", n, truth.labels.map_or(n, <[_]>::len))?;
            check(
                "original logits",
                n * truth.n_classes,
                truth.original_logits.map_or(n * truth.n_classes, <[_]>::len),
            )?;
        }
        let image_quads = shape.h * shape.w * quads(shape.c);
        let bytes = 16 * image_quads.max(truth.map_or(0, |t| t.n_classes.div_ceil(4))) as u64;
        let per_part = usize::try_from(gpu.binding_max() / bytes).unwrap_or(usize::MAX);
        if per_part == 0 {
            return Err(GpuError::TooLarge { what: "one image".into(), bytes, max: gpu.binding_max() });
        }
        let part = |first: usize| {
            let here = per_part.min(n - first);
            let padded = padded(&images[first * shape.len()..][..here * shape.len()], shape);
            let of_truth = |t: Truth<'_>| match t.labels {
                Some(labels) => labels[first..first + here].iter().map(|&label| u32::from(label)).collect(),
                None => vec![NONE; here],
            };
            let labels: Vec<u32> = truth.map_or_else(Vec::new, of_truth);
            let logs =
                truth.and_then(|t| Some((t.n_classes, t.original_logits?))).map_or_else(Vec::new, |(c, logits)| {
                    logits[first * c..(first + here) * c].chunks(c).flat_map(log_softmax).collect()
                });
            ImagePart {
                first,
                n: here,
                images: gpu.storage_of("images", &padded),
                labels: gpu.storage_of("labels", &labels),
                log_probabilities: gpu.storage_of("log probabilities", &logs),
            }
        };
        let parts = (0..n).step_by(per_part).map(part).collect();
        let judged = truth.map(|t| Judged { n_classes: t.n_classes, has_original: t.original_logits.is_some() });
        gpu.check("sending images")?;
        Ok(Self { shape, n, parts, judged })
    }

    /// Number of images.
    pub const fn len(&self) -> usize {
        self.n
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.n == 0
    }
}

fn check(what: &'static str, expected: usize, got: usize) -> Result<(), GpuError> {
    if expected == got { Ok(()) } else { Err(GpuError::Length { what, expected, got }) }
}

/// Images `[N, H, W, C]` as the card holds them, `[N, quad, H, W, 4]`, with zeros after the last channel.
fn padded(images: &[f32], shape: Shape) -> Vec<f32> {
    let (n_pixels, n_quads) = (shape.h * shape.w, quads(shape.c));
    let mut out = vec![0.0; images.len() / shape.c * 4 * n_quads];
    for (from, to) in images.chunks_exact(shape.len()).zip(out.chunks_exact_mut(4 * n_quads * n_pixels)) {
        for (pixel, channels) in from.chunks_exact(shape.c).enumerate() {
            for (quad, lanes) in channels.chunks(4).enumerate() {
                to[4 * (quad * n_pixels + pixel)..][..lanes.len()].copy_from_slice(lanes);
            }
        }
    }
    out
}

/// Logarithms of class probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - most).exp()).sum();
    logits.iter().map(|&x| (f64::from(x) - f64::from(most) - sum.ln()) as f32).collect()
}
