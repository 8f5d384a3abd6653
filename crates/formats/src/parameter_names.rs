//! From the names that a file has to those that a network knows: what wrappers put before them is taken off, masks of
//! pruning are applied, and what only stands for parameters is refused.

use std::collections::BTreeSet;

use secateur_net::{Tensor, Weights};

use crate::FileProblem;
use crate::state_dict::FileWeights;

/// What wrappers of modules and savers of checkpoints put before all names.
const PREFIXES: [&str; 16] = [
    "module",
    "_orig_mod",
    "_forward_module",
    "model",
    "net",
    "network",
    "backbone",
    "base_model",
    "state_dict",
    "model_state_dict",
    "params",
    "weights",
    "ema",
    "ema_model",
    "model_ema",
    "averaged_model",
];
/// How many prefixes are taken off.
const WRAPPINGS_MAX: usize = 16;
/// Averages of the weights: left out where the weights themselves are in the same file.
const AVERAGES: [&str; 4] = ["ema", "ema_model", "model_ema", "averaged_model"];
/// States of optimisers in one flat list with the weights.
const OPTIMISERS: [&str; 5] = ["optimizer", "optim", "optimizers", "lr_scheduler", "scheduler"];
/// Parts that wrappers put anywhere into names; no module is called so by its author. `module` is what `DataParallel`
/// around a part of a network leaves there.
const INNER: [&str; 4] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"];

/// Parameters under the names a network knows.
///
/// # Errors
/// Parametrised or normalised weights, and halves of a pruning mask, by name.
pub(crate) fn settle(file: FileWeights) -> Result<FileWeights, FileProblem> {
    let FileWeights { weights, mut notes } = file;
    refuse_stand_ins(&weights)?;
    let weights = apply_masks(weights, &mut notes)?;
    let weights = leave_out_others(weights, &mut notes);
    let weights = strip(weights, &mut notes);
    Ok(FileWeights { weights, notes })
}

/// Refuses weights that are computed from others whenever the network runs.
fn refuse_stand_ins(weights: &Weights) -> Result<(), FileProblem> {
    let fail = |name: &str, problem, advice| Err(FileProblem::UnsupportedTensor { name: name.into(), problem, advice });
    for name in weights.keys() {
        let has = |stem: &str, end: &str| weights.contains_key(&format!("{stem}{end}"));
        if name.contains("parametrizations.") && name.contains(".original") {
            let advice = "call torch.nn.utils.parametrize.remove_parametrizations(module, 'weight') before saving";
            return fail(name, "is the input of a parametrization, from which the weight is computed", advice);
        }
        if let Some(stem) = name.strip_suffix("_g").filter(|stem| has(stem, "_v") && !has(stem, "")) {
            let name = format!("{stem}_g");
            let advice = "call torch.nn.utils.remove_weight_norm(module) before saving";
            return fail(&name, "is the length that weight_norm keeps apart from the direction", advice);
        }
        if let Some(stem) = name.strip_suffix("_orig").filter(|stem| !has(stem, "_mask") && !has(stem, "")) {
            let advice = "call torch.nn.utils.remove_spectral_norm(module) or torch.nn.utils.prune.remove(module, 'weight') before saving";
            let problem = match has(stem, "_u") {
                true => "is a weight before spectral_norm",
                false => "is a weight before pruning, without its mask",
            };
            return fail(name, problem, advice);
        }
    }
    Ok(())
}

/// `weight_orig` times `weight_mask` of torch.nn.utils.prune is what the network runs with, `weight`.
fn apply_masks(mut weights: Weights, notes: &mut Vec<String>) -> Result<Weights, FileProblem> {
    let masked = |name: &String| name.strip_suffix("_mask").map(str::to_owned);
    let stems: Vec<String> = weights.keys().filter_map(masked).collect();
    let mut applied = Vec::new();
    for stem in stems {
        let (orig, mask) = (format!("{stem}_orig"), format!("{stem}_mask"));
        let fail = |problem, advice| FileProblem::UnsupportedTensor { name: mask.clone(), problem, advice };
        let (Some(values), Some(factors)) = (weights.get(&orig), weights.get(&mask)) else { continue };
        if weights.contains_key(&stem) {
            let advice = "call torch.nn.utils.prune.remove(module, 'weight') before saving";
            return Err(fail("is a mask of torch.nn.utils.prune for a weight that is there as well", advice));
        }
        if values.shape() != factors.shape() {
            return Err(fail("is a mask of another shape than its weight", "save the network again"));
        }
        let product = values.data().iter().zip(factors.data()).map(|(x, m)| x * m).collect();
        let product = Tensor::new(values.shape().to_vec(), product)?;
        weights.remove(&orig);
        weights.remove(&mask);
        applied.push(stem.clone());
        weights.insert(stem, product);
    }
    if let Some(first) = applied.first() {
        notes.push(format!(
            "masks of torch.nn.utils.prune applied to {} parameters ('{first}' is '{first}_orig' times '{first}_mask')",
            applied.len()
        ));
    }
    Ok(weights)
}

/// The first part of a name, if something follows it.
fn first_part(name: &str) -> Option<&str> {
    name.split_once('.').map(|(part, _)| part)
}

/// Leaves out what optimisers keep, and averages beside the weights that were averaged.
fn leave_out_others(mut weights: Weights, notes: &mut Vec<String>) -> Weights {
    let is_of = |list: &[&str], name: &String| first_part(name).is_some_and(|part| list.contains(&part));
    if !weights.keys().all(|name| is_of(&OPTIMISERS, name)) {
        weights.retain(|name, _| !is_of(&OPTIMISERS, name));
    }
    let parts: BTreeSet<Option<&str>> = weights.keys().map(|name| first_part(name)).collect();
    let others: Vec<&str> = parts.iter().flatten().copied().filter(|part| !AVERAGES.contains(part)).collect();
    let is_choice = parts.len() > 1 && parts.iter().all(|part| part.is_some_and(|part| PREFIXES.contains(&part)));
    if let (true, [chosen]) = (is_choice, others.as_slice()) {
        let chosen = (*chosen).to_owned();
        notes.push(format!("weights of '{chosen}'; averages beside them are not read"));
        weights.retain(|name, _| first_part(name) == Some(&chosen));
    }
    weights
}

/// Takes off what wrappers put into names.
fn strip(weights: Weights, notes: &mut Vec<String>) -> Weights {
    let mut names: Vec<String> = weights.keys().cloned().collect();
    let mut taken = Vec::new();
    while let Some(prefix) = common_prefix(&names).filter(|_| taken.len() < WRAPPINGS_MAX) {
        names.iter_mut().for_each(|name| drop(name.drain(..=prefix.len())));
        taken.push(format!("'{prefix}.'"));
    }
    let without_inner: Vec<String> = names.iter().map(|name| without_inner(name)).collect();
    // Were two names the same without it, `module` would be what the author called a part.
    if without_inner != names && without_inner.iter().collect::<BTreeSet<_>>().len() == names.len() {
        taken.push("what wrappers left inside".into());
        names = without_inner;
    }
    if !taken.is_empty() {
        notes.push(format!("taken off the parameters' names: {}", taken.join(", ")));
    }
    names.into_iter().zip(weights.into_values()).collect()
}

/// The part of [`PREFIXES`] that all names begin with, when something follows it in each.
fn common_prefix(names: &[String]) -> Option<&'static str> {
    let first = first_part(names.first()?)?;
    let prefix = PREFIXES.into_iter().find(|prefix| *prefix == first)?;
    names.iter().all(|name| first_part(name) == Some(prefix)).then_some(prefix)
}

fn without_inner(name: &str) -> String {
    let Some((path, parameter)) = name.rsplit_once('.') else { return name.to_owned() };
    let kept: Vec<&str> = path.split('.').filter(|part| !INNER.contains(part)).chain([parameter]).collect();
    kept.join(".")
}
