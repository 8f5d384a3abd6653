//! The image that a document reads.

use secateur_net::Shape;

use super::{Layout, checked};
use crate::OnnxError;
use crate::document::OnnxDocument;
use crate::facts::{Facts, InputShape};
use crate::schema::tensor_proto::DataType;
use crate::schema::{ValueInfoProto, type_proto};

/// How many names of inputs a message lists.
const NAMES_SHOWN: usize = 5;

/// The one input that a network of images has.
pub fn only_input<'f>(document: &OnnxDocument, facts: &'f Facts) -> Result<&'f InputShape, OnnxError> {
    let graph = document.graph();
    if graph.node.is_empty() {
        return Err(OnnxError::graph("has no node: there is nothing to compute or to prune"));
    }
    let input = match facts.inputs() {
        [input] => input,
        [] => return Err(OnnxError::graph("has no input; networks of one image are computed: export it again")),
        inputs => {
            let names: Vec<String> = inputs.iter().take(NAMES_SHOWN).map(|input| format!("'{}'", input.name)).collect();
            let n = inputs.len();
            return Err(OnnxError::graph(format!(
                "has {n} inputs ({}); networks of one image are computed: export it with the others as constants",
                names.join(", ")
            )));
        }
    };
    let declared = graph.input.iter().find(|value| value.name() == input.name).and_then(element_type);
    match declared {
        Some(kind) if !is_fractional(kind) => {
            let (name, kind) = (&input.name, DataType::try_from(kind).map_or("unknown", |kind| kind.as_str_name()));
            Err(OnnxError::graph(format!(
                "has an input '{name}' of type {kind}; images of floating point are computed: export it with such an input"
            )))
        }
        _ => Ok(input),
    }
}

fn element_type(value: &ValueInfoProto) -> Option<i32> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.elem_type.filter(|&kind| kind != 0),
        _ => None,
    }
}

fn is_fractional(kind: i32) -> bool {
    let known = DataType::try_from(kind);
    matches!(known, Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16))
}

/// An input's shape without the batch, and where its channels lie.
pub fn image(input: &InputShape) -> Result<(Shape, Layout), OnnxError> {
    let InputShape { name, shape, .. } = input;
    let (image, layout) = match *shape.as_slice() {
        [_, h, w, c] if input.channel_axis() == 3 => (Shape { c, h, w }, Layout::ChannelsLast),
        [_, c, h, w] => (Shape { c, h, w }, Layout::Image),
        [_, c] => (Shape { c, h: 1, w: 1 }, Layout::Flat),
        _ => {
            return Err(OnnxError::graph(format!(
                "has an input '{name}' of shape {shape:?}; networks of images are computed, of a batch, channels, rows and \
                 columns, or of a batch and features"
            )));
        }
    };
    let image = checked(image).map_err(|problem| OnnxError::graph(format!("has an input '{name}' that {problem}")))?;
    Ok((image, layout))
}
