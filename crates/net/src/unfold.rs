//! Putting BatchNorm back behind convolutions: what [`crate::fold_batch_norm`] undoes.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ConvTranspose2d, Graph, NetError, Network, Node, NodeId, Op, Tensor, Weights};

/// Added to the variance, as PyTorch does by default.
const EPS: f32 = 1e-5;
/// Of a value that is constant over all images, dividing by its deviation would divide by zero.
const VARIANCE_MIN: f64 = 1e-6;

/// Mean and variance of every channel of a node's output, over images and pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelMoments {
    /// `[C]`
    pub mean: Vec<f64>,
    /// `[C]`, of the whole population.
    pub variance: Vec<f64>,
}

/// The convolutions (transposed or not) that training can do with a BatchNorm behind: of more than one output pixel, so
/// that a batch has statistics, neither followed by a BatchNorm already nor the network's output, whose scale means
/// something.
pub fn norm_places(graph: &Graph) -> Vec<NodeId> {
    let readers = graph.consumers();
    let is_place = |&id: &NodeId| {
        let is_conv = matches!(graph.node(id).op, Op::Conv2d(_) | Op::ConvTranspose2d(_));
        let is_normalised = readers[id].iter().any(|&reader| matches!(graph.node(reader).op, Op::BatchNorm { .. }));
        is_conv && !is_normalised && !readers[id].is_empty() && graph.shape(id).h * graph.shape(id).w > 1
    };
    (0..graph.nodes().len()).filter(is_place).collect()
}

/// The same function with a BatchNorm behind every node of `moments`, which are convolutions: their biases go, means
/// and variances of their outputs become running statistics, and factors and addends undo the normalisation. Folding
/// gives the network back (with a bias on every layer).
///
/// # Errors
/// Moments of a node that is no convolution, of other channels, or that are not finite, by the name of the node.
///
/// # Example
/// ```
/// use std::collections::BTreeMap;
///
/// use secateur_net::random::with_random_weights;
/// use secateur_net::{ChannelMoments, Conv2d, GraphBuilder, Op, Shape, fold_batch_norm, insert_batch_norms};
///
/// let mut builder = GraphBuilder::new(Shape { c: 3, h: 8, w: 8 });
/// let conv = builder.push("conv", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(3, 2, 3, 1, 1) }), &[0]);
/// builder.push("mean", Op::GlobalAvgPool, &[conv]);
/// let network = with_random_weights(builder.finish()?, 1);
/// let moments = ChannelMoments { mean: vec![0.1, 0.2], variance: vec![1.0, 2.0] };
/// let with_norms = insert_batch_norms(&network, &BTreeMap::from([(conv, moments)]))?;
/// assert_eq!(with_norms.graph().nodes().len(), network.graph().nodes().len() + 1);
/// assert_eq!(fold_batch_norm(&with_norms)?.graph(), network.graph());
/// # Ok::<_, secateur_net::NetError>(())
/// ```
pub fn insert_batch_norms(network: &Network, moments: &BTreeMap<NodeId, ChannelMoments>) -> Result<Network, NetError> {
    let graph = network.graph();
    let names: BTreeSet<&str> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
    let mut weights = network.weights().clone();
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes().len() + moments.len());
    let mut place: Vec<NodeId> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes().iter().enumerate() {
        let inputs = node.inputs.iter().map(|&input| place[input]).collect();
        nodes.push(Node { inputs, ..node.clone() });
        if let Some(moments) = moments.get(&id) {
            let (channels, conv) = (graph.shape(id).c, nodes.len() - 1);
            let old_bias = take_bias(&mut nodes[conv].op, &node.name, channels, &mut weights)?;
            let name = free_name(&names, &node.name);
            for (parameter, values) in normalisation(&node.name, moments, &old_bias)? {
                weights.insert(format!("{name}.{parameter}"), Tensor::new(vec![channels], values)?);
            }
            nodes.push(Node { name, op: Op::BatchNorm { channels, eps: EPS }, inputs: vec![conv] });
        }
        place.push(nodes.len() - 1);
    }
    Network::new(Graph::new(graph.input(), nodes)?.with_tail(graph.tail()), weights)
}

/// `<name>.norm`, or what is free.
fn free_name(names: &BTreeSet<&str>, name: &str) -> String {
    let mut free = format!("{name}.norm");
    while names.contains(free.as_str()) {
        free.push('_');
    }
    free
}

/// Takes the bias off a convolution; zeros where it has none.
fn take_bias(op: &mut Op, name: &str, channels: usize, weights: &mut Weights) -> Result<Vec<f32>, NetError> {
    let (Op::Conv2d(crate::Conv2d { bias, .. }) | Op::ConvTranspose2d(ConvTranspose2d { bias, .. })) = op else {
        return Err(NetError::Malformed { node: name.to_owned(), problem: "it is no convolution to normalise".into() });
    };
    *bias = false;
    let taken = weights.remove(&format!("{name}.bias"));
    Ok(taken.map_or_else(|| vec![0.0; channels], |bias| bias.data().to_vec()))
}

/// The parameters of a BatchNorm that does nothing to a value with these moments, once `bias` is taken off it.
fn normalisation(
    node: &str,
    ChannelMoments { mean, variance }: &ChannelMoments,
    bias: &[f32],
) -> Result<[(&'static str, Vec<f32>); 4], NetError> {
    let wrong = |what: &str| NetError::Malformed { node: node.to_owned(), problem: format!("its moments are {what}") };
    if mean.len() != bias.len() || variance.len() != bias.len() {
        return Err(wrong("of another number of channels"));
    }
    if mean.iter().chain(variance).any(|x| !x.is_finite()) || variance.iter().any(|&v| v < 0.0) {
        return Err(wrong("not finite, or a variance is negative"));
    }
    let to_f32 = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
    let variance: Vec<f64> = variance.iter().map(|v| v.max(VARIANCE_MIN)).collect();
    let deviations = variance.iter().map(|v| (f64::from(*v as f32) + f64::from(EPS)).sqrt()).collect();
    let without_bias: Vec<f32> = to_f32(mean.iter().zip(bias).map(|(m, b)| m - f64::from(*b)).collect());
    // What is added takes the rounding of the running mean into account.
    let addends = without_bias.iter().zip(bias).map(|(m, b)| m + b).collect();
    Ok([
        ("weight", to_f32(deviations)),
        ("bias", addends),
        ("running_mean", without_bias),
        ("running_var", to_f32(variance)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::with_random_weights;
    use crate::{Conv2d, GraphBuilder, Pointwise, Shape, fold_batch_norm};

    fn moments(channels: usize) -> ChannelMoments {
        let values = (0..channels).map(|c| 0.3 * c as f64 - 0.5);
        ChannelMoments { mean: values.clone().collect(), variance: values.map(|v| v * v).collect() }
    }

    /// Two convolutions and a transposed one, the second with a BatchNorm, another node named as a new one would be.
    fn network() -> Network {
        let mut b = GraphBuilder::new(Shape { c: 3, h: 5, w: 5 });
        let a = b.push("a", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(3, 4, 3, 1, 1) }), &[0]);
        let relu = b.push("a.norm", Op::Pointwise(Pointwise::Relu), &[a]);
        let c = b.push("c", Op::Conv2d(Conv2d::square(4, 6, 3, 2, 1)), &[relu]);
        let bn = b.push("bn", Op::BatchNorm { channels: 6, eps: 1e-3 }, &[c]);
        let up = b.push("up", Op::ConvTranspose2d(ConvTranspose2d::square(6, 2, 3, 2, 1)), &[bn]);
        let mean = b.push("mean", Op::GlobalAvgPool, &[up]);
        b.push("last", Op::Conv2d(Conv2d::square(2, 2, 1, 1, 0)), &[mean]);
        with_random_weights(b.finish().unwrap(), 5)
    }

    #[test]
    fn convolutions_get_one_unless_they_have_it_or_see_a_single_pixel() {
        let network = network();
        let names: Vec<&str> =
            norm_places(network.graph()).iter().map(|&id| network.graph().node(id).name.as_str()).collect();
        assert_eq!(names, ["a", "up"]);
    }

    #[test]
    fn folding_gives_the_weights_back() {
        let network = fold_batch_norm(&network()).unwrap();
        let places = norm_places(network.graph());
        let moments = places.iter().map(|&id| (id, moments(network.graph().shape(id).c))).collect();
        let with_norms = insert_batch_norms(&network, &moments).unwrap();
        assert_eq!(with_norms.graph().nodes().len(), network.graph().nodes().len() + 3);
        let back = fold_batch_norm(&with_norms).unwrap();
        assert_eq!(back.graph(), network.graph());
        for (name, tensor) in network.weights() {
            let back = back.weights()[name].data();
            assert!(tensor.data().iter().zip(back).all(|(a, b)| (a - b).abs() <= 1e-6), "{name}");
        }
    }

    #[test]
    fn moments_of_other_nodes_or_that_are_no_numbers_are_refused_by_name() {
        let network = network();
        let refused = |id: NodeId, moments: ChannelMoments| {
            insert_batch_norms(&network, &BTreeMap::from([(id, moments)])).unwrap_err().to_string()
        };
        assert_eq!(refused(2, moments(4)), "node 'a.norm': it is no convolution to normalise");
        assert!(refused(1, moments(3)).contains("'a': its moments are of another number"));
        let nan = ChannelMoments { mean: vec![f64::NAN; 4], ..moments(4) };
        assert!(refused(1, nan).contains("'a': its moments are not finite"));
        let negative = ChannelMoments { variance: vec![-1.0; 4], ..moments(4) };
        assert!(refused(1, negative).contains("negative"));
    }
}
