//! Values of a pickle, as the stack holds them.

use crate::pickle::globals::{Global, OddTensor};

/// Longest string that is used as a name: of a parameter, a storage or a global.
pub(super) const MAX_NAME_BYTES: usize = 512;

/// Bytes `start..end` of the pickle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A value on the stack. Containers, storages and tensors are indices into [`super::Objects`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// `None`, numbers nobody reads, byte strings, devices: allowed anywhere, used nowhere.
    Opaque,
    Bool(bool),
    Int(i64),
    /// An integer of more than 8 bytes, little-endian.
    BigInt(Span),
    Str(Span),
    /// A tuple or a list.
    Sequence(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
    /// A tensor that is recognised and not read.
    Odd(OddTensor),
    NumpyArray,
}

impl Value {
    /// What it is, for messages.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Opaque => "None or another value of no use here",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::BigInt(_) => "an integer",
            Self::Str(_) => "a string",
            Self::Sequence(_) => "a tuple or list",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a global",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) | Self::Odd(_) => "a tensor",
            Self::NumpyArray => "a numpy array",
        }
    }
}

/// The string `value` is, or `None` for any other value and for strings too long to be a name.
pub(super) fn name(bytes: &[u8], value: Value) -> Option<&str> {
    match value {
        Value::Str(span) if span.end - span.start <= MAX_NAME_BYTES => {
            std::str::from_utf8(&bytes[span.start..span.end]).ok()
        }
        _ => None,
    }
}
