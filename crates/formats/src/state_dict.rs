//! From a pickle to named parameters: unwraps checkpoints, strips prefixes, leaves out what is not a parameter.

use std::borrow::Cow;
use std::collections::HashMap;

use secateur_net::Weights;

use crate::Problem;
use crate::element::is_batch_counter;
use crate::memory_budget::MemoryBudget;
use crate::pickle::{Pickle, TensorRef, Value};
use crate::strided::gather;

/// Keys under which checkpoints keep the state dict, most telling first.
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "model", "net", "network"];
/// How many such wrappings are undone.
const MAX_WRAPPINGS: usize = 3;
/// What `DataParallel` puts before every name.
const PARALLEL_PREFIX: &str = "module.";
/// What a map entry and a tensor's own fields take beside name and elements, in bytes.
const ENTRY_BYTES: usize = 128;

/// Storages by key: the bytes of the whole storage.
pub(crate) type Storages<'a> = HashMap<&'a str, Cow<'a, [u8]>>;

/// Floating-point and integer tensors of the state dict with their names, in the order of the file, without batch counters.
///
/// # Errors
/// When the pickle holds no state dict.
pub(crate) fn named_tensors<'p>(pickle: &'p Pickle<'_>) -> Result<Vec<(&'p str, &'p TensorRef)>, Problem> {
    let fail = |problem: &str| Err(Problem::malformed("state dict", problem));
    let Value::Dict(mut dict) = pickle.root else {
        return fail("expected a dict of tensors by name; save model.state_dict()");
    };
    for _ in 0..MAX_WRAPPINGS {
        dict = wrapped(pickle, dict).unwrap_or(dict);
    }
    let mut tensors = Vec::new();
    for &(key, value) in &pickle.objects.dicts[dict] {
        let Value::Tensor(id) = value else { continue };
        let Some(name) = pickle.str(key) else {
            return fail("a tensor's key is not a readable name");
        };
        tensors.push((name, &pickle.objects.tensors[id]));
    }
    if tensors.is_empty() {
        return fail("it holds no tensor");
    }
    if tensors.iter().all(|(name, _)| name.starts_with(PARALLEL_PREFIX)) {
        tensors.iter_mut().for_each(|(name, _)| *name = &name[PARALLEL_PREFIX.len()..]);
    }
    tensors.retain(|(name, tensor)| !is_batch_counter(name, tensor.storage.element));
    Ok(tensors)
}

/// The dict that a checkpoint wraps, if `dict` is a checkpoint.
fn wrapped(pickle: &Pickle, dict: usize) -> Option<usize> {
    let items = &pickle.objects.dicts[dict];
    WRAPPERS.iter().find_map(|&wrapper| {
        items.iter().find_map(|&(key, value)| match value {
            Value::Dict(inner) if pickle.str(key) == Some(wrapper) => Some(inner),
            _ => None,
        })
    })
}

/// Gathers every tensor from its storage.
///
/// # Errors
/// A missing storage, or as [`gather`], naming the tensor.
pub(crate) fn gather_all(
    pickle: &Pickle,
    tensors: &[(&str, &TensorRef)],
    storages: &Storages,
    budget: &mut MemoryBudget,
) -> Result<Weights, Problem> {
    let mut weights = Weights::new();
    for &(name, tensor) in tensors {
        let key = pickle.name_in(tensor.storage.key);
        let storage = storages.get(key);
        let storage = storage.ok_or_else(|| {
            Problem::malformed("state dict", format!("tensor '{name}': its storage '{key}' is not in the file"))
        })?;
        budget.spend(name.len() + ENTRY_BYTES, "the list of tensors")?;
        weights.insert(name.into(), gather(name, tensor, storage, budget)?);
    }
    Ok(weights)
}
