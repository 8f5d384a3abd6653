//! What a BatchNorm may not divide by, whatever stands before it.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use secateur_net::random::with_random_weights;
use secateur_net::{Conv2d, Graph, GraphBuilder, NetError, Network, Op, Shape, Tensor, Weights, fold_batch_norm};

const EPS: f32 = 1e-5;

fn graph(with_conv: bool, eps: f32) -> Graph {
    let mut b = GraphBuilder::new(Shape { c: 4, h: 3, w: 3 });
    let conv = Op::Conv2d(Conv2d::square(4, 4, 3, 1, 1));
    let before = b.push("stem.conv", if with_conv { conv } else { Op::Identity }, &[0]);
    b.push("stem.bn", Op::BatchNorm { channels: 4, eps }, &[before]);
    b.finish().unwrap()
}

/// The network with element 3 of a parameter of the BatchNorm replaced.
fn with_value(with_conv: bool, eps: f32, parameter: &str, value: f32) -> Result<Network, NetError> {
    let sound = with_random_weights(graph(with_conv, EPS), 1);
    let mut weights: Weights = sound.weights().clone();
    let data = weights.get_mut(&format!("stem.bn.{parameter}")).unwrap().data_mut();
    data[3] = value;
    Network::new(graph(with_conv, eps), weights)
}

#[test]
fn a_variance_that_cannot_be_one_is_refused_by_name_and_element() {
    for with_conv in [true, false] {
        for (eps, variance) in [(EPS, -1.0), (EPS, -EPS), (0.0, 0.0), (0.0, -0.0), (0.5, -0.5), (EPS, f32::MIN)] {
            let message = with_value(with_conv, eps, "running_var", variance).unwrap_err().to_string();
            let expected = format!("parameter 'stem.bn.running_var' is {variance} at element 3");
            assert!(message.starts_with(&expected) && message.contains("above 0"), "{message}");
        }
        for parameter in ["weight", "bias", "running_mean", "running_var"] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let message = with_value(with_conv, EPS, parameter, value).unwrap_err().to_string();
                assert!(message.contains(&format!("'stem.bn.{parameter}' holds {value} at element 3")), "{message}");
            }
        }
    }
}

#[test]
fn statistics_whose_quotient_no_f32_holds_are_refused() {
    for with_conv in [true, false] {
        let mut weights = with_random_weights(graph(with_conv, EPS), 1).weights().clone();
        weights.get_mut("stem.bn.running_var").unwrap().data_mut()[2] = 1e-30;
        weights.get_mut("stem.bn.weight").unwrap().data_mut()[2] = 1e30;
        let message = Network::new(graph(with_conv, 0.0), weights).unwrap_err().to_string();
        assert!(message.starts_with("parameter 'stem.bn.weight' is 1000000"), "{message}");
        let message = with_value(with_conv, EPS, "running_mean", f32::MAX).err().map(|e| e.to_string());
        assert!(message.is_none_or(|m| m.starts_with("parameter 'stem.bn.running_mean'")));
    }
}

#[test]
fn sound_statistics_are_kept_and_fold_to_finite_weights() {
    for (eps, variance) in [(EPS, 0.0), (EPS, -0.5 * EPS), (0.0, f32::MIN_POSITIVE), (0.0, 1e30)] {
        let network = with_value(true, eps, "running_var", variance).unwrap();
        assert!(fold_batch_norm(&network).is_ok(), "eps {eps}, variance {variance}");
    }
}

#[test]
fn a_parameter_that_is_set_is_checked_and_the_old_one_stays_if_refused() {
    let mut network = with_random_weights(graph(true, EPS), 1);
    let before = network.clone();
    let bad = Tensor::new(vec![4], vec![1.0, 1.0, -2.0, 1.0]).unwrap();
    let message = network.set_parameter("stem.bn", "running_var", bad.clone()).unwrap_err().to_string();
    assert!(message.contains("stem.bn.running_var' is -2 at element 2"), "{message}");
    assert_eq!(network, before);
    network.set_parameter("stem.bn", "bias", bad).unwrap();
}

/// Worked by hand: `3 w x`, then `2 (y - 1) + 5`, then `0.5 z`.
#[test]
fn norms_one_behind_the_other_are_folded_into_the_layer_in_front() {
    let mut b = GraphBuilder::new(Shape { c: 1, h: 1, w: 1 });
    let conv = b.push("conv", Op::Conv2d(Conv2d::square(1, 1, 1, 1, 0)), &[0]);
    let first = b.push("first", Op::BatchNorm { channels: 1, eps: 0.0 }, &[conv]);
    let between = b.push("between", Op::Identity, &[first]);
    b.push("second", Op::BatchNorm { channels: 1, eps: 0.0 }, &[between]);
    let one = |v: f32| Tensor::new(vec![1], vec![v]).unwrap();
    let mut weights = Weights::from([("conv.weight".to_owned(), Tensor::new(vec![1; 4], vec![3.0]).unwrap())]);
    for (name, [scale, shift, mean]) in [("first", [2.0, 5.0, 1.0]), ("second", [0.5, 0.0, 0.0])] {
        for (parameter, value) in [("weight", scale), ("bias", shift), ("running_mean", mean), ("running_var", 1.0)] {
            weights.insert(format!("{name}.{parameter}"), one(value));
        }
    }
    let folded = fold_batch_norm(&Network::new(b.finish().unwrap(), weights).unwrap()).unwrap();
    assert_eq!(folded.graph().nodes().len(), 2);
    assert_eq!(folded.parameter("conv", "weight").data(), [3.0]);
    assert_eq!(folded.parameter("conv", "bias").data(), [1.5]);
}
