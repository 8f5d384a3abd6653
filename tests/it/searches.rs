//! The searches and plans that need no learning by gradients, through the whole command line.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::timeless;

/// One task, few images.
const SMALL: [&str; 5] = [
    "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\")]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 400, test: 200))]",
    "images=(reward: 120, calibration: 120, walk: 40, refit: 120)",
    "budgets=[Macs(ratio: 0.5)]",
    "finalists=2",
];

/// All of them, each with few candidates.
const ALL: [&str; 3] = [
    "agent=SwapEvolution()",
    "walks_per_task=12",
    "controls=[Knapsack(), EqualError, GlobalNorm(normalisation: Lamp), Fixed(widths: {\"conv*\": 0.4, \"conv2a\": 5}),
        Spdy(candidates: 12), ValueOfError(candidates: 12), Evolution(candidates: 12, population: 5, elites: 2),
        Mtacp(candidates: 12, start: Knapsack, observe: Errors), Impala(candidates: 12), Ppo(candidates: 12),
        QmixFp(candidates: 12, batch: 4), Amc(candidates: 12, observe: Errors), Cacp(candidates: 12)]",
];

fn command(out: &Path, sets: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.arg("run").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron")).arg("--out").arg(out);
    let path = |set: &str| set.split('=').next().map(str::to_owned);
    let small = SMALL.iter().filter(|small| sets.iter().all(|set| path(set) != path(small)));
    for set in small.chain(sets) {
        command.args(["--set", set]);
    }
    command.env("NO_COLOR", "1");
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The summary without times, and the events.
fn results(out: &Path) -> (Value, Vec<Value>) {
    (timeless::summary(out), timeless::events(out))
}

/// Widths of the walks of an agent, in order.
fn widths<'a>(events: &'a [Value], agent: &str) -> Vec<&'a Value> {
    let of_agent = events.iter().filter(|e| e["event"] == "candidate" && e["agent"] == agent);
    let mut walks: Vec<&Value> = of_agent.collect();
    walks.sort_by_key(|event| event["walk"].as_u64());
    walks.iter().map(|event| &event["widths"]).collect()
}

#[test]
fn every_search_and_plan_gives_the_same_for_any_number_of_threads_and_searches_begin_at_the_knapsack() {
    let dir = tempfile::tempdir().unwrap();
    let run = |threads: &str| {
        let out = dir.path().join(threads);
        let output = command(&out, &ALL).args(["--threads", threads]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        results(&out)
    };
    let (summary, events) = run("1");
    assert_eq!(run("3"), (summary.clone(), events.clone()));
    let knapsack = widths(&events, "knapsack");
    assert_eq!(knapsack.len(), 1);
    for agent in
        ["swap_evolution", "spdy", "value_of_error", "evolution", "mtacp", "impala", "ppo", "amc", "cacp", "qmix_fp"]
    {
        let walks = widths(&events, agent);
        assert_eq!((walks.len(), walks[0]), (12, knapsack[0]), "{agent}");
    }
    // What is fixed fills the rest of the budget like every other candidate.
    let fixed = widths(&events, "fixed");
    assert!(fixed.len() == 1 && fixed[0][0].as_u64() >= Some(5), "{fixed:?}");
    let scored = |agent: &str| {
        let controls = summary["controls"].as_array().unwrap();
        controls.iter().find(|control| control["agent"] == agent).unwrap()["candidates_scored"].as_u64().unwrap()
    };
    assert_eq!(
        ["knapsack", "equal_error", "global_norm", "fixed"].map(scored),
        [1 + 3, 1, 1, 1],
        "three groups are probed"
    );
    let max = summary["tasks"][0]["budget"]["max"].as_u64();
    let controls = summary["controls"].as_array().unwrap();
    assert!(controls.iter().all(|control| control["macs"].as_u64() <= max), "{summary}");
}

#[test]
fn a_search_that_is_killed_goes_on_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().unwrap();
    for agent in [
        "SwapEvolution()",
        "Spdy(patience: 5)",
        "ValueOfError()",
        "Evolution(population: 10)",
        "Amc(updates: PerStep(1))",
        "Cacp()",
        "Ppo()",
        "QmixFp(batch: 4)",
    ] {
        let folder = dir.path().join(agent.split('(').next().unwrap());
        let (killed, whole) = (folder.join("killed"), folder.join("whole"));
        let agent = format!("agent={agent}");
        let sets = [agent.as_str(), "walks_per_task=80", "controls=[]"];
        assert!(command(&whole, &sets).output().unwrap().status.success());
        let mut child = command(&killed, &sets).args(["--checkpoint-every", "0.05", "--quiet"]).spawn().unwrap();
        let start = Instant::now();
        let n_learned =
            || fs::read_to_string(killed.join("metrics.jsonl")).unwrap_or_default().matches("\"learned\"").count();
        let has_checkpoint = || fs::read_dir(killed.join("checkpoints")).is_ok_and(|files| files.count() > 0);
        while (n_learned() < 3 || !has_checkpoint()) && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(120), "nothing was learned");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let output = command(&killed, &sets).arg("--resume").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(results(&killed), results(&whole), "{agent}");
    }
}

#[test]
fn widths_that_cannot_be_kept_are_refused_with_what_could_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    for (set, words) in [
        (
            "agent=Fixed(widths: {\"*\": 0.9})",
            ["`agent.widths` of task shapes-shapes-macs0.5 cost", "nearest that fit: {"],
        ),
        ("agent=Fixed(widths: {\"conv2a\": 5})", ["`agent.widths[\"conv2a\"]` is 5", "nearest allowed: 4 and 8"]),
        ("agent=Fixed(widths: {\"cnv2a\": 4})", ["names no group that may be pruned", "the nearest are \"conv2a\""]),
        ("controls=[Fixed(widths: {\"cnv2*\": 4})]", ["`controls[0].widths[\"cnv2*\"]`", "the nearest are \"conv2a\""]),
        ("agent=Fixed(widths: {\"*\": 0})", ["`agent.widths[\"*\"]` is 0", "a share above 0"]),
        ("agent=Fixed(widths: {\"*\": \"half\"})", ["expected channels such as 12", "a share such as 0.5"]),
        ("agent=Spdy(spread: 0.5)", ["`agent.spread` is 0.5", "expected a number in [1.0"]),
        ("agent=Evolution(population: 4)", ["`agent.elites` is 5", "expected 1..=4"]),
        ("agent=ValueOfError(swap_share: 1.5)", ["`agent.swap_share` is 1.5", "[0"]),
        ("agent=QmixFp(mixing: Sum)", ["`Qmix`", "`Vdn`"]),
        ("agent=QmixFp(batch: 16, replay: 8)", ["`agent.batch` is 16", "1..=8"]),
        ("agent=SwapEvolution(swaps: 0)", ["`agent.swaps` is 0", "1..=100"]),
        ("agent=Mtacp(profile: Paper, start: Knapsack)", ["`agent.start` is Knapsack", "`squash` is Absolute"]),
        ("agent=Ppo(unroll: Fixed(9))", ["`agent.unroll` is Fixed(9)", "Walk where `objective` is Clipped"]),
        ("agent=Amc(warmup: 1.0)", ["`agent.warmup` is 1", "[0"]),
        ("agent=Cacp(hiden: [8])", ["hiden", "did you mean `hidden`?"]),
        ("agent=GlobalNorm(normalisation: Max)", ["`Mean`", "`Lamp`"]),
    ] {
        let output = command(&out, &[set, "channel_multiple=4"]).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{set}: {message}");
        assert!(words.iter().all(|word| message.contains(word)), "{set}: {message}");
        assert!(!out.exists(), "{set}");
    }
}

#[test]
fn built_in_criteria_choose_channels_and_one_without_batch_norm_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sets = |selection: &str| [format!("selection={selection}"), "agent=Uniform".into(), "controls=[]".into()];
    let weights = |selection: &str| {
        let (out, sets) = (dir.path().join(selection), sets(selection));
        let output = command(&out, &sets.each_ref().map(String::as_str)).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let file = results(&out).0["tasks"][0]["model_file"].as_str().unwrap().to_owned();
        fs::read(out.join(file)).unwrap()
    };
    let made = ["L2", "Fpgm", "ActivationEnergy", "BnScale"].map(weights);
    for (i, network) in made.iter().enumerate() {
        assert!(made[..i].iter().all(|other| other != network), "equal widths, other channels");
    }
    // What a run writes has its BatchNorm folded.
    let folded = dir.path().join("L2/tasks/shapes-shapes-macs0.5/model.safetensors");
    let network = format!("networks=[(name: \"folded\", file: {folded:?})]");
    let out = dir.path().join("none");
    let mut sets = sets("BnScale").to_vec();
    sets.push(network);
    let output = command(&out, &sets.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("has no BatchNorm behind the layers that make its channels"), "{message}");
    assert!(!out.exists());
}
