//! Which functions transform tiles, by arithmetic.

use super::jobs::{InputFn, OutputFn};
#[cfg(target_arch = "x86_64")]
use super::transform_bf16;
use super::transform_f32;
use crate::engine::arithmetic::Arithmetic;
use crate::simd::isa::Isa;

/// The transforms for one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transforms {
    /// Of a tile's input.
    pub input: InputFn,
    /// Of a tile's sums.
    pub output: OutputFn,
}

impl Transforms {
    /// Those for `arithmetic`.
    pub(crate) fn of(arithmetic: Arithmetic) -> Self {
        match arithmetic {
            #[cfg(target_arch = "x86_64")]
            Arithmetic::F32(Isa::Avx512) => {
                Self { input: transform_f32::input_avx512, output: transform_f32::output_avx512 }
            }
            #[cfg(target_arch = "x86_64")]
            Arithmetic::F32(Isa::Avx2) => Self { input: transform_f32::input_avx2, output: transform_f32::output_avx2 },
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Bf16 => {
                Self { input: transform_bf16::transform_input, output: transform_bf16::transform_output }
            }
            _ => Self { input: transform_f32::input_portable, output: transform_f32::output_portable },
        }
    }

    /// Those for maps whose vectors are channels of one image: an `InputJob`'s words and an `OutputJob`'s channels are
    /// vectors of channels, the bias is `[n_channels, LANES]`.
    pub(crate) fn by_channel(isa: Isa) -> Self {
        let output = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => transform_f32::output_by_channel_avx512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => transform_f32::output_by_channel_avx2,
            _ => transform_f32::output_by_channel_portable as OutputFn,
        };
        Self { output, ..Self::of(Arithmetic::F32(isa)) }
    }
}
