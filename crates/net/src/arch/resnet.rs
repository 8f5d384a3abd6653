//! Residual networks as torchvision names them (He et al. 2016; ResNeXt, Wide ResNet), and as programs for CIFAR do:
//! `shortcut` for `downsample`, `linear` for `fc`, any number of stages.

use super::sketch::{Drawn, ParameterShapes, Reading, Sketch, malformed};
use crate::{NetError, Op};

/// What the Linear layer at the end, and the projections of shortcuts, are called.
const CLASSIFIERS: [&str; 2] = ["fc", "linear"];
const SHORTCUTS: [&str; 2] = ["downsample", "shortcut"];

pub(super) fn is_told_by(shapes: &ParameterShapes) -> bool {
    let has = |name: &str| shapes.contains_key(name);
    has("conv1.weight")
        && has("bn1.running_var")
        && has("layer1.0.conv1.weight")
        && has("layer1.0.bn1.running_var")
        && CLASSIFIERS.iter().any(|name| has(&format!("{name}.weight")))
}

pub(super) fn draw(sketch: &mut Sketch) -> Result<Reading, NetError> {
    let (mut x, mut assumptions) = stem(sketch)?;
    let has = |sketch: &Sketch, block: &str| sketch.has(&format!("{block}.conv1.weight"));
    let mut n_layers = 2;
    for stage in 1.. {
        let first = format!("layer{stage}.0");
        if !has(sketch, &first) {
            break;
        }
        for block in
            (0..).map(|i| format!("layer{stage}.{i}")).take_while(|block| has(sketch, block)).collect::<Vec<_>>()
        {
            let stride = if stage > 1 && block == first { 2 } else { 1 };
            n_layers += if is_bottleneck(sketch, &block) { 3 } else { 2 };
            x = residual(sketch, &block, stride, x)?;
        }
    }
    let classifier = CLASSIFIERS.into_iter().find(|name| sketch.has(&format!("{name}.weight"))).unwrap_or("fc");
    sketch.classify(classifier, x)?;
    if is_bottleneck(sketch, "layer1.0") {
        assumptions.push("strides of 2 in the 3x3 convolutions of blocks".into());
    }
    let assumption = (!assumptions.is_empty()).then(|| format!("{}, as usual", assumptions.join("; ")));
    Ok(Reading { name: name(sketch, n_layers)?, assumption })
}

fn is_bottleneck(sketch: &Sketch, block: &str) -> bool {
    sketch.has(&format!("{block}.conv3.weight"))
}

/// Everything before the first block, and what had to be assumed of it.
fn stem(sketch: &mut Sketch) -> Result<(Drawn, Vec<String>), NetError> {
    let [_, _, rows, cols] = sketch.filters("conv1")?;
    let is_small = match [rows, cols] {
        [3, 3] => true,
        [7, 7] => false,
        kernel => return Err(malformed("conv1", format!("expected a kernel of 3x3 or 7x7, got {kernel:?}"))),
    };
    let x = sketch.conv("conv1", if is_small { 1 } else { 2 }, sketch.image())?;
    let x = sketch.norm("bn1", x)?;
    let x = sketch.relu("relu1", x)?;
    if is_small {
        let assumed = "conv1 of 3x3 has stride 1 and no max pool behind it".into();
        return Ok((x, vec![assumed]));
    }
    Ok((sketch.max_pool("maxpool", 3, true, x)?, vec![]))
}

/// A block: its convolutions, and the shortcut that is added to them.
fn residual(sketch: &mut Sketch, block: &str, stride: usize, x: Drawn) -> Result<Drawn, NetError> {
    let last = if is_bottleneck(sketch, block) { 3 } else { 2 };
    // The one of 3x3 in a bottleneck, the first one elsewhere.
    let strided = last - 1;
    let mut inner = x;
    for i in 1..=last {
        inner = sketch.conv(&format!("{block}.conv{i}"), if i == strided { stride } else { 1 }, inner)?;
        inner = sketch.norm(&format!("{block}.bn{i}"), inner)?;
        if i < last {
            inner = sketch.relu(&format!("{block}.relu{i}"), inner)?;
        }
    }
    let projection = SHORTCUTS.into_iter().map(|name| format!("{block}.{name}"));
    let projection = projection.into_iter().find(|name| sketch.has(&format!("{name}.0.weight")));
    let shortcut = match projection {
        Some(name) => {
            let projected = sketch.conv(&format!("{name}.0"), stride, x)?;
            sketch.norm(&format!("{name}.1"), projected)?
        }
        None if x.shape != inner.shape => {
            let problem = format!("expected '{}.0' to make {} of {}", SHORTCUTS.join(".0' or '"), inner.shape, x.shape);
            return Err(malformed(block, problem));
        }
        None => x,
    };
    let sum = sketch.push(&format!("{block}.add"), Op::Add, &[inner, shortcut])?;
    sketch.relu(&format!("{block}.relu{last}"), sum)
}

/// By the number of layers, the groups, and how wide the middle of a bottleneck is.
fn name(sketch: &Sketch, n_layers: usize) -> Result<String, NetError> {
    if !is_bottleneck(sketch, "layer1.0") {
        return Ok(format!("resnet{n_layers}"));
    }
    let [width, per_group, ..] = sketch.filters("layer1.0.conv2")?;
    let [out, ..] = sketch.filters("layer1.0.conv3")?;
    let n_groups = width.checked_div(per_group).unwrap_or(1);
    Ok(match (n_groups, 2 * width == out) {
        (1, false) => format!("resnet{n_layers}"),
        (1, true) => format!("wide_resnet{n_layers}_2"),
        _ => format!("resnext{n_layers}_{n_groups}x{per_group}d"),
    })
}
