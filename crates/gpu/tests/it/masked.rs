//! Shared weights with masks against the full network with the removed channels zeroed, and NaN in what was removed.

use secateur_gpu::{Candidates, GpuImages};
use secateur_net::random::with_random_weights;
use secateur_net::{ChannelGroups, Conv2d, GraphBuilder, KeptChannels, Network, Op, Protocol, Shape, Tensor};

use crate::adapter::checked;
use crate::networks::{assert_close, cpu_logits, random_images};

/// A convolution to `n` channels and one that reads them.
fn two_layers(n: usize) -> Network {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 6, w: 5 });
    let a = b.push("a", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(3, n, 3, 1, 1) }), &[0]);
    let c = b.push("b", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(n, 7, 3, 2, 0) }), &[a]);
    b.push("c", Op::GlobalAvgPool, &[c]);
    with_random_weights(b.finish().unwrap(), n as u64)
}

/// The same function as a network that lacks all but the `kept` channels: their readers' weights are zero.
fn zeroed(network: &Network, kept: &[usize]) -> Network {
    let mut out = network.clone();
    let weight = network.parameter("b", "weight");
    let (n_in, taps) = (weight.shape()[1], 9);
    let mut data = weight.data().to_vec();
    for (i, w) in data.iter_mut().enumerate() {
        if !kept.contains(&(i / taps % n_in)) {
            *w = 0.0;
        }
    }
    out.set_parameter("b", "weight", Tensor::new(weight.shape().to_vec(), data).unwrap()).unwrap();
    out
}

#[test]
fn masks_around_the_size_of_a_word_keep_the_right_channels() {
    let Some(gpu) = checked() else { return };
    for n in [1, 2, 7, 31, 32, 33, 64, 65, 70] {
        let network = two_layers(n);
        let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
        let group = groups.prunable()[0];
        let lists: Vec<Vec<usize>> =
            vec![(0..n).collect(), vec![n - 1], vec![0], (0..n).filter(|c| c % 3 != 1).collect(), (n / 2..n).collect()];
        let kept: Vec<KeptChannels> = lists
            .iter()
            .map(|list| {
                let mut kept = KeptChannels::all(&groups);
                kept.set(group, list.clone());
                kept
            })
            .collect();
        let images = random_images(network.graph().input(), 3, 5);
        let on_card = GpuImages::new(&gpu, network.graph().input(), &images, None).unwrap();
        let got =
            gpu.logits(&on_card, &Candidates::Masked { network: &network, groups: &groups, kept: &kept }).unwrap();
        for (list, got) in lists.iter().zip(&got) {
            let expected = cpu_logits(&zeroed(&network, list), &images);
            assert_close(got, &expected, 1e-5, &format!("{n} channels, kept {list:?}"));
        }
    }
}

/// A filter so large that its output overflows: removed, it must leave no trace, which multiplying by zero would not
/// do.
#[test]
fn removed_channels_are_skipped_and_not_multiplied_by_zero() {
    let Some(gpu) = checked() else { return };
    let mut network = two_layers(6);
    let mut weight = network.parameter("a", "weight").clone();
    weight.data_mut()[2 * 27..3 * 27].fill(3e38);
    network.set_parameter("a", "weight", weight).unwrap();
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let all = KeptChannels::all(&groups);
    let mut without = all.clone();
    without.set(groups.prunable()[0], vec![0, 1, 3, 4, 5]);
    let images = vec![4.0; network.graph().input().len()];
    let on_card = GpuImages::new(&gpu, network.graph().input(), &images, None).unwrap();
    let kept = [all, without];
    let got = gpu.logits(&on_card, &Candidates::Masked { network: &network, groups: &groups, kept: &kept }).unwrap();
    assert!(got[0].iter().all(|x| !x.is_finite()), "{:?}", got[0]);
    assert!(got[1].iter().all(|x| x.is_finite()), "{:?}", got[1]);
}
