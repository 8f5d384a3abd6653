//! Labelled images in memory, and the preprocessing a network expects of them.

use std::borrow::Cow;

use rayon::ThreadPool;
use secateur_net::Shape;
use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::data::pixels::{ImageNeeds, LoadedImages, Pixels};

/// Which half of a data set. The test split is read once, at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Split {
    /// Training images; calibration and reward images are drawn from here.
    Train,
    /// Held-out images.
    Test,
}

impl Split {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Test, Self::Train];

    /// As the command line names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// Images of one split, as a rule with a label each.
///
/// # Example
/// ```
/// use secateur_formats::{Preprocessing, Split, procedural};
///
/// let data = procedural::generate(procedural::Kind::Shapes, 7, Split::Train, 100);
/// assert_eq!((data.len(), data.n_classes), (100, 10));
/// // What a network reads: [N, H, W, C], each channel less its mean, by its deviation.
/// let images = data.normalised_nhwc(&[0, 5], &Preprocessing::imagenet());
/// assert_eq!(images.len(), 2 * data.shape.len());
/// ```
///
/// Invariant kept by the readers: there are as many labels as images, if there are any, and every label is below
/// `n_classes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Name for listings, such as `cifar10`.
    pub name: String,
    /// Shape of one image; all zero for images in files until [`Dataset::for_network`] says what a network reads.
    pub shape: Shape,
    /// Number of classes; 0 without labels.
    pub n_classes: usize,
    /// The images.
    pub images: Pixels,
    /// Class of each image, `[N]`; none where the images have no labels.
    pub labels: Option<Vec<u16>>,
}

impl Dataset {
    /// Number of images; of files, those that turn out to be unreadable among them.
    pub fn len(&self) -> usize {
        match &self.images {
            Pixels::InMemory(bytes) => bytes.len() / self.shape.len().max(1),
            Pixels::InFiles(files) => files.len(),
            Pixels::InArrays(images) => images.len(),
        }
    }

    /// The bytes of images in memory, `[N, C, H, W]`; none for images in files and users' arrays.
    pub fn bytes(&self) -> &[u8] {
        match &self.images {
            Pixels::InMemory(bytes) => bytes,
            Pixels::InFiles(_) | Pixels::InArrays(_) => &[],
        }
    }

    /// The data set for a network: images in files are made what it reads, labels that are numbers count its outputs.
    /// Other images are what they are.
    ///
    /// # Errors
    /// Images that cannot be made what the network reads, labels that it has no outputs for.
    pub fn for_network(&self, needs: &ImageNeeds<'_>) -> Result<Cow<'_, Self>, FormatError> {
        let (images, shape, is_numbered) = match &self.images {
            Pixels::InMemory(_) => return Ok(Cow::Borrowed(self)),
            Pixels::InFiles(files) => {
                files.check_input(needs.input)?;
                (Pixels::InFiles(files.cached_in(needs.cache)), needs.input, files.is_numbered())
            }
            Pixels::InArrays(images) => (Pixels::InArrays(images.clone()), self.shape, true),
        };
        let largest = self.labels.iter().flatten().max().copied();
        let n_classes = match (is_numbered, largest) {
            (true, Some(largest)) if usize::from(largest) >= needs.outputs => {
                let (dataset, outputs) = (self.name.clone(), needs.outputs);
                return Err(FormatError::LabelOutOfRange { dataset, largest, outputs });
            }
            (true, Some(_)) => needs.outputs,
            _ => self.n_classes,
        };
        let (name, labels) = (self.name.clone(), self.labels.clone());
        Ok(Cow::Owned(Self { name, shape, n_classes, images, labels }))
    }

    /// The first `n` images that can be read of those at the places `order`, or fewer where there are not as many.
    /// Only these are decoded, on the threads of `pool`.
    ///
    /// # Errors
    /// The first image that cannot be read, where the scene says that this ends the run.
    ///
    /// # Panics
    /// As [`Dataset::normalised_nhwc`].
    pub fn load_first(
        &self,
        n: usize,
        order: &[usize],
        prep: &Preprocessing,
        pool: &ThreadPool,
    ) -> Result<LoadedImages, FormatError> {
        let Pixels::InFiles(files) = &self.images else {
            let indices = order[..n.min(order.len())].to_vec();
            let (images, n_tried) = (self.normalised_nhwc(&indices, prep), indices.len());
            return Ok(LoadedImages { images, indices, n_tried });
        };
        let tables: Vec<[f32; 256]> = (0..prep.n_channels()).map(|channel| prep.table(channel)).collect();
        let normalise = |pixels: &[u8], out: &mut [f32]| normalise_pixels(pixels, &tables, out);
        let len = self.shape.len();
        // Zeros that the system gives when they are first written to, which the threads that decode do.
        let images = vec![0.0; n.min(order.len()) * len];
        let mut loaded = LoadedImages { images, ..LoadedImages::default() };
        // Those that cannot be read are replaced by the next ones.
        while loaded.indices.len() < n && loaded.n_tried < order.len() {
            let (from, here) = (loaded.indices.len() * len, n - loaded.indices.len());
            let indices = &order[loaded.n_tried..order.len().min(loaded.n_tried + here)];
            let out = &mut loaded.images[from..from + indices.len() * len];
            let is_read = pool.install(|| files.decode_into(indices, self.shape, out, normalise))?;
            for (place, (&index, _)) in indices.iter().zip(&is_read).enumerate().filter(|(_, (_, is_read))| **is_read) {
                let (source, target) = (from + place * len, loaded.indices.len() * len);
                // Behind one that could not be read, the others move up.
                if source != target {
                    loaded.images.copy_within(source..source + len, target);
                }
                loaded.indices.push(index);
            }
            loaded.n_tried += indices.len();
        }
        loaded.images.truncate(loaded.indices.len() * len);
        Ok(loaded)
    }

    /// What a user should know of images in files before they are used, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        match &self.images {
            Pixels::InMemory(_) | Pixels::InArrays(_) => Vec::new(),
            Pixels::InFiles(files) => files.notes(),
        }
    }

    /// What went wrong so far with images in files, one sentence each: those that could not be read and were left out,
    /// decoded ones that could not be kept.
    pub fn failures(&self) -> Vec<String> {
        match &self.images {
            Pixels::InMemory(_) | Pixels::InArrays(_) => Vec::new(),
            Pixels::InFiles(files) => files.failures(),
        }
    }

    /// Hands `update` what tells this data set from others: of images in memory the pixels, of images in files their
    /// names and what is made of them (not their content, which would have to be read); and the labels.
    pub fn identify(&self, mut update: impl FnMut(&[u8])) {
        match &self.images {
            Pixels::InMemory(bytes) => update(bytes),
            Pixels::InArrays(images) => images.identify(&mut update),
            Pixels::InFiles(files) => {
                update(files.transform().as_bytes());
                files.paths().for_each(|path| update(format!("{path}\0").as_bytes()));
            }
        }
        for label in self.labels.iter().flatten() {
            update(&label.to_le_bytes());
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class of each image.
    ///
    /// # Errors
    /// When the images have none.
    pub fn labels(&self) -> Result<&[u16], FormatError> {
        self.labels.as_deref().ok_or_else(|| FormatError::NoLabels { dataset: self.name.clone() })
    }

    /// Pixels of one image in memory, `[C, H, W]`.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`], or the images are in files.
    pub fn image(&self, index: usize) -> &[u8] {
        let n = self.shape.len();
        &self.bytes()[index * n..(index + 1) * n]
    }

    /// The chosen images as `[indices.len(), H, W, C]` floats `(x / 255 - mean) / std`, every step rounded to f32 in
    /// this order as torchvision's `ToTensor` and `Normalize` do.
    ///
    /// # Panics
    /// When an index is not below [`Dataset::len`], `prep` has another number of channels than the images, or the
    /// images are in files, which [`Dataset::load_first`] reads.
    pub fn normalised_nhwc(&self, indices: &[usize], prep: &Preprocessing) -> Vec<f32> {
        let Shape { c, h, w } = self.shape;
        assert_eq!(prep.n_channels(), c, "preprocessing and images have as many channels");
        let tables: Vec<[f32; 256]> = (0..c).map(|channel| prep.table(channel)).collect();
        let mut out = vec![0.0; indices.len() * self.shape.len()];
        if out.is_empty() {
            return out;
        }
        for (&index, nhwc) in indices.iter().zip(out.chunks_exact_mut(self.shape.len())) {
            if let Pixels::InArrays(images) = &self.images {
                images.normalise_into(index, prep, &tables, nhwc);
                continue;
            }
            let nchw = self.image(index);
            for (channel, (plane, table)) in nchw.chunks_exact(h * w).zip(&tables).enumerate() {
                for (pixel, &x) in plane.iter().enumerate() {
                    nhwc[pixel * c + channel] = table[usize::from(x)];
                }
            }
        }
        out
    }
}

/// The normalised values of `pixels`, `[H, W, C]`, of which `tables` has those of every channel.
fn normalise_pixels(pixels: &[u8], tables: &[[f32; 256]], out: &mut [f32]) {
    // Three channels are nearly all there is, and twice as fast when their number is known.
    if let [red, green, blue] = tables {
        for (&[r, g, b], out) in pixels.as_chunks::<3>().0.iter().zip(out.as_chunks_mut::<3>().0) {
            *out = [red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)]];
        }
        return;
    }
    for (pixel, out) in pixels.chunks_exact(tables.len()).zip(out.chunks_exact_mut(tables.len())) {
        for ((&x, out), table) in pixel.iter().zip(out).zip(tables) {
            *out = table[usize::from(x)];
        }
    }
}

/// Mean and standard deviation per channel that a network's input is normalised with, for pixels scaled to [0, 1].
///
/// As many means as deviations, at least one, all finite, every `std > 0`: checked by [`Preprocessing::new`] and when
/// deserialising.
///
/// # Example
/// ```
/// use secateur_formats::Preprocessing;
///
/// let grey = Preprocessing::new(vec![0.5], vec![0.25])?;
/// assert_eq!(grey.n_channels(), 1);
/// assert!(Preprocessing::new(vec![0.5], vec![0.0]).is_err());
/// # Ok::<_, secateur_formats::FormatError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PreprocessingFile")]
pub struct Preprocessing {
    /// Means, one per channel.
    pub mean: Vec<f32>,
    /// Standard deviations, one per channel.
    pub std: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreprocessingFile {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl TryFrom<PreprocessingFile> for Preprocessing {
    type Error = FormatError;
    fn try_from(file: PreprocessingFile) -> Result<Self, FormatError> {
        Self::new(file.mean, file.std)
    }
}

impl Preprocessing {
    /// Checks and couples the two, one entry per channel.
    ///
    /// # Errors
    /// When the lengths differ or are zero, an entry is not finite, or a deviation is not positive.
    pub fn new(mean: Vec<f32>, std: Vec<f32>) -> Result<Self, FormatError> {
        let fail = |problem: String| Err(FormatError::Preprocessing { problem });
        if mean.len() != std.len() || mean.is_empty() {
            return fail(format!("expected one mean and one std per channel, got {} and {}", mean.len(), std.len()));
        }
        if let Some(channel) = mean.iter().position(|x| !x.is_finite()) {
            return fail(format!("mean of channel {channel} is {}, expected a finite number", mean[channel]));
        }
        if let Some(channel) = std.iter().position(|&x| !x.is_finite() || x <= 0.0) {
            return fail(format!("std of channel {channel} is {}, expected a finite number above 0", std[channel]));
        }
        Ok(Self { mean, std })
    }

    /// What the bundled CIFAR-10 networks were trained with (the statistics of ImageNet).
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// Number of channels.
    pub fn n_channels(&self) -> usize {
        self.mean.len()
    }

    /// The normalised value of each of the 256 pixel values of one channel.
    fn table(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|x| (x as f32 / 255.0 - self.mean[channel]) / self.std[channel])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_normalised_and_laid_out_channel_last() {
        let images: Vec<u8> = (0..24).map(|x| x * 10).collect();
        let shape = Shape { c: 3, h: 2, w: 2 };
        let data = Dataset { name: "two".into(), shape, n_classes: 2, images: images.into(), labels: Some(vec![0, 1]) };
        let prep = Preprocessing::new(vec![0.5, 0.25, 0.0], vec![0.5, 0.25, 1.0]).unwrap();
        let got = data.normalised_nhwc(&[1, 0], &prep);
        assert_eq!(got.len(), 24);
        // Image 1, row 0, column 1 reads bytes 13, 17 and 21: pixels 130, 170, 210.
        let expected = [(130.0 / 255.0 - 0.5) / 0.5, (170.0 / 255.0 - 0.25) / 0.25, 210.0 / 255.0];
        assert_eq!(&got[3..6], &expected);
        // Image 0 came second; its first pixel reads bytes 0, 4 and 8.
        assert_eq!(&got[12..15], &[-1.0, (40.0 / 255.0 - 0.25) / 0.25, 80.0 / 255.0]);
    }

    // Python: f = lambda x: ctypes.c_float(x).value
    // [f(f(f(x / 255.0) - f(m)) / f(s)) for m, s in zip([.485, .456, .406], [.229, .224, .225])]
    // (one operation in double, rounded to single, is the single-precision operation).
    #[test]
    fn rounding_is_that_of_separate_f32_steps() {
        let shape = Shape { c: 3, h: 1, w: 1 };
        for (x, expected) in [
            (0u8, [-2.117_904, -2.035_714_1, -1.804_444_4]),
            (1, [-2.100_779_3, -2.018_207_3, -1.787_015_2]),
            (127, [0.056_939_743, 0.187_675_06, 0.409_063_25]),
            (255, [2.248_908_3, 2.428_571_5, 2.64]),
        ] {
            let data = Dataset {
                name: "one".into(),
                shape,
                n_classes: 1,
                images: vec![x, x, x].into(),
                labels: Some(vec![0]),
            };
            let prep = Preprocessing::imagenet();
            assert_eq!(data.normalised_nhwc(&[0], &prep), expected);
        }
    }

    #[test]
    fn no_indices_give_no_values() {
        let shape = Shape { c: 1, h: 1, w: 1 };
        let data = Dataset { name: "one".into(), shape, n_classes: 1, images: vec![9].into(), labels: Some(vec![0]) };
        assert!(data.normalised_nhwc(&[], &Preprocessing::new(vec![0.0], vec![1.0]).unwrap()).is_empty());
    }

    #[test]
    fn preprocessing_refuses_what_would_make_nan_or_infinity() {
        for (mean, std, word) in [
            (vec![0.5], vec![0.0], "above 0"),
            (vec![0.5], vec![-1.0], "above 0"),
            (vec![0.5], vec![f32::NAN], "above 0"),
            (vec![f32::INFINITY], vec![1.0], "finite"),
            (vec![0.5, 0.5], vec![1.0], "per channel"),
            (vec![], vec![], "per channel"),
        ] {
            let message = Preprocessing::new(mean, std).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        assert!(serde_json::from_str::<Preprocessing>(r#"{"mean":[0.0],"std":[0.0]}"#).is_err());
    }
}
