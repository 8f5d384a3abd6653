//! DenseNet (Huang et al. 2017): layers that append their channels to what they read, BatchNorm before convolutions.
//! As torchvision names it, also with its stem for small images, and as a widely copied program for CIFAR does.

use super::sketch::{Drawn, ParameterShapes, Reading, Sketch, malformed};
use crate::{NetError, Op, Window};

/// What the parts are called, and which channels of a layer come first.
#[derive(Clone, Copy)]
struct Naming {
    stem: &'static str,
    layer: fn(usize, usize) -> String,
    /// BatchNorm and convolution of a layer, twice.
    in_layer: [[&'static str; 2]; 2],
    transition: fn(usize) -> String,
    transition_norm: &'static str,
    final_norms: &'static [&'static str],
    classifier: &'static str,
    is_new_first: bool,
}

const TORCHVISION: Naming = Naming {
    stem: "features.conv0",
    layer: |block, layer| format!("features.denseblock{block}.denselayer{layer}"),
    in_layer: [["norm1", "conv1"], ["norm2", "conv2"]],
    transition: |block| format!("features.transition{block}"),
    transition_norm: "norm",
    final_norms: &["features.norm5", "features.norm_final"],
    classifier: "classifier",
    is_new_first: false,
};
const CIFAR: Naming = Naming {
    stem: "conv1",
    layer: |block, layer| format!("dense{block}.{}", layer - 1),
    in_layer: [["bn1", "conv1"], ["bn2", "conv2"]],
    transition: |block| format!("trans{block}"),
    transition_norm: "bn",
    final_norms: &["bn"],
    classifier: "linear",
    is_new_first: true,
};

fn naming(shapes: &ParameterShapes) -> Naming {
    if shapes.contains_key("dense1.0.conv1.weight") { CIFAR } else { TORCHVISION }
}

pub(super) fn is_told_by(shapes: &ParameterShapes) -> bool {
    let of = |naming: Naming| {
        let first = format!("{}.{}.weight", (naming.layer)(1, 1), naming.in_layer[0][1]);
        let second = format!("{}.{}.weight", (naming.layer)(1, 1), naming.in_layer[1][1]);
        let others = [format!("{}.weight", naming.stem), format!("{}.weight", naming.classifier)];
        [first, second].iter().chain(&others).all(|name| shapes.contains_key(name.as_str()))
    };
    of(TORCHVISION) || of(CIFAR)
}

/// Name of the first convolution's weight.
pub(super) fn stem(shapes: &ParameterShapes) -> &'static str {
    if shapes.contains_key("dense1.0.conv1.weight") { "conv1.weight" } else { "features.conv0.weight" }
}

pub(super) fn draw(sketch: &mut Sketch) -> Result<Reading, NetError> {
    let naming = naming(sketch.shapes());
    let (mut x, assumption) = draw_stem(sketch, naming)?;
    let mut n_layers = 2;
    for block in 1.. {
        let n = (1..).take_while(|&l| has_layer(sketch, naming, block, l)).count();
        if n == 0 {
            break;
        }
        for layer in 1..=n {
            x = dense_layer(sketch, naming, &(naming.layer)(block, layer), x)?;
        }
        n_layers += 2 * n;
        if has_layer(sketch, naming, block + 1, 1) {
            x = transition(sketch, naming, &(naming.transition)(block), x)?;
            n_layers += 1;
        }
    }
    let norm = naming.final_norms.iter().find(|name| sketch.is_norm(name));
    let norm = norm.ok_or_else(|| malformed(naming.final_norms[0], "expected the last BatchNorm there"))?;
    x = norm_relu(sketch, norm, x)?;
    sketch.classify(naming.classifier, x)?;
    Ok(Reading { name: format!("densenet{n_layers}"), assumption })
}

fn has_layer(sketch: &Sketch, naming: Naming, block: usize, layer: usize) -> bool {
    sketch.has(&format!("{}.{}.weight", (naming.layer)(block, layer), naming.in_layer[0][1]))
}

fn draw_stem(sketch: &mut Sketch, naming: Naming) -> Result<(Drawn, Option<String>), NetError> {
    let [_, _, rows, _] = sketch.filters(naming.stem)?;
    let is_small = rows == 3;
    let mut x = sketch.conv(naming.stem, if is_small { 1 } else { 2 }, sketch.image())?;
    if sketch.is_norm("features.norm0") {
        x = norm_relu(sketch, "features.norm0", x)?;
    }
    if is_small {
        let assumed = format!("{} of 3x3 has stride 1 and no max pool behind it, as usual", naming.stem);
        return Ok((x, Some(assumed)));
    }
    Ok((sketch.max_pool("features.pool0", 3, true, x)?, None))
}

fn norm_relu(sketch: &mut Sketch, name: &str, x: Drawn) -> Result<Drawn, NetError> {
    let x = sketch.norm(name, x)?;
    sketch.relu(&format!("{name}.relu"), x)
}

fn dense_layer(sketch: &mut Sketch, naming: Naming, name: &str, x: Drawn) -> Result<Drawn, NetError> {
    let mut new = x;
    for [norm, conv] in naming.in_layer {
        new = norm_relu(sketch, &format!("{name}.{norm}"), new)?;
        new = sketch.conv(&format!("{name}.{conv}"), 1, new)?;
    }
    let joined = if naming.is_new_first { [new, x] } else { [x, new] };
    sketch.push(&format!("{name}.concat"), Op::Concat, &joined)
}

fn transition(sketch: &mut Sketch, naming: Naming, name: &str, x: Drawn) -> Result<Drawn, NetError> {
    let x = norm_relu(sketch, &format!("{name}.{}", naming.transition_norm), x)?;
    let x = sketch.conv(&format!("{name}.conv"), 1, x)?;
    sketch.push(&format!("{name}.pool"), Op::AvgPool(Window::new([2; 2], [2; 2], [0; 2])), &[x])
}
