//! Checkpoints of torch 1.6 and later: a zip archive with the pickle `data.pkl` and one entry `data/<key>` per storage.

use std::collections::hash_map::Entry;
use std::io::{Cursor, Read};

use secateur_net::Weights;
use zip::ZipArchive;

use crate::Problem;
use crate::memory_budget::MemoryBudget;
use crate::pickle::Pickle;
use crate::state_dict::{Storages, gather_all, named_tensors};

const FORMAT: &str = "PyTorch zip";
const PICKLE: &str = "data.pkl";

/// Reads the state dict in a `.pth` archive.
///
/// # Errors
/// A broken archive, a pickle that is not a state dict, missing or misshapen storages.
pub(crate) fn read_torch_zip(bytes: &[u8]) -> Result<Weights, Problem> {
    let mut budget = MemoryBudget::for_file(bytes.len());
    let mut archive = open(bytes)?;
    let folder = folder(&archive)?;
    check_byte_order(&mut archive, &folder, &mut budget)?;
    let pickle = read_entry(&mut archive, &format!("{folder}{PICKLE}"), None, &mut budget)?;
    let pickle = Pickle::read(&pickle)?;
    let tensors = named_tensors(&pickle)?;
    let mut storages = Storages::new();
    for (name, tensor) in &tensors {
        let place = tensor.storage;
        let key = pickle.name_in(place.key);
        if let Entry::Vacant(slot) = storages.entry(key) {
            let n_bytes = place.n_elements.checked_mul(place.element.size()).ok_or_else(|| {
                Problem::malformed(FORMAT, format!("tensor '{name}': a storage of {} elements", place.n_elements))
            })?;
            slot.insert(read_entry(&mut archive, &format!("{folder}data/{key}"), Some(n_bytes), &mut budget)?.into());
        }
    }
    gather_all(&pickle, &tensors, &storages, &mut budget)
}

/// The archive's directory.
fn open(bytes: &[u8]) -> Result<ZipArchive<Cursor<&[u8]>>, Problem> {
    ZipArchive::new(Cursor::new(bytes)).map_err(|e| Problem::malformed(FORMAT, e.to_string()))
}

/// The folder in the archive that holds `data.pkl`, empty or with a final slash.
fn folder(archive: &ZipArchive<Cursor<&[u8]>>) -> Result<String, Problem> {
    let mut names = archive.file_names().flatten();
    let found = names.find_map(|name| match name.strip_suffix(PICKLE) {
        Some(folder) if folder.is_empty() || folder.ends_with('/') => Some(folder.to_owned()),
        _ => None,
    });
    found.ok_or_else(|| Problem::malformed(FORMAT, "expected an entry 'data.pkl'; was this saved by torch.save?"))
}

fn check_byte_order(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    folder: &str,
    budget: &mut MemoryBudget,
) -> Result<(), Problem> {
    let name = format!("{folder}byteorder");
    // Archives of older versions do not have it; they are little-endian.
    if archive.index_for_name(&name).is_some() {
        let order = read_entry(archive, &name, None, budget)?;
        if order != b"little" {
            return Err(Problem::malformed(FORMAT, "expected byte order 'little'; big-endian weights are not read"));
        }
    }
    Ok(())
}

/// One entry's bytes: exactly `n_bytes` of them when given, never more than the directory says.
fn read_entry(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    n_bytes: Option<usize>,
    budget: &mut MemoryBudget,
) -> Result<Vec<u8>, Problem> {
    let fail = |problem: String| Problem::malformed(FORMAT, format!("entry '{name}': {problem}"));
    let entry = archive.by_name(name).map_err(|e| fail(e.to_string()))?;
    let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
    if let Some(expected) = n_bytes.filter(|&expected| expected != size) {
        return Err(fail(format!("expected {expected} bytes, got {size}")));
    }
    budget.spend(size, name)?;
    let mut out = Vec::new();
    // One byte more than promised makes the library reach the end and check the checksum.
    entry.take(size as u64 + 1).read_to_end(&mut out).map_err(|e| fail(e.to_string()))?;
    if out.len() != size {
        return Err(fail(format!("expected {size} bytes, got {}", out.len())));
    }
    Ok(out)
}
