//! What is said about a pickle that asks for something which is neither a tensor nor a plain value.

use crate::FileProblem;
use crate::pickle::value::{Value, name};

/// So many bytes behind the name of its class, the state of a module has begun.
const LOOK_AHEAD_BYTES: usize = 4096;
/// Attributes that every module of torch has.
const MODULE_ATTRIBUTES: [&[u8]; 2] = [b"_parameters", b"_modules"];
/// Classes that torch's optimisers and schedulers are.
const OPTIMISERS: &str = "torch.optim.";

/// The refusal of `global`, whose name ends at byte `at` and which would go on the stack.
pub(super) fn refuse(bytes: &[u8], at: usize, stack: &[Value], global: &str) -> FileProblem {
    let global: String = global.escape_debug().collect();
    let holder = match stack.last() {
        // torch before 1.6 puts the source of a module's class beside it: ('module', class, file, source).
        Some(&value) => {
            name(bytes, value).filter(|&key| key != "module").map(|key| key.escape_debug().collect::<String>())
        }
        None => None,
    };
    if is_module(&bytes[at.min(bytes.len())..]) && !global.starts_with(OPTIMISERS) {
        return FileProblem::WholeModule { class: global, holder: at_key(holder) };
    }
    FileProblem::ForbiddenGlobal { global, holder: at_key(holder) }
}

/// ` under key 'model'`, or nothing for what the file itself is.
fn at_key(holder: Option<String>) -> String {
    holder.map_or(String::new(), |key| format!(" under key '{key}'"))
}

fn is_module(behind: &[u8]) -> bool {
    let behind = &behind[..behind.len().min(LOOK_AHEAD_BYTES)];
    MODULE_ATTRIBUTES.iter().any(|attribute| behind.windows(attribute.len()).any(|window| window == *attribute))
}
