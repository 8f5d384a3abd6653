//! A search whose candidates are scored by others ends as the run that scores them itself.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use secateur::run::{AskTell, AskedCandidate, BestCandidate, CandidateEvaluator, RunSpec};
use secateur::sim::{PluginList, Score};
use serde_json::Value;

use crate::timeless;

/// Two tasks, an agent that learns, few walks and images.
fn spec(out: &Path) -> RunSpec {
    let sets = [
        "budgets=[Macs(ratio: 0.6)]",
        "agent=Mtacp()",
        "walks_per_task=8",
        "actors_per_task=2",
        "finalists=2",
        "images=(reward: 60, calibration: 60, walk: 20, refit: 60)",
        "controls=[Random(candidates: 3)]",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 200, test: 100)),
                   (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 200, test: 100))]",
    ];
    let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron");
    RunSpec { sets: sets.map(str::to_owned).to_vec(), out: Some(out.to_owned()), ..RunSpec::new(scene) }
}

/// Asks for all there is, and tells the last first.
fn drive(search: &AskTell, evaluators: &[CandidateEvaluator], mut stop: impl FnMut() -> bool) -> Vec<AskedCandidate> {
    let mut all = Vec::new();
    while !search.is_done() && !stop() {
        let asked = search.ask(100).unwrap();
        for (i, candidate) in asked.iter().enumerate().rev() {
            search.tell(candidate, evaluators[i % evaluators.len()].score(candidate).unwrap()).unwrap();
        }
        all.extend(asked);
    }
    all
}

/// The last candidate of each task that `metrics.jsonl` calls the best, by task: walk, reward, widths.
fn best_of_metrics(out: &Path, agent: &str) -> Vec<(String, u64, f64)> {
    let mut best: Vec<(String, u64, f64)> = Vec::new();
    for line in fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["event"] != "candidate" || line["agent"] != agent || line["is_best"] != true {
            continue;
        }
        let (task, walk) = (line["task"].as_str().unwrap().to_owned(), line["walk"].as_u64().unwrap());
        best.retain(|(of, ..)| *of != task);
        best.push((task, walk, line["reward"].as_f64().unwrap()));
    }
    best.sort_by(|a, b| a.0.cmp(&b.0));
    best
}

fn told_best(best: &[BestCandidate]) -> Vec<(String, u64, f64)> {
    let of = |best: &BestCandidate| (best.candidate.task_name.clone(), best.candidate.walk, f64::from(best.reward));
    let mut out: Vec<_> = best.iter().map(of).collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

#[test]
fn asked_and_told_a_search_finds_what_a_run_finds_whoever_scores_and_in_whatever_order() {
    let dir = tempfile::tempdir().unwrap();
    let (alone, told) = (dir.path().join("alone"), dir.path().join("told"));
    secateur::run(&spec(&alone), &PluginList::default(), &mut ()).unwrap();
    let search = AskTell::new(&spec(&told), &mut ()).unwrap();
    // One that shares what the search prepared, and one that another process would have.
    let other = CandidateEvaluator::new(&RunSpec { threads: "1".parse().ok(), ..spec(&told) }, &mut ()).unwrap();
    let asked = drive(&search, &[search.evaluator(), other.clone()], || false);
    assert_eq!(told_best(&search.best()), best_of_metrics(&alone, "mtacp"));
    assert_eq!(search.best().len(), 2, "a best candidate for each task");
    // Of each candidate one score, bit for bit, from whoever it comes.
    let again: Vec<Score> = asked.iter().rev().map(|candidate| other.score(candidate).unwrap()).collect();
    let here: Vec<Score> = asked.iter().rev().map(|candidate| search.evaluator().score(candidate).unwrap()).collect();
    assert_eq!(again, here);
    search.finish(&mut ()).unwrap();
    assert_eq!(timeless::summary(&told), timeless::summary(&alone));
    assert_eq!(timeless::events(&told), timeless::events(&alone));
}

#[test]
fn a_saved_search_asks_only_for_what_it_was_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let (out, file) = (dir.path().join("run"), dir.path().join("search.json"));
    let whole = AskTell::new(&spec(&out), &mut ()).unwrap();
    let evaluators = [whole.evaluator()];
    let n_all = drive(&whole, &evaluators, || false).len();
    let half = AskTell::new(&spec(&out), &mut ()).unwrap();
    let mut n_rounds = 0;
    let n_before = drive(&half, &evaluators, || {
        n_rounds += 1;
        n_rounds > 2
    })
    .len();
    // What is handed out is asked for again by the one that goes on.
    let open = loop {
        let asked = half.ask(1).unwrap();
        if !asked.is_empty() {
            break asked;
        }
    };
    half.save(&file).unwrap();
    drop(half);
    let goes_on = AskTell::load(&spec(&out), &file, &mut ()).unwrap();
    let after = drive(&goes_on, &evaluators, || false);
    assert_eq!((after[0].clone(), n_before + after.len()), (open[0].clone(), n_all));
    assert_eq!((goes_on.best(), goes_on.n_told()), (whole.best(), n_all));
    // Another scene's file is refused by what differs.
    let mut other = spec(&out);
    other.sets.push("seed=99".into());
    let error = AskTell::load(&other, &file, &mut ()).err().unwrap().to_string();
    assert!(error.contains("`seed` is 7 there and 99 here"), "{error}");
    fs::write(&file, "{}").unwrap();
    let error = AskTell::load(&spec(&out), &file, &mut ()).err().unwrap().to_string();
    assert!(error.contains("search.json") && error.contains("it is none"), "{error}");
}

#[test]
fn what_is_told_twice_or_elsewhere_or_is_no_score_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(&dir.path().join("run"));
    let search = AskTell::new(&spec, &mut ()).unwrap();
    let asked = search.ask(2).unwrap();
    let score = search.evaluator().score(&asked[0]).unwrap();
    let refused = |candidate: &AskedCandidate, score: Score| search.tell(candidate, score).unwrap_err().to_string();
    let nan = Score { accuracy: Some(f64::NAN), ..score };
    assert!(refused(&asked[0], nan).contains("NaN"), "{}", refused(&asked[0], nan));
    let nothing = Score { accuracy: None, divergence: None, output_error: Some(0.1) };
    assert!(refused(&asked[0], nothing).contains("what the reward"), "{}", refused(&asked[0], nothing));
    search.tell(&asked[0], score).unwrap();
    assert!(refused(&asked[0], score).contains("was told before"));
    let never = AskedCandidate { walk: 1000, ..asked[1].clone() };
    assert!(refused(&never, score).contains("was not asked"));
    let mut other = asked[1].clone();
    other.kept[0].pop();
    assert!(refused(&other, score).contains("other channels"));
    // A worker that is gone: its candidate is asked for again.
    assert!(search.ask_again() >= 1);
    assert_eq!(search.ask(1).unwrap(), asked[1..2]);
    // The candidate of another search, told and scored.
    let elsewhere =
        AskTell::new(&RunSpec { sets: [spec.sets.clone(), vec!["seed=99".into()]].concat(), ..spec }, &mut ());
    let elsewhere = elsewhere.unwrap();
    let theirs = elsewhere.ask(1).unwrap().remove(0);
    assert!(refused(&theirs, score).contains("another search"));
    assert!(search.evaluator().score(&theirs).unwrap_err().to_string().contains("another search"));
    let mut wide = asked[1].clone();
    wide.kept[0] = vec![100_000];
    assert!(search.evaluator().score(&wide).unwrap_err().to_string().contains("100000"));
}

/// The walks of `agent` in `metrics.jsonl`: task, number, reward.
fn walks_of_metrics(out: &Path, agent: &str) -> Vec<(String, u64, f64)> {
    let mut walks: Vec<_> = timeless::events(out)
        .iter()
        .filter(|line| line["event"] == "candidate" && line["agent"] == agent)
        .map(|line| {
            let (task, reward) = (line["task"].as_str().unwrap().to_owned(), line["reward"].as_f64().unwrap());
            (task, line["walk"].as_u64().unwrap(), reward)
        })
        .collect();
    walks.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    walks
}

/// All candidates up to where nothing new comes before one is told.
fn ask_all(search: &AskTell) -> Vec<AskedCandidate> {
    let asked = std::iter::from_fn(|| Some(search.ask(100).unwrap()).filter(|asked| !asked.is_empty()));
    asked.flatten().collect()
}

/// As [`spec`], with scores that count as they come.
fn as_they_come(out: &Path) -> RunSpec {
    let mut spec = spec(out);
    spec.sets.push("scheduler=Async".into());
    spec
}

#[test]
fn an_actor_whose_candidate_is_told_goes_on_while_others_wait_under_async_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    for (spec, goes_on) in [(as_they_come(&out), true), (spec(&out), false)] {
        let search = AskTell::new(&spec, &mut ()).unwrap();
        let first = ask_all(&search);
        assert!(first.len() > 1, "several actors wait");
        search.tell(&first[1], search.evaluator().score(&first[1]).unwrap()).unwrap();
        let next = ask_all(&search);
        assert_eq!(next.len(), usize::from(goes_on));
        assert!(next.iter().all(|next| next.task == first[1].task && !first.contains(next)));
    }
}

/// Tells what was asked one by one, newest first, so that the oldest waits for as long as it can.
fn drive_out_of_order(search: &AskTell, mut stop: impl FnMut() -> bool) -> Vec<AskedCandidate> {
    let (mut all, mut open) = (Vec::new(), Vec::new());
    while !search.is_done() && !stop() {
        let asked = ask_all(search);
        all.extend(asked.clone());
        open.extend(asked);
        if let Some(candidate) = open.pop() {
            search.tell(&candidate, search.evaluator().score(&candidate).unwrap()).unwrap();
        }
    }
    all
}

#[test]
fn scores_that_count_as_they_come_are_each_counted_once_and_give_the_same_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let (out, file) = (dir.path().join("run"), dir.path().join("search.json"));
    let search = AskTell::new(&as_they_come(&out), &mut ()).unwrap();
    drive_out_of_order(&search, || false);
    search.save(&file).unwrap();
    let best = search.best();
    search.finish(&mut ()).unwrap();
    let walks = walks_of_metrics(&out, "mtacp");
    let numbers: Vec<_> = walks.iter().map(|(task, walk, _)| (task.clone(), *walk)).collect();
    let mut once = numbers.clone();
    once.dedup();
    assert_eq!((numbers.len(), once.len()), (16, 16), "eight walks of two tasks, each once");
    assert_eq!(told_best(&best), best_of_metrics(&out, "mtacp"));
    let summary = timeless::summary(&out);
    assert_eq!((&summary["scheduler"], &summary["walks"]), (&"async".into(), &16.into()));
    let log = fs::read_to_string(out.join("log.txt")).unwrap();
    assert!(log.contains("count in the order in which they came"), "{log}");
    // What was told, and when, is all that the run follows from.
    let again = dir.path().join("again");
    let loaded = AskTell::load(&as_they_come(&again), &file, &mut ()).unwrap();
    while !loaded.is_done() {
        assert_eq!(loaded.ask(100).unwrap(), []);
    }
    loaded.finish(&mut ()).unwrap();
    assert_eq!(timeless::summary(&again), summary);
    // But for the learner's clock, and controls, whose learners' threads depend on time.
    assert_eq!(walks_of_metrics(&again, "mtacp"), walks);
}

#[test]
fn a_search_that_was_saved_while_scores_came_goes_on_with_all_that_it_took() {
    let dir = tempfile::tempdir().unwrap();
    for n_before in [1, 4, 9, 14] {
        let (out, file) = (dir.path().join(format!("run{n_before}")), dir.path().join("search.json"));
        let half = AskTell::new(&as_they_come(&out), &mut ()).unwrap();
        let mut n_told = 0;
        drive_out_of_order(&half, || {
            n_told += 1;
            n_told > n_before
        });
        // Until it took them.
        ask_all(&half);
        half.save(&file).unwrap();
        let n_told = half.n_told();
        drop(half);
        let goes_on = AskTell::load(&as_they_come(&out), &file, &mut ()).unwrap();
        let after = drive_out_of_order(&goes_on, || false);
        assert_eq!(n_told + after.len(), goes_on.n_told(), "nothing that was told is asked again");
        goes_on.finish(&mut ()).unwrap();
        assert_eq!(walks_of_metrics(&out, "mtacp").len(), 16);
    }
}

#[test]
fn a_search_that_nobody_tells_anything_ends_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let search = AskTell::new(&spec(&dir.path().join("run")), &mut ()).unwrap();
    assert!(!search.ask(1).unwrap().is_empty());
    // Everything is handed out, and nothing told: there is nothing new, and no waiting for it.
    assert_eq!(search.ask_within(100, Duration::from_secs(60)).unwrap().map(|all| all.is_empty()), Some(false));
    assert_eq!(search.ask(100).unwrap(), []);
    drop(search);
}

#[test]
fn scenes_whose_scores_would_depend_on_time_or_device_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (set, what) in [("scheduler=BoundedLag(max: 2)", "Lockstep"), ("device=Gpu", "processor")] {
        let mut spec = spec(&dir.path().join("run"));
        spec.sets.push(set.into());
        for error in
            [AskTell::new(&spec, &mut ()).err().unwrap(), CandidateEvaluator::new(&spec, &mut ()).err().unwrap()]
        {
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

/// With the first place of `from` replaced: what the inputs say of the machine stands in front of all that could be
/// written so by chance.
fn with_other(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[test]
fn what_is_sent_to_workers_scores_as_the_search_does_without_scene_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let tune = "tune_before_score=(steps: 3, batch: 16)";
    for sets in [
        &["repair=Sequential"][..],
        &["repair=Original"],
        &["repair=Off"],
        &["reward=Kl"],
        &["reward=OutputError()"],
        &[tune],
        &["repair=Original", tune],
        &["repair=Off", tune],
        // Again from the first of the 60 refit images.
        &["reward=OutputError()", "tune_before_score=(steps: 5, batch: 16)"],
    ] {
        let mut spec = spec(&dir.path().join("run"));
        spec.sets.extend(sets.iter().map(|&set| set.to_owned()));
        let search = AskTell::new(&spec, &mut ()).unwrap();
        let bytes = search.worker_inputs().unwrap();
        let away = CandidateEvaluator::of_worker_inputs(&bytes, "1".parse().ok(), |_| false).unwrap();
        assert_eq!(away.search(), search.evaluator().search());
        let asked = search.ask(4).unwrap();
        assert!(asked.len() > 1);
        for candidate in asked {
            assert_eq!(away.score(&candidate).unwrap(), search.evaluator().score(&candidate).unwrap(), "{sets:?}");
        }
        // Reward images of two data sets, those that walks are refitted or tuned on, and two networks of less than a
        // megabyte.
        let n_fitted = if sets.iter().any(|set| set.starts_with("tune")) { 60 } else { 20 };
        assert!(bytes.len() < 2 * (60 + n_fitted) * 3 * 32 * 32 * 4 + (2 << 20), "{} bytes", bytes.len());
    }
}

#[test]
fn a_worker_that_computes_other_digits_is_refused_unless_it_may_differ() {
    let dir = tempfile::tempdir().unwrap();
    let search = AskTell::new(&spec(&dir.path().join("run")), &mut ()).unwrap();
    let bytes = search.worker_inputs().unwrap();
    let instructions = format!("{:?}", secateur::kernels::Isa::detect());
    let other = with_other(&bytes, &instructions, &"N".repeat(instructions.len()));
    let refused = CandidateEvaluator::of_worker_inputs(&other, None, |_| false).err().unwrap().to_string();
    assert!(refused.contains(&format!("computes with {instructions}")) && refused.contains("same wheel"), "{refused}");
    let mut told = String::new();
    let allowed = CandidateEvaluator::of_worker_inputs(&other, None, |how| {
        told = how.to_owned();
        true
    });
    let candidate = search.ask(1).unwrap().remove(0);
    assert_eq!(allowed.unwrap().score(&candidate).unwrap(), search.evaluator().score(&candidate).unwrap());
    assert!(told.contains("NNNN"), "{told}");
    // Another version, and bytes that are cut or none of ours.
    let other = with_other(&bytes, env!("CARGO_PKG_VERSION"), &"9".repeat(env!("CARGO_PKG_VERSION").len()));
    let refused =
        |bytes: &[u8]| CandidateEvaluator::of_worker_inputs(bytes, None, |_| false).err().unwrap().to_string();
    assert!(refused(&other).contains("where the search has 99999"), "{}", refused(&other));
    for n in [0, 10, 30, bytes.len() / 2, bytes.len() - 1] {
        let told = refused(&bytes[..n]);
        assert!(told.contains("no inputs of a worker") || told.contains("damaged"), "{n}: {told}");
    }
}

#[test]
fn progress_counts_the_walks_that_were_paid() {
    let dir = tempfile::tempdir().unwrap();
    let search = AskTell::new(&spec(&dir.path().join("run")), &mut ()).unwrap();
    let evaluator = search.evaluator();
    assert_eq!((search.progress().done, search.progress().total), (0, 16), "eight walks of two tasks");
    drive(&search, &[evaluator], || false);
    assert_eq!(search.progress().done, 16);
}
