//! Parameters of a network, by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Graph, NetError, Node, Op};

/// A dense row-major f32 tensor. Invariant: `data.len()` is the product of `shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    /// Couples a shape with its elements.
    ///
    /// # Errors
    /// When the number of elements does not match the shape (or the product overflows).
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Result<Self, NetError> {
        let expected = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if expected != Some(data.len()) {
            return Err(NetError::TensorLength { shape, got: data.len() });
        }
        Ok(Self { shape, data })
    }
    /// Dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// Elements, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }
    /// Elements, row-major.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }
}

/// All parameters of a network, sorted by name.
pub type Weights = BTreeMap<String, Tensor>;

/// A graph together with its parameters. Built by [`Network::new`], which checks that the two fit.
///
/// # Example
/// ```
/// use secateur_net::{GraphBuilder, Network, Op, Shape, Tensor, Weights};
///
/// let mut builder = GraphBuilder::new(Shape { c: 2, h: 1, w: 1 });
/// builder.push("classify", Op::Linear { in_features: 2, out_features: 3, bias: false }, &[0]);
/// let graph = builder.finish()?;
/// let weight = Tensor::new(vec![3, 2], vec![0.5; 6])?;
/// let network = Network::new(graph.clone(), Weights::from([("classify.weight".into(), weight)]))?;
/// assert_eq!(network.parameter("classify", "weight").shape(), [3, 2]);
/// let error = Network::new(graph, Weights::new()).unwrap_err();
/// assert!(error.to_string().contains("classify.weight"));
/// # Ok::<_, secateur_net::NetError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    graph: Graph,
    weights: Weights,
}

impl Network {
    /// Checks that every parameter of `graph` is in `weights` with its shape, is finite, that every BatchNorm divides
    /// by more than zero, and that no parameter is left over (`num_batches_tracked` counters are dropped).
    ///
    /// # Errors
    /// A missing, misshapen, non-finite or unused parameter, or a variance that cannot be one, by name.
    pub fn new(graph: Graph, mut weights: Weights) -> Result<Self, NetError> {
        weights.retain(|name, _| !name.ends_with("num_batches_tracked"));
        let mut n_used = 0;
        for node in graph.nodes() {
            for (parameter, shape) in parameter_shapes(&node.op) {
                let name = format!("{}.{parameter}", node.name);
                let tensor = weights.get(&name).ok_or_else(|| NetError::MissingParameter {
                    name: name.clone(),
                    shape: shape.clone(),
                    nearest: nearest(&name, &graph, &weights),
                })?;
                if tensor.shape != shape {
                    return Err(NetError::ParameterShape { name, expected: shape, got: tensor.shape.clone() });
                }
                check_finite(&name, tensor)?;
                n_used += 1;
            }
            if let Op::BatchNorm { eps, .. } = node.op {
                check_statistics(&node.name, eps, &weights)?;
            }
        }
        if n_used != weights.len() {
            let known = parameter_names(&graph);
            let name = weights.keys().find(|k| !known.contains(*k)).cloned().unwrap_or_default();
            return Err(NetError::UnusedParameter { name });
        }
        Ok(Self { graph, weights })
    }
    /// The operations.
    pub const fn graph(&self) -> &Graph {
        &self.graph
    }
    /// The parameters.
    pub const fn weights(&self) -> &Weights {
        &self.weights
    }
    /// Parameter `<node>.<parameter>`; `Network::new` has checked that each one an operation needs is there.
    pub fn parameter(&self, node: &str, parameter: &str) -> &Tensor {
        &self.weights[&format!("{node}.{parameter}")]
    }
    /// Replaces parameter `<node>.<parameter>` by one of the same shape.
    ///
    /// # Errors
    /// Another shape, an unknown name, a value that is not finite, or a variance that cannot be one; the old one stays
    /// then.
    pub fn set_parameter(&mut self, node: &str, parameter: &str, tensor: Tensor) -> Result<(), NetError> {
        let name = format!("{node}.{parameter}");
        let Some(old) = self.weights.get_mut(&name) else { return Err(NetError::UnusedParameter { name }) };
        if old.shape != tensor.shape {
            return Err(NetError::ParameterShape { name, expected: old.shape.clone(), got: tensor.shape });
        }
        check_finite(&name, &tensor)?;
        let old = std::mem::replace(old, tensor);
        let changed = self.graph.nodes().iter().find(|n| n.name == node).map(|n| &n.op);
        let Some(Op::BatchNorm { eps, .. }) = changed else { return Ok(()) };
        let checked = check_statistics(node, *eps, &self.weights);
        if checked.is_err() {
            self.weights.insert(name, old);
        }
        checked
    }
    /// Takes the network apart.
    pub fn into_parts(self) -> (Graph, Weights) {
        (self.graph, self.weights)
    }
}

/// Names (without the node's prefix) and shapes of the parameters of one operation.
pub fn parameter_shapes(op: &Op) -> Vec<(&'static str, Vec<usize>)> {
    match op {
        Op::Conv2d(c) => {
            let mut out = vec![("weight", vec![c.out_channels, c.in_channels / c.groups, c.kernel[0], c.kernel[1]])];
            if c.bias {
                out.push(("bias", vec![c.out_channels]));
            }
            out
        }
        Op::BatchNorm { channels, .. } => {
            ["weight", "bias", "running_mean", "running_var"].map(|p| (p, vec![*channels])).to_vec()
        }
        Op::LayerNorm { channels, .. } | Op::GroupNorm { channels, .. } => {
            ["weight", "bias"].map(|p| (p, vec![*channels])).to_vec()
        }
        Op::Linear { in_features, out_features, bias } => {
            let mut out = vec![("weight", vec![*out_features, *in_features])];
            if *bias {
                out.push(("bias", vec![*out_features]));
            }
            out
        }
        Op::ConvTranspose2d(c) => {
            let mut out = vec![("weight", c.weight_shape().to_vec())];
            if c.bias {
                out.push(("bias", vec![c.out_channels]));
            }
            out
        }
        Op::ChannelConv { taps, bias, .. } => {
            let mut out = vec![("weight", vec![*taps])];
            if *bias {
                out.push(("bias", vec![1]));
            }
            out
        }
        Op::PRelu { channels } => vec![("weight", vec![*channels])],
        Op::Input
        | Op::Pointwise(_)
        | Op::Add
        | Op::Concat
        | Op::MaxPool(_)
        | Op::AvgPool(_)
        | Op::GlobalAvgPool
        | Op::Mul
        | Op::FlattenPixels
        | Op::ChannelShuffle { .. }
        | Op::DepthToSpace { .. }
        | Op::Resize { .. }
        | Op::GlobalMaxPool
        | Op::LocalResponseNorm { .. }
        | Op::Max
        | Op::Min
        | Op::ChannelMean
        | Op::ChannelMax
        | Op::BranchSum { .. }
        | Op::BranchSoftmax { .. }
        | Op::Flatten
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Softmax
        | Op::Identity => Vec::new(),
    }
}

fn check_finite(name: &str, tensor: &Tensor) -> Result<(), NetError> {
    match tensor.data.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(NetError::NotFinite { name: name.into(), at, value: tensor.data[at].to_string() }),
        None => Ok(()),
    }
}

/// A BatchNorm multiplies by `weight / sqrt(running_var + eps)`: that must be a number, and one that f32 holds, or its
/// outputs (or the weights of the convolution it is folded into) would be NaN or infinite.
fn check_statistics(node: &str, eps: f32, weights: &Weights) -> Result<(), NetError> {
    let full = |parameter: &str| format!("{node}.{parameter}");
    let values = |parameter: &str| weights.get(&full(parameter)).map_or(&[][..], Tensor::data);
    let (gamma, beta, mean) = (values("weight"), values("bias"), values("running_mean"));
    for (at, &variance) in values("running_var").iter().enumerate() {
        let fail = |parameter: &str, value: f32, problem: String| {
            Err(NetError::Statistics { name: full(parameter), at, value: value.to_string(), problem })
        };
        let sum = f64::from(variance) + f64::from(eps);
        if sum <= 0.0 {
            let problem = format!("variance + eps ({eps}) must be above 0; is the file damaged?");
            return fail("running_var", variance, problem);
        }
        let scale = f64::from(gamma[at]) / sum.sqrt();
        if !(scale as f32).is_finite() {
            let problem = format!("divided by sqrt(running_var + eps), {}, it is beyond what f32 holds", sum.sqrt());
            return fail("weight", gamma[at], problem);
        }
        if !((f64::from(beta[at]) - f64::from(mean[at]) * scale) as f32).is_finite() {
            let problem = format!("normalised, times {scale}, it is beyond what f32 holds");
            return fail("running_mean", mean[at], problem);
        }
    }
    Ok(())
}

/// The parameter that no operation needs whose name is most like `name`.
fn nearest(name: &str, graph: &Graph, weights: &Weights) -> Option<String> {
    let needed = parameter_names(graph);
    let common = |a: &str| {
        let alike = |(x, y): &(u8, u8)| x.eq_ignore_ascii_case(y);
        a.bytes().rev().zip(name.bytes().rev()).take_while(alike).count()
    };
    let unused = weights.keys().filter(|key| !needed.contains(*key));
    unused.max_by_key(|key| common(key)).filter(|key| common(key) >= 6).cloned()
}

/// Names of all parameters that a graph's operations have.
fn parameter_names(graph: &Graph) -> BTreeSet<String> {
    let of_node = |node: &Node| {
        let names = parameter_shapes(&node.op).into_iter().map(|(parameter, _)| format!("{}.{parameter}", node.name));
        names.collect::<Vec<_>>()
    };
    graph.nodes().iter().flat_map(of_node).collect()
}
