//! Directories that are unfinished, damaged, of another version, hostile, or no runs at all.

use std::fs;
use std::path::Path;

use secateur_report::HtmlReport;
use serde_json::{Value, json};

use crate::page::ReadPage;
use crate::run_directory::{control, metrics, summary, task, write_metrics, write_run, write_task};

fn page(run: &Path) -> ReadPage {
    ReadPage::of(&[run.to_owned()])
}

/// The one problem of a page, which it shows, too.
fn problem(page: &ReadPage) -> String {
    let [problem] = &page.report.problems[..] else { panic!("{:?}", page.report.problems) };
    let (_, told) = problem.split_once(": ").unwrap();
    assert!(page.texts(".warnings li").iter().any(|shown| shown == told), "the page does not say: {told}");
    problem.clone()
}

#[test]
fn an_unfinished_run_shows_what_its_search_found() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    fs::remove_file(run.join("summary.json")).unwrap();
    fs::remove_dir_all(run.join("tasks")).unwrap();
    let page = page(&run);
    assert!(problem(&page).contains("summary.json is missing: the run has not ended"), "{}", problem(&page));
    let best = page.table("Best candidates of 80 walks so far");
    assert_eq!(best[1], ["half", "mtacp", "20", "0.8800", "88.00 %", "2,402,784"]);
    assert!(page.report.drawings.iter().any(|drawing| drawing.name == "search-1-candidates"));
}

#[test]
fn a_cut_summary_is_told_and_the_search_shown() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let whole = fs::read(run.join("summary.json")).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(run.join("summary.json"), &whole[..length]).unwrap();
        let page = page(&run);
        assert!(problem(&page).contains("summary.json is damaged"), "{}", problem(&page));
        assert!(page.report.drawings.iter().any(|drawing| drawing.name == "search-1-candidates"));
    }
}

#[test]
fn metrics_that_end_within_a_line_or_hold_rubbish_are_read_as_far_as_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let whole = fs::read(run.join("metrics.jsonl")).unwrap();
    fs::write(run.join("metrics.jsonl"), &whole[..whole.len() - 9]).unwrap();
    let cut = page(&run);
    assert!(problem(&cut).contains("1 line is no event and left out"), "{}", problem(&cut));
    let rubbish = [&b"\xff\xfe\n[]\nnull\n{}\n"[..], &whole].concat();
    fs::write(run.join("metrics.jsonl"), rubbish).unwrap();
    let page = page(&run);
    assert!(problem(&page).contains("4 lines are no event and left out, the first is line 1"), "{}", problem(&page));
    assert_eq!(page.table("half: candidates").len(), cut.table("half: candidates").len());
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    let without = self::page(&run);
    assert!(problem(&without).contains("metrics.jsonl cannot be read"), "{}", problem(&without));
    assert_eq!(without.texts(".card strong"), ["half", "most"]);
}

#[test]
fn another_version_is_told_and_shown_as_far_as_it_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let mut events = metrics(&["half", "most"]);
    events[0]["schema"] = json!(9);
    events.push(json!({"event": "invented", "by": "a later version"}));
    write_metrics(&run, &events);
    assert!(problem(&page(&run)).contains("lines of version 9, this program knows version 1"));
    write_metrics(&run, &metrics(&["half", "most"]));
    fs::write(run.join("summary.json"), r#"{"tasks": [{"name": "half", "macs": "many"}, 3, null], "controls": {}}"#)
        .unwrap();
    let page = page(&run);
    let problems = page.report.problems.join("\n");
    assert!(problems.contains("summary.json lacks scene, seed, agent"), "{problems}");
    assert!(problems.contains("lacks network, dataset, budget, original, params, groups of task 'half'"), "{problems}");
    assert!(page.texts(".card strong").contains(&"half".to_owned()));
    for other in ["null", "[]", "3", "\"text\"", r#"{"tasks": {"a": 1}}"#] {
        fs::write(run.join("summary.json"), other).unwrap();
        assert!(!self::page(&run).report.problems.is_empty(), "{other}");
    }
}

/// Numbers of any type in any place: the page is built, or says why not.
#[test]
fn values_of_other_types_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let whole: Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
    let mut paths = Vec::new();
    collect_paths(&whole, String::new(), &mut paths);
    assert!(paths.len() > 80, "{}", paths.len());
    for path in &paths {
        for other in [json!(null), json!("x"), json!(-1.5), json!(1e300), json!([1]), json!({"a": 1})] {
            let mut changed = whole.clone();
            *changed.pointer_mut(path).unwrap() = other;
            fs::write(run.join("summary.json"), changed.to_string()).unwrap();
            let report = HtmlReport::of(std::slice::from_ref(&run)).unwrap();
            assert!(!report.html.contains("NaN"), "{path}");
        }
    }
}

fn collect_paths(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| collect_paths(value, format!("{at}/{name}"), out))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| collect_paths(value, format!("{at}/{i}"), out));
        }
        _ => {}
    }
    if !at.is_empty() {
        out.push(at);
    }
}

const HOSTILE: &str = "<script>alert('x')</script>\"&'</style></title></svg>";

#[test]
fn names_with_markup_stay_text() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("<b>&\"bold\"'");
    fs::create_dir(&run).unwrap();
    let mut of_task = task(HOSTILE, 2_393_568, 0.874);
    for key in ["network", "dataset"] {
        of_task[key] = json!(HOSTILE);
    }
    of_task["groups"][0]["name"] = json!(HOSTILE);
    of_task["budget"]["kind"] = json!(HOSTILE);
    let mut of_run = summary(&[of_task], &[control(HOSTILE, HOSTILE, 0.85)]);
    for key in ["scene", "agent", "scheduler", "device"] {
        of_run[key] = json!(HOSTILE);
    }
    of_run["warnings"] = json!([HOSTILE]);
    fs::write(run.join("summary.json"), of_run.to_string()).unwrap();
    let mut events = metrics(&[HOSTILE]);
    let fields = json!({"event": "learned", "agent": HOSTILE, "n_updates": 1, HOSTILE: 1.0});
    for update in 0..4 {
        let mut event = fields.clone();
        event["n_updates"] = json!(update);
        event[HOSTILE] = json!(update * update);
        events.push(event);
    }
    write_metrics(&run, &events);
    let curves = json!([{"network": HOSTILE, "dataset": HOSTILE, "groups": [
        {"name": HOSTILE, "channels": 4, "measured": true, "errors": [0.0, 0.125, 0.5]},
    ]}]);
    fs::write(run.join("error_curves.json"), curves.to_string()).unwrap();
    fs::write(run.join("log.txt"), format!("     1.00 {HOSTILE} walks: 0 of 9\n     2.00 error: {HOSTILE}\n")).unwrap();
    fs::write(run.join("scene.ron"), "").unwrap();
    // The check of every page refuses scripts and whatever is not well formed.
    let page = page(&run);
    assert_eq!(page.texts(".card strong"), [HOSTILE]);
    assert_eq!(page.texts("h1"), ["<b>&\"bold\"'"]);
    assert!(page.texts("#warnings li").contains(&HOSTILE.to_owned()));
    assert!(page.all("b").is_empty());
    let names: Vec<&str> = page.report.drawings.iter().map(|drawing| drawing.name.as_str()).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    assert!(names.iter().all(|name| name.chars().all(plain)), "names of files: {names:?}");
}

#[test]
fn what_is_no_run_is_refused_with_what_to_name_instead() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("summary.json");
    let told = |path: &Path| HtmlReport::of(&[path.to_owned()]).unwrap_err().to_string();
    assert!(told(folder.path()).contains("is empty: name the directory that `secateur run --out` wrote"));
    assert!(told(&folder.path().join("absent")).contains("absent' cannot be read"));
    fs::write(&file, "{}").unwrap();
    assert!(told(&file).contains("is a file: name the directory"), "{}", told(&file));
    fs::rename(&file, folder.path().join("other.json")).unwrap();
    assert!(told(folder.path()).contains("holds neither summary.json nor metrics.jsonl"));
}

#[test]
fn one_bad_directory_of_two_is_told_and_the_other_shown() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let page = ReadPage::of(&[empty, run]);
    assert!(page.report.problems[0].contains("is empty"), "{:?}", page.report.problems);
    assert!(page.texts("#left-out li")[0].contains("is empty"));
    assert_eq!(page.texts(".card strong"), ["half", "most"]);
}

#[test]
fn a_certificate_that_names_a_file_elsewhere_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let certificate = run.join("tasks/half/certificate.json");
    let mut changed: Value = serde_json::from_slice(&fs::read(&certificate).unwrap()).unwrap();
    changed["file"] = json!("../most/model.safetensors");
    fs::write(&certificate, changed.to_string()).unwrap();
    assert_eq!(page(&run).texts(".badge")[0], "certified, but the file is missing");
    fs::write(&certificate, "{").unwrap();
    let page = page(&run);
    assert!(problem(&page).contains("tasks/half/certificate.json is damaged"));
    write_task(&run, "half", true);
}

/// Curves of any shape: they are drawn, or left out.
#[test]
fn curves_of_other_types_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    let whole: Value = serde_json::from_slice(&fs::read(run.join("error_curves.json")).unwrap()).unwrap();
    let mut paths = Vec::new();
    collect_paths(&whole, String::new(), &mut paths);
    for path in &paths {
        for other in [json!(null), json!("x"), json!(-1.5), json!(1e300), json!(0), json!([1]), json!({"a": 1})] {
            let mut changed = whole.clone();
            *changed.pointer_mut(path).unwrap() = other;
            fs::write(run.join("error_curves.json"), changed.to_string()).unwrap();
            assert!(!page(&run).report.html.contains("NaN"), "{path}");
        }
    }
}

#[test]
fn a_run_that_goes_on_failed_or_stopped_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = write_run(folder.path());
    fs::remove_file(run.join("summary.json")).unwrap();
    fs::remove_dir_all(run.join("tasks")).unwrap();
    fs::write(run.join("log.txt"), "     0.10 mtacp walks: 0 of 60\n").unwrap();
    let told = |text: &str| assert!(page(&run).words().contains(text), "{text}");
    told("The run ended before it had results; --resume goes on with it; mtacp walks: 40 of 60.");
    fs::write(run.join(".lock"), "17\n").unwrap();
    told("The run goes on, unless it was killed; mtacp walks: 40 of 60, about ");
    fs::write(run.join("log.txt"), "     0.10 mtacp walks: 0 of 60\n     9.00 error: the disk is full\n").unwrap();
    told("The run failed: the disk is full");
    assert_eq!(page(&run).report.problems[0], "a run: the run failed: the disk is full");
}
