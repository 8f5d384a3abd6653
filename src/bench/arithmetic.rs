//! What the processor's engine computes with, as the command line asks for it.

use anyhow::ensure;
use secateur_kernels::{Arithmetic, Isa, Precision};

/// The arithmetic asked for; without an instruction set, the best of this processor.
///
/// # Errors
/// What this processor lacks, or an instruction set beside bf16, which has its own.
pub(super) fn arithmetic(precision: Precision, isa: Option<Isa>) -> anyhow::Result<Arithmetic> {
    let wanted = match precision {
        Precision::F32 => isa.map_or_else(Arithmetic::default, Arithmetic::F32),
        Precision::Bf16 => {
            let is_its_own = isa.is_none_or(|isa| isa == Arithmetic::Bf16.isa());
            ensure!(is_its_own, "--precision bf16 has instructions of its own: leave --isa out");
            Arithmetic::Bf16
        }
    };
    Ok(wanted.checked()?)
}
