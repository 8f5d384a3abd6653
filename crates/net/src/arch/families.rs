//! The families of networks that are recognised by the names of their parameters, and what is said of one.

use super::sketch::{ParameterShapes, Reading, Sketch};
use super::{densenet, mobilenet_v2, plain, resnet, squeezenet};
use crate::{Graph, NetError};

/// What the families are called where they are listed.
pub const FAMILIES: &str =
    "ResNet, ResNeXt, VGG, AlexNet, MobileNetV2, DenseNet and SqueezeNet, named as torchvision's";

/// A network whose parameters have the names of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Recognised {
    /// As its authors call it: `resnet18`, `vgg16_bn`. Widths and numbers of classes may be other than theirs.
    pub name: String,
    /// The family's, with the depth, the widths and the kernels that the shapes tell.
    pub graph: Graph,
    /// What names and shapes do not tell and was taken as usual, one sentence each.
    pub assumptions: Vec<String>,
}

/// How a family is told, and read.
struct Family {
    is_told_by: fn(&ParameterShapes) -> bool,
    /// Side of the images that it is usually trained on, pixels.
    usual_side: fn(&ParameterShapes) -> usize,
    draw: fn(&mut Sketch) -> Result<Reading, NetError>,
    /// Name of the first convolution's weight.
    stem: fn(&ParameterShapes) -> &'static str,
}

const EACH: [Family; 5] = [
    Family {
        is_told_by: resnet::is_told_by,
        usual_side: |shapes| side_by_stem(shapes, "conv1.weight"),
        draw: resnet::draw,
        stem: |_| "conv1.weight",
    },
    Family {
        is_told_by: densenet::is_told_by,
        usual_side: |shapes| side_by_stem(shapes, densenet::stem(shapes)),
        draw: densenet::draw,
        stem: densenet::stem,
    },
    Family {
        is_told_by: mobilenet_v2::is_told_by,
        usual_side: |_| LARGE_SIDE,
        draw: mobilenet_v2::draw,
        stem: |_| "features.0.0.weight",
    },
    Family {
        is_told_by: squeezenet::is_told_by,
        usual_side: |_| LARGE_SIDE,
        draw: squeezenet::draw,
        stem: |_| "features.0.weight",
    },
    Family {
        is_told_by: plain::is_told_by,
        usual_side: plain::usual_side,
        draw: plain::draw,
        stem: |_| "features.0.weight",
    },
];

/// Side of ImageNet's images as networks take them, and of CIFAR's, pixels.
const LARGE_SIDE: usize = 224;
const SMALL_SIDE: usize = 32;

/// A stem with a kernel of 3 is that of the variants for small images.
fn side_by_stem(shapes: &ParameterShapes, stem: &str) -> usize {
    match shapes.get(stem) {
        Some([_, _, 3, 3]) => SMALL_SIDE,
        _ => LARGE_SIDE,
    }
}

/// The network whose parameters these are, for images of `size` rows and columns or else of the family's usual size;
/// `None` where the names are those of no family. Parameters that the graph does not need are not looked for.
///
/// # Errors
/// Names of a family with parameters that do not fit each other, by the node's name.
///
/// # Example
/// ```
/// use secateur_net::arch::{ParameterShapes, recognise};
///
/// assert_eq!(recognise(&ParameterShapes::from([("fc.weight", &[10, 64][..])]), None), None);
/// ```
pub fn recognise(shapes: &ParameterShapes, size: Option<[usize; 2]>) -> Option<Result<Recognised, NetError>> {
    let family = EACH.iter().find(|family| (family.is_told_by)(shapes))?;
    let usual = (family.usual_side)(shapes);
    let sketch = Sketch::new(shapes, (family.stem)(shapes), size.unwrap_or([usual; 2]));
    Some(sketch.and_then(|sketch| finish(family, sketch, size.is_none())))
}

fn finish(family: &Family, mut sketch: Sketch, is_size_assumed: bool) -> Result<Recognised, NetError> {
    let Reading { name, assumption } = (family.draw)(&mut sketch)?;
    let input = sketch.input();
    let usual = format!("images of {input}, the size that {name} is usually trained on");
    let assumptions = is_size_assumed.then_some(usual).into_iter().chain(assumption).collect();
    Ok(Recognised { name, graph: sketch.finish()?, assumptions })
}
