//! Element-wise functions as graph files write them: `"Relu"`, `{"LeakyRelu": {"slope": 0.1}}`.

use crate::Pointwise;
use crate::graph_fields::{Fields, Refusal};
use crate::graph_tree::Tree;

/// Functions without parameters.
const PLAIN: [(&str, Pointwise); 15] = [
    ("Relu", Pointwise::Relu),
    ("Relu6", Pointwise::Relu6),
    ("Sigmoid", Pointwise::Sigmoid),
    ("Tanh", Pointwise::Tanh),
    ("Silu", Pointwise::Silu),
    ("HardSwish", Pointwise::HardSwish),
    ("Softplus", Pointwise::Softplus),
    ("Mish", Pointwise::Mish),
    ("Exp", Pointwise::Exp),
    ("Sqrt", Pointwise::Sqrt),
    ("Abs", Pointwise::Abs),
    ("Neg", Pointwise::Neg),
    ("Erf", Pointwise::Erf),
    ("Log", Pointwise::Log),
    ("Reciprocal", Pointwise::Reciprocal),
];
/// Functions with parameters, and their keys.
const WITH_KEYS: [(&str, &[&str]); 6] = [
    ("LeakyRelu", &["slope"]),
    ("HardSigmoid", &["alpha", "beta"]),
    ("Affine", &["scale", "shift"]),
    ("Clip", &["min", "max"]),
    ("Gelu", &["tanh"]),
    ("Elu", &["alpha"]),
];

/// The function of the node `at`.
pub fn function(at: &str, body: Tree) -> Result<Pointwise, Refusal> {
    let refused = |got: &Tree| {
        let plain = PLAIN.map(|(name, _)| name.to_owned());
        let with_keys = WITH_KEYS.map(|(name, keys)| format!("{{{name}: {{{}}}}}", keys.join(", ")));
        let known = [&plain[..], &with_keys].concat().join(", ");
        Refusal::of_key(at, "Pointwise", format!("expected one of {known}, got {got}"))
    };
    match body {
        Tree::Text(ref name) => {
            let found = PLAIN.iter().find(|(known, _)| known == name).map(|(_, function)| *function);
            found.ok_or_else(|| refused(&body))
        }
        Tree::Map(mut entries) if entries.len() == 1 => {
            let found = WITH_KEYS.iter().find(|(known, _)| *known == entries[0].0);
            let Some(&(name, keys)) = found else { return Err(refused(&Tree::Map(entries))) };
            with_keys(name, Fields::new(format!("{at}: {name}"), entries.remove(0).1, keys)?)
        }
        other => Err(refused(&other)),
    }
}

fn with_keys(name: &str, mut fields: Fields) -> Result<Pointwise, Refusal> {
    Ok(match name {
        "LeakyRelu" => Pointwise::LeakyRelu { slope: fields.number("slope")? },
        "HardSigmoid" => Pointwise::HardSigmoid { alpha: fields.number("alpha")?, beta: fields.number("beta")? },
        "Affine" => Pointwise::Affine { scale: fields.number("scale")?, shift: fields.number("shift")? },
        "Gelu" => Pointwise::Gelu { tanh: fields.flag("tanh")? },
        "Elu" => Pointwise::Elu { alpha: fields.number("alpha")? },
        _ => Pointwise::Clip {
            min: fields.number_or("min", f32::NEG_INFINITY)?,
            max: fields.number_or("max", f32::INFINITY)?,
        },
    })
}
