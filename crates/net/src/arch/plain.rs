//! Networks that are one sequence of convolutions, `features`, and one of Linear layers, `classifier`: VGG (Simonyan &
//! Zisserman 2014) with or without BatchNorm, AlexNet. Numbers that the sequence skips are modules without parameters,
//! and so tell where pools stand.

use std::ops::Range;

use super::sketch::{Drawn, ParameterShapes, Reading, Sketch, malformed};
use crate::{NetError, Op, Window};

/// More modules than any such sequence has.
const MODULES_MAX: usize = 256;

/// AlexNet is told from VGG by its first convolution of 11x11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlainKind {
    AlexNet,
    Vgg,
}

impl PlainKind {
    fn of(shapes: &ParameterShapes) -> Option<Self> {
        match shapes.get("features.0.weight")? {
            [_, _, 11, 11] => Some(Self::AlexNet),
            [_, _, 3, 3] => Some(Self::Vgg),
            _ => None,
        }
    }
    /// Size of a pool's windows, and how many pools there are.
    const fn pools(self) -> (usize, usize) {
        match self {
            Self::AlexNet => (3, 3),
            Self::Vgg => (2, 5),
        }
    }
}

pub(super) fn is_told_by(shapes: &ParameterShapes) -> bool {
    PlainKind::of(shapes).is_some() && !linear_layers(shapes).is_empty() && convolutions(shapes).len() > 1
}

/// VGG's pools halve the image until what the first Linear layer reads is left.
pub(super) fn usual_side(shapes: &ParameterShapes) -> usize {
    match PlainKind::of(shapes) {
        Some(PlainKind::Vgg) => final_side(shapes).map_or(224, |side| side << PlainKind::Vgg.pools().1),
        _ => 224,
    }
}

fn weight<'a>(shapes: &ParameterShapes<'a>, module: &str) -> Option<&'a [usize]> {
    shapes.get(format!("{module}.weight").as_str()).copied()
}

/// Places of the convolutions in `features`.
fn convolutions(shapes: &ParameterShapes) -> Vec<usize> {
    (0..MODULES_MAX).filter(|i| weight(shapes, &format!("features.{i}")).is_some_and(|w| w.len() == 4)).collect()
}

/// Names of the Linear layers.
fn linear_layers(shapes: &ParameterShapes) -> Vec<String> {
    let numbered = (0..MODULES_MAX).map(|i| format!("classifier.{i}"));
    let names = std::iter::once("classifier".to_owned()).chain(numbered);
    names.filter(|name| weight(shapes, name).is_some_and(|w| w.len() == 2)).collect()
}

/// Rows and columns of what is classified: the first Linear layer reads all channels of each pixel.
fn final_side(shapes: &ParameterShapes) -> Option<usize> {
    let channels = weight(shapes, &format!("features.{}", convolutions(shapes).last()?))?.first()?;
    let features = weight(shapes, linear_layers(shapes).first()?)?.get(1)?;
    let n_pixels = features.checked_div(*channels).filter(|n| n * channels == *features)?;
    let side = n_pixels.isqrt();
    // Images of 2^16 pixels a side are beyond any that are classified whole.
    (1..1 << 11).contains(&side).then_some(side).filter(|side| side * side == n_pixels)
}

pub(super) fn draw(sketch: &mut Sketch) -> Result<Reading, NetError> {
    let shapes = sketch.shapes();
    let kind = PlainKind::of(shapes).unwrap_or(PlainKind::Vgg);
    let (convolutions, layers) = (convolutions(shapes), linear_layers(shapes));
    let (window, n_pools_expected) = kind.pools();
    let (mut x, mut n_pools) = (sketch.image(), 0);
    for (n, &at) in convolutions.iter().enumerate() {
        let rest = convolve(sketch, kind, at, &mut x)?;
        // Behind the last convolution there is a pool in every such network.
        let next = convolutions.get(n + 1).copied().unwrap_or(rest + 1);
        if pools_between(sketch, rest..next)? {
            x = sketch.max_pool(&format!("features.{rest}"), window, false, x)?;
            n_pools += 1;
        }
    }
    if n_pools != n_pools_expected {
        let problem = format!("expected {n_pools_expected} pools between its convolutions, got {n_pools}");
        return Err(malformed("features", problem));
    }
    classify(sketch, &layers, x)?;
    Ok(Reading { name: name(sketch, kind, &convolutions), assumption: None })
}

/// Convolution `at`, its BatchNorm if it has one, its rectifier; the place behind them.
fn convolve(sketch: &mut Sketch, kind: PlainKind, at: usize, x: &mut Drawn) -> Result<usize, NetError> {
    let name = |i: usize| format!("features.{i}");
    let mut place = match (kind, at) {
        (PlainKind::AlexNet, 0) => sketch.padded_conv(&name(0), 4, [2; 2], *x)?,
        _ => sketch.conv(&name(at), 1, *x)?,
    };
    let mut rest = at + 1;
    if sketch.is_norm(&name(rest)) {
        place = sketch.norm(&name(rest), place)?;
        rest += 1;
    }
    *x = sketch.relu(&name(rest), place)?;
    Ok(rest + 1)
}

/// Whether a pool stands in these places of `features`, which are none or one.
fn pools_between(sketch: &Sketch, places: Range<usize>) -> Result<bool, NetError> {
    let mut names = places.clone().map(|i| format!("features.{i}"));
    if places.len() > 1 || names.any(|name| sketch.has(&format!("{name}.weight"))) {
        let problem = format!("expected a pool or nothing from place {} to {}", places.start, places.end);
        return Err(malformed("features", problem));
    }
    Ok(places.len() == 1)
}

/// The adaptive pool, then the Linear layers with rectifiers between them.
fn classify(sketch: &mut Sketch, layers: &[String], x: Drawn) -> Result<(), NetError> {
    let side = final_side(sketch.shapes()).ok_or_else(|| {
        malformed("classifier", format!("its first layer does not read whole pixels of {} channels", x.channels()))
    })?;
    let x = adaptive_pool(sketch, side, x)?;
    let mut x = sketch.push("flatten", Op::Flatten, &[x])?;
    for (i, layer) in layers.iter().enumerate() {
        x = sketch.linear(layer, x)?;
        if i + 1 < layers.len() {
            x = sketch.relu(&format!("{layer}.relu"), x)?;
        }
    }
    Ok(())
}

/// PyTorch's `AdaptiveAvgPool2d`, whose windows are all alike where the sizes divide.
fn adaptive_pool(sketch: &mut Sketch, side: usize, x: Drawn) -> Result<Drawn, NetError> {
    let size = [x.shape.h, x.shape.w];
    if size == [side; 2] {
        return Ok(x);
    }
    if size.iter().any(|n| !n.is_multiple_of(side)) {
        let problem =
            format!("expected images that leave a multiple of {side}x{side} pixels to classify, got {}", x.shape);
        return Err(malformed("avgpool", problem));
    }
    let window = size.map(|n| n / side);
    sketch.push("avgpool", Op::AvgPool(Window::new(window, window, [0; 2])), &[x])
}

fn name(sketch: &Sketch, kind: PlainKind, convolutions: &[usize]) -> String {
    match kind {
        PlainKind::AlexNet => "alexnet".into(),
        // Named after the layers of the original, which has three Linear ones.
        PlainKind::Vgg if sketch.is_norm("features.1") => format!("vgg{}_bn", convolutions.len() + 3),
        PlainKind::Vgg => format!("vgg{}", convolutions.len() + 3),
    }
}
