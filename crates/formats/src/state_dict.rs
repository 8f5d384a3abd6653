//! From a pickle to named parameters: the state dict in a checkpoint, wherever people keep it, and its tensors'
//! elements.

use std::borrow::Cow;
use std::collections::HashMap;

use secateur_net::Weights;

use crate::FileProblem;
use crate::checkpoint::{Found, find};
use crate::element::is_counter;
use crate::memory_budget::MemoryBudget;
use crate::pickle::{Pickle, TensorRef, Value};
use crate::strided::gather;

/// What a map entry and a tensor's own fields take beside name and elements, in bytes.
const ENTRY_BYTES: usize = 128;

/// Storages by key: the bytes of the whole storage.
pub(crate) type Storages<'a> = HashMap<&'a str, Cow<'a, [u8]>>;

/// Parameters as a file has them: names with whatever was put before them.
#[derive(Debug, Default)]
pub(crate) struct FileWeights {
    pub(crate) weights: Weights,
    /// What was found out about the file and would surprise whoever is not told, a sentence each.
    pub(crate) notes: Vec<String>,
}

/// The state dict of a pickle.
#[derive(Debug)]
pub(crate) struct StateDict<'p> {
    /// Tensors with their names, in the order of the file, without counters.
    pub(crate) tensors: Vec<(&'p str, &'p TensorRef)>,
    notes: Vec<String>,
}

impl<'p> StateDict<'p> {
    /// Finds the state dict in `pickle`.
    ///
    /// # Errors
    /// When there is none, or more than one, or it holds tensors without a name or of a kind that is not read.
    pub(crate) fn find(pickle: &'p Pickle<'_>) -> Result<Self, FileProblem> {
        let Found { dict, notes } = find(pickle)?;
        let mut tensors = Vec::new();
        let mut packed = None;
        for &(key, value) in &pickle.objects.dicts[dict] {
            let name = pickle.str(key);
            match (value, name) {
                (Value::Tensor(id), Some(name)) => tensors.push((name, &pickle.objects.tensors[id])),
                (Value::Odd(odd), Some(name)) => {
                    let (problem, advice) = odd.explain();
                    return Err(FileProblem::UnsupportedTensor { name: name.into(), problem, advice });
                }
                (Value::Tensor(_) | Value::Odd(_), None) => {
                    return Err(FileProblem::malformed("state dict", "a tensor's key is not a readable name"));
                }
                (_, Some(name)) if name.ends_with("_packed_params") => packed = Some(name),
                _ => {}
            }
        }
        if let Some(name) = packed {
            let (problem, advice) = crate::pickle::OddTensor::Quantised.explain();
            return Err(FileProblem::UnsupportedTensor { name: name.into(), problem, advice });
        }
        tensors.retain(|(name, tensor)| !is_counter(name, tensor.storage.element));
        Ok(Self { tensors, notes })
    }

    /// Gathers every tensor from its storage.
    ///
    /// # Errors
    /// A missing storage, or as [`gather`], naming the tensor.
    pub(crate) fn gather(
        self,
        pickle: &Pickle,
        storages: &Storages,
        budget: &mut MemoryBudget,
    ) -> Result<FileWeights, FileProblem> {
        let mut weights = Weights::new();
        for &(name, tensor) in &self.tensors {
            let key = pickle.name_in(tensor.storage.key);
            let storage = storages.get(key);
            let storage = storage.ok_or_else(|| {
                FileProblem::malformed("state dict", format!("tensor '{name}': its storage '{key}' is not in the file"))
            })?;
            budget.spend(name.len() + ENTRY_BYTES, "the list of tensors")?;
            weights.insert(name.into(), gather(name, tensor, storage, budget)?);
        }
        Ok(FileWeights { weights, notes: self.notes })
    }
}
