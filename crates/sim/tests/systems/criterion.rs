//! Criteria of selection that plugins bring.

use std::sync::Arc;

use secateur_kernels::Norm;
use secateur_sim::{Criterion, PluginList, PruningPlugin, RankedGroup, Selection, SimError};

use crate::hand_made::{A, prepared_by};

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
    let criterion = |seed| Selection::Random.criterion(seed, &PluginList::default()).unwrap();
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
    let custom = |name: &str, plugins: &PluginList| Selection::Custom(name.into()).criterion(1, plugins);
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
        let criterion = selection.criterion(1, &plugins).unwrap();
        (criterion.map(|criterion| criterion.name().to_owned()), selection.norm())
    };
    assert_eq!(told(Selection::L1), (Some("l1".to_owned()), Some(Norm::L1)));
    assert_eq!(told(Selection::L2), (Some("l2".to_owned()), Some(Norm::L2)));
    assert_eq!(told(Selection::Random), (Some("random".to_owned()), None));
    assert_eq!(told(Selection::Reconstruction), (None, None));
}
