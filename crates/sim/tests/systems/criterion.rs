//! Criteria of selection that plugins bring.

use std::sync::Arc;

use secateur_kernels::{Norm, calibrate};
use secateur_net::{ChannelGroups, Conv2d, GraphBuilder, Network, Op, Protocol, Shape, Tensor, fold_batch_norm};
use secateur_sim::{Criterion, PluginList, PruningPlugin, RankedGroup, Selection, SimError};

use crate::hand_made::{A, pool, prepared_by};

/// Answers for the first convolution, of four channels; channels of the second are all alike.
struct Fixed(Result<Vec<f64>, String>);

impl Criterion for Fixed {
    fn name(&self) -> &str {
        "fixed"
    }
    fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
        assert!(of.network.graph().nodes().len() > 3 && of.images.len() == 4);
        let is_first = of.group == A;
        assert_eq!((of.place, of.n_channels()), if is_first { (0, 4) } else { (1, 2) });
        if is_first { self.0.clone() } else { Ok(vec![0.0; 2]) }
    }
}

/// Channels in the order in which the first and the second convolution lose them.
fn removed(answer: Result<Vec<f64>, String>) -> Result<[Vec<usize>; 2], SimError> {
    let prepared = prepared_by(Some(Arc::new(Fixed(answer))))?;
    Ok([0, 1].map(|place| prepared.paths[place].removed.clone()))
}

#[test]
fn the_least_important_channels_go_first_and_of_equal_ones_the_last() {
    assert_eq!(removed(Ok(vec![0.3, -1.0, 0.2, 7.0])).unwrap(), [vec![1, 2, 0], vec![1]]);
    assert_eq!(removed(Ok(vec![1.0, 0.0, 1.0, f64::INFINITY])).unwrap(), [vec![1, 2, 0], vec![1]]);
}

#[test]
fn a_criterion_that_does_not_rank_the_channels_is_named_with_network_and_layer() {
    let wrong = [Ok(vec![1.0; 3]), Ok(vec![]), Ok(vec![0.0, f64::NAN, 1.0, 2.0]), Err("no data".to_owned())];
    for answer in wrong {
        let what = if answer.is_err() { "no data" } else { "expected a number for each of 4 channels" };
        let error = removed(answer).unwrap_err().to_string();
        assert!(error.contains("layer 'a' of network 'two' by criterion 'fixed'") && error.contains(what), "{error}");
    }
}

struct Panicking;

impl Criterion for Panicking {
    fn name(&self) -> &str {
        "panicking"
    }
    fn importance(&self, _of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
        panic!("injected")
    }
}

#[test]
fn a_criterion_that_panics_is_an_error() {
    let error = prepared_by(Some(Arc::new(Panicking))).unwrap_err().to_string();
    assert!(error.contains("'panicking': it panicked: injected"), "{error}");
}

#[test]
fn a_random_order_depends_on_its_seed_and_keeps_every_channel_once() {
    let criterion = |seed| Selection::Random.criterion(seed, &PluginList::default(), None).unwrap();
    let order = |seed| prepared_by(criterion(seed)).unwrap().paths[0].removed.clone();
    assert_eq!(order(3), order(3));
    let orders: std::collections::BTreeSet<Vec<usize>> = (0..20).map(order).collect();
    assert!(orders.len() > 5, "{orders:?}");
    let is_order =
        |o: &Vec<usize>| o.len() == 3 && o.iter().all(|&c| c < 4 && o.iter().filter(|&&d| d == c).count() == 1);
    assert!(orders.iter().all(is_order), "{orders:?}");
}

struct BringsPanicking;

impl PruningPlugin for BringsPanicking {
    fn name(&self) -> &str {
        "brings_panicking"
    }
    fn criteria(&self) -> Vec<Arc<dyn Criterion>> {
        vec![Arc::new(Panicking)]
    }
}

#[test]
fn a_selection_finds_the_criterion_of_its_name_and_lists_the_others_if_there_is_none() {
    let mut plugins = PluginList::default();
    let custom = |name: &str, plugins: &PluginList| Selection::Custom(name.into()).criterion(1, plugins, None);
    let refusal = |name: &str, plugins: &PluginList| custom(name, plugins).unwrap_err().to_string();
    let none = refusal("panicking", &plugins);
    assert_eq!(none, "unknown criterion 'panicking' of selection; no plugin of this binary brings one");
    plugins.add(BringsPanicking);
    assert_eq!(custom("panicking", &plugins).unwrap().unwrap().name(), "panicking");
    // Built-in criteria have words of their own.
    let others = refusal("l1", &plugins);
    assert_eq!(others, "unknown criterion 'l1' of selection; plugins of this binary bring: panicking");
}

#[test]
fn only_elimination_has_no_criterion_and_only_norms_can_be_worked_out_elsewhere() {
    let plugins = PluginList::default();
    let told = |selection: Selection| {
        let criterion = selection.criterion(1, &plugins, None).unwrap();
        (criterion.map(|criterion| criterion.name().to_owned()), selection.norm())
    };
    assert_eq!(told(Selection::L1), (Some("l1".to_owned()), Some(Norm::L1)));
    assert_eq!(told(Selection::L2), (Some("l2".to_owned()), Some(Norm::L2)));
    assert_eq!(told(Selection::Random), (Some("random".to_owned()), None));
    assert_eq!(told(Selection::Reconstruction), (None, None));
}

/// What a built-in selection says of the three channels of a network's first group, on five images.
fn importance_of(selection: &Selection, original: &Network) -> Result<Vec<f64>, String> {
    let folded = fold_batch_norm(original).unwrap();
    let groups = ChannelGroups::derive(folded.graph(), Protocol::Inner);
    let images = [1.0, 0.0, 0.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    let calibration = calibrate(&pool().0, &folded, &groups, &images, |_| {}).unwrap();
    let criterion = selection.criterion(1, &PluginList::default(), Some(original)).unwrap().unwrap();
    let (group, calibration, groups) = (groups.prunable()[0], &calibration, &groups);
    criterion.importance(&RankedGroup { network: &folded, groups, group, place: 0, calibration, images: &images })
}

/// Three 1x1 filters over two channels, with or without BatchNorm of scales 0.5, -2, 1 behind them, then one output.
fn three_filters(with_norm: bool) -> Network {
    let mut g = GraphBuilder::new(Shape { c: 2, h: 1, w: 1 });
    let a = g.push("a", Op::Conv2d(Conv2d::square(2, 3, 1, 1, 0)), &[0]);
    let norm = if with_norm { g.push("norm", Op::BatchNorm { channels: 3, eps: 0.0 }, &[a]) } else { a };
    let b = g.push("b", Op::Conv2d(Conv2d::square(3, 1, 1, 1, 0)), &[norm]);
    let flat = g.push("flat", Op::Flatten, &[b]);
    g.push("out", Op::Linear { in_features: 1, out_features: 2, bias: false }, &[flat]);
    let tensor = |name: &str, shape: &[usize], data: &[f32]| {
        (name.to_owned(), Tensor::new(shape.to_vec(), data.to_vec()).unwrap())
    };
    let mut weights = vec![
        tensor("a.weight", &[3, 2, 1, 1], &[0.0, 0.0, 3.0, 4.0, 6.0, 0.0]),
        tensor("b.weight", &[1, 3, 1, 1], &[9.0, 0.0, 0.5]),
        tensor("out.weight", &[2, 1], &[1.0, -1.0]),
    ];
    if with_norm {
        weights.push(tensor("norm.weight", &[3], &[0.5, -2.0, 1.0]));
        weights.push(tensor("norm.bias", &[3], &[0.0; 3]));
        weights.push(tensor("norm.running_mean", &[3], &[0.0; 3]));
        weights.push(tensor("norm.running_var", &[3], &[1.0; 3]));
    }
    Network::new(g.finish().unwrap(), weights.into_iter().collect()).unwrap()
}

#[test]
fn built_in_criteria_rank_by_distance_by_energy_and_by_the_scales_of_the_network_as_given() {
    let plain = three_filters(false);
    // 5 between the first two filters, 5 between the last two, 6 between the first and the last.
    assert_eq!(importance_of(&Selection::Fpgm, &plain).unwrap(), [11.0, 10.0, 11.0]);
    // Of pixels (1, 0), (0, 2), (3, 1) and two black ones the filters make 0 0 0, 3 8 13, 6 0 18, and zeros.
    let energies = importance_of(&Selection::ActivationEnergy, &plain).unwrap();
    for (got, expected) in energies.iter().zip([0.0, 242.0 / 5.0, 72.0]) {
        assert!((got - expected).abs() < 1e-4 * expected.max(1.0), "{energies:?}");
    }
    assert_eq!(importance_of(&Selection::BnScale, &three_filters(true)).unwrap(), [0.5, 2.0, 1.0]);
    let message = importance_of(&Selection::BnScale, &plain).unwrap_err();
    assert!(message.contains("group \"a\" has no BatchNorm"), "{message}");
}
