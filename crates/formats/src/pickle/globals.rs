//! The names a checkpoint may mention. Everything else is refused by name before anything is built.
//!
//! On the list is what `torch.load(weights_only=True)` knows, and the plain values of Python and numpy that people keep
//! beside their weights. No name runs anything: a name that is not about tensors or containers stands for a value
//! nobody looks into.

use crate::element::Element;

/// What an allowed name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    /// `collections.OrderedDict` and other dicts, with or without something to begin with
    Dict,
    /// `collections.deque` and other lists
    List,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)` and its predecessor
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3(storage of bytes, offset, size, stride, grad, hooks, dtype, …)`
    RebuildTensorOfBytes,
    /// `torch._utils._rebuild_parameter(tensor, …)` and others that give their first argument back
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2(function, type, arguments, state)`
    RebuildFromType,
    /// A tensor that is none of plain numbers
    RebuildOdd(OddTensor),
    /// `numpy.core.multiarray._reconstruct(…)`
    NumpyArray,
    /// `torch.Size(dimensions)`
    Size,
    /// `torch.float32` and the like
    Dtype(Element),
    /// `torch.FloatStorage` and the like
    Storage(Element),
    /// Whatever is made with it is of no use here: `numpy.float64`, `set`, `argparse.Namespace`, `torch.device`, …
    Plain,
}

/// Kinds of tensors that are recognised and not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OddTensor {
    Quantised,
    Sparse,
    Meta,
    Subclass,
    Device,
    Ancient,
    View,
}

impl OddTensor {
    /// What it is, and what to do about it.
    pub(crate) const fn explain(self) -> (&'static str, &'static str) {
        match self {
            Self::Quantised => {
                ("is quantised", "save the network as it was before quantisation, or its dequantize()d tensors")
            }
            Self::Sparse => ("is sparse", "save it as a dense tensor (to_dense())"),
            Self::Meta => ("has no elements (device meta)", "save the network with its weights loaded"),
            Self::Subclass => ("is of a subclass of Tensor without elements of its own", "save plain tensors"),
            Self::Device => ("is kept in the way of a device of its own", "save it from the processor (cpu())"),
            Self::View => (
                "has its negative or conjugate bit set, so that its elements are not those that are stored",
                "save what resolve_neg() and resolve_conj() make of it",
            ),
            Self::Ancient => ("was saved by a torch of before 2017", "load it and save its state_dict() again"),
        }
    }
}

impl Global {
    /// The meaning of `module.name`, or `None` when it is not on the list.
    pub(crate) fn resolve(module: &str, name: &str) -> Option<Self> {
        match module {
            "torch" | "torch.cuda" | "torch.storage" => torch(name),
            "torch._utils" => torch_utils(name),
            "torch._tensor" => (name == "_rebuild_from_type_v2").then_some(Self::RebuildFromType),
            "torch.nn.parameter" => match name {
                "Parameter" | "Buffer" => Some(Self::RebuildParameter),
                _ => None,
            },
            "torch.serialization" => matches!(name, "_get_layout").then_some(Self::Plain),
            "collections" => match name {
                "OrderedDict" | "Counter" | "defaultdict" => Some(Self::Dict),
                "deque" => Some(Self::List),
                _ => None,
            },
            // Python 2, and Python 3 for its sake under protocol 2, says `__builtin__`.
            "builtins" | "__builtin__" => builtin(name),
            _ if module == "numpy" || module.starts_with("numpy.") => numpy(module, name),
            _ => is_plain(module, name).then_some(Self::Plain),
        }
    }

    /// Whether it makes a tensor of the arguments themselves.
    pub(crate) const fn makes_a_tensor(self) -> bool {
        matches!(self, Self::RebuildTensor | Self::RebuildTensorOfBytes | Self::RebuildParameter | Self::RebuildOdd(_))
    }
}

fn torch(name: &str) -> Option<Global> {
    let storage = name.strip_suffix("Storage").and_then(storage_element).map(Global::Storage);
    let dtype = || dtype_element(name).map(Global::Dtype);
    let other = || match name {
        "Size" => Some(Global::Size),
        "device" | "Tensor" | "Generator" | "strided" | "sparse_coo" => Some(Global::Plain),
        "contiguous_format" | "preserve_format" | "channels_last" | "channels_last_3d" => Some(Global::Plain),
        _ if name.starts_with("per_tensor_") || name.starts_with("per_channel_") => Some(Global::Plain),
        _ => name.strip_suffix("Tensor").and_then(storage_element).map(|_| Global::RebuildOdd(OddTensor::Ancient)),
    };
    storage.or_else(dtype).or_else(other)
}

fn torch_utils(name: &str) -> Option<Global> {
    Some(match name {
        "_rebuild_tensor_v2" | "_rebuild_tensor" => Global::RebuildTensor,
        "_rebuild_tensor_v3" => Global::RebuildTensorOfBytes,
        "_rebuild_parameter" | "_rebuild_parameter_with_state" | "_rebuild_device_tensor_from_cpu_tensor" => {
            Global::RebuildParameter
        }
        "_rebuild_qtensor" => Global::RebuildOdd(OddTensor::Quantised),
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => Global::RebuildOdd(OddTensor::Sparse),
        "_rebuild_meta_tensor_no_storage" => Global::RebuildOdd(OddTensor::Meta),
        "_rebuild_wrapper_subclass" => Global::RebuildOdd(OddTensor::Subclass),
        "_rebuild_device_tensor_from_numpy" => Global::RebuildOdd(OddTensor::Device),
        _ => return None,
    })
}

fn builtin(name: &str) -> Option<Global> {
    Some(match name {
        "dict" => Global::Dict,
        "list" | "tuple" => Global::List,
        "set" | "frozenset" | "bytes" | "bytearray" | "complex" | "int" | "long" | "float" | "bool" | "str"
        | "unicode" | "range" | "xrange" | "slice" | "object" => Global::Plain,
        _ => return None,
    })
}

fn numpy(module: &str, name: &str) -> Option<Global> {
    match module {
        "numpy.core.multiarray" | "numpy._core.multiarray" => match name {
            "scalar" => Some(Global::Plain),
            "_reconstruct" => Some(Global::NumpyArray),
            _ => None,
        },
        "numpy.core.numeric" | "numpy._core.numeric" => (name == "_frombuffer").then_some(Global::NumpyArray),
        "numpy.dtypes" => name.ends_with("DType").then_some(Global::Plain),
        "numpy" => {
            // `int64`, `float32`, `bool_`, …: a type's name, followed by its width or nothing.
            let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
            let types = [
                "dtype",
                "ndarray",
                "int",
                "uint",
                "float",
                "complex",
                "bool",
                "str",
                "bytes",
                "datetime",
                "timedelta",
            ];
            types.contains(&kind).then_some(Global::Plain)
        }
        _ => None,
    }
}

/// Classes of the standard library whose instances are plain values.
fn is_plain(module: &str, name: &str) -> bool {
    match module {
        "_codecs" => name == "encode",
        "copyreg" | "copy_reg" => name == "_reconstructor",
        "argparse" => name == "Namespace",
        "types" => name == "SimpleNamespace",
        "datetime" => matches!(name, "datetime" | "date" | "time" | "timedelta" | "timezone"),
        "pathlib" | "pathlib._local" => name.ends_with("Path"),
        "decimal" => name == "Decimal",
        "fractions" => name == "Fraction",
        "uuid" => name == "UUID",
        _ => false,
    }
}

/// Elements of the storage class `<kind>Storage`.
fn storage_element(kind: &str) -> Option<Element> {
    Some(match kind {
        "Double" => Element::F64,
        "Float" => Element::F32,
        "Half" => Element::F16,
        "BFloat16" => Element::Bf16,
        "Long" => Element::Other("I64", 8),
        "Int" => Element::Other("I32", 4),
        "Short" => Element::Other("I16", 2),
        "Char" => Element::Other("I8", 1),
        "Byte" => Element::Other("U8", 1),
        "Bool" => Element::Other("BOOL", 1),
        "Untyped" => Element::Other("bytes", 1),
        "ComplexFloat" => Element::Other("C64", 8),
        "ComplexDouble" => Element::Other("C128", 16),
        "QInt8" | "QUInt8" => Element::Other("quantised 8-bit integers", 1),
        "QInt32" => Element::Other("quantised 32-bit integers", 4),
        "QUInt4x2" | "QUInt2x4" => Element::Other("quantised 4-bit or 2-bit integers", 1),
        _ => return None,
    })
}

/// Elements of type `torch.<name>`.
fn dtype_element(name: &str) -> Option<Element> {
    Some(match name {
        "float64" | "double" => Element::F64,
        "float32" | "float" => Element::F32,
        "float16" | "half" => Element::F16,
        "bfloat16" => Element::Bf16,
        "int64" | "long" => Element::Other("I64", 8),
        "int32" | "int" => Element::Other("I32", 4),
        "int16" | "short" => Element::Other("I16", 2),
        "int8" => Element::Other("I8", 1),
        "uint64" => Element::Other("U64", 8),
        "uint32" => Element::Other("U32", 4),
        "uint16" => Element::Other("U16", 2),
        "uint8" => Element::Other("U8", 1),
        "bool" => Element::Other("BOOL", 1),
        "complex32" => Element::Other("C32", 4),
        "complex64" => Element::Other("C64", 8),
        "complex128" => Element::Other("C128", 16),
        "qint32" => Element::Other("quantised 32-bit integers", 4),
        "qint8" | "quint8" | "quint4x2" | "quint2x4" => Element::Other("quantised integers", 1),
        _ if name.starts_with("float8_") => Element::Other("floats of 8 bits", 1),
        _ if name.starts_with("float4_") => Element::Other("floats of 4 bits", 1),
        _ if is_narrow_integer(name) => Element::Other("integers of less than 8 bits", 1),
        _ => return None,
    })
}

/// `int1` to `int7`, `uint1` to `uint7`, `bits8` and the like.
fn is_narrow_integer(name: &str) -> bool {
    let width = name.strip_prefix("uint").or_else(|| name.strip_prefix("int"));
    width.is_some_and(|w| matches!(w, "1" | "2" | "3" | "4" | "5" | "6" | "7")) || name.starts_with("bits")
}
