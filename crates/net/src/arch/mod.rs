//! Graphs of known architectures, for files that hold parameters only. Those of [`ARCHITECTURES`] are built by their
//! name; those of [`FAMILIES`] are recognised by the names of their parameters, and depth, widths and kernels are read
//! off the shapes.

mod cifar;
mod densenet;
mod families;
mod mobilenet_v2;
mod plain;
mod resnet;
mod sketch;
mod squeezenet;

pub use cifar::{ARCHITECTURES, build, infer};
pub use families::{FAMILIES, Recognised, recognise};
pub use sketch::ParameterShapes;

/// PyTorch's default, which all of these networks have.
const BN_EPS: f32 = 1e-5;
