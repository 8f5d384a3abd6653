//! A graph that is drawn along the parameters of a file: every operation takes its sizes from their shapes.

use std::collections::BTreeMap;

use super::BN_EPS;
use crate::{Conv2d, Graph, GraphBuilder, NetError, NodeId, Op, Pointwise, Shape, Window, output_shape};

/// Shapes of all parameters of a file, by name.
pub type ParameterShapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// What a family makes of a file's parameters.
pub(super) struct Reading {
    pub(super) name: String,
    /// What had to be assumed, a sentence.
    pub(super) assumption: Option<String>,
}

/// A tensor of the graph that is being drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    node: NodeId,
    pub(super) shape: Shape,
}

impl Drawn {
    pub(super) const fn channels(self) -> usize {
        self.shape.c
    }
}

#[derive(Debug)]
pub(super) struct Sketch<'a> {
    shapes: &'a ParameterShapes<'a>,
    input: Shape,
    graph: GraphBuilder,
}

impl<'a> Sketch<'a> {
    /// Begins with images of `size` rows and columns, and of as many channels as the convolution with weight `stem`
    /// reads.
    pub(super) fn new(shapes: &'a ParameterShapes<'a>, stem: &str, size: [usize; 2]) -> Result<Self, NetError> {
        let c = match shapes.get(stem) {
            Some(&&[_, c, _, _]) => c,
            _ => return Err(malformed(stem, "expected the weight of a convolution, of four dimensions")),
        };
        let input = Shape { c, h: size[0], w: size[1] };
        Ok(Self { shapes, input, graph: GraphBuilder::new(input) })
    }

    pub(super) const fn input(&self) -> Shape {
        self.input
    }

    /// All that is known of the file.
    pub(super) const fn shapes(&self) -> &'a ParameterShapes<'a> {
        self.shapes
    }

    /// The image.
    pub(super) const fn image(&self) -> Drawn {
        Drawn { node: 0, shape: self.input }
    }

    pub(super) fn finish(self) -> Result<Graph, NetError> {
        self.graph.finish()
    }

    /// Shape of a parameter.
    pub(super) fn shape_of(&self, parameter: &str) -> Option<&'a [usize]> {
        self.shapes.get(parameter).copied()
    }

    pub(super) fn has(&self, parameter: &str) -> bool {
        self.shapes.contains_key(parameter)
    }

    /// Whether the module called `name` is a BatchNorm.
    pub(super) fn is_norm(&self, name: &str) -> bool {
        self.has(&format!("{name}.running_var"))
    }

    /// Shape of the weight of the convolution called `name`: output channels, input channels of a group, rows, columns.
    pub(super) fn filters(&self, name: &str) -> Result<[usize; 4], NetError> {
        let shape = self.shape_of(&format!("{name}.weight"));
        let shape = shape.ok_or_else(|| malformed(name, "expected a convolution there, its weight is missing"))?;
        shape.try_into().map_err(|_| malformed(name, format!("expected a convolution there, its weight is {shape:?}")))
    }

    /// The convolution called `name`, padded so that at stride 1 rows and columns stay.
    pub(super) fn conv(&mut self, name: &str, stride: usize, x: Drawn) -> Result<Drawn, NetError> {
        let [_, _, rows, cols] = self.filters(name)?;
        self.padded_conv(name, stride, [rows / 2, cols / 2], x)
    }

    pub(super) fn padded_conv(
        &mut self,
        name: &str,
        stride: usize,
        padding: [usize; 2],
        x: Drawn,
    ) -> Result<Drawn, NetError> {
        let [out_channels, per_group, rows, cols] = self.filters(name)?;
        let in_channels = x.channels();
        if per_group == 0 || !in_channels.is_multiple_of(per_group) {
            return Err(malformed(name, format!("reads {per_group} channels of a group, its input has {in_channels}")));
        }
        let op = Op::Conv2d(Conv2d {
            in_channels,
            out_channels,
            kernel: [rows, cols],
            stride: [stride; 2],
            padding,
            dilation: [1; 2],
            groups: in_channels / per_group,
            bias: self.has(&format!("{name}.bias")),
        });
        self.push(name, op, &[x])
    }

    pub(super) fn norm(&mut self, name: &str, x: Drawn) -> Result<Drawn, NetError> {
        self.push(name, Op::BatchNorm { channels: x.channels(), eps: BN_EPS }, &[x])
    }

    pub(super) fn relu(&mut self, name: &str, x: Drawn) -> Result<Drawn, NetError> {
        self.push(name, Op::Pointwise(Pointwise::Relu), &[x])
    }

    /// The maximum over square windows that begin in the image, with padding of half a window or none.
    pub(super) fn max_pool(&mut self, name: &str, kernel: usize, is_padded: bool, x: Drawn) -> Result<Drawn, NetError> {
        let padding = if is_padded { kernel / 2 } else { 0 };
        self.push(name, Op::MaxPool(Window::new([kernel; 2], [2; 2], [padding; 2])), &[x])
    }

    /// The mean of all pixels, then the Linear layer called `name`.
    pub(super) fn classify(&mut self, name: &str, x: Drawn) -> Result<Drawn, NetError> {
        let pooled = self.push("pool", Op::GlobalAvgPool, &[x])?;
        self.linear(name, pooled)
    }

    pub(super) fn linear(&mut self, name: &str, x: Drawn) -> Result<Drawn, NetError> {
        match self.shape_of(&format!("{name}.weight")) {
            Some(&[out_features, in_features]) => {
                let bias = self.has(&format!("{name}.bias"));
                self.push(name, Op::Linear { in_features, out_features, bias }, &[x])
            }
            shape => Err(malformed(name, format!("expected a Linear layer there, its weight is {shape:?}"))),
        }
    }

    /// Any operation.
    pub(super) fn push(&mut self, name: &str, op: Op, inputs: &[Drawn]) -> Result<Drawn, NetError> {
        let shapes: Vec<Shape> = inputs.iter().map(|place| place.shape).collect();
        let nodes: Vec<NodeId> = inputs.iter().map(|place| place.node).collect();
        let shape =
            output_shape(&op, &shapes).map_err(|problem| malformed(name, format!("{}: {problem}", op.name())))?;
        Ok(Drawn { node: self.graph.push(name, op, &nodes), shape })
    }
}

pub(super) fn malformed(node: &str, problem: impl Into<String>) -> NetError {
    NetError::Malformed { node: crate::graph_fields::shown(node), problem: problem.into() }
}
