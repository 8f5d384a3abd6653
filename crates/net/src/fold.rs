//! Folding BatchNorm into the convolution or Linear node in front of it.

use crate::{Conv2d, ConvTranspose2d, Graph, NetError, Network, Node, Op, Tensor, Weights};

/// The same function with every BatchNorm that follows a convolution (transposed or not) or Linear node (as its only
/// reader, or behind others that are folded) folded into it, Identity nodes dropped, and a bias (zero if need be) on
/// every convolution and Linear node, so that a least-squares refit always has an intercept to write to. Sums are taken
/// in f64.
///
/// # Errors
/// None for a valid network; the result is checked like any other.
pub fn fold_batch_norm(network: &Network) -> Result<Network, NetError> {
    let graph = network.graph();
    let readers = graph.consumers();
    let mut nodes: Vec<Node> = Vec::new();
    let mut weights = Weights::new();
    let mut place: Vec<usize> = Vec::with_capacity(graph.nodes().len());
    // By node, the layer whose output it is once what lies between is folded, if nobody else reads that.
    let mut layers: Vec<Option<usize>> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes().iter().enumerate() {
        let layer = node.inputs.first().and_then(|&i| layers[i].filter(|_| readers[i].len() == 1));
        let drop_node = match &node.op {
            Op::BatchNorm { eps, .. } => {
                if let Some(layer) = layer {
                    scale_filters(network, node, *eps, graph.node(layer), &mut weights);
                }
                layer.is_some()
            }
            // The input of a network that is nothing but Identity nodes must stay followed by a node.
            Op::Identity => node.inputs[0] != 0,
            Op::Input
            | Op::Conv2d(_)
            | Op::Linear { .. }
            | Op::PRelu { .. }
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
            | Op::LayerNorm { .. }
            | Op::GlobalMaxPool
            | Op::ConvTranspose2d(_)
            | Op::ChannelConv { .. }
            | Op::GroupNorm { .. }
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
            | Op::Softmax => false,
        };
        let is_layer = matches!(node.op, Op::Conv2d(_) | Op::Linear { .. } | Op::ConvTranspose2d(_));
        layers.push(if is_layer { Some(id) } else { layer.filter(|_| drop_node) });
        if drop_node {
            place.push(place[node.inputs[0]]);
            continue;
        }
        let op = with_bias(&node.op);
        for (parameter, shape) in crate::parameter_shapes(&op) {
            let name = format!("{}.{parameter}", node.name);
            let tensor = match network.weights().get(&name) {
                Some(tensor) => tensor.clone(),
                None => Tensor::new(shape.clone(), vec![0.0; shape.iter().product()])?,
            };
            weights.insert(name, tensor);
        }
        place.push(nodes.len());
        nodes.push(Node { name: node.name.clone(), op, inputs: node.inputs.iter().map(|&i| place[i]).collect() });
    }
    Network::new(Graph::new(graph.input(), nodes)?.with_tail(graph.tail()), weights)
}

/// The same function without the biases that are zero everywhere, such as those that [`fold_batch_norm`] adds.
pub fn drop_zero_biases(network: &Network) -> Network {
    let (graph, mut weights) = network.clone().into_parts();
    let mut nodes = graph.nodes().to_vec();
    for node in &mut nodes {
        let (Op::Conv2d(Conv2d { bias, .. })
        | Op::Linear { bias, .. }
        | Op::ConvTranspose2d(ConvTranspose2d { bias, .. })) = &mut node.op
        else {
            continue;
        };
        let name = format!("{}.bias", node.name);
        if *bias && weights.get(&name).is_some_and(|b| b.data().iter().all(|&b| b == 0.0)) {
            *bias = false;
            weights.remove(&name);
        }
    }
    let same = "dropping a bias changes no shape, and takes its parameter along";
    Network::new(Graph::new(graph.input(), nodes).expect(same).with_tail(graph.tail()), weights).expect(same)
}

fn with_bias(op: &Op) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Conv2d(c) => c.bias = true,
        Op::ConvTranspose2d(c) => c.bias = true,
        Op::Linear { bias, .. } => *bias = true,
        Op::Input
        | Op::BatchNorm { .. }
        | Op::PRelu { .. }
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
        | Op::LayerNorm { .. }
        | Op::GlobalMaxPool
        | Op::ChannelConv { .. }
        | Op::GroupNorm { .. }
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
        | Op::Identity => {}
    }
    op
}

fn scale_filters(network: &Network, norm: &Node, eps: f32, producer: &Node, weights: &mut Weights) {
    let statistic = |name: &str| network.parameter(&norm.name, name).data();
    let (gamma, beta) = (statistic("weight"), statistic("bias"));
    let (mean, var) = (statistic("running_mean"), statistic("running_var"));
    let scale: Vec<f64> =
        gamma.iter().zip(var).map(|(&g, &v)| f64::from(g) / (f64::from(v) + f64::from(eps)).sqrt()).collect();
    let parameter = |name: &str| format!("{}.{name}", producer.name);
    if let (Op::ConvTranspose2d(conv), Some(weight)) = (&producer.op, weights.get_mut(&parameter("weight"))) {
        let [in_channels, per_group, kh, kw] = conv.weight_shape();
        for (i, kernel) in weight.data_mut().chunks_exact_mut(kh * kw).enumerate() {
            let conv_group = i / per_group / (in_channels / conv.groups);
            let s = scale[conv_group * per_group + i % per_group];
            kernel.iter_mut().for_each(|w| *w = (f64::from(*w) * s) as f32);
        }
    } else if let Some(weight) = weights.get_mut(&parameter("weight")) {
        let per_filter = weight.data().len() / scale.len();
        for (filter, s) in weight.data_mut().chunks_exact_mut(per_filter).zip(&scale) {
            filter.iter_mut().for_each(|w| *w = (f64::from(*w) * s) as f32);
        }
    }
    if let Some(bias) = weights.get_mut(&parameter("bias")) {
        for (o, b) in bias.data_mut().iter_mut().enumerate() {
            *b = ((f64::from(*b) - f64::from(mean[o])) * scale[o] + f64::from(beta[o])) as f32;
        }
    }
}
