//! Where in a checkpoint the state dict is. Everybody keeps it under another key, beside optimisers, averages and
//! histories.

use std::collections::HashSet;

use crate::FileProblem;
use crate::element::Element;
use crate::pickle::{Pickle, Value};

/// Keys under which checkpoints keep the state dict, most telling first; averages of the weights after the weights
/// themselves.
const WRAPPERS: [&str; 25] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net_state_dict",
    "net_state",
    "net",
    "network",
    "backbone",
    "module",
    "params",
    "weights",
    "model_ema_state_dict",
    "ema_state_dict",
    "state_dict_ema",
    "ema_model_state_dict",
    "model_ema",
    "ema_model",
    "params_ema",
    "ema",
    "swa_model",
    "swa_state_dict",
    "averaged_model",
    "teacher",
    "student",
];
/// Parts of the keys under which optimisers and the like keep tensors that are no parameters.
const OTHERS: [&str; 6] = ["optim", "sched", "scaler", "momentum", "rng", "metric"];
/// The key that every state of an optimiser has, whatever it stands under.
const OPTIMISER_KEY: &str = "param_groups";
/// How deep wrappings are followed.
const DEPTH_MAX: usize = 12;
/// State dicts after which no further is looked for: more than one is too many already.
const FOUND_MAX: usize = 8;
/// How many keys a message lists.
const KEYS_SHOWN: usize = 6;

/// A state dict in its pickle.
#[derive(Debug)]
pub(crate) struct Found {
    /// Index among the pickle's dicts.
    pub(crate) dict: usize,
    /// What was chosen where the choice was not plain.
    pub(crate) notes: Vec<String>,
}

/// The dict of tensors by name that `pickle` holds.
///
/// # Errors
/// When there is none, or several between which no key decides.
pub(crate) fn find(pickle: &Pickle<'_>) -> Result<Found, FileProblem> {
    let fail = |problem: String| FileProblem::malformed("state dict", problem);
    if !matches!(pickle.root, Value::Dict(_) | Value::Sequence(_)) {
        let got = pickle.root.kind();
        return Err(fail(format!("expected a dict of tensors by name, got {got}; save model.state_dict()")));
    }
    let mut search = StateDictSearch { pickle, seen: HashSet::new(), notes: Vec::new(), skipped: None };
    let mut found = search.in_value(pickle.root, "", 0);
    match (found.len(), found.pop()) {
        (1, Some((path, dict))) => {
            let known = path.rsplit('.').next().is_some_and(|key| key.is_empty() || WRAPPERS.contains(&key));
            search.notes.extend((!known).then(|| format!("weights under '{path}', where alone there are any")));
            Ok(Found { dict, notes: search.notes })
        }
        (0, _) | (_, None) => Err(fail(search.nothing())),
        (_, Some(last)) => {
            found.push(last);
            let more = if found.len() > KEYS_SHOWN { ", …" } else { "" };
            let paths: Vec<String> = found.iter().take(KEYS_SHOWN).map(|(path, _)| format!("'{path}'")).collect();
            Err(fail(format!(
                "several dicts hold tensors, under {}{more}; save the one to read on its own",
                paths.join(", ")
            )))
        }
    }
}

struct StateDictSearch<'p, 'a> {
    pickle: &'p Pickle<'a>,
    /// Containers that have been looked at: each once, so that neither cycles nor shared parts cost more than their
    /// size.
    seen: HashSet<(bool, usize)>,
    notes: Vec<String>,
    /// A key whose tensors are an optimiser's.
    skipped: Option<String>,
}

/// State dicts with the keys that lead to them.
type Paths = Vec<(String, usize)>;

impl StateDictSearch<'_, '_> {
    fn in_value(&mut self, value: Value, path: &str, depth: usize) -> Paths {
        let (is_dict, id) = match value {
            Value::Dict(id) => (true, id),
            Value::Sequence(id) => (false, id),
            _ => return Vec::new(),
        };
        if depth > DEPTH_MAX || !self.seen.insert((is_dict, id)) {
            return Vec::new();
        }
        if is_dict { self.in_dict(id, path, depth) } else { self.in_sequence(id, path, depth) }
    }

    fn in_sequence(&mut self, id: usize, path: &str, depth: usize) -> Paths {
        let mut found = Vec::new();
        for (i, &item) in self.pickle.objects.sequences[id].iter().enumerate() {
            if found.len() < FOUND_MAX && matches!(item, Value::Dict(_) | Value::Sequence(_)) {
                found.extend(self.in_value(item, &format!("{path}[{i}]"), depth + 1));
            }
        }
        found
    }

    fn in_dict(&mut self, id: usize, path: &str, depth: usize) -> Paths {
        if self.get(id, OPTIMISER_KEY).is_some() {
            self.skipped = Some(path.into());
            return Vec::new();
        }
        let wrapped = self.wrapped(id, path, depth);
        if !wrapped.is_empty() {
            // Such as masks, or the best weights so far.
            for (skipped, _) in self.nested(id, path, depth) {
                if self.notes.len() < FOUND_MAX {
                    self.notes.push(format!("tensors under '{skipped}' are not read"));
                }
            }
            return wrapped;
        }
        let found = self.nested(id, path, depth);
        // Beside a state dict there may be the best accuracy or the weights of the classes; beside tensors, an odd
        // dict.
        let n_nested = found.iter().map(|&(_, dict)| self.n_parameters(dict)).max();
        let here = || self.pickle.objects.dicts[id].iter().any(|(_, value)| matches!(value, Value::Tensor(_)));
        match n_nested {
            Some(n) if n >= self.n_parameters(id) => found,
            None if self.n_parameters(id) == 0 && !here() => found,
            _ => vec![(path.into(), id)],
        }
    }

    /// What the dicts and lists under keys that nobody knows hold.
    fn nested(&mut self, id: usize, path: &str, depth: usize) -> Paths {
        let mut found = Vec::new();
        for &(key, value) in &self.pickle.objects.dicts[id] {
            if found.len() >= FOUND_MAX || !matches!(value, Value::Dict(_) | Value::Sequence(_)) {
                continue;
            }
            let key = self.key(key);
            let lower = key.to_lowercase();
            if OTHERS.iter().any(|other| lower.contains(other)) {
                self.skipped = Some(join(path, &key));
            } else {
                found.extend(self.in_value(value, &join(path, &key), depth + 1));
            }
        }
        found
    }

    /// What the first of the known keys of dict `id` that holds anything holds.
    fn wrapped(&mut self, id: usize, path: &str, depth: usize) -> Paths {
        let mut first: Option<(&str, Paths)> = None;
        for wrapper in WRAPPERS {
            let Some(value) = self.get(id, wrapper) else { continue };
            let found = self.in_value(value, &join(path, wrapper), depth + 1);
            match &first {
                _ if found.is_empty() => {}
                None => first = Some((wrapper, found)),
                Some(_) if self.notes.len() >= FOUND_MAX => {}
                Some((chosen, _)) => {
                    self.notes.push(format!("weights of '{chosen}'; those of '{wrapper}' are not read"))
                }
            }
        }
        first.map(|(_, found)| found).unwrap_or_default()
    }

    /// The value under `wanted`; as in Python, the last of several.
    fn get(&self, id: usize, wanted: &str) -> Option<Value> {
        let mut items = self.pickle.objects.dicts[id].iter().rev();
        items.find(|&&(key, _)| self.pickle.str(key) == Some(wanted)).map(|&(_, value)| value)
    }

    /// How many tensors in dict `id` may be parameters: numbers with a fraction, of at least one dimension.
    fn n_parameters(&self, id: usize) -> usize {
        let may_be = |&&(_, value): &&(Value, Value)| match value {
            Value::Tensor(id) => {
                let tensor = &self.pickle.objects.tensors[id];
                !tensor.shape.is_empty() && !matches!(tensor.storage.element, Element::Other(..))
            }
            Value::Odd(_) => true,
            _ => false,
        };
        self.pickle.objects.dicts[id].iter().filter(may_be).count()
    }

    fn key(&self, key: Value) -> String {
        match (key, self.pickle.str(key)) {
            (_, Some(text)) => text.escape_debug().collect(),
            (Value::Int(n), _) => n.to_string(),
            (other, _) => format!("({})", other.kind()),
        }
    }

    /// Why nothing was found.
    fn nothing(&self) -> String {
        let advice = "save model.state_dict()";
        let id = match self.pickle.root {
            Value::Dict(id) => id,
            Value::Sequence(id) => {
                let items = &self.pickle.objects.sequences[id];
                let holds = if items.iter().any(|item| matches!(item, Value::Tensor(_))) {
                    "tensors without names"
                } else {
                    "no tensor"
                };
                return format!(
                    "expected a dict of tensors by name, got a tuple or list, which holds {holds}; {advice}"
                );
            }
            other => return format!("expected a dict of tensors by name, got {}; {advice}", other.kind()),
        };
        let items = &self.pickle.objects.dicts[id];
        if items.iter().any(|(_, value)| *value == Value::NumpyArray) {
            return format!("it holds no tensor, but numpy arrays; save tensors (torch.from_numpy), or {advice}");
        }
        if let Some(key) = &self.skipped {
            return format!("it holds no tensor but those of '{key}', which are no parameters; {advice}");
        }
        let keys: Vec<String> = items.iter().take(KEYS_SHOWN).map(|&(key, _)| format!("'{}'", self.key(key))).collect();
        match keys.is_empty() {
            true => format!("it holds no tensor; {advice}"),
            false => format!("it holds no tensor under its keys {}; {advice}", keys.join(", ")),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
