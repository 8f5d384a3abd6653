//! What a scene says of arrays.

use serde::{Deserialize, Serialize};

/// Order of the axes of an array of images: `n` images of `h` rows, `w` columns and `c` channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ArrayLayout {
    /// Told by the shape: three axes are `Nhw`; of four, the one of 1 or 3 channels is the second or the last.
    #[default]
    Inferred,
    /// `[N, H, W]`: grey.
    Nhw,
    /// `[N, H, W, C]`: channels last, as NumPy, PIL and TensorFlow have it.
    Nhwc,
    /// `[N, C, H, W]`: channels first, as PyTorch has it.
    Nchw,
}

/// What floating-point numbers in an array of images are. Bytes are always 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FloatRange {
    /// Pixels from 0 to 1, which are normalised by the network's mean and deviation.
    #[default]
    Unit,
    /// Pixels from 0 to 255, which are divided by 255 and then normalised.
    Bytes,
    /// What the network reads: nothing is done to them.
    Normalised,
}

impl ArrayLayout {
    /// Where the images, channels, rows and columns of an array of `shape` are.
    ///
    /// # Errors
    /// A shape that is no array of images, or of which this cannot be told.
    pub(super) fn axes(self, shape: &[usize]) -> Result<ImageAxes, String> {
        let is_colour = |axis: usize| matches!(shape[axis], 1 | 3);
        let layout = match (self, shape.len()) {
            (Self::Inferred | Self::Nhw, 3) => Self::Nhw,
            (Self::Inferred, 4) => match (is_colour(1), is_colour(3)) {
                (true, false) => Self::Nchw,
                (false, true) => Self::Nhwc,
                _ => {
                    return Err("has four axes, and it cannot be told which are the channels; say `layout: Nhwc` (channels last) or \
                                `layout: Nchw` (channels first)"
                        .into());
                }
            },
            (Self::Nhwc | Self::Nchw, 4) => self,
            (Self::Inferred, n) => {
                return Err(format!(
                    "has {n} axes, expected images x rows x columns (grey), images x rows x columns x channels, or images x \
                     channels x rows x columns"
                ));
            }
            (_, n) => {
                let expected = if self == Self::Nhw { 3 } else { 4 };
                return Err(format!("has {n} axes, `layout: {self:?}` has {expected}"));
            }
        };
        let [h, w, c] = match layout {
            Self::Nchw => [shape[2], shape[3], shape[1]],
            Self::Nhwc => [shape[1], shape[2], shape[3]],
            Self::Inferred | Self::Nhw => [shape[1], shape[2], 1],
        };
        if shape.contains(&0) {
            return Err("holds no pixel: an axis has extent 0".into());
        }
        Ok(ImageAxes { n: shape[0], h, w, c, is_channels_first: layout == Self::Nchw })
    }
}

/// Extents of an array of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImageAxes {
    pub(super) n: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) c: usize,
    /// Whether each image is `[C, H, W]`, else `[H, W, C]`.
    pub(super) is_channels_first: bool,
}
