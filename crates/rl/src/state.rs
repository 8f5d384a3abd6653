//! Saved learner state: a safetensors file of named flat arrays, for [`Learner::save`](crate::Learner::save).

use std::borrow::Cow;
use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors, View};

use crate::error::RlError;

struct Array {
    dtype: Dtype,
    shape: [usize; 1],
    bytes: Vec<u8>,
}

impl View for &Array {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Collects arrays and writes them.
#[derive(Default)]
pub struct StateWriter(BTreeMap<String, Array>);

impl StateWriter {
    /// Adds an array of f32.
    pub fn put_f32(&mut self, name: impl Into<String>, values: &[f32]) {
        self.put(name, Dtype::F32, values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    /// Adds an array of f64.
    pub fn put_f64(&mut self, name: impl Into<String>, values: &[f64]) {
        self.put(name, Dtype::F64, values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    /// Adds an array of u64.
    pub fn put_u64(&mut self, name: impl Into<String>, values: &[u64]) {
        self.put(name, Dtype::U64, values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    fn put(&mut self, name: impl Into<String>, dtype: Dtype, len: usize, bytes: Vec<u8>) {
        self.0.insert(name.into(), Array { dtype, shape: [len], bytes });
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// A failure of the serialiser.
    pub fn finish(&self) -> Result<Vec<u8>, RlError> {
        safetensors::serialize(self.0.iter(), None).map_err(|e| RlError::State { what: e.to_string() })
    }
}

/// Reads arrays by name.
pub struct StateReader<'a>(SafeTensors<'a>);

impl<'a> StateReader<'a> {
    /// Reads the file's table of contents.
    ///
    /// # Errors
    /// Bytes that are no such file.
    pub fn new(bytes: &'a [u8]) -> Result<Self, RlError> {
        SafeTensors::deserialize(bytes).map(Self).map_err(|e| RlError::State { what: e.to_string() })
    }

    /// The array of f32 of this name.
    ///
    /// # Errors
    /// No such array, or one of another kind.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, RlError> {
        Ok(self.get(name, Dtype::F32)?.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// The array of f64 of this name.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn f64(&self, name: &str) -> Result<Vec<f64>, RlError> {
        Ok(self.words(name, Dtype::F64)?.map(f64::from_bits).collect())
    }

    /// The array of u64 of this name.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn u64(&self, name: &str) -> Result<Vec<u64>, RlError> {
        Ok(self.words(name, Dtype::U64)?.collect())
    }

    fn words(&self, name: &str, dtype: Dtype) -> Result<impl Iterator<Item = u64> + use<'_>, RlError> {
        let bytes = self.get(name, dtype)?;
        Ok(bytes.chunks_exact(8).map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])))
    }

    fn get(&self, name: &str, dtype: Dtype) -> Result<&[u8], RlError> {
        let view = self.0.tensor(name).map_err(|_| RlError::State { what: format!("no array \"{name}\"") })?;
        if view.dtype() != dtype {
            let what = format!("array \"{name}\" holds {:?}, expected {dtype:?}", view.dtype());
            return Err(RlError::State { what });
        }
        Ok(view.data())
    }
}
