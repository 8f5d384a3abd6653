//! Weights that a training from scratch begins with.

use secateur_net::random::SplitMix;
use secateur_net::{Graph, Network, Op, Tensor, Weights, parameter_shapes};

/// `graph` with weights drawn from `seed`, uniform with a standard deviation of `sqrt(2 / fan-in)` (He, Zhang, Ren and
/// Sun 2015) in layers, of `sqrt(1 / fan-in)` in the last of them, which no rectifier follows; biases zero, slopes a
/// quarter, and BatchNorms that do nothing yet.
///
/// # Panics
/// Never: each parameter gets its operation's shape.
///
/// # Example
/// ```
/// use secateur_net::{Shape, arch};
/// use secateur_tune::initial_network;
///
/// let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
/// let network = initial_network(graph, 7);
/// assert_eq!(network.parameter("bn1", "weight").data(), [1.0; 16]);
/// # Ok::<_, secateur_net::NetError>(())
/// ```
pub fn initial_network(graph: Graph, seed: u64) -> Network {
    let mut rng = SplitMix(seed ^ 0x1a17_3000);
    let is_layer = |op: &Op| matches!(op, Op::Conv2d(_) | Op::Linear { .. } | Op::ConvTranspose2d(_));
    let last_layer = graph.nodes().iter().rposition(|node| is_layer(&node.op));
    let mut weights = Weights::new();
    for (id, node) in graph.nodes().iter().enumerate() {
        let gain = if Some(id) == last_layer { 1.0 } else { 2.0 };
        for (parameter, shape) in parameter_shapes(&node.op) {
            let n: usize = shape.iter().product();
            let values = match parameter {
                "weight" if is_layer(&node.op) => {
                    // A uniform distribution's deviation is its bound over the root of three.
                    let bound = (3.0 * gain / fan_in(&node.op, &shape) as f32).sqrt();
                    (0..n).map(|_| bound * rng.signed()).collect()
                }
                "weight" if matches!(node.op, Op::PRelu { .. }) => vec![0.25; n],
                "weight" | "running_var" => vec![1.0; n],
                _ => vec![0.0; n],
            };
            let tensor = Tensor::new(shape, values).expect("n is the shape's product");
            weights.insert(format!("{}.{parameter}", node.name), tensor);
        }
    }
    Network::new(graph, weights).expect("every parameter has its operation's shape")
}

/// Values that an output of a layer sums up.
fn fan_in(op: &Op, shape: &[usize]) -> usize {
    let taps: usize = shape[2..].iter().product();
    let inputs = if let Op::ConvTranspose2d(conv) = op { conv.in_channels / conv.groups } else { shape[1] };
    (inputs * taps).max(1)
}

#[cfg(test)]
mod tests {
    use secateur_net::{Shape, arch};

    use super::*;

    fn vgg16() -> Graph {
        arch::build("vgg16", Shape { c: 3, h: 32, w: 32 }, 10).unwrap()
    }

    #[test]
    fn weights_have_the_deviation_that_keeps_signals_their_size() {
        let network = initial_network(vgg16(), 1);
        for (layer, expected) in [("features.10", (2.0 / 1152.0f64).sqrt()), ("classifier", (1.0 / 512.0f64).sqrt())] {
            let weights = network.parameter(layer, "weight").data();
            let n = weights.len() as f64;
            let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / n;
            let deviation = (weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / n).sqrt();
            assert!(mean.abs() < 0.05 * expected && (deviation / expected - 1.0).abs() < 0.03, "{layer}");
        }
        assert!(network.parameter("classifier", "bias").data().iter().all(|&b| b == 0.0));
    }

    #[test]
    fn a_seed_gives_the_same_weights_and_another_one_others() {
        assert_eq!(initial_network(vgg16(), 3).weights(), initial_network(vgg16(), 3).weights());
        assert_ne!(initial_network(vgg16(), 3).weights(), initial_network(vgg16(), 4).weights());
    }
}
