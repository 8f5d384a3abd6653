//! Number types of foreign tensors and their conversion to f32.

/// Type of a stored tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F64,
    F32,
    F16,
    Bf16,
    /// Integers, booleans and whatever else never is a parameter of a network, by name and size in bytes.
    Other(&'static str, usize),
}

impl Element {
    /// Size in bytes.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other(_, size) => size,
        }
    }

    /// The elements of `bytes` (little-endian, a whole number of them) as f32, or the type's name when it is not a
    /// floating-point one. F64 is rounded to nearest.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<Vec<f32>, &'static str> {
        match self {
            Self::F64 => Ok(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect()),
            Self::F32 => Ok(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            Self::F16 => Ok(bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect()),
            Self::Bf16 => Ok(bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect()),
            Self::Other(name, _) => Err(name),
        }
    }
}

/// Whether a tensor of this name and type is a counter that networks carry along and no operation reads: of the batches
/// that a normalisation saw, or of the networks that an `AveragedModel` has averaged.
pub(crate) fn is_counter(name: &str, element: Element) -> bool {
    matches!(element, Element::Other(..)) && (name.ends_with("num_batches_tracked") || name.ends_with("n_averaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // numpy: np.array([1.5, -65504, 2**-24], np.float16).tobytes().hex() and the bfloat16 halves of the float32
    // patterns.
    #[test]
    fn every_float_type_becomes_f32() {
        let half = [0x00, 0x3e, 0xff, 0xfb, 0x01, 0x00];
        assert_eq!(Element::F16.decode(&half).unwrap(), [1.5, -65504.0, 2f32.powi(-24)]);
        assert_eq!(Element::Bf16.decode(&[0xc0, 0x3f, 0x49, 0x40]).unwrap(), [1.5, 3.140_625]);
        assert_eq!(Element::F64.decode(&0.1f64.to_le_bytes()).unwrap(), [0.1f32]);
        assert_eq!(Element::F32.decode(&[0, 0, 0xc0, 0x3f]).unwrap(), [1.5]);
        assert_eq!(Element::Other("I64", 8).decode(&[0; 8]).unwrap_err(), "I64");
    }
}
