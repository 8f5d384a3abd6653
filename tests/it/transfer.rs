//! Runs that learn from earlier ones: what they take, that it is the same again, and what cannot be taken.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::history::{Place, SCENE, SHORT};
use crate::timeless::{events, summary};

const ALL: &[&str] =
    &["--set", "history.transfer=true", "--set", "history.augmented=true", "--set", "history.assistant=true"];
/// A task to learn from: another budget of the same network.
const SOURCE: &[&str] = &["--set", "budgets=[Macs(ratio: 0.7)]", "--set", "walks_per_task=16"];

fn with<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

#[test]
fn a_run_that_learned_of_others_is_the_same_again_from_the_same_snapshot() {
    let place = Place::new();
    place.run("source", SOURCE);
    let told = place.run("helped", &with(&[ALL, &["--threads", "1"]]));
    assert!(
        told.contains("shapes-shapes-macs0.5 learns from run 1: shapes-shapes-macs0.7, which counts 1.00"),
        "{told}"
    );
    assert!(told.contains("begins with the policy of run 1"), "{told}");
    let helped = summary(&place.at("helped"));
    let learned = &helped["history"];
    assert_eq!((&learned["policy_of_run"], &learned["sources"][0]["run"]), (&1.into(), &1.into()));
    assert!((learned["sources"][0]["distance"].as_f64().unwrap() - 0.2).abs() < 1e-3, "{learned}");
    let snapshot = learned["snapshot"].as_str().unwrap();
    // The history has grown by then: the run itself is in it, too.
    let again = place.run("again", &with(&[ALL, &["--threads", "2", "--history-at", snapshot]]));
    assert!(again.contains("learns from run 1"), "{again}");
    assert_eq!(
        (summary(&place.at("again")), events(&place.at("again"))),
        (helped.clone(), events(&place.at("helped")))
    );
    place.run("later", ALL);
    let later = &summary(&place.at("later"))["history"];
    assert_ne!(later["snapshot"], learned["snapshot"]);
    assert_eq!(later["sources"].as_array().unwrap().len(), 3, "{later}");
    assert_eq!(later["sources"][0]["distance"], 0.0, "the same task, in a run of before: {later}");
    // Each switch alone is another run, and so is none.
    place.run("alone", &[]);
    let alone = summary(&place.at("alone"));
    assert!(alone.get("history").is_none() && alone != helped);
    for (i, one) in ["history.transfer=true", "history.assistant=true"].iter().enumerate() {
        let name = format!("one {i}");
        place.run(&name, &["--set", one, "--history-at", snapshot]);
        let learned = &summary(&place.at(&name))["history"];
        assert_eq!(learned["policy_of_run"].is_null(), i == 1, "{learned}");
        assert_ne!(events(&place.at(&name)), events(&place.at("alone")));
    }
    for (at, with_history, told) in [
        ("9-0123456789ab", ALL, "has no snapshot '9-0123456789ab'"),
        (snapshot, &["--history", "none", "--set", "history.transfer=true"][..], "there is no history"),
        (snapshot, &[][..], "learns nothing of earlier runs"),
    ] {
        let sets = SHORT.iter().flat_map(|set| ["--set", *set]).collect::<Vec<_>>();
        let out = place.at("refused");
        let output = place.output(&with(&[
            &["run", SCENE, "--out", out.to_str().unwrap(), "--history-at", at],
            &sets,
            with_history,
        ]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(told) && !out.exists(), "{said}");
    }
}

#[test]
fn ddpg_agents_learn_of_earlier_runs_alike_for_any_number_of_threads() {
    let place = Place::new();
    for agent in ["Amc()", "Cacp()"] {
        let agent = format!("agent={agent}");
        let of_agent: &[&str] = &["--set", &agent];
        place.run(&format!("source {agent}"), &with(&[SOURCE, of_agent]));
        let told = place.run(&format!("one {agent}"), &with(&[ALL, of_agent, &["--threads", "1"]]));
        assert!(told.contains("begins with the policy of run"), "{told}");
        let one = summary(&place.at(&format!("one {agent}")));
        let snapshot = one["history"]["snapshot"].as_str().unwrap();
        place.run(&format!("two {agent}"), &with(&[ALL, of_agent, &["--threads", "2", "--history-at", snapshot]]));
        assert_eq!(one, summary(&place.at(&format!("two {agent}"))));
        place.run(&format!("alone {agent}"), of_agent);
        assert_ne!(events(&place.at(&format!("one {agent}"))), events(&place.at(&format!("alone {agent}"))));
    }
}

#[test]
#[cfg(unix)]
fn a_run_that_was_killed_goes_on_with_what_it_had_learned_though_the_history_grew() {
    let place = Place::new();
    place.run("source", SOURCE);
    let long: &[&str] = &["--set", "walks_per_task=150", "--checkpoint-every", "0.05"];
    place.run("whole", &with(&[ALL, long]));
    let whole = summary(&place.at("whole"));
    let snapshot = whole["history"]["snapshot"].as_str().unwrap().to_owned();
    let sets = SHORT.iter().flat_map(|set| ["--set", *set]).collect::<Vec<_>>();
    let out = place.at("killed");
    let at: &[&str] = &["--history-at", &snapshot];
    let arguments = with(&[&["run", SCENE, "--out", out.to_str().unwrap()], &sets, ALL, long, at]);
    let mut child = place.command(&arguments).stderr(Stdio::null()).spawn().unwrap();
    let checkpoints = || fs::read_dir(out.join("checkpoints")).map_or(0, Iterator::count);
    while checkpoints() < 2 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.join("summary.json").exists(), "the run ended before it was killed");
    place.run("another", SOURCE);
    // Not even the history need be there any more.
    let elsewhere = place.at("other.sqlite");
    place.run("killed", &with(&[ALL, long, &["--resume", "--history", elsewhere.to_str().unwrap()]]));
    assert_eq!((whole, events(&place.at("whole"))), (summary(&out), events(&out)));
    // What it learns from is part of the run: without, it does not go on as another.
    fs::remove_file(out.join("history.sources")).unwrap();
    fs::remove_file(out.join("summary.json")).unwrap();
    let output = place.output(&with(&[&arguments, &["--resume"]]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no history.sources"), "{output:?}");
}

#[test]
fn what_cannot_be_learned_from_is_told_and_the_run_begins_from_nothing() {
    let place = Place::new();
    let alone = |name: &str| -> Value { summary(&place.at(name))["tasks"].clone() };
    // Neither a history, nor one with tasks like these, nor one that can be read.
    let told = place.run("first", &["--set", "history.transfer=true"]);
    assert!(told.contains("there is no history") && told.contains("learns nothing of earlier ones"), "{told}");
    assert!(summary(&place.at("first"))["history"]["snapshot"].is_null());
    place.run("none", &["--history", "none"]);
    assert_eq!(alone("first"), alone("none"));
    let empty = place.at("empty.sqlite");
    place.run("no tasks", &["--set", "reward=Accuracy", "--history", empty.to_str().unwrap()]);
    let told = place.run("nothing", &["--set", "history.transfer=true", "--history", empty.to_str().unwrap()]);
    assert!(told.contains("no earlier run knows tasks like these"), "{told}");
    assert_eq!(alone("nothing"), alone("none"));
    let damaged = place.at("damaged.sqlite");
    fs::write(&damaged, "no data base at all, but long enough to be taken for one. ".repeat(40)).unwrap();
    let told = place.run("damaged", &["--set", "history.transfer=true", "--history", damaged.to_str().unwrap()]);
    assert!(told.contains("is damaged") && told.contains("learns nothing of earlier ones"), "{told}");
    assert_eq!(alone("damaged"), alone("none"));
    // A policy of other settings is left, what errors cost is not.
    let units: &[&str] = &["--set", "agent=Mtacp(lstm_units: 8)"];
    let told = place.run("other settings", &with(&[ALL, units]));
    assert!(told.contains("policy of an earlier run does not fit") && told.contains("learns from run"), "{told}");
    assert!(summary(&place.at("other settings"))["history"]["policy_of_run"].is_null());
}

#[test]
fn switches_that_an_agent_cannot_follow_are_refused_where_they_stand() {
    let place = Place::new();
    for (sets, told) in [
        (&["agent=Random", "history.transfer=true"][..], "`history.transfer` is true, but Random does not learn from"),
        (&["agent=ValueOfError()", "history.assistant=true"], "`history.assistant` is true, but no assistant proposes"),
        (&["agent=Amc(profile: Paper)", "history.transfer=true"], "does not ask what single groups do"),
        (&["history.augmented=true"], "`history.augmented` is true"),
        (&["history.sources=0"], "`history.sources`"),
        (&["history.sourses=2"], "sources"),
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let out = place.at("refused");
        let output = place.output(&with(&[&["run", SCENE, "--out", out.to_str().unwrap()], &sets]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(told) && !out.exists(), "{said}");
    }
}

#[test]
fn runs_of_a_comparison_learn_from_the_same_snapshot_and_not_from_each_other() {
    let place = Place::new();
    place.run("source", SOURCE);
    let sets = SHORT.iter().flat_map(|set| ["--set", *set]).collect::<Vec<_>>();
    let out = place.at("compared");
    let arguments: &[&str] = &["compare", SCENE, "--agents", "mtacp,random", "--seeds", "2", "--candidates", "6"];
    place.said(&with(&[arguments, &sets, ALL, &["--out", out.to_str().unwrap()]]));
    let [first, second] = ["seed-7", "seed-8"].map(|seed| summary(&out.join(seed))["history"].clone());
    assert_eq!(first["snapshot"], second["snapshot"]);
    assert_eq!((&first["policy_of_run"], &second["policy_of_run"]), (&1.into(), &1.into()));
    assert!(second["sources"].as_array().unwrap().iter().all(|source| source["run"] == 1), "{second}");
}
