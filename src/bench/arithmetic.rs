//! What the processor's engine computes with.

use anyhow::ensure;
use secateur_kernels::{Isa, KernelError, Plan, Precision, peak_gflops_for, peak_gflops_with};
use secateur_net::Network;

use super::arguments::IsaArg;
use crate::arguments::PrecisionArg;

/// An instruction set in f32, or bf16, for which there is one set only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    F32(Isa),
    Bf16,
}

impl Arithmetic {
    /// As asked for on the command line.
    ///
    /// # Errors
    /// What this processor lacks.
    pub(super) fn new(precision: PrecisionArg, isa: Option<IsaArg>) -> anyhow::Result<Self> {
        match (precision, isa.map(Isa::from)) {
            (PrecisionArg::F32, None) => Ok(Self::F32(Isa::detect())),
            (PrecisionArg::F32, Some(isa)) => {
                ensure!(Isa::available().contains(&isa), KernelError::IsaUnavailable { isa });
                Ok(Self::F32(isa))
            }
            (PrecisionArg::Bf16, isa) => {
                let is_its_own = isa.is_none_or(|isa| isa == Isa::Avx512);
                ensure!(is_its_own, "--precision bf16 has instructions of its own: leave --isa out");
                Precision::Bf16.checked()?;
                Ok(Self::Bf16)
            }
        }
    }

    /// All that this processor can, best instruction set first.
    pub(super) fn available() -> Vec<Self> {
        let bf16 = Precision::Bf16.is_available().then_some(Self::Bf16);
        Isa::available().into_iter().map(Self::F32).chain(bf16).collect()
    }

    pub(super) const fn isa(self) -> Isa {
        match self {
            Self::F32(isa) => isa,
            Self::Bf16 => Isa::Avx512,
        }
    }

    pub(super) const fn precision(self) -> PrecisionArg {
        match self {
            Self::F32(_) => PrecisionArg::F32,
            Self::Bf16 => PrecisionArg::Bf16,
        }
    }

    /// `Avx512 f32`
    pub(super) fn name(self) -> String {
        format!("{:?} {}", self.isa(), self.precision().name())
    }

    /// # Errors
    /// As [`Plan::compile`].
    pub(super) fn compile(self, network: &Network) -> Result<Plan, KernelError> {
        match self {
            Self::F32(isa) => Plan::compile_for(network, isa),
            Self::Bf16 => Plan::compile_with(network, Precision::Bf16),
        }
    }

    /// Highest rate of multiply-adds of one core, GFLOP/s.
    ///
    /// # Errors
    /// When this processor lacks the instructions.
    pub(super) fn peak_gflops(self) -> Result<f64, KernelError> {
        match self {
            Self::F32(isa) => peak_gflops_for(isa),
            Self::Bf16 => peak_gflops_with(Precision::Bf16),
        }
    }
}
