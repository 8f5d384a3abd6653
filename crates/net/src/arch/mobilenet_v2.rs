//! MobileNetV2 (Sandler et al. 2018) as torchvision names it.

use super::sketch::{Drawn, ParameterShapes, Reading, Sketch, malformed};
use crate::{NetError, Op, Pointwise};

/// Strides of the blocks, which no shape tells (table 2 of the paper).
const STRIDES: [usize; 17] = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1];

pub(super) fn is_told_by(shapes: &ParameterShapes) -> bool {
    ["features.0.0.weight", "features.1.conv.0.0.weight", "features.18.0.weight", "classifier.1.weight"]
        .iter()
        .all(|name| shapes.contains_key(name))
}

pub(super) fn draw(sketch: &mut Sketch) -> Result<Reading, NetError> {
    let mut x = conv_norm_relu6(sketch, "features.0", 2, sketch.image())?;
    for (i, stride) in STRIDES.into_iter().enumerate() {
        x = block(sketch, &format!("features.{}", i + 1), stride, x)?;
    }
    let x = conv_norm_relu6(sketch, "features.18", 1, x)?;
    sketch.classify("classifier.1", x)?;
    let assumption =
        "strides as in torchvision, 32 pixels to one: variants for small images have the same parameters with smaller \
                      strides, and must be exported to ONNX"
            .to_owned();
    Ok(Reading { name: "mobilenet_v2".into(), assumption: Some(assumption) })
}

fn conv_norm_relu6(sketch: &mut Sketch, name: &str, stride: usize, x: Drawn) -> Result<Drawn, NetError> {
    let x = sketch.conv(&format!("{name}.0"), stride, x)?;
    let x = sketch.norm(&format!("{name}.1"), x)?;
    sketch.push(&format!("{name}.2"), Op::Pointwise(Pointwise::Relu6), &[x])
}

/// An inverted residual: 1x1 to more channels (not in the first block), 3x3 depthwise, 1x1 back, and the input where
/// the shapes are the same.
fn block(sketch: &mut Sketch, name: &str, stride: usize, x: Drawn) -> Result<Drawn, NetError> {
    let part = |i: usize| format!("{name}.conv.{i}");
    let (mut inner, mut next) = (x, 0);
    if sketch.has(&format!("{}.0.weight", part(1))) {
        inner = conv_norm_relu6(sketch, &part(0), 1, inner)?;
        next = 1;
    }
    inner = conv_norm_relu6(sketch, &part(next), stride, inner)?;
    inner = sketch.conv(&part(next + 1), 1, inner)?;
    inner = sketch.norm(&part(next + 2), inner)?;
    match (stride, inner.shape == x.shape) {
        (1, true) => sketch.push(&format!("{name}.add"), Op::Add, &[x, inner]),
        (1, false) if inner.channels() == x.channels() => {
            Err(malformed(name, format!("expected {} of {} again, got {}", x.shape, x.shape, inner.shape)))
        }
        _ => Ok(inner),
    }
}
