//! A single, unfused node: what calibration and refit evaluate a network with, node by node.

use secateur_net::{Graph, NodeId, Weights};

use crate::engine::arithmetic::Arithmetic;
use crate::engine::op_kernel::{OpKernel, Scratch, Tail};
use crate::{Isa, KernelError};

/// One node of a graph, ready to run on a group of images, one to a lane (see [`crate::interleave`]). Same inner
/// kernels as [`crate::Plan`], nothing fused.
///
/// # Example
/// ```
/// use secateur_kernels::{NodeKernel, Scratch, interleave, separate};
/// use secateur_net::{GraphBuilder, Op, Pointwise, Shape, Weights};
///
/// let mut builder = GraphBuilder::new(Shape { c: 3, h: 1, w: 1 });
/// let relu = builder.push("relu", Op::Pointwise(Pointwise::Relu), &[0]);
/// let kernel = NodeKernel::new(&builder.finish()?, &Weights::new(), relu)?;
/// let mut input = vec![0.0; kernel.out_len()];
/// interleave(&[1.0, -2.0, 3.0], 3, kernel.lanes(), &mut input);
/// let mut output = vec![0.0; kernel.out_len()];
/// kernel.run(&[&input], &mut output, &mut Scratch::new())?;
/// let mut image = [0.0; 3];
/// separate(&output, 3, kernel.lanes(), &mut image);
/// assert_eq!(image, [1.0, 0.0, 3.0]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NodeKernel {
    name: String,
    kernel: OpKernel,
}

impl NodeKernel {
    /// Prepares `node` with its parameters from `weights`, for the best instruction set of this processor.
    ///
    /// # Errors
    /// A missing or misshapen parameter, no such node, or an output that would be too large.
    pub fn new(graph: &Graph, weights: &Weights, node: NodeId) -> Result<Self, KernelError> {
        Self::with_isa(graph, weights, node, Isa::detect())
    }

    /// As [`NodeKernel::new`], for a given instruction set.
    ///
    /// # Errors
    /// As [`NodeKernel::new`], or when this processor lacks `isa`.
    pub fn with_isa(graph: &Graph, weights: &Weights, node: NodeId, isa: Isa) -> Result<Self, KernelError> {
        Arithmetic::F32(isa).checked()?;
        let n_nodes = graph.nodes().len();
        if node >= n_nodes {
            return Err(KernelError::NoSuchNode { node, n_nodes });
        }
        let kernel = OpKernel::new(graph, weights, node, isa)?;
        Ok(Self { name: graph.node(node).name.clone(), kernel })
    }

    /// Values of the output of a group of images.
    pub const fn out_len(&self) -> usize {
        self.kernel.out_shape().len() * self.kernel.lanes()
    }

    /// Images of a group.
    pub const fn lanes(&self) -> usize {
        self.kernel.lanes()
    }

    /// Computes a group: `inputs` as the node lists them, each `[H, W, C, LANES]`, into `out`, the same. `Op::Input`
    /// copies its one input. Allocates nothing once `scratch` has grown.
    ///
    /// # Errors
    /// A wrong number of inputs, or a buffer of the wrong length.
    pub fn run(&self, inputs: &[&[f32]], out: &mut [f32], scratch: &mut Scratch) -> Result<(), KernelError> {
        let of_node = self.kernel.in_shapes();
        let of_input = [self.kernel.out_shape()];
        let shapes = if of_node.is_empty() { &of_input[..] } else { of_node };
        if inputs.len() != shapes.len() {
            let node = self.name.clone();
            return Err(KernelError::InputCount { node, expected: shapes.len(), got: inputs.len() });
        }
        for (i, (input, shape)) in inputs.iter().zip(shapes).enumerate() {
            self.check_len(|| format!("input {i}"), shape.len() * self.lanes(), input.len())?;
        }
        self.check_len(|| "output".into(), self.out_len(), out.len())?;
        self.kernel.run(&|i| inputs[i], Tail::default(), out, scratch);
        Ok(())
    }

    fn check_len(&self, what: impl Fn() -> String, expected: usize, got: usize) -> Result<(), KernelError> {
        if expected == got {
            return Ok(());
        }
        Err(KernelError::Length { what: format!("{} of node '{}'", what(), self.name), expected, got })
    }
}
