//! Parts of stored tensors, in the form in which they are stored.

use bytes::Bytes;
use half::{bf16, f16};
use ndarray::ArrayD;

use crate::OnnxError;
use crate::external::ExternalData;
use crate::schema::TensorProto;
use crate::schema::tensor_proto::{DataLocation, DataType};
use crate::tensor::{ElementType, dims};

/// Places that stay along every axis; none where all do.
pub type KeptPlaces = Vec<Option<Vec<usize>>>;

/// The tensor's kept places. Bytes stay bytes, lists stay lists; what was in another file is brought in as bytes.
///
/// # Errors
/// Elements that cannot be read.
pub fn take(tensor: &TensorProto, kept: &KeptPlaces, external: &ExternalData) -> Result<TensorProto, OnnxError> {
    let (extents, n) = dims(tensor)?;
    let size = ElementType::of(tensor)?.size();
    let mut out = tensor.clone();
    for (dim, kept) in out.dims.iter_mut().zip(kept) {
        if let Some(kept) = kept {
            *dim = kept.len() as i64;
        }
    }
    let lists = [tensor.float_data.len(), tensor.double_data.len(), tensor.int32_data.len(), tensor.int64_data.len()];
    let fits =
        tensor.raw_data.as_ref().is_none_or(|raw| raw.len() == n * size) && lists.iter().all(|&m| m == 0 || m == n);
    if !fits || (kept.len() != extents.len()) {
        let problem = format!("its shape {extents:?} is not that of its elements: export it again");
        return Err(OnnxError::tensor(tensor.name(), problem));
    }
    let cut = TensorCut { extents: &extents, kept };
    if tensor.data_location() == DataLocation::External {
        let bytes = external.read(tensor, n * size)?;
        out.raw_data = Some(cut.of(&bytes, size).into());
        out.external_data.clear();
        out.data_location = None;
        return Ok(out);
    }
    if let Some(raw) = &tensor.raw_data {
        out.raw_data = Some(Bytes::from(cut.of(raw, size)));
    }
    out.float_data = cut.of(&tensor.float_data, 1);
    out.double_data = cut.of(&tensor.double_data, 1);
    out.int32_data = cut.of(&tensor.int32_data, 1);
    out.int64_data = cut.of(&tensor.int64_data, 1);
    Ok(out)
}

struct TensorCut<'a> {
    extents: &'a [usize],
    kept: &'a KeptPlaces,
}

impl TensorCut<'_> {
    /// Kept elements, each of `unit` items.
    fn of<T: Copy>(&self, items: &[T], unit: usize) -> Vec<T> {
        let mut out = Vec::new();
        if !items.is_empty() {
            self.axis(0, items, unit, &mut out);
        }
        out
    }

    fn axis<T: Copy>(&self, axis: usize, items: &[T], unit: usize, out: &mut Vec<T>) {
        if self.kept.iter().skip(axis).all(Option::is_none) {
            out.extend_from_slice(items);
            return;
        }
        let step = self.extents[axis + 1..].iter().product::<usize>() * unit;
        let mut place = |i: usize| self.axis(axis + 1, &items[i * step..(i + 1) * step], unit, out);
        match &self.kept[axis] {
            Some(kept) => kept.iter().for_each(|&i| place(i)),
            None => (0..self.extents[axis]).for_each(place),
        }
    }
}

/// The elements that do not stay are set to zero.
///
/// # Errors
/// As [`take`].
pub fn zero(tensor: &TensorProto, kept: &KeptPlaces, external: &ExternalData) -> Result<TensorProto, OnnxError> {
    let (extents, _) = dims(tensor)?;
    let size = ElementType::of(tensor)?.size();
    let mut out = take(tensor, &vec![None; extents.len()], external)?;
    let stays = |mut at: usize| {
        (0..extents.len()).rev().all(|axis| {
            let place = at % extents[axis];
            at /= extents[axis];
            kept[axis].as_ref().is_none_or(|kept| kept.binary_search(&place).is_ok())
        })
    };
    if let Some(raw) = &out.raw_data {
        let mut bytes = raw.to_vec();
        for (at, element) in bytes.chunks_exact_mut(size).enumerate() {
            if !stays(at) {
                element.fill(0);
            }
        }
        out.raw_data = Some(bytes.into());
    }
    out.float_data.iter_mut().enumerate().filter(|(at, _)| !stays(*at)).for_each(|(_, v)| *v = 0.0);
    out.double_data.iter_mut().enumerate().filter(|(at, _)| !stays(*at)).for_each(|(_, v)| *v = 0.0);
    out.int32_data.iter_mut().enumerate().filter(|(at, _)| !stays(*at)).for_each(|(_, v)| *v = 0);
    Ok(out)
}

/// Other whole numbers in a tensor of as many, in the form in which it is stored.
pub fn set_integers(tensor: &mut TensorProto, values: &[i64]) {
    let is_short = tensor.data_type() == i32::from(DataType::Int32);
    if tensor.dims.len() == 1 {
        tensor.dims = vec![values.len() as i64];
    }
    if tensor.raw_data.is_some() || tensor.data_location() == DataLocation::External {
        let bytes: Vec<u8> = if is_short {
            values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect()
        } else {
            values.iter().flat_map(|v| v.to_le_bytes()).collect()
        };
        set_raw(tensor, bytes);
    } else if is_short {
        tensor.int32_data = values.iter().map(|&v| v as i32).collect();
    } else {
        tensor.int64_data = values.to_vec();
    }
}

/// Other floating-point numbers in a tensor, in the form and type in which it is stored.
///
/// # Errors
/// A tensor of integers, a number that its type cannot hold.
pub fn set_floats(tensor: &mut TensorProto, values: &ArrayD<f32>) -> Result<(), OnnxError> {
    let kind = ElementType::of(tensor)?;
    let n: i64 = tensor.dims.iter().product();
    if n != values.len() as i64 {
        tensor.dims = values.shape().iter().map(|&n| n as i64).collect();
    }
    let is_raw = tensor.raw_data.is_some() || tensor.data_location() == DataLocation::External;
    let half_bits = |v: f32| match kind {
        ElementType::Half => f16::from_f32(v).to_bits(),
        _ => bf16::from_f32(v).to_bits(),
    };
    let is_held = |v: f32| kind != ElementType::Half || !f16::from_f32(v).is_infinite();
    if values.iter().any(|&v| v.is_finite() && !is_held(v)) {
        return Err(OnnxError::tensor(tensor.name(), "16-bit floating point cannot hold its new numbers"));
    }
    let numbers = values.iter().copied();
    match (kind, is_raw) {
        (ElementType::Float, false) => tensor.float_data = numbers.collect(),
        (ElementType::Double, false) => tensor.double_data = numbers.map(f64::from).collect(),
        (ElementType::Half | ElementType::BFloat16, false) => {
            tensor.int32_data = numbers.map(|v| i32::from(half_bits(v))).collect();
        }
        (ElementType::Float, true) => set_raw(tensor, numbers.flat_map(f32::to_le_bytes).collect()),
        (ElementType::Double, true) => set_raw(tensor, numbers.flat_map(|v| f64::from(v).to_le_bytes()).collect()),
        (ElementType::Half | ElementType::BFloat16, true) => {
            set_raw(tensor, numbers.flat_map(|v| half_bits(v).to_le_bytes()).collect());
        }
        (ElementType::Int64 | ElementType::Int32 | ElementType::Bool, _) => {
            return Err(OnnxError::tensor(tensor.name(), "integers where weights are expected"));
        }
    }
    Ok(())
}

fn set_raw(tensor: &mut TensorProto, bytes: Vec<u8>) {
    tensor.raw_data = Some(bytes.into());
    tensor.external_data.clear();
    tensor.data_location = None;
}

/// A new tensor of whole numbers.
pub fn of_integers(name: &str, values: &[i64]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::Int64.into()),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}
