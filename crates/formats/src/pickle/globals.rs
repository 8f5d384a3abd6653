//! The names a state dict may mention. Everything else is refused by name before anything is built.

use crate::Problem;
use crate::element::Element;

/// What an allowed name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)` and its predecessor
    RebuildTensor,
    /// `torch._utils._rebuild_parameter(tensor, …)`
    RebuildParameter,
    /// `torch.Size(dimensions)`
    Size,
    /// `torch.device(…)`, which is ignored
    Device,
    /// `torch.float32` and the like, which are ignored
    Dtype,
    /// `torch.FloatStorage` and the like
    Storage(Element),
}

impl Global {
    /// The meaning of `module.name`.
    ///
    /// # Errors
    /// [`Problem::ForbiddenGlobal`] when it is not on the list.
    pub(crate) fn resolve(module: &str, name: &str) -> Result<Self, Problem> {
        let found = match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", "Size") => Some(Self::Size),
            ("torch", "device") => Some(Self::Device),
            ("torch", "float64" | "float32" | "float16" | "bfloat16" | "int64" | "int32" | "uint8" | "bool") => {
                Some(Self::Dtype)
            }
            ("torch", name) => storage_element(name).map(Self::Storage),
            _ => None,
        };
        found.ok_or_else(|| Problem::ForbiddenGlobal { global: format!("{module}.{name}").escape_debug().collect() })
    }
}

fn storage_element(name: &str) -> Option<Element> {
    Some(match name {
        "DoubleStorage" => Element::F64,
        "FloatStorage" => Element::F32,
        "HalfStorage" => Element::F16,
        "BFloat16Storage" => Element::Bf16,
        "LongStorage" => Element::Integer("I64", 8),
        "IntStorage" => Element::Integer("I32", 4),
        "ShortStorage" => Element::Integer("I16", 2),
        "CharStorage" => Element::Integer("I8", 1),
        "ByteStorage" => Element::Integer("U8", 1),
        "BoolStorage" => Element::Integer("BOOL", 1),
        _ => return None,
    })
}
