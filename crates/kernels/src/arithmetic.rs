//! In what numbers a network is computed: f32, or bf16 where the processor has instructions for it.

use secateur_net::Shape;

use serde::{Deserialize, Serialize};

use crate::simd::Isa;
use crate::tile::TileFn;
use crate::{KernelError, tile};

/// Numbers that a [`crate::Plan`] keeps activations and weights in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Precision {
    /// 24 significant bits, on every processor.
    #[default]
    F32,
    /// 8 significant bits for activations and weights between operations, sums in f32. Needs AVX512-BF16. Denormals count as zero,
    /// values beyond 3.39e38 become infinite; NaN and infinity are carried along, but for Winograd's tiles (see ARCHITECTURE.md).
    Bf16,
}

impl Precision {
    /// As reports and the command line name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
    /// Whether this processor has the instructions.
    pub fn is_available(self) -> bool {
        match self {
            Self::F32 => true,
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
    /// [`KernelError::Bf16Unavailable`].
    pub fn checked(self) -> Result<Self, KernelError> {
        if self.is_available() { Ok(self) } else { Err(KernelError::Bf16Unavailable) }
    }
}

/// Numbers and the instructions that compute them. Memory is counted in words of 32 bits, `LANES` of which make a vector: an f32, or
/// the bf16 of channels `2k` (low half) and `2k + 1` of one image; the partner of an odd last channel is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// A word is an f32.
    F32(Isa),
    /// A word is two channels; 16 lanes.
    Bf16,
}

impl From<Isa> for Arithmetic {
    fn from(isa: Isa) -> Self {
        Self::F32(isa)
    }
}

impl Arithmetic {
    /// Images that are computed together.
    pub const fn lanes(self) -> usize {
        match self {
            Self::F32(isa) => isa.lanes(),
            Self::Bf16 => 16,
        }
    }
    /// Channels of a word.
    pub const fn channels_per_word(self) -> usize {
        match self {
            Self::F32(_) => 1,
            Self::Bf16 => 2,
        }
    }
    /// Words per lane of `channels` channels of a pixel.
    pub const fn words(self, channels: usize) -> usize {
        channels.div_ceil(self.channels_per_word())
    }
    /// Words of a group of images of `shape`.
    pub const fn group_words(self, shape: Shape) -> usize {
        shape.h * shape.w * self.words(shape.c) * self.lanes()
    }
    /// All register tiles as `(P, C, function)`; every `C` up to the largest comes with `P` = 1.
    pub fn tiles(self) -> &'static [(usize, usize, TileFn)] {
        match self {
            Self::F32(isa) => tile::tiles(isa),
            #[cfg(target_arch = "x86_64")]
            Self::Bf16 => crate::tile_bf16::TILES,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Bf16 => unreachable!("`Precision::checked` lets no plan be made in bf16"),
        }
    }
    /// Finite points other than 0, both with either sign, at which the polynomials of Winograd's 4x4 tiles are taken. Whole numbers
    /// make small factors; the other ones lose less where products are rounded.
    pub const fn finite_points(self) -> [f64; 2] {
        match self {
            Self::F32(_) => [1.0, 2.0],
            Self::Bf16 => [0.75, 1.5],
        }
    }
    /// Time of Winograd's transforms per channel of input or output, of a tile and of a row of four pixels, in cycles of two
    /// multiply-adds. Only bf16 has transforms of rows: where multiplications cost as much as in f32, tiles are better.
    pub const fn transform_costs(self) -> [f64; 2] {
        match self {
            Self::F32(_) => [110.0, f64::INFINITY],
            Self::Bf16 => [165.0, 16.0],
        }
    }
    /// Relative time of one step (one word of every pixel) of a tile, in cycles of two multiply-adds or two loads.
    pub fn step_cost(self, p: usize, c: usize) -> f64 {
        let (sums, loads) = ((p * c) as f64, (p + c) as f64 / 2.0);
        // A chain of f32 multiply-adds takes four cycles a link. Of bf16's a few chains were seen to hinder each other, up to nine.
        let chain = match self {
            Self::F32(_) => 4.0,
            Self::Bf16 if sums < 10.0 => 3.0 + 1.1 * sums,
            Self::Bf16 => 6.5,
        };
        (sums / 2.0).max(loads).max(chain) + 0.25
    }
    /// Words of some filters' values: each of an even channel, with the odd one beside it where a word has room for it.
    pub fn join(self, even: &[f32], odd: &[f32], words: &mut [f32]) {
        match self {
            Self::F32(_) => words.iter_mut().zip(even).for_each(|(word, &even)| *word = even),
            Self::Bf16 => {
                let values = even.iter().zip(odd);
                words.iter_mut().zip(values).for_each(|(word, (&even, &odd))| *word = crate::pairs::pair(even, odd));
            }
        }
    }
    /// `filters` `[filters, in, taps]` as words `[taps, in words, filters]`.
    pub fn pack_filters(self, filters: &[f32], sizes: [usize; 2], n_filters: usize, packed: &mut [f32]) {
        match self {
            Self::F32(_) => pack_filters(filters, sizes, n_filters, packed),
            Self::Bf16 => crate::pairs::pack_filters(filters, sizes, n_filters, packed),
        }
    }
}

/// `[filters, in, taps]` to `[taps, in, filters]`.
pub fn pack_filters(filters: &[f32], [n_in, n_taps]: [usize; 2], n_filters: usize, packed: &mut [f32]) {
    for i in 0..n_in {
        for t in 0..n_taps {
            // Reads advance through all filters together, writes are dense: both stay within a few cache lines.
            let values = filters[i * n_taps + t..].iter().step_by(n_in * n_taps);
            packed[(t * n_in + i) * n_filters..].iter_mut().zip(values).for_each(|(to, &w)| *to = w);
        }
    }
}
