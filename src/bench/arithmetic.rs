//! What the processor's engine computes with, as the command line asks for it.

use anyhow::ensure;
use secateur_kernels::{Arithmetic, Isa};

use super::arguments::IsaArg;
use crate::options::PrecisionArg;

/// The arithmetic asked for; without an instruction set, the best of this processor.
///
/// # Errors
/// What this processor lacks, or an instruction set beside bf16, which has its own.
pub(super) fn arithmetic(precision: PrecisionArg, isa: Option<IsaArg>) -> anyhow::Result<Arithmetic> {
    let isa = isa.map(Isa::from);
    let wanted = match precision {
        PrecisionArg::F32 => isa.map_or_else(Arithmetic::default, Arithmetic::F32),
        PrecisionArg::Bf16 => {
            let is_its_own = isa.is_none_or(|isa| isa == Arithmetic::Bf16.isa());
            ensure!(is_its_own, "--precision bf16 has instructions of its own: leave --isa out");
            Arithmetic::Bf16
        }
    };
    Ok(wanted.checked()?)
}
