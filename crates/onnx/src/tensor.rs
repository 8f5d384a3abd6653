//! Values of tensors, in whatever form they are stored.

use std::borrow::Cow;

use half::{bf16, f16};

use crate::OnnxError;
use crate::external::ExternalData;
use crate::schema::TensorProto;
use crate::schema::tensor_proto::{DataLocation, DataType};

/// Types of elements that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 32-bit floating point.
    Float,
    /// 64-bit floating point.
    Double,
    /// 16-bit floating point.
    Half,
    /// 16-bit floating point with the exponent of 32 bits.
    BFloat16,
    /// 64-bit integers.
    Int64,
    /// 32-bit integers.
    Int32,
    /// Bytes, one to a truth value.
    Bool,
}

impl ElementType {
    /// Of a tensor.
    ///
    /// # Errors
    /// Any other type, by its name.
    pub fn of(tensor: &TensorProto) -> Result<Self, OnnxError> {
        let found = DataType::try_from(tensor.data_type());
        Ok(match found {
            Ok(DataType::Float) => Self::Float,
            Ok(DataType::Double) => Self::Double,
            Ok(DataType::Float16) => Self::Half,
            Ok(DataType::Bfloat16) => Self::BFloat16,
            Ok(DataType::Int64) => Self::Int64,
            Ok(DataType::Int32) => Self::Int32,
            Ok(DataType::Bool) => Self::Bool,
            _ => {
                let name = found.map_or_else(|_| format!("number {}", tensor.data_type()), |t| t.as_str_name().into());
                let advice = "give the network in floating point, before it is quantised";
                return Err(OnnxError::tensor(
                    tensor.name(),
                    format!("elements of type {name} are not read: {advice}"),
                ));
            }
        })
    }

    /// Whether it is floating point.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::Float | Self::Double | Self::Half | Self::BFloat16)
    }

    /// Bytes of an element.
    pub const fn size(self) -> usize {
        match self {
            Self::Double | Self::Int64 => 8,
            Self::Float | Self::Int32 => 4,
            Self::Half | Self::BFloat16 => 2,
            Self::Bool => 1,
        }
    }
}

/// Extents of a tensor, and how many elements those are.
///
/// # Errors
/// A negative extent, more elements than memory has bytes.
pub fn dims(tensor: &TensorProto) -> Result<(Vec<usize>, usize), OnnxError> {
    let extents: Option<Vec<usize>> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    // With bytes counted, so that no later product overflows; an extent of 0 must not hide an overflow.
    let product = |extents: &[usize]| extents.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    match extents.and_then(|e| product(&e).filter(|n| n.checked_mul(8).is_some()).map(|n| (e, n))) {
        Some((extents, n)) => {
            let n = if extents.contains(&0) { 0 } else { n };
            Ok((extents, n))
        }
        None => {
            Err(OnnxError::tensor(tensor.name(), format!("no tensor has the shape {:?}: export it again", tensor.dims)))
        }
    }
}

/// Little-endian bytes of all elements, or none where the elements are in a typed list.
fn raw<'a>(
    tensor: &'a TensorProto,
    external: &ExternalData,
    n_bytes: usize,
) -> Result<Option<Cow<'a, [u8]>>, OnnxError> {
    if tensor.data_location() == DataLocation::External {
        return Ok(Some(Cow::Owned(external.read(tensor, n_bytes)?)));
    }
    let Some(bytes) = &tensor.raw_data else { return Ok(None) };
    if bytes.len() != n_bytes {
        let (got, name) = (bytes.len(), tensor.name());
        return Err(OnnxError::tensor(name, format!("its shape takes {n_bytes} bytes, it has {got}: export it again")));
    }
    Ok(Some(Cow::Borrowed(bytes)))
}

/// A typed list, if it has as many elements as the shape.
fn listed<T: Copy, U>(tensor: &TensorProto, list: &[T], n: usize, of: impl Fn(T) -> U) -> Result<Vec<U>, OnnxError> {
    if list.len() != n {
        let got = list.len();
        return Err(OnnxError::tensor(
            tensor.name(),
            format!("its shape takes {n} elements, it has {got}: export it again"),
        ));
    }
    Ok(list.iter().map(|&x| of(x)).collect())
}

fn decode<const N: usize, U>(bytes: &[u8], of: impl Fn([u8; N]) -> U) -> Vec<U> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| of(chunk)).collect()
}

/// All elements of a floating-point tensor, rounded to 32 bits where they have more.
///
/// # Errors
/// Another type, another number of elements than its shape says, external data that cannot be read.
pub fn floats(tensor: &TensorProto, external: &ExternalData) -> Result<Vec<f32>, OnnxError> {
    let (kind, (_, n)) = (ElementType::of(tensor)?, dims(tensor)?);
    let raw = raw(tensor, external, n * kind.size())?;
    let half_bits = |x: i32| x as u16;
    match (kind, raw) {
        (ElementType::Float, Some(raw)) => Ok(decode(&raw, f32::from_le_bytes)),
        (ElementType::Float, None) => listed(tensor, &tensor.float_data, n, |x| x),
        (ElementType::Double, Some(raw)) => Ok(decode(&raw, |b| f64::from_le_bytes(b) as f32)),
        (ElementType::Double, None) => listed(tensor, &tensor.double_data, n, |x| x as f32),
        (ElementType::Half, Some(raw)) => Ok(decode(&raw, |b| f16::from_le_bytes(b).to_f32())),
        (ElementType::Half, None) => listed(tensor, &tensor.int32_data, n, |x| f16::from_bits(half_bits(x)).to_f32()),
        (ElementType::BFloat16, Some(raw)) => Ok(decode(&raw, |b| bf16::from_le_bytes(b).to_f32())),
        (ElementType::BFloat16, None) => {
            listed(tensor, &tensor.int32_data, n, |x| bf16::from_bits(half_bits(x)).to_f32())
        }
        (ElementType::Int64 | ElementType::Int32 | ElementType::Bool, _) => {
            Err(OnnxError::tensor(tensor.name(), "integers where weights are expected"))
        }
    }
}

/// All elements of an integer tensor.
///
/// # Errors
/// As [`floats`].
pub fn integers(tensor: &TensorProto, external: &ExternalData) -> Result<Vec<i64>, OnnxError> {
    let (kind, (_, n)) = (ElementType::of(tensor)?, dims(tensor)?);
    let raw = raw(tensor, external, n * kind.size())?;
    match (kind, raw) {
        (ElementType::Int64, Some(raw)) => Ok(decode(&raw, i64::from_le_bytes)),
        (ElementType::Int64, None) => listed(tensor, &tensor.int64_data, n, |x| x),
        (ElementType::Int32, Some(raw)) => Ok(decode(&raw, |b| i64::from(i32::from_le_bytes(b)))),
        (ElementType::Bool, Some(raw)) => Ok(raw.iter().map(|&b| i64::from(b)).collect()),
        (ElementType::Int32 | ElementType::Bool, None) => listed(tensor, &tensor.int32_data, n, i64::from),
        (ElementType::Float | ElementType::Double | ElementType::Half | ElementType::BFloat16, _) => {
            Err(OnnxError::tensor(tensor.name(), "floating point where integers are expected"))
        }
    }
}
