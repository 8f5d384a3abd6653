//! Who prepares what while the card is busy, and what happens when the card fails in the middle of it.

use std::path::Path;
use std::time::Duration;

use secateur_kernels::{KernelError, channel_norms};
use secateur_net::KeptChannels;
use secateur_rl::agents::random::RandomSettings;
use secateur_sim::{
    Build, EndsAfter, Evaluate, Evaluator, NoiseFree, PluginList, Pool, ProcessEvent, RewardKind, Settings,
};
use secateur_train::{Executor, Scheduler, Search, SearchEvent, SearchSetup};

use super::*;
use secateur_sim::Score;

use crate::hand_made;
use crate::spec::RunSpec;

const N_IMAGES: usize = 40;

fn pool(n_threads: usize) -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap())
}

fn prepared() -> Arc<Prepared> {
    hand_made::prepared(&pool(1), N_IMAGES)
}

/// A card, or a loud skip where there is none and none is required.
fn card(options: GpuOptions) -> Option<Card> {
    match Session::open(options) {
        Ok(session) => Some(Card::new(session)),
        Err(error) => {
            let is_required = std::env::var("SECATEUR_REQUIRE_GPU").as_deref() == Ok("1");
            assert!(!is_required, "SECATEUR_REQUIRE_GPU=1, but {error}");
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

/// Networks of two candidates and the original.
fn networks(prepared: &Prepared) -> Vec<Arc<Network>> {
    let full = prepared.groups.full_widths();
    let narrow = |by: usize| full.iter().map(|&n| (n / by).max(1)).collect::<Vec<_>>();
    let compact = |widths: Vec<usize>| Arc::new(prepared.compact(&prepared.select(&widths)).unwrap());
    vec![compact(narrow(2)), compact(narrow(3)), Arc::new(prepared.network.clone())]
}

/// Networks as those of the walks from `walk` on.
fn built_from(walk: u64, networks: &[Arc<Network>]) -> Vec<Built> {
    let built =
        |(network, walk): (&Arc<Network>, u64)| Built { id: CandidateId { task: 0, walk }, network: network.clone() };
    networks.iter().zip(walk..).map(built).collect()
}

/// The scores of walks 0 to `n`.
fn finish(state: &mut CardState, n: usize) -> Vec<Option<GpuScore>> {
    let mut scores = Scores::new();
    state.finish(&mut scores);
    (0..n as u64).map(|walk| scores.get(&CandidateId { task: 0, walk }).map(|(_, score)| *score)).collect()
}

fn score(state: &mut CardState, prepared: &Arc<Prepared>, networks: &[Arc<Network>]) -> Vec<Option<GpuScore>> {
    state.begin(0, prepared.clone(), built_from(0, networks));
    finish(state, networks.len())
}

fn assert_as_the_processor(scores: &[Option<GpuScore>], prepared: &Prepared, networks: &[Arc<Network>]) {
    for (score, network) in scores.iter().zip(networks) {
        let (score, expected) =
            (score.unwrap(), prepared.reward.score(&pool(1), network, secateur_kernels::Precision::F32).unwrap());
        assert_eq!(Some(score.n_correct as f64 / N_IMAGES as f64), expected.accuracy);
        let divergence = expected.divergence.unwrap();
        assert!((score.divergence / N_IMAGES as f64 - divergence).abs() < 1e-5, "{score:?} {expected:?}");
    }
}

#[test]
fn without_labels_the_card_finds_the_processors_divergence_and_nothing_right() {
    let Some(card) = card(GpuOptions::default()) else { return };
    let prepared = hand_made::prepared_for(&pool(1), N_IMAGES, |reward| secateur_sim::RewardInputs {
        labels: None,
        kind: RewardKind::Kl,
        ..reward
    });
    let networks = networks(&prepared);
    for (score, network) in score(&mut card.state(), &prepared, &networks).iter().zip(&networks) {
        let (score, expected) =
            (score.unwrap(), prepared.reward.score(&pool(1), network, secateur_kernels::Precision::F32).unwrap());
        assert_eq!((score.n_correct, expected.accuracy), (0, None));
        let divergence = expected.divergence.unwrap();
        assert!((score.divergence / N_IMAGES as f64 - divergence).abs() < 1e-5, "{score:?} {expected:?}");
    }
}

#[test]
fn the_output_error_is_left_to_the_processor_which_is_said_once() {
    let Some(card) = card(GpuOptions::default()) else { return };
    let prepared = hand_made::prepared_for(&pool(1), N_IMAGES, |reward| secateur_sim::RewardInputs {
        kind: RewardKind::OutputError,
        ..reward
    });
    let networks = networks(&prepared);
    for _ in 0..2 {
        assert!(score(&mut card.state(), &prepared, &networks).iter().all(Option::is_none));
    }
    let warnings = card.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("the reward OutputError is computed on the CPU"),
        "{warnings:?}"
    );
}

#[test]
fn networks_are_scored_as_the_processor_does() {
    let (Some(card), prepared) = (card(GpuOptions::default()), prepared()) else { return };
    let networks = networks(&prepared);
    assert_as_the_processor(&score(&mut card.state(), &prepared, &networks), &prepared, &networks);
    assert!(card.warnings().is_empty() && card.state().ahead.is_empty());
}

#[test]
fn a_network_that_does_not_fit_is_left_to_the_processor_and_others_are_not() {
    // Not even one image fits.
    let tiny = GpuOptions { binding_max: Some(64), ..GpuOptions::default() };
    let (Some(card), prepared) = (card(tiny), prepared()) else { return };
    let networks = networks(&prepared);
    assert_eq!(score(&mut card.state(), &prepared, &networks), [None; 3]);
    let warnings = card.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("one image"), "{warnings:?}");
    assert!(warnings[0].contains(&prepared.network_name) && warnings[0].contains("CPU from here on"), "{warnings:?}");
    assert!(card.forgets_scores() && !card.forgets_scores(), "narrower candidates may have had scores");
    assert_eq!(score(&mut card.state(), &prepared, &networks), [None; 3]);
    assert!(card.warnings().len() == 1 && card.state().session.is_some());
    assert!(card.device().starts_with("gpu: ") && card.device().ends_with(", some networks cpu"));
    assert_eq!((card.news().len(), card.news().len()), (1, 0), "told once");
    // What does fit, on the same card, under another index.
    let mut state = card.state();
    let whole = Session::open(GpuOptions::default()).unwrap();
    state.session = Some(whole);
    state.begin(1, prepared.clone(), built_from(0, &networks));
    assert!(finish(&mut state, 3).iter().all(Option::is_some));
    assert_eq!(score(&mut state, &prepared, &networks), [None; 3], "the first stays where it is");
}

#[test]
fn a_panic_on_the_way_to_the_card_costs_the_card_and_not_the_run() {
    let (Some(card), prepared) = (card(GpuOptions::default()), prepared()) else { return };
    let networks = networks(&prepared);
    let mut state = card.state();
    state.begin(0, prepared.clone(), built_from(0, &networks[..1]));
    state.panics = true;
    assert_eq!(score(&mut state, &prepared, &networks), [None; 3]);
    assert!(state.session.is_none() && state.forgets_scores);
    let warnings = &state.record.warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("panicked: a fault of the driver"), "{warnings:?}");
}

#[test]
fn all_that_a_lost_device_was_busy_with_is_scored_again_after_one_rebuilding() {
    let (Some(card), prepared) = (card(GpuOptions::default()), prepared()) else { return };
    let (networks, mut state) = (networks(&prepared), card.state());
    state.begin(0, prepared.clone(), built_from(0, &networks[..1]));
    state.session.as_ref().unwrap().gpu().unwrap().destroy();
    for walk in 1..networks.len() {
        state.begin(0, prepared.clone(), built_from(walk as u64, &networks[walk..=walk]));
    }
    let scores = finish(&mut state, networks.len());
    assert_as_the_processor(&scores, &prepared, &networks);
    assert!(state.session.is_some());
    assert!(
        state.record.warnings.len() == 1 && state.record.warnings[0].contains("scored again"),
        "{:?}",
        state.record
    );
}

#[test]
fn a_queue_that_hangs_twice_is_given_up() {
    let hangs = GpuOptions { timeout: Some(Duration::ZERO), ..GpuOptions::default() };
    let (Some(card), prepared) = (card(hangs), prepared()) else { return };
    let networks: Vec<_> = (0..64).map(|_| Arc::new(prepared.network.clone())).collect();
    assert_eq!(score(&mut card.state(), &prepared, &networks), [None; 64]);
    let warnings = card.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("did not finish within 0 s"), "{warnings:?}");
}

/// Compact networks without refit; notes for each how many batches the card had in hand when it was built.
struct Watching {
    card: Card,
    in_hand: Arc<Mutex<Vec<usize>>>,
}

impl Evaluate for Watching {
    fn begin<'a>(&'a self, _: &'a rayon::ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError> {
        Ok(Box::new(|kept: &KeptChannels| {
            let n = self.card.state().ahead.len();
            self.in_hand.lock().unwrap().push(n);
            prepared.compact(kept).map(Arc::new)
        }))
    }

    fn score(&self, _: &rayon::ThreadPool, _: &Prepared, _: &Network) -> Result<Score, KernelError> {
        panic!("the card scores everything")
    }
}

/// Six actors, twelve random walks: scores of the candidates, and how many batches the card had in hand when each was
/// built.
fn search(card: &Card, n_threads: usize) -> (Vec<Score>, Vec<usize>) {
    let (pool, in_hand) = (pool(n_threads), Arc::new(Mutex::new(Vec::new())));
    let mut app = App::empty();
    secateur_sim::add_process(&mut app);
    app.insert_resource(Evaluator(Arc::new(Watching { card: card.clone(), in_hand: in_hand.clone() })));
    card.join(&mut app, &Pool(pool.clone()));
    let networks = [hand_made::prepared(&pool, N_IMAGES)];
    let settings = Settings {
        channel_multiple: 1,
        keep_ratio_min: 0.1,
        spend_leftover: false,
        reward: RewardKind::Kl,
        finalists: 1,
        actors_per_task: 6,
        walks_per_task: 12,
        ends_after: EndsAfter::Walks,
        noise_free: NoiseFree { every: 0, last: 0 },
    };
    let setup = SearchSetup {
        pool: Pool(pool),
        settings,
        networks: &networks,
        tasks: &[hand_made::task(&networks[0])],
        agent: &RandomSettings {},
        seed: 3,
        queue_capacity: 1,
        scheduler: Scheduler::Lockstep,
        executor: Executor::Single,
    };
    let mut search = Search::new(app, &setup).unwrap();
    let mut scores = Vec::new();
    while !search.is_done() {
        let events = search.tick().unwrap();
        assert!(card.state().ahead.is_empty(), "nothing is left over for the next tick");
        scores.extend(events.iter().filter_map(|event| match event {
            SearchEvent::Process(ProcessEvent::Candidate { score, .. }) => Some(*score),
            _ => None,
        }));
    }
    let in_hand = in_hand.lock().unwrap().clone();
    (scores, in_hand)
}

#[test]
fn networks_are_built_while_the_card_has_the_ones_before_them() {
    let Some(card) = card(GpuOptions::default()) else { return };
    let (scores, in_hand) = search(&card, 2);
    assert_eq!(scores.len(), 12);
    // Two at a time: the second pair is built when the first is on the card and its scores were not waited for.
    assert_eq!(in_hand, [[0, 0, 1, 1, 2, 2]; 2].concat());
    assert!(card.warnings().is_empty());
}

#[test]
fn scores_of_the_card_do_not_depend_on_the_number_of_threads_nor_on_its_memory() {
    let Some(plain) = card(GpuOptions::default()) else { return };
    let (expected, _) = search(&plain, 1);
    // Bindings so small that neither all candidates nor all images pass at once.
    let small = card(GpuOptions { binding_max: Some(24 << 10), ..GpuOptions::default() }).unwrap();
    for (card, n_threads) in [(&plain, 6), (&small, 4)] {
        assert_eq!(search(card, n_threads).0, expected, "{n_threads} threads");
        assert!(card.warnings().is_empty(), "{:?}", card.warnings());
    }
}

/// With two equal filters the card leaves the order to the processor.
#[test]
fn channels_are_ordered_by_norm_as_the_processor_orders_them() {
    let Some(card) = card(GpuOptions::default()) else { return };
    let network = prepared().network.clone();
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let changed = |change: &dyn Fn(&mut [f32])| {
        let mut out = network.clone();
        let mut weight = out.parameter("c0", "weight").clone();
        change(weight.data_mut());
        out.set_parameter("c0", "weight", weight).unwrap();
        let mut next = out.parameter("c1", "weight").clone();
        // What reads channel 1 is what reads channel 0.
        next.data_mut().chunks_mut(hand_made::N_CHANNELS).for_each(|filter| filter[1] = filter[0]);
        out.set_parameter("c1", "weight", next).unwrap();
        out
    };
    let equal = changed(&|weights| weights.copy_within(0..3, 3));
    for norm in [Norm::L1, Norm::L2] {
        let expected = |network: &Network, group: GroupId| {
            let norms = channel_norms(network, &groups, group, norm);
            let mut order: Vec<usize> = (0..norms.len()).collect();
            order.sort_by(|&a, &b| norms[a].total_cmp(&norms[b]).then(b.cmp(&a)));
            order
        };
        let orders = card.norm_orders(&network, Protocol::Inner, norm);
        assert!(!orders.is_empty(), "most orders are clear");
        orders.iter().for_each(|(&group, order)| assert_eq!(*order, expected(&network, group), "group {group}"));
        let group = groups.prunable()[0];
        let orders = card.norm_orders(&equal, Protocol::Inner, norm);
        assert_eq!(orders.get(&group), None, "equal filters");
        orders.iter().for_each(|(&group, order)| assert_eq!(*order, expected(&equal, group), "group {group}"));
    }
    assert!(card.warnings().is_empty());
    card.state().session.as_ref().unwrap().gpu().unwrap().destroy();
    assert!(card.norm_orders(&network, Protocol::Inner, Norm::L1).is_empty());
    assert!(card.warnings()[0].contains("filter norms are computed on the CPU"), "{:?}", card.warnings());
}

/// A run on the card that `open` gives: its summary and its log.
fn run(
    open: impl FnOnce() -> Result<Option<Card>, RunError>,
    out: &Path,
    resumes: bool,
) -> (serde_json::Value, String) {
    let sets = [
        "device=Gpu",
        "budgets=[Macs(ratio: 0.6)]",
        "agent=Random",
        "walks_per_task=2",
        "finalists=1",
        "images=(reward: 50, calibration: 20, walk: 10, refit: 20)",
        "controls=[]",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 200, test: 20)),
                   (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 200, test: 20))]",
    ];
    let spec = RunSpec {
        sets: sets.map(str::to_owned).to_vec(),
        out: Some(out.to_owned()),
        resume: resumes,
        ..RunSpec::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenes/quickstart.ron"))
    };
    crate::run_on(&spec, &PluginList::default(), &mut (), |_| open(), None, None).unwrap();
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    (serde_json::from_str(&read("summary.json")).unwrap(), read("log.txt"))
}

#[test]
fn a_run_ends_with_its_budgets_held_and_tells_what_became_of_the_card_when_it_is_resumed_too() {
    let Some(lost) = card(GpuOptions::default()) else { return };
    lost.state().session.as_ref().unwrap().gpu().unwrap().destroy();
    let hangs = card(GpuOptions { timeout: Some(Duration::ZERO), ..GpuOptions::default() }).unwrap();
    // Not even one image fits.
    let too_small = card(GpuOptions { binding_max: Some(64), ..GpuOptions::default() }).unwrap();
    let name = lost.record().name;
    let device = format!("gpu: {name}");
    let dir = tempfile::tempdir().unwrap();
    for (card, out, device, n_warnings, said) in [
        (&lost, "lost", device.clone(), 1, "the device was rebuilt and the batch scored again"),
        (&hangs, "hangs", format!("{device}, then cpu"), 1, "walks are scored on the CPU from here on"),
        (&too_small, "small", format!("{device}, some networks cpu"), 2, "' are scored on the CPU from here on"),
    ] {
        let out = dir.path().join(out);
        let (summary, log) = run(|| Ok(Some(card.clone())), &out, false);
        assert_eq!(summary["device"], device.as_str());
        let warnings = summary["warnings"].as_array().unwrap();
        assert!(warnings.len() == n_warnings && warnings[0].as_str().unwrap().contains(said), "{warnings:?}");
        assert!(log.contains("warning: ") && log.contains(said), "{log}");
        let tasks = summary["tasks"].as_array().unwrap();
        let holds = |task: &serde_json::Value| task["macs"].as_u64() <= task["budget"]["max"].as_u64();
        assert!(!tasks.is_empty() && tasks.iter().all(holds), "{summary}");
        // A card that was given up is not even opened.
        let fresh = || {
            assert!(!device.ends_with(", then cpu"));
            Ok(self::card(GpuOptions::default()))
        };
        let (again, _) = run(fresh, &out, true);
        assert_eq!((&again["device"], &again["warnings"]), (&summary["device"], &summary["warnings"]));
    }
}

#[test]
fn a_run_that_goes_on_with_another_card_says_so_and_forgets_the_scores_of_the_first() {
    let Some(card) = card(GpuOptions::default()) else { return };
    let own = card.record();
    let same = Card::again(Some(own.clone()), || Ok(Some(card.clone()))).unwrap().unwrap();
    assert_eq!((same.record(), same.forgets_scores()), (own.clone(), false));
    let record = CardRecord { name: "another".into(), warnings: vec!["old".into()], ..own.clone() };
    let other = Card::again(Some(record), || Ok(Some(card))).unwrap().unwrap();
    assert!(other.forgets_scores() && !other.forgets_scores());
    assert_eq!((other.record().name, other.warnings().len()), (own.name, 2));
    let news = other.news();
    assert!(news.len() == 1 && news[0].contains("another: gone since"), "{news:?}");
}

#[test]
fn compiled_pipelines_are_kept_where_the_card_is_told_to_and_nowhere_else() {
    let (Some(card), prepared) = (card(GpuOptions::default()), prepared()) else { return };
    let networks = networks(&prepared);
    assert!(score(&mut card.state(), &prepared, &networks)[0].is_some());
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kept");
    card.keep_pipelines();
    card.state().folder = Some(folder.clone());
    card.keep_pipelines();
    let Some((key, compiled)) = card.state().session.as_ref().unwrap().gpu().unwrap().compiled() else {
        assert!(!folder.exists());
        return;
    };
    assert!(
        cache_files::read(&folder, &pipelines(&key)) == Some(compiled),
        "the next process reads what this one wrote"
    );
}
