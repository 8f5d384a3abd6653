//! What happens when the device fails in the middle of a run.

use secateur_gpu::{Candidates, GpuError, GpuOptions, GpuScore, ImageSet, Session, Truth};
use secateur_net::Network;
use secateur_net::random::random_network;

use crate::adapter::checked;
use crate::networks::{cpu_logits, random_images};

struct Case {
    network: Network,
    images: Vec<f32>,
    logits: Vec<f32>,
    labels: Vec<u16>,
}

impl Case {
    fn new() -> Self {
        let network = random_network(5);
        let images = random_images(network.graph().input(), 9, 2);
        let logits = cpu_logits(&network, &images);
        let n_classes = network.graph().n_classes();
        let best = |row: &[f32]| (0..row.len()).fold(0, |b, i| if row[i] > row[b] { i } else { b }) as u16;
        // Right but for the first.
        let mut labels: Vec<u16> = logits.chunks(n_classes).map(best).collect();
        labels[0] = (labels[0] + 1) % n_classes as u16;
        Self { network, images, logits, labels }
    }
    fn set(&self) -> ImageSet<'_> {
        let n_classes = self.network.graph().n_classes();
        let truth = Truth { labels: Some(&self.labels), n_classes, original_logits: Some(&self.logits) };
        ImageSet { shape: self.network.graph().input(), images: &self.images, truth }
    }
    fn check(&self, scores: &[GpuScore]) {
        assert_eq!(scores.len(), 1);
        assert_eq!((scores[0].n_correct, scores[0].first_not_finite), (8, None));
        assert!(scores[0].divergence < 1e-6, "{}", scores[0].divergence);
    }
}

#[test]
fn a_lost_device_is_rebuilt_and_the_batch_scored_again() {
    if checked().is_none() {
        return;
    }
    let case = Case::new();
    let candidates = Candidates::Repaired(&[&case.network]);
    for key in [Some(0), None] {
        let mut session = Session::open(GpuOptions::default()).unwrap();
        let scored = session.score(key, &case.set(), &candidates).unwrap();
        assert_eq!(scored.recovered, None);
        case.check(&scored.scores);
        session.gpu().unwrap().destroy();
        let scored = session.score(key, &case.set(), &candidates).unwrap();
        let why = scored.recovered.unwrap();
        assert!(matches!(why, GpuError::Lost { .. } | GpuError::Refused { .. }), "{why}");
        case.check(&scored.scores);
        let scored = session.score(key, &case.set(), &candidates).unwrap();
        assert_eq!(scored.recovered, None, "the rebuilt device stays");
        case.check(&scored.scores);
    }
}

#[test]
fn a_device_that_is_lost_a_second_time_is_not_rebuilt_however_much_later() {
    if checked().is_none() {
        return;
    }
    let case = Case::new();
    let candidates = Candidates::Repaired(&[&case.network]);
    let mut session = Session::open(GpuOptions::default()).unwrap();
    session.gpu().unwrap().destroy();
    assert!(session.score(Some(0), &case.set(), &candidates).unwrap().recovered.is_some());
    for _ in 0..3 {
        assert_eq!(session.score(Some(0), &case.set(), &candidates).unwrap().recovered, None);
    }
    session.gpu().unwrap().destroy();
    let error = session.score(Some(0), &case.set(), &candidates).unwrap_err();
    assert!(error.is_of_device(), "{error}");
}

#[test]
fn what_another_try_cannot_cure_is_an_error_at_once() {
    if checked().is_none() {
        return;
    }
    let case = Case::new();
    let mut session = Session::open(GpuOptions::default()).unwrap();
    let set = case.set();
    let short = ImageSet { truth: Truth { labels: Some(&case.labels[1..]), ..set.truth }, ..set };
    let error = session.score(None, &short, &Candidates::Repaired(&[&case.network])).unwrap_err();
    assert_eq!(error.to_string(), "labels: expected 9 values, got 8");
    case.check(&session.score(None, &set, &Candidates::Repaired(&[&case.network])).unwrap().scores);
}
