//! Images in the arrays of other libraries, read where they lie.

use anyhow::{bail, ensure};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use secateur::formats::{Dataset, Pixels, Preprocessing};
use secateur::net::Shape;

/// Images `[N, C, H, W]` as they lie in memory.
pub(crate) enum ImageArray {
    /// Pixels, 0 to 255, which the network's mean and standard deviation are applied to.
    Bytes(PyBuffer<u8>),
    /// What the network reads.
    Floats(PyBuffer<f32>),
}

impl ImageArray {
    /// # Errors
    /// What is neither u8 nor f32, not contiguous, or of another shape than the network reads.
    pub(crate) fn new(images: &Bound<'_, PyAny>, input: Shape) -> anyhow::Result<Self> {
        let (array, shape, contiguous) = if let Ok(floats) = PyBuffer::<f32>::get(images) {
            let (shape, contiguous) = (floats.shape().to_vec(), floats.is_c_contiguous());
            (Self::Floats(floats), shape, contiguous)
        } else if let Ok(bytes) = PyBuffer::<u8>::get(images) {
            let (shape, contiguous) = (bytes.shape().to_vec(), bytes.is_c_contiguous());
            (Self::Bytes(bytes), shape, contiguous)
        } else {
            bail!("images: expected an array of uint8 (pixels) or float32 (what the network reads)");
        };
        let Shape { c, h, w } = input;
        ensure!(
            shape.len() == 4 && shape[1..] == [c, h, w],
            "images: expected shape [N, {c}, {h}, {w}], got {shape:?}"
        );
        ensure!(contiguous, "images: expected a contiguous array, use numpy.ascontiguousarray");
        Ok(array)
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(images) => images.shape()[0],
            Self::Floats(images) => images.shape()[0],
        }
    }

    /// Some of the images as the engine reads them, `[N, H, W, C]`.
    pub(crate) fn nhwc(
        &self,
        py: Python<'_>,
        range: std::ops::Range<usize>,
        input: Shape,
        preprocessing: &Preprocessing,
    ) -> Vec<f32> {
        let len = input.len();
        match self {
            Self::Floats(images) => {
                let all = images.as_slice(py).unwrap_or_default();
                let (pixels, channels) = (input.h * input.w, input.c);
                let mut out = vec![0.0; range.len() * len];
                for (image, out) in all[range.start * len..range.end * len].chunks(len).zip(out.chunks_mut(len)) {
                    for (channel, plane) in image.chunks(pixels).enumerate() {
                        let places = out[channel..].iter_mut().step_by(channels);
                        places.zip(plane).for_each(|(out, value)| *out = value.get());
                    }
                }
                out
            }
            Self::Bytes(images) => {
                let all = images.as_slice(py).unwrap_or_default();
                let bytes = all[range.start * len..range.end * len].iter().map(|byte| byte.get()).collect();
                let (images, name) = (Pixels::InMemory(bytes), "array".to_owned());
                let data = Dataset { name, shape: input, n_classes: 0, images, labels: None };
                data.normalised_nhwc(&(0..range.len()).collect::<Vec<_>>(), preprocessing)
            }
        }
    }
}
