//! Safetensors: an 8-byte length, a JSON header, the elements. Read by the library, written here, because the library's
//! metadata is a hash map whose order changes from run to run.

use std::collections::BTreeMap;
use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use secateur_net::{Network, Tensor, Weights};
use serde::Serialize;

use super::format::{Ends, Sniff, WeightFormat, WeightsFile, bare};
use crate::element::{Element, is_counter};
use crate::file_bytes::RegularFile;
use crate::state_dict::FileWeights;
use crate::{FileProblem, FormatError, NetworkDescription, Preprocessing, metadata};

/// In the list of formats.
pub(super) const FORMAT: WeightFormat = WeightFormat {
    name: "safetensors",
    extensions: &["safetensors"],
    sniff: |ends| match ends.head {
        [_, _, _, _, 0, 0, 0, 0, b'{', ..] => Sniff::Yes,
        _ => Sniff::No,
    },
    read: |bytes| match read_safetensors(bytes)? {
        // Names of a file that describes its network are those of its graph.
        (weights, Some(description)) => Ok(WeightsFile { weights, description: Some(description), notes: Vec::new() }),
        (weights, None) => bare(FileWeights { weights, notes: Vec::new() }),
    },
    write: Some(network_bytes),
    n_bytes_needed,
};

/// All of it, if it is as large as its header says.
fn n_bytes_needed(file: &mut RegularFile, ends: &Ends<'_>, path: &Path) -> Result<u64, FormatError> {
    let length = ends.head.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let header = file.part(0, length.saturating_add(8))?;
    let expected = expected_bytes(&header).map_err(|problem| problem.at(path))?;
    if expected != file.n_bytes {
        let problem = format!("expected {expected} bytes, as its header says, got {}", file.n_bytes);
        return Err(FileProblem::malformed("safetensors", problem).at(path));
    }
    Ok(file.n_bytes)
}

/// As in the format's own library.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors and, if the file is one of ours, the description.
///
/// # Errors
/// A malformed or truncated file, elements that are not floating-point, a bad description.
pub(crate) fn read_safetensors(bytes: &[u8]) -> Result<(Weights, Option<NetworkDescription>), FileProblem> {
    let (header, data) = split(bytes)?;
    let header = parse_header(header)?;
    if header.data_len() != data.len() {
        return Err(malformed(format!(
            "expected {} bytes of tensors after the header, got {}",
            header.data_len(),
            data.len()
        )));
    }
    let description = match header.metadata() {
        Some(entries) => metadata::decode(entries)?,
        None => None,
    };
    let mut weights = Weights::new();
    for (name, info) in header.tensors() {
        let element = element(info.dtype);
        if is_counter(&name, element) {
            continue;
        }
        // The library has checked that the offsets follow one another and fit the shapes; the last is the data's
        // length.
        let values = element
            .decode(&data[info.data_offsets.0..info.data_offsets.1])
            .map_err(|got| malformed(format!("tensor '{name}': expected F64, F32, F16 or BF16, got {got}")))?;
        weights.insert(name, Tensor::new(info.shape.clone(), values)?);
    }
    if weights.is_empty() {
        return Err(malformed("it holds no tensor"));
    }
    Ok((weights, description))
}

/// How many bytes a file has whose first are `header`: length, JSON and elements.
///
/// # Errors
/// A header that is truncated or is not one.
pub(crate) fn expected_bytes(header: &[u8]) -> Result<u64, FileProblem> {
    let (json, _) = split(header)?;
    let n_elements = parse_header(json)?.data_len();
    Ok((8 + json.len() as u64).saturating_add(n_elements as u64))
}

fn parse_header(json: &[u8]) -> Result<Metadata, FileProblem> {
    // Not `SafeTensors::deserialize`: its sum of hostile offsets overflows.
    serde_json::from_slice(json).map_err(|e| malformed(format!("header: {e}")))
}

fn malformed(problem: impl Into<String>) -> FileProblem {
    FileProblem::malformed("safetensors", problem)
}

/// Header and elements.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), FileProblem> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| malformed("expected a length of 8 bytes"))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(malformed(format!("expected a header of at most {MAX_HEADER_BYTES} bytes, got {length}")));
    }
    rest.split_at_checked(length as usize)
        .ok_or_else(|| malformed(format!("the header of {length} bytes is truncated, {} are left", rest.len())))
}

fn element(dtype: Dtype) -> Element {
    match dtype {
        Dtype::F64 => Element::F64,
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        Dtype::I64 => Element::Other("I64", 8),
        Dtype::I32 => Element::Other("I32", 4),
        Dtype::I16 => Element::Other("I16", 2),
        Dtype::I8 => Element::Other("I8", 1),
        Dtype::U64 => Element::Other("U64", 8),
        Dtype::U32 => Element::Other("U32", 4),
        Dtype::U16 => Element::Other("U16", 2),
        Dtype::U8 => Element::Other("U8", 1),
        Dtype::BOOL => Element::Other("BOOL", 1),
        _ => Element::Other("an 8-bit or smaller float or a complex number", 1),
    }
}

/// One entry of the header.
#[derive(Serialize)]
#[serde(untagged)]
enum HeaderEntry<'a> {
    Metadata(BTreeMap<&'a str, String>),
    Tensor { dtype: &'a str, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// The file of a network: the same bytes for the same network.
///
/// # Errors
/// When the preprocessing is not one for the network's input.
pub(crate) fn network_bytes(network: &Network, prep: &Preprocessing) -> Result<Vec<u8>, FormatError> {
    let mut header = BTreeMap::from([("__metadata__", HeaderEntry::Metadata(metadata::encode(network, prep)?))]);
    let mut end = 0;
    for (name, tensor) in network.weights() {
        let start = end;
        end += size_of_val(tensor.data());
        header.insert(name, HeaderEntry::Tensor { dtype: "F32", shape: tensor.shape(), data_offsets: [start, end] });
    }
    let mut header = serde_json::to_vec(&header).expect("maps of strings and numbers are always JSON");
    // The elements start at a multiple of 8 bytes, so that readers may map them into memory.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = Vec::with_capacity(8 + header.len() + end);
    out.extend_from_slice(&(header.len() as u64).to_le_bytes());
    out.extend_from_slice(&header);
    for tensor in network.weights().values() {
        tensor.data().iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
    }
    Ok(out)
}
