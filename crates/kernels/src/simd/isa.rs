//! Instruction sets, one of which is chosen at run time.
#![allow(unsafe_code)]

/// Instruction set of the inner kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// 16 lanes, 32 registers.
    Avx512,
    /// 8 lanes with fused multiply-add.
    Avx2,
    /// 8 lanes of plain Rust, for any processor.
    Portable,
}

impl Isa {
    /// Every instruction set, best first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Portable];

    /// As the command line names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
    /// The best instruction set of this processor.
    pub fn detect() -> Self {
        *Self::available().first().expect("Portable is always available")
    }
    /// All instruction sets of this processor, best first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }
    /// Values per vector.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 | Self::Portable => 8,
        }
    }
    /// Runs `loops` compiled for this instruction set: the same results, a few times faster.
    #[inline]
    pub(crate) fn vectorized(self, loops: impl PlainLoops) {
        match self {
            // SAFETY: of a processor without the instructions, no plan or kernel is made for them.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { with_avx512(loops) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { with_avx2(loops) },
            _ => loops.run(),
        }
    }
    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => std::is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }
}

/// Plain loops to be compiled for each instruction set.
pub(crate) trait PlainLoops {
    /// Runs them. It is inlined always: a function of its own would not be compiled for the caller's instructions.
    fn run(self);
}

/// A closure of a line or two, which is inlined without being told.
impl<F: FnOnce()> PlainLoops for F {
    #[inline(always)]
    fn run(self) {
        self();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn with_avx512(loops: impl PlainLoops) {
    loops.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn with_avx2(loops: impl PlainLoops) {
    loops.run();
}
