//! What pickled values refer to: sequences, dicts, storages, tensors. Building them reads numbers and names only.

use crate::element::Element;
use crate::pickle::globals::{Global, OddTensor};
use crate::pickle::value::{Span, Value, name};

/// Dimensions of a tensor; convolutions have 4.
const MAX_DIMENSIONS: usize = 8;

/// A run of elements somewhere in the file, named by its key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StorageRef {
    /// Name of the storage, unique in its file.
    pub(crate) key: Span,
    /// Type of its elements.
    pub(crate) element: Element,
    /// Number of elements of the whole storage.
    pub(crate) n_elements: usize,
    /// First element of the part meant here (views of torch 0.x; otherwise 0).
    pub(crate) start: usize,
    /// Elements of that part (otherwise all).
    pub(crate) length: usize,
}

impl StorageRef {
    /// Bytes of the whole storage, unless that is beyond memory.
    pub(crate) fn n_bytes(&self) -> Option<usize> {
        self.n_elements.checked_mul(self.element.size())
    }

    /// A storage of bytes as one of `element`.
    fn of(self, element: Element) -> Result<Self, String> {
        let size = element.size();
        let fits = [self.n_elements, self.start, self.length].iter().all(|n| n.is_multiple_of(size));
        if self.element.size() != 1 || !fits {
            return Err(format!("{} storage elements cannot be read as elements of {size} bytes", self.n_elements));
        }
        let [n_elements, start, length] = [self.n_elements, self.start, self.length].map(|n| n / size);
        Ok(Self { key: self.key, element, n_elements, start, length })
    }
}

/// A tensor as strides over a storage, unchecked against it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorRef {
    /// Where its elements are.
    pub(crate) storage: StorageRef,
    /// First element, from the start of the storage's part.
    pub(crate) offset: usize,
    /// Dimensions.
    pub(crate) shape: Vec<usize>,
    /// Distance in elements between neighbours along each dimension.
    pub(crate) stride: Vec<usize>,
}

/// Arenas of one pickle. Indices in a [`Value`] were handed out here and stay valid: nothing is ever removed.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) sequences: Vec<Vec<Value>>,
    pub(crate) dicts: Vec<Vec<(Value, Value)>>,
    pub(crate) storages: Vec<StorageRef>,
    pub(crate) tensors: Vec<TensorRef>,
}

impl Objects {
    pub(crate) fn new_sequence(&mut self, items: Vec<Value>) -> Value {
        self.sequences.push(items);
        Value::Sequence(self.sequences.len() - 1)
    }

    pub(crate) fn new_dict(&mut self) -> Value {
        self.dicts.push(Vec::new());
        Value::Dict(self.dicts.len() - 1)
    }

    /// Items that [`Objects::apply`] will copy: those of the list a dict is made from.
    pub(crate) fn n_copied_by(&self, global: Global, arguments: usize) -> usize {
        match (global, self.sequences[arguments].as_slice()) {
            (Global::Dict, [Value::Sequence(pairs)]) => self.sequences[*pairs].len(),
            _ => 0,
        }
    }

    /// What the global makes of its arguments.
    pub(crate) fn apply(&mut self, global: Global, arguments: usize) -> Result<Value, String> {
        match (global, self.sequences[arguments].as_slice()) {
            (Global::Plain, _) => Ok(Value::Opaque),
            (Global::NumpyArray, _) => Ok(Value::NumpyArray),
            (Global::RebuildOdd(odd), _) => Ok(Value::Odd(odd)),
            // What a dict begins with may come behind a default for missing keys.
            (Global::Dict, &[begin @ Value::Dict(_)] | &[_, begin @ Value::Dict(_)]) => Ok(begin),
            (Global::Dict, &[Value::Sequence(pairs)]) => self.dict_of_pairs(pairs),
            (Global::Dict, [] | [_]) => Ok(self.new_dict()),
            (Global::List | Global::Size, &[items @ Value::Sequence(_), ..]) => Ok(items),
            (Global::List, _) => Ok(self.new_sequence(Vec::new())),
            // Behind the hooks stands what sets a tensor apart from its storage: the bits of lazy views, written only
            // where one is set.
            (Global::RebuildTensor, &[_, _, _, _, _, _, Value::Dict(marks), ..]) if !self.dicts[marks].is_empty() => {
                Ok(Value::Odd(OddTensor::View))
            }
            (
                Global::RebuildTensor,
                &[Value::Storage(storage), offset, Value::Sequence(shape), Value::Sequence(stride), ..],
            ) => self.new_tensor(self.storages[storage], [offset, Value::Sequence(shape), Value::Sequence(stride)]),
            (
                Global::RebuildTensorOfBytes,
                &[
                    Value::Storage(storage),
                    offset,
                    shape,
                    stride,
                    _grad,
                    _hooks,
                    Value::Global(Global::Dtype(dtype)),
                    ..,
                ],
            ) => self.new_tensor(self.storages[storage].of(dtype)?, [offset, shape, stride]),
            (Global::RebuildParameter, &[tensor @ (Value::Tensor(_) | Value::Odd(_)), ..]) => Ok(tensor),
            // An empty `Parameter()`, such as the class itself stands for.
            (Global::RebuildParameter, []) => Ok(Value::Opaque),
            (Global::RebuildFromType, &[Value::Global(function), _type, Value::Sequence(arguments), ..])
                if function.makes_a_tensor() =>
            {
                self.apply(function, arguments)
            }
            (global, arguments) => Err(format!("{global:?} cannot be applied to {} such arguments", arguments.len())),
        }
    }

    fn dict_of_pairs(&mut self, pairs: usize) -> Result<Value, String> {
        let pair = |value: &Value| match value {
            Value::Sequence(id) => <[Value; 2]>::try_from(self.sequences[*id].as_slice()).ok().map(|[k, v]| (k, v)),
            _ => None,
        };
        let pairs = self.sequences[pairs].iter().map(pair).collect::<Option<Vec<_>>>();
        self.dicts.push(pairs.ok_or("OrderedDict expects pairs")?);
        Ok(Value::Dict(self.dicts.len() - 1))
    }

    /// A tensor over `storage` from `[offset, shape, stride]`.
    fn new_tensor(&mut self, storage: StorageRef, [offset, shape, stride]: [Value; 3]) -> Result<Value, String> {
        let (shape, stride) = (self.dimensions(shape)?, self.dimensions(stride)?);
        if shape.len() != stride.len() {
            return Err(format!("a tensor with {} dimensions and {} strides", shape.len(), stride.len()));
        }
        self.tensors.push(TensorRef { storage, offset: count(offset)?, shape, stride });
        Ok(Value::Tensor(self.tensors.len() - 1))
    }

    fn dimensions(&self, sequence: Value) -> Result<Vec<usize>, String> {
        let Value::Sequence(sequence) = sequence else {
            return Err(format!("expected dimensions, got {}", sequence.kind()));
        };
        let items = &self.sequences[sequence];
        if items.len() > MAX_DIMENSIONS {
            return Err(format!("expected at most {MAX_DIMENSIONS} dimensions, got {}", items.len()));
        }
        items.iter().map(|&item| count(item)).collect()
    }

    /// The storage that a persistent id `('storage', type, key, location, n_elements[, view])` names.
    pub(crate) fn storage(&mut self, bytes: &[u8], id: Value) -> Result<Value, String> {
        let items = match id {
            Value::Sequence(id) => self.sequences[id].as_slice(),
            _ => &[],
        };
        let [kind, Value::Global(Global::Storage(element)), Value::Str(key), _location, n_elements, view @ ..] = items
        else {
            return Err("expected ('storage', type, key, location, size) as persistent id".into());
        };
        if name(bytes, *kind) != Some("storage") || name(bytes, Value::Str(*key)).is_none() {
            return Err("expected a storage with a readable key as persistent id".into());
        }
        let n_elements = count(*n_elements)?;
        let (start, length) = match view {
            [Value::Sequence(view)] => self.view(*view)?,
            _ => (0, n_elements),
        };
        if start.checked_add(length).is_none_or(|end| end > n_elements) {
            return Err(format!("a view of {length} elements from {start} exceeds its storage of {n_elements}"));
        }
        self.storages.push(StorageRef { key: *key, element: *element, n_elements, start, length });
        Ok(Value::Storage(self.storages.len() - 1))
    }

    /// `(view key, offset, size)`, as torch 0.x wrote it.
    fn view(&self, view: usize) -> Result<(usize, usize), String> {
        match self.sequences[view].as_slice() {
            &[_key, offset, size] => Ok((count(offset)?, count(size)?)),
            _ => Err("expected (key, offset, size) as view of a storage".into()),
        }
    }
}

fn count(value: Value) -> Result<usize, String> {
    match value {
        Value::Int(n) => usize::try_from(n).map_err(|_| format!("expected a count, got {n}")),
        other => Err(format!("expected a count, got {}", other.kind())),
    }
}
