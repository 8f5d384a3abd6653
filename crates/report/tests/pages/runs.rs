//! Whole runs.

use std::fs;

use secateur_report::HtmlReport;
use serde_json::{Value, json};

use crate::page::ReadPage;
use crate::run_directory::{control, metrics, summary, task, write_metrics, write_run, write_task};

#[test]
fn a_page_has_the_numbers_of_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let page = ReadPage::of(std::slice::from_ref(&run));
    assert_eq!(page.report.problems, Vec::<String>::new());
    let rows = page.table("Every task's network");
    assert_eq!(rows[1], ["half", "2,408,688 macs", "2,393,568", "28,155", "92.20 %", "87.40 %", "5.0 kB", "certified"]);
    assert_eq!((rows.len(), rows[2][2].as_str(), rows[2][5].as_str()), (3, "3,352,032", "90.90 %"));
    assert_eq!(page.texts(".card strong"), ["half", "most"]);
    assert_eq!(page.texts(".card .change"), ["−4.80 points against dense", "−1.30 points against dense"]);
    assert_eq!(page.texts(".facts dd"), ["2 of 2", "236", "4 min 17 s", "4.8"]);
    let tests = page.table("mtacp against each control, after the final refit");
    assert_eq!(
        tests[1],
        ["half", "random", "+1.60", "+0.27 to +2.93", "109", "77", "2,000", "0.0228", "mtacp is better"]
    );
    let widths = page.table("shapes: channels kept");
    assert_eq!(widths[0], ["layer", "half", "most"]);
    assert_eq!(
        (widths[1].join("|"), widths[2].join("|")),
        ("conv2a|4 of 16|4 of 16".into(), "conv3a|28 of 32|28 of 32".into())
    );
    assert_eq!(page.texts("#warnings li"), ["the card was given up", "one file is slow"]);
    let again = format!("secateur run '{0}/scene.ron' --out '{0}-again'", run.display());
    assert_eq!(page.texts(".command"), [again]);
    assert!(page.words().contains("lockstep") && page.words().contains("exp(-divergence)"));
}

#[test]
fn sections_stand_in_the_order_in_which_people_ask() {
    let folder = tempfile::tempdir().unwrap();
    let page = ReadPage::of(&[write_run(folder.path())]);
    let expected = [
        "What to take away",
        "Accuracy against cost",
        "How the search went",
        "Widths of the layers",
        "Error curves of the layers",
        "What the agents learned",
        "Polishing and fine-tuning",
        "What beat what",
        "Warnings",
        "Environment",
        "Do it again",
    ];
    assert_eq!(page.texts("section > h2"), expected);
    assert_eq!(page.texts("nav a"), expected, "the contents are the same");
}

/// Rewards of mtacp rise by 0.02 a walk, every fifth is known already: 16 candidates, the best 0.88. Those of random
/// fall from 0.6.
#[test]
fn curves_end_where_the_search_did() {
    let folder = tempfile::tempdir().unwrap();
    let page = ReadPage::of(&[write_run(folder.path())]);
    let steps = page.table("half: candidates that were better");
    let last_of = |agent: &str| steps.iter().rfind(|row| row[0] == agent).unwrap()[1..].join(" ");
    assert_eq!((last_of("mtacp"), last_of("random")), ("16 9.8 0.8800".into(), "16 9.8 0.6000".into()));
    let drawing = page.report.drawings.iter().find(|drawing| drawing.name == "search-1-candidates").unwrap();
    assert!(drawing.alternative.contains("mtacp ends at 0.8800 after 16 candidates"), "{}", drawing.alternative);
    let names: Vec<&str> = page.report.drawings.iter().map(|drawing| drawing.name.as_str()).collect();
    for name in [
        "accuracy-cost-1",
        "widths-1",
        "returns",
        "learner-1-entropy",
        "learner-1-queue-depth",
        "tune-held-out",
        "tune-loss",
    ] {
        assert!(names.contains(&name), "no drawing '{name}' among {names:?}");
    }
    assert!(!names.contains(&"learner-1-lag-mean"), "what never changes is no curve");
}

#[test]
fn intervals_are_of_as_many_images_as_were_tested() {
    let folder = tempfile::tempdir().unwrap();
    let page = ReadPage::of(&[write_run(folder.path())]);
    let found = page.table("shapes on drawn");
    // Wilson's interval of 1,748 of 2,000, worked out in Python.
    assert_eq!(found[1], ["mtacp", "half", "2,393,568", "49.7 %", "87.40 %", "85.87 % to 88.78 %"]);
}

#[test]
fn networks_that_were_trained_show_every_stage() {
    let folder = tempfile::tempdir().unwrap();
    let mut of_task = task("half", 2_393_568, 0.874);
    of_task["test_accuracy_after_polish"] = json!(0.881);
    of_task["test_accuracy_after_tuning"] = json!(0.894);
    of_task["tuning"] =
        json!({"images": 1000, "epochs": 3, "held_out_before": 0.8, "held_out_after": 0.83, "kept": true});
    fs::write(folder.path().join("summary.json"), summary(&[of_task], &[]).to_string()).unwrap();
    write_metrics(folder.path(), &metrics(&["half"]));
    write_task(folder.path(), "half", true);
    let page = ReadPage::of(&[folder.path().to_owned()]);
    assert_eq!(page.texts(".steps dt"), ["dense", "pruned", "polished", "tuned"]);
    assert_eq!(page.texts(".steps dd"), ["92.20 %", "87.40 %", "88.10 %", "89.40 %"]);
    assert_eq!(page.texts(".card .change"), ["−2.80 points against dense"]);
    let trained = page.table("1 training of the winners of mtacp");
    assert_eq!(trained[1][..6], ["half", "tuned", "1,000", "3", "0.8000", "0.8300"]);
    let found: Vec<String> = page.table("shapes on drawn").iter().map(|row| row[0].clone()).collect();
    assert_eq!(found[1..], ["mtacp", "mtacp, polished", "mtacp, tuned"]);
}

#[test]
fn without_labels_output_errors_take_the_place_of_accuracies() {
    let folder = tempfile::tempdir().unwrap();
    let mut of_task = task("half", 2_393_568, 0.5);
    for key in ["reward_accuracy", "reward_accuracy_original", "test_accuracy_original", "test_accuracy_before_tuning"]
    {
        of_task.as_object_mut().unwrap().remove(key).unwrap();
    }
    of_task["test_output_error"] = json!(0.0313);
    fs::write(folder.path().join("summary.json"), summary(&[of_task], &[]).to_string()).unwrap();
    write_metrics(folder.path(), &metrics(&["half"]));
    write_task(folder.path(), "half", true);
    let page = ReadPage::of(&[folder.path().to_owned()]);
    assert_eq!(page.texts(".steps dd"), ["0.0313"]);
    assert_eq!(page.table("shapes on drawn")[1][4..], ["0.0313", "–"]);
}

#[test]
fn several_runs_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_run(folder.path());
    let second = folder.path().join("second");
    fs::create_dir(&second).unwrap();
    let of_task = task("half", 2_000_000, 0.9);
    let controls = [control("half", "uniform", 0.8)];
    fs::write(second.join("summary.json"), summary(&[of_task], &controls).to_string()).unwrap();
    write_metrics(&second, &metrics(&["half"]));
    write_task(&second, "half", true);
    let page = ReadPage::of(&[first, second]);
    assert_eq!(page.texts("h2"), ["All runs", "Run a run", "Run second"]);
    let rows = page.table("Every network of every run");
    assert_eq!(rows[3], ["second", "half", "mtacp", "2,000,000", "28,155", "92.20 %", "90.00 %", "−2.20"]);
    let found: Vec<String> = page.table("shapes on drawn").iter().map(|row| row[0].clone()).collect();
    assert!(found.contains(&"a run: random".to_owned()) && found.contains(&"second: uniform".to_owned()), "{found:?}");
}

#[test]
fn a_certificate_counts_only_if_it_holds_and_is_of_the_file_that_lies_there() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["fits", "over", "changed", "gone", "none"];
    let tasks: Vec<Value> = names.iter().map(|name| task(name, 2_393_568, 0.874)).collect();
    fs::write(folder.path().join("summary.json"), summary(&tasks, &[]).to_string()).unwrap();
    write_metrics(folder.path(), &metrics(&["fits"]));
    names.iter().for_each(|name| write_task(folder.path(), name, *name != "over"));
    let of_task = |name: &str| folder.path().join("tasks").join(name);
    fs::write(of_task("changed").join("model.safetensors"), "another").unwrap();
    fs::remove_file(of_task("gone").join("model.safetensors")).unwrap();
    fs::remove_file(of_task("none").join("certificate.json")).unwrap();
    let page = ReadPage::of(&[folder.path().to_owned()]);
    let expected = [
        "certified: within budget",
        "over budget",
        "changed since it was certified",
        "certified, but the file is missing",
        "no certificate",
    ];
    assert_eq!(page.texts(".badge"), expected);
    assert_eq!(page.texts(".facts dd")[0], "1 of 5");
}

#[test]
fn equal_directories_give_equal_pages() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let page = || HtmlReport::of(std::slice::from_ref(&run)).unwrap().html;
    assert_eq!(page(), page());
}

#[test]
fn error_curves_are_those_that_the_run_measured() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let page = ReadPage::of(std::slice::from_ref(&run));
    let errors = page.table("shapes on drawn: error at a share of the channels");
    // Of four channels, 90 % are four, 75 % three, 50 % two; fewer than two are never kept.
    assert_eq!(errors[1], ["conv2a", "4", "0.00000", "0.12500", "0.50000", "–", "–"]);
    assert_eq!(errors.len(), 2, "what was not measured is not shown");
    assert!(page.report.drawings.iter().any(|drawing| drawing.name == "error-curves-1-1"));
    fs::write(run.join("error_curves.json"), "[{").unwrap();
    let damaged = ReadPage::of(std::slice::from_ref(&run));
    assert!(damaged.report.problems[0].contains("error_curves.json is damaged"), "{:?}", damaged.report.problems);
    fs::remove_file(run.join("error_curves.json")).unwrap();
    assert!(ReadPage::of(&[run]).words().contains("secateur inspect NETWORK --curves"));
}
