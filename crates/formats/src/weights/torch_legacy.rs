//! Checkpoints of torch before 1.6: five pickles (magic number, protocol, system, object, storage keys), then the
//! storages, each after its number of elements as 8 bytes.

use std::borrow::Cow;
use std::collections::HashMap;

use super::format::{FIRST_BYTES, Sniff, WeightFormat, bare};
use crate::file_bytes::RegularFile;
use crate::memory_budget::MemoryBudget;
use crate::pickle::{Pickle, StorageRef, Value};
use crate::state_dict::{FileWeights, StateDict, Storages};
use crate::{FileProblem, FormatError};

const NAME: &str = "PyTorch legacy";

/// In the list of formats.
pub(super) const FORMAT: WeightFormat = WeightFormat {
    name: NAME,
    extensions: &["pth", "th"],
    sniff: |ends| match ends.head {
        [0x80, 0..=5, ..] => Sniff::Yes,
        _ => Sniff::No,
    },
    read: |bytes| bare(read_torch_legacy(bytes)?),
    write: None,
    n_bytes_needed: |file, _, _| n_bytes_needed(file),
};

/// Up to the end of the last storage, which is looked for in ever larger parts of the file.
fn n_bytes_needed(file: &mut RegularFile) -> Result<u64, FormatError> {
    let n_bytes = file.n_bytes;
    let mut n_first = FIRST_BYTES;
    while n_first < n_bytes {
        if let Some(end) = end_of_storages(&file.part(0, n_first)?) {
            return Ok(n_bytes.min(end));
        }
        n_first = n_first.saturating_mul(8);
    }
    Ok(n_bytes)
}

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// Reads the state dict in a file of pickles.
///
/// # Errors
/// Other pickles, big-endian machines, missing or misshapen storages.
pub(crate) fn read_torch_legacy(bytes: &[u8]) -> Result<FileWeights, FileProblem> {
    let mut rest = bytes;
    let magic = next_pickle(&mut rest)?;
    if magic.big_int(magic.root) != Some(MAGIC.as_slice()) {
        return Err(malformed("a pickle without the magic number of torch.save; save the state dict with torch.save"));
    }
    match next_pickle(&mut rest)?.root {
        Value::Int(PROTOCOL) => {}
        Value::Int(other) => return Err(malformed(format!("expected protocol {PROTOCOL}, got {other}"))),
        other => return Err(malformed(format!("expected protocol {PROTOCOL}, got {}", other.kind()))),
    }
    let system = next_pickle(&mut rest)?;
    if !is_little_endian(&system) {
        return Err(malformed("expected a little-endian file"));
    }
    let object = next_pickle(&mut rest)?;
    let found = StateDict::find(&object)?;
    let keys = next_pickle(&mut rest)?;
    let storages = slice_storages(&object, &keys, rest)?;
    found.gather(&object, &storages, &mut MemoryBudget::for_file(bytes.len()))
}

/// Where the last storage ends of a file that begins with `bytes`, in bytes from its start, or `None` when the pickles
/// are not whole or not what they should be. Whatever follows belongs to somebody else.
pub(crate) fn end_of_storages(bytes: &[u8]) -> Option<u64> {
    let mut rest = bytes;
    let _head = [next_pickle(&mut rest).ok()?, next_pickle(&mut rest).ok()?, next_pickle(&mut rest).ok()?];
    let object = next_pickle(&mut rest).ok()?;
    let keys = next_pickle(&mut rest).ok()?;
    let Value::Sequence(id) = keys.root else { return None };
    let known = known_storages(&object);
    let mut end = (bytes.len() - rest.len()) as u64;
    for &key in &keys.objects.sequences[id] {
        let n_bytes = known.get(keys.str(key)?)?.n_bytes()? as u64;
        end = end.checked_add(8)?.checked_add(n_bytes)?;
    }
    Some(end)
}

/// The storages that an object mentions, by key.
fn known_storages<'a>(object: &Pickle<'a>) -> HashMap<&'a str, StorageRef> {
    object.objects.storages.iter().map(|s| (object.name_in(s.key), *s)).collect()
}

fn malformed(problem: impl Into<String>) -> FileProblem {
    FileProblem::malformed(NAME, problem)
}

fn next_pickle<'a>(rest: &mut &'a [u8]) -> Result<Pickle<'a>, FileProblem> {
    let pickle = Pickle::read(rest, rest.len())?;
    *rest = &rest[pickle.end..];
    Ok(pickle)
}

fn is_little_endian(system: &Pickle) -> bool {
    let Value::Dict(id) = system.root else { return false };
    let wanted =
        |&(key, value): &(Value, Value)| system.str(key) == Some("little_endian") && value == Value::Bool(true);
    system.objects.dicts[id].iter().any(wanted)
}

/// The storages that follow the pickles, in the order of `keys`; types and sizes are those the object mentioned.
fn slice_storages<'a>(object: &Pickle<'a>, keys: &Pickle<'a>, mut rest: &'a [u8]) -> Result<Storages<'a>, FileProblem> {
    let known = known_storages(object);
    let Value::Sequence(id) = keys.root else {
        return Err(malformed("expected a list of storage keys"));
    };
    let mut storages = Storages::new();
    for &key in &keys.objects.sequences[id] {
        let key = keys.str(key).ok_or_else(|| malformed("a storage key is not a readable name"))?;
        let place = known.get(key).ok_or_else(|| malformed(format!("storage '{key}' belongs to no tensor")))?;
        let truncated = || malformed(format!("storage '{key}' of {} elements is truncated", place.n_elements));
        let (n_elements, after) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let n_elements = u64::from_le_bytes(*n_elements);
        if n_elements != place.n_elements as u64 {
            return Err(malformed(format!(
                "storage '{key}': expected {} elements, got {n_elements}",
                place.n_elements
            )));
        }
        let n_bytes = place.n_bytes().ok_or_else(truncated)?;
        let (storage, after) = after.split_at_checked(n_bytes).ok_or_else(truncated)?;
        storages.insert(key, Cow::Borrowed(storage));
        rest = after;
    }
    Ok(storages)
}
