//! Checkpoints of torch 1.6 and later: a zip archive with the pickle `data.pkl` and one entry `data/<key>` per storage.

use std::collections::hash_map::Entry;
use std::io::Read;

use zip::ZipArchive;

use super::format::{Sniff, WeightFormat, bare};
use crate::FileProblem;
use crate::memory_budget::MemoryBudget;
use crate::pickle::Pickle;
use crate::state_dict::{FileWeights, StateDict, Storages};
use crate::zip_directory::{ArchiveView, EntryPlace, locate, open};

const NAME: &str = "PyTorch zip";

/// In the list of formats.
pub(super) const FORMAT: WeightFormat = WeightFormat {
    name: NAME,
    extensions: &["pth", "th"],
    sniff: |ends| match ends.head {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Sniff::Yes,
        // Anything may stand before an archive, such as a program that unpacks it.
        _ if ends.has_end_record => Sniff::Perhaps,
        _ => Sniff::No,
    },
    read: |bytes| {
        let place = locate(bytes).map_err(|problem| FileProblem::malformed(NAME, problem))?;
        bare(read_torch_zip(place, bytes.len())?)
    },
    write: None,
    n_bytes_needed: |file, ends, path| {
        if ends.has_end_record {
            return Ok(file.n_bytes);
        }
        let problem = "the directory at its end is missing: the file is truncated, or something was put behind it";
        Err(FileProblem::malformed(NAME, problem).at(path))
    },
};

const PICKLE: &str = "data.pkl";

/// Reads the state dict in a `.pth` archive; `n_bytes` is the size of the file around it.
///
/// # Errors
/// A broken archive, a pickle that is not a state dict, missing or misshapen storages.
pub(crate) fn read_torch_zip(place: EntryPlace<'_>, n_bytes: usize) -> Result<FileWeights, FileProblem> {
    let mut budget = MemoryBudget::for_file(n_bytes);
    let mut archive = open(place).map_err(|e| FileProblem::malformed(NAME, e.to_string()))?;
    if archive.len() as u64 != place.n_entries {
        // torch takes the first of them, Python's zipfile the last.
        let problem = format!(
            "{} of its {} entries have names of others",
            place.n_entries - archive.len() as u64,
            place.n_entries
        );
        return Err(FileProblem::malformed(NAME, problem));
    }
    let folder = folder(&archive)?;
    check_kind(&archive, &folder)?;
    check_byte_order(&mut archive, &folder, &mut budget)?;
    let pickle = read_entry(&mut archive, &format!("{folder}{PICKLE}"), None, &mut budget)?;
    let pickle = Pickle::read(&pickle, n_bytes)?;
    let found = StateDict::find(&pickle)?;
    let mut storages = Storages::new();
    for (name, tensor) in &found.tensors {
        let place = tensor.storage;
        let key = pickle.name_in(place.key);
        if let Entry::Vacant(slot) = storages.entry(key) {
            let n_bytes = place.n_bytes().ok_or_else(|| {
                FileProblem::malformed(NAME, format!("tensor '{name}': a storage of {} elements", place.n_elements))
            })?;
            slot.insert(read_entry(&mut archive, &format!("{folder}data/{key}"), Some(n_bytes), &mut budget)?.into());
        }
    }
    found.gather(&pickle, &storages, &mut budget)
}

/// The folder in the archive that holds `data.pkl`, empty or with a final slash. torch takes that of the first entry.
fn folder(archive: &ZipArchive<ArchiveView<'_>>) -> Result<String, FileProblem> {
    let first = archive.file_names().flatten().next().unwrap_or_default().into_owned();
    let first = first.split_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    if archive.index_for_name(&format!("{first}{PICKLE}")).is_some() {
        return Ok(first);
    }
    let mut names = archive.file_names().flatten();
    let found = names.find_map(|name| match name.strip_suffix(PICKLE) {
        Some(folder) if folder.is_empty() || folder.ends_with('/') => Some(folder.to_owned()),
        _ => None,
    });
    found.ok_or_else(|| {
        match names_a(archive, |name| name.ends_with("/archive_format") || name.ends_with("model.json")) {
            true => FileProblem::Unsupported {
                what: "an archive of torch.export, which holds a program",
                advice: "save the module's state: torch.save(model.state_dict(), 'weights.pth')",
            },
            false => FileProblem::malformed(NAME, "expected an entry 'data.pkl'; was this saved by torch.save?"),
        }
    })
}

/// TorchScript keeps its code beside the pickle.
fn check_kind(archive: &ZipArchive<ArchiveView<'_>>, folder: &str) -> Result<(), FileProblem> {
    let code = format!("{folder}code/");
    if archive.index_for_name(&format!("{folder}constants.pkl")).is_some() || names_a(archive, |n| n.starts_with(&code))
    {
        return Err(FileProblem::Unsupported {
            what: "an archive of torch.jit (TorchScript), which holds code",
            advice: "save its state dict: torch.save(torch.jit.load(file).state_dict(), 'weights.pth')",
        });
    }
    Ok(())
}

fn names_a(archive: &ZipArchive<ArchiveView<'_>>, wanted: impl Fn(&str) -> bool) -> bool {
    archive.file_names().flatten().any(|name| wanted(&name))
}

fn check_byte_order(
    archive: &mut ZipArchive<ArchiveView<'_>>,
    folder: &str,
    budget: &mut MemoryBudget,
) -> Result<(), FileProblem> {
    let name = format!("{folder}byteorder");
    // Archives of older versions do not have it; they are little-endian.
    if archive.index_for_name(&name).is_some() {
        let order = read_entry(archive, &name, None, budget)?;
        if order != b"little" {
            return Err(FileProblem::malformed(NAME, "expected byte order 'little'; big-endian weights are not read"));
        }
    }
    Ok(())
}

/// One entry's bytes: exactly `n_bytes` of them when given, never more than the directory says.
fn read_entry(
    archive: &mut ZipArchive<ArchiveView<'_>>,
    name: &str,
    n_bytes: Option<usize>,
    budget: &mut MemoryBudget,
) -> Result<Vec<u8>, FileProblem> {
    let fail = |problem: String| FileProblem::malformed(NAME, format!("entry '{name}': {problem}"));
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
