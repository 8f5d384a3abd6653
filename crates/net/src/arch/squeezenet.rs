//! SqueezeNet (Iandola et al. 2016), both versions of torchvision: they differ in the stem and in where pools stand,
//! which the numbers of the modules in `features` tell.

use super::sketch::{Drawn, ParameterShapes, Reading, Sketch, malformed};
use crate::{NetError, Op, Window};

/// More modules than any such sequence has.
const MODULES_MAX: usize = 256;

pub(super) fn is_told_by(shapes: &ParameterShapes) -> bool {
    shapes.contains_key("features.0.weight")
        && shapes.contains_key("features.3.squeeze.weight")
        && shapes.get("classifier.1.weight").is_some_and(|w| w.len() == 4)
}

pub(super) fn draw(sketch: &mut Sketch) -> Result<Reading, NetError> {
    let x = sketch.padded_conv("features.0", 2, [0; 2], sketch.image())?;
    let mut x = sketch.relu("features.1", x)?;
    let is_fire = |i: &usize| sketch.has(&format!("features.{i}.squeeze.weight"));
    let fires: Vec<usize> = (2..MODULES_MAX).filter(is_fire).collect();
    let mut next = 2;
    for at in fires {
        if at > next + 1 {
            return Err(malformed("features", format!("expected a pool or nothing from place {next} to {at}")));
        }
        if at == next + 1 {
            let window = Window { ceil: true, ..Window::new([3; 2], [2; 2], [0; 2]) };
            x = sketch.push(&format!("features.{next}"), Op::MaxPool(window), &[x])?;
        }
        x = fire(sketch, &format!("features.{at}"), x)?;
        next = at + 1;
    }
    let x = sketch.padded_conv("classifier.1", 1, [0; 2], x)?;
    let x = sketch.relu("classifier.2", x)?;
    sketch.push("classifier.3", Op::GlobalAvgPool, &[x])?;
    let [_, _, kernel, _] = sketch.filters("features.0")?;
    Ok(Reading { name: format!("squeezenet1_{}", u8::from(kernel == 3)), assumption: None })
}

/// A 1x1 convolution, then one of 1x1 and one of 3x3 side by side.
fn fire(sketch: &mut Sketch, name: &str, x: Drawn) -> Result<Drawn, NetError> {
    let mut unit = |part: &str, x: Drawn| {
        let x = sketch.conv(&format!("{name}.{part}"), 1, x)?;
        sketch.relu(&format!("{name}.{part}_activation"), x)
    };
    let squeezed = unit("squeeze", x)?;
    let expanded = [unit("expand1x1", squeezed)?, unit("expand3x3", squeezed)?];
    sketch.push(&format!("{name}.concat"), Op::Concat, &expanded)
}
