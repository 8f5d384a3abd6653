//! In what numbers a network is computed: f32, or bf16 where the processor has instructions for it.

use std::fmt;

use secateur_net::Shape;
use serde::{Deserialize, Serialize};

use crate::KernelError;
use crate::engine::conv::tile;
use crate::engine::conv::tile::TileKernel;
use crate::simd::isa::Isa;

/// Numbers that activations and weights are kept in: what a scene or a command line asks for. [`Arithmetic`] is what is
/// computed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Precision {
    /// 24 significant bits, on every processor.
    #[default]
    F32,
    /// 8 significant bits for activations and weights between operations, sums in f32. Needs AVX512-BF16. Denormals
    /// count as zero, values beyond 3.39e38 become infinite; NaN and infinity are carried along, but for Winograd's
    /// tiles (see ARCHITECTURE.md).
    Bf16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// As reports and the command line name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
    /// Whether this processor has the instructions.
    pub fn is_available(self) -> bool {
        Arithmetic::from(self).is_available()
    }
    /// `self` when this processor has the instructions.
    ///
    /// # Errors
    /// [`KernelError::Bf16Unavailable`].
    pub fn checked(self) -> Result<Self, KernelError> {
        Arithmetic::from(self).checked().map(|_| self)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Numbers and the instructions that compute them: an instruction set in f32, or bf16, for which there is one set only.
/// What takes an arithmetic takes an [`Isa`] (f32 with these instructions) or a [`Precision`] (with the best
/// instructions of this processor) as well.
///
/// # Example
/// ```
/// use secateur_kernels::{Arithmetic, Isa, Precision};
///
/// assert_eq!(Arithmetic::default(), Arithmetic::F32(Isa::detect()));
/// assert_eq!(Arithmetic::from(Isa::Portable).to_string(), "Portable f32");
/// for arithmetic in Arithmetic::available() {
///     println!("{arithmetic}: {} images at a time", arithmetic.lanes());
/// }
/// // A processor without AVX512-BF16 refuses it with an error that says so.
/// assert_eq!(Arithmetic::Bf16.checked().is_ok(), Precision::Bf16.is_available());
/// ```
// Memory is counted in words of 32 bits, `LANES` of which make a vector: an f32, or the bf16 of channels `2k` (low
// half) and `2k + 1` of one image; the partner of an odd last channel is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// f32, 24 significant bits, with an instruction set.
    F32(Isa),
    /// Pairs of bf16, sums in f32 (see [`Precision::Bf16`]); 16 images at a time.
    Bf16,
}

impl Default for Arithmetic {
    /// f32 with the best instruction set of this processor.
    fn default() -> Self {
        Self::F32(Isa::detect())
    }
}

impl From<Isa> for Arithmetic {
    fn from(isa: Isa) -> Self {
        Self::F32(isa)
    }
}

impl From<Precision> for Arithmetic {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::default(),
            Precision::Bf16 => Self::Bf16,
        }
    }
}

impl fmt::Display for Arithmetic {
    /// `Avx512 f32`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.isa(), self.precision())
    }
}

impl Arithmetic {
    /// All that this processor can compute with: f32, best instruction set first, then bf16.
    pub fn available() -> Vec<Self> {
        let all = Isa::available().into_iter().map(Self::F32).chain([Self::Bf16]);
        all.filter(|arithmetic| arithmetic.is_available()).collect()
    }
    /// Whether this processor has the instructions.
    pub fn is_available(self) -> bool {
        match self {
            Self::F32(isa) => isa.is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Bf16 => {
                std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Bf16 => false,
        }
    }
    /// `self` when this processor has the instructions.
    ///
    /// # Errors
    /// [`KernelError::IsaUnavailable`], [`KernelError::Bf16Unavailable`].
    pub fn checked(self) -> Result<Self, KernelError> {
        match self {
            _ if self.is_available() => Ok(self),
            Self::F32(isa) => Err(KernelError::IsaUnavailable { isa }),
            Self::Bf16 => Err(KernelError::Bf16Unavailable),
        }
    }
    /// The instruction set; that of bf16 is an extension of AVX-512.
    pub const fn isa(self) -> Isa {
        match self {
            Self::F32(isa) => isa,
            Self::Bf16 => Isa::Avx512,
        }
    }
    /// The numbers.
    pub const fn precision(self) -> Precision {
        match self {
            Self::F32(_) => Precision::F32,
            Self::Bf16 => Precision::Bf16,
        }
    }
    /// Images that are computed together.
    pub const fn lanes(self) -> usize {
        match self {
            Self::F32(isa) => isa.lanes(),
            Self::Bf16 => 16,
        }
    }
    /// Channels of a word.
    pub(crate) const fn channels_per_word(self) -> usize {
        match self {
            Self::F32(_) => 1,
            Self::Bf16 => 2,
        }
    }
    /// Words per lane of `channels` channels of a pixel.
    pub(crate) const fn words(self, channels: usize) -> usize {
        channels.div_ceil(self.channels_per_word())
    }
    /// Words of a group of images of `shape`.
    pub(crate) const fn group_words(self, shape: Shape) -> usize {
        shape.h * shape.w * self.words(shape.c) * self.lanes()
    }
    /// All register tiles; every number of channels up to the largest comes with one pixel.
    pub(crate) fn tiles(self) -> &'static [TileKernel] {
        match self {
            Self::F32(isa) => tile::tiles(isa),
            #[cfg(target_arch = "x86_64")]
            Self::Bf16 => crate::engine::conv::tile_bf16::TILES,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Bf16 => unreachable!("`Arithmetic::checked` lets no plan be made in bf16"),
        }
    }
    /// Finite points other than 0, both with either sign, at which the polynomials of Winograd's 4x4 tiles are taken.
    /// Whole numbers make small factors; the other ones lose less where products are rounded.
    pub(crate) const fn finite_points(self) -> [f64; 2] {
        match self {
            Self::F32(_) => [1.0, 2.0],
            Self::Bf16 => [0.75, 1.5],
        }
    }
    /// Time of Winograd's transforms per channel of input or output, of a tile and of a row of four pixels, in cycles
    /// of two multiply-adds. Only bf16 has transforms of rows: where multiplications cost as much as in f32, tiles are
    /// better.
    pub(crate) const fn transform_costs(self) -> [f64; 2] {
        match self {
            Self::F32(_) => [110.0, f64::INFINITY],
            Self::Bf16 => [165.0, 16.0],
        }
    }
    /// Relative time of one step (one word of every pixel) of a tile, in cycles of two multiply-adds or two loads.
    pub(crate) fn step_cost(self, p: usize, c: usize) -> f64 {
        let (sums, loads) = ((p * c) as f64, (p + c) as f64 / 2.0);
        // A chain of f32 multiply-adds takes four cycles a link. Of bf16's a few chains were seen to hinder each other,
        // up to nine.
        let chain = match self {
            Self::F32(_) => 4.0,
            Self::Bf16 if sums < 10.0 => 3.0 + 1.1 * sums,
            Self::Bf16 => 6.5,
        };
        (sums / 2.0).max(loads).max(chain) + 0.25
    }
    /// Words of some filters' values: each of an even channel, with the odd one beside it where a word has room for it.
    pub(crate) fn join(self, even: &[f32], odd: &[f32], words: &mut [f32]) {
        match self {
            Self::F32(_) => words.iter_mut().zip(even).for_each(|(word, &even)| *word = even),
            Self::Bf16 => {
                let values = even.iter().zip(odd);
                words
                    .iter_mut()
                    .zip(values)
                    .for_each(|(word, (&even, &odd))| *word = crate::simd::pairs::pair(even, odd));
            }
        }
    }
    /// `filters` `[filters, in, taps]` as words `[taps, in words, filters]`.
    pub(crate) fn pack_filters(self, filters: &[f32], sizes: [usize; 2], n_filters: usize, packed: &mut [f32]) {
        match self {
            Self::F32(_) => pack_filters(filters, sizes, n_filters, packed),
            Self::Bf16 => crate::simd::pairs::pack_filters(filters, sizes, n_filters, packed),
        }
    }
}

/// `[filters, in, taps]` to `[taps, in, filters]`.
pub(crate) fn pack_filters(filters: &[f32], [n_in, n_taps]: [usize; 2], n_filters: usize, packed: &mut [f32]) {
    for i in 0..n_in {
        for t in 0..n_taps {
            // Reads advance through all filters together, writes are dense: both stay within a few cache lines.
            let values = filters[i * n_taps + t..].iter().step_by(n_in * n_taps);
            packed[(t * n_in + i) * n_filters..].iter_mut().zip(values).for_each(|(to, &w)| *to = w);
        }
    }
}
