//! A pickle reader that runs nothing: it knows the opcodes a state dict is made of, and the few names it may mention.
//!
//! Values live in arenas and refer to each other by number, so deep nesting and cycles cost neither stack nor care.
//! Each opcode makes at most one value, and copying is charged to the same allowance, so memory is a small multiple of
//! the bytes.

mod globals;
mod machine;
mod objects;
mod refusal;
mod value;

use crate::FileProblem;
pub(crate) use crate::pickle::globals::OddTensor;
use crate::pickle::machine::Machine;
pub(crate) use crate::pickle::objects::{Objects, StorageRef, TensorRef};
use crate::pickle::value::name;
pub(crate) use crate::pickle::value::{Span, Value};

/// A pickle that has been read.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    bytes: &'a [u8],
    /// What the pickle holds.
    pub(crate) root: Value,
    /// What its values refer to.
    pub(crate) objects: Objects,
    /// Where the pickle ends; legacy files go on from here.
    pub(crate) end: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`, a part of a file of `n_file_bytes`.
    ///
    /// # Errors
    /// An unknown opcode, a name outside the allow-list, or bytes that end early, with the position.
    pub(crate) fn read(bytes: &'a [u8], n_file_bytes: usize) -> Result<Self, FileProblem> {
        let mut machine = Machine::new(bytes, n_file_bytes);
        let root = machine.run()?;
        Ok(Self { bytes, root, objects: machine.objects, end: machine.at })
    }

    /// The string `value` is, or `None` for any other value and for strings too long to be a name.
    pub(crate) fn str(&self, value: Value) -> Option<&'a str> {
        name(self.bytes, value)
    }

    /// The name in `span`; spans of storages have been checked.
    pub(crate) fn name_in(&self, span: Span) -> &'a str {
        name(self.bytes, Value::Str(span)).unwrap_or_default()
    }

    /// The little-endian bytes of a long integer.
    pub(crate) fn big_int(&self, value: Value) -> Option<&'a [u8]> {
        match value {
            Value::BigInt(span) => Some(&self.bytes[span.start..span.end]),
            _ => None,
        }
    }
}
