//! A history against what may happen to its file, and to those that write it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use secateur_history::{
    BoundRecord, CertificateRecord, CurveRecord, GroupRecord, History, HistoryError, LayerRecord, NetworkRecord,
    ResultRecord, RunRecord, RunStatus, SCHEMA_VERSION, StoredScore, TaskRecord, WalkRecord,
};

fn curve(weight: f64) -> CurveRecord {
    CurveRecord {
        name: "conv1".into(),
        channels: 8,
        widths: vec![1, 4, 8],
        errors: vec![0.7, 0.1 + 0.2, 1e-300],
        weight,
    }
}

/// A finished run of one task with `n_walks` candidates, begun in 2026.
fn run(key: &str, n_walks: u64) -> RunRecord {
    let walk = |walk| WalkRecord {
        agent: "mtacp".into(),
        walk,
        noise_free: walk == 0,
        cached: false,
        is_best: walk == 0,
        // Numbers that no short decimal is.
        reward: 1.0 / (walk as f64 + 3.0),
        accuracy: Some(0.1 + 0.2),
        divergence: None,
        output_error: None,
        macs: 1000 + walk,
        widths: vec![3, 5],
        search_s: Some(0.5),
    };
    RunRecord {
        key: key.into(),
        metrics: Some(format!("metrics of {key}")),
        directory: format!("/runs/{key}"),
        status: RunStatus::Finished,
        started_s: 1_790_000_000.0,
        wall_s: Some(2.5),
        scene_file: Some("a.ron".into()),
        scene: "(seed: 18446744073709551615)".into(),
        seed: Some(u64::MAX),
        agent: Some("mtacp".into()),
        reward: Some("Kl".into()),
        scheduler: Some("lockstep".into()),
        device: Some("cpu".into()),
        precision: Some("f32".into()),
        program: Some("0.1.0".into()),
        build: Some("00".into()),
        instructions: Some("Avx512".into()),
        candidates_scored: Some(n_walks),
        known_scores: None,
        networks: vec![NetworkRecord {
            name: "it's \"a\"; DROP TABLE runs".into(),
            content: "c0".into(),
            macs: Some(4000),
            params: Some(70),
            activation_bytes: Some(80),
            layers: vec![LayerRecord { name: "conv1".into(), kind: "Conv2d".into(), shape: vec![8, 3, 3, 3] }],
        }],
        tasks: vec![TaskRecord {
            name: "task's, \"first\"\nline".into(),
            network: "it's \"a\"; DROP TABLE runs".into(),
            dataset: "d".into(),
            dataset_content: Some("d0".into()),
            bounds: vec![BoundRecord { kind: "macs".into(), ratio: Some(0.5), max: Some(2000) }],
            groups: vec![GroupRecord { name: "conv1".into(), channels: 8, kept: 3 }],
            curves: vec![curve(1.0 / 3.0)],
            walks: (0..n_walks).map(walk).collect(),
            results: vec![ResultRecord {
                agent: "mtacp".into(),
                macs: 1000,
                test_accuracy: Some(0.8),
                test_accuracy_after_polish: Some(0.85),
                ..ResultRecord::default()
            }],
            certificate: Some(CertificateRecord { file: "f".into(), blake3: "00".into(), text: "{}".into() }),
        }],
        policy: Some(format!("policy of {key}").into_bytes()),
    }
}

#[test]
fn what_is_recorded_is_read_again_and_a_later_look_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    // The folders of a history are made.
    let path = dir.path().join("a's folder/é.sqlite");
    let mut history = History::open(&path).unwrap();
    let begun = RunRecord {
        status: RunStatus::Unfinished,
        wall_s: None,
        metrics: None,
        policy: None,
        tasks: vec![],
        ..run("first", 0)
    };
    let id = history.record(&begun).unwrap();
    assert_eq!(history.runs().unwrap()[0].status, "unfinished");
    let done = RunRecord { build: None, directory: "/elsewhere".into(), ..run("first", 4) };
    assert_eq!(history.record(&done).unwrap(), id);
    // A copy has another key and the same metrics.
    assert_eq!(history.record(&RunRecord { key: "copy".into(), ..done.clone() }).unwrap(), id);
    let other = history.record(&run("second", 1)).unwrap();
    assert_ne!(other, id);
    let runs = history.runs().unwrap();
    assert_eq!(runs.iter().map(|run| (run.id, run.tasks, run.walks)).collect::<Vec<_>>(), [(id, 1, 4), (other, 1, 1)]);
    assert_eq!((runs[0].status.as_str(), runs[0].started.as_str()), ("finished", "2026-09-21T14:13:20Z"));
    for name in [id.to_string(), "/elsewhere".to_owned()] {
        let details = history.run(&name).unwrap();
        assert_eq!((details.run.id, details.seed, details.build.as_deref()), (id, Some(u64::MAX), Some("00")));
        assert_eq!(std::fs::read(details.policy.unwrap()).unwrap(), b"policy of first");
        let task = &details.results[0];
        assert_eq!((task.name.as_str(), task.network.as_str()), (&*done.tasks[0].name, &*done.networks[0].name));
        assert_eq!((task.macs_share, task.test_accuracy, task.reward), (Some(0.25), Some(0.85), Some(1.0 / 3.0)));
    }
    assert!(matches!(history.run("7'; --"), Err(HistoryError::NoRun { .. })));
    // Any program reads the numbers that were written.
    let plain = Connection::open(&path).unwrap();
    let bits: f64 = plain.query_row("SELECT accuracy FROM walks LIMIT 1", [], |row| row.get(0)).unwrap();
    assert_eq!(bits.to_bits(), (0.1f64 + 0.2).to_bits());
    let mode: String = plain.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn tables_of_text_hold_every_row_whatever_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(&dir.path().join("h.sqlite")).unwrap();
    history.record(&run("first", 3)).unwrap();
    let files = history.export(&dir.path().join("out/csv")).unwrap();
    let rows: u64 = files.iter().map(|(_, n)| n).sum();
    assert_eq!(rows, 1 + 1 + 1 + 1 + 1 + 1 + 1 + 3 + 1 + 1);
    let mut walks = csv::Reader::from_path(dir.path().join("out/csv/walks.csv")).unwrap();
    let column = walks.headers().unwrap().iter().position(|name| name == "reward").unwrap();
    let rewards: Vec<f64> = walks.records().map(|row| row.unwrap()[column].parse().unwrap()).collect();
    assert_eq!(rewards, [1.0 / 3.0, 1.0 / 4.0, 1.0 / 5.0]);
    let mut tasks = csv::Reader::from_path(dir.path().join("out/csv/tasks.csv")).unwrap();
    assert_eq!(&tasks.records().next().unwrap().unwrap()[2], "task's, \"first\"\nline");
}

#[test]
fn what_is_old_is_forgotten_with_all_that_only_it_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.sqlite");
    let mut history = History::open(&path).unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    history.record(&RunRecord { started_s: now - 100.0 * 86_400.0, ..run("old", 2) }).unwrap();
    let other = NetworkRecord { name: "other".into(), content: "c1".into(), ..NetworkRecord::default() };
    let mut new = RunRecord { started_s: now, networks: vec![other], ..run("new", 2) };
    new.tasks[0].network = "other".into();
    history.record(&new).unwrap();
    let theirs = dir.path().join("h.policies/notes.txt");
    std::fs::write(&theirs, "a user's").unwrap();
    let pruned = history.prune(Duration::from_secs(90 * 86_400)).unwrap();
    assert_eq!((pruned.runs, pruned.networks, pruned.policies), (1, 1, 1));
    assert_eq!(history.runs().unwrap().iter().map(|run| &*run.directory).collect::<Vec<_>>(), ["/runs/new"]);
    assert!(theirs.exists() && history.run("2").unwrap().policy.unwrap().exists());
    let plain = Connection::open(&path).unwrap();
    let walks: i64 = plain.query_row("SELECT count(*) FROM walks", [], |row| row.get(0)).unwrap();
    assert_eq!(walks, 2);
    assert_eq!(history.prune(Duration::from_secs(90 * 86_400)).unwrap().runs, 0);
}

#[test]
fn a_file_that_is_none_or_not_ours_is_told_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(matches!(History::open_existing(&at("none")), Err(HistoryError::Missing { .. })));
    std::fs::write(at("text"), "not a data base, and longer than the head of one would be. ".repeat(30)).unwrap();
    let damaged = History::open(&at("text")).unwrap_err();
    assert!(
        matches!(damaged, HistoryError::Damaged { .. }) && damaged.to_string().contains("move it away"),
        "{damaged}"
    );
    assert!(std::fs::read_to_string(at("text")).unwrap().starts_with("not a data base"));
    assert!(matches!(History::open(dir.path()), Err(HistoryError::Sql { .. })));
    assert!(matches!(History::open(&at("text/below")), Err(HistoryError::File { .. })));
    // Of a program of the user's.
    Connection::open(at("theirs")).unwrap().execute_batch("CREATE TABLE runs (mine)").unwrap();
    assert!(matches!(History::open(&at("theirs")), Err(HistoryError::Foreign { .. })));
    // Of a later version.
    drop(History::open(&at("newer")).unwrap());
    Connection::open(at("newer")).unwrap().pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    let newer = History::open(&at("newer")).unwrap_err();
    assert!(matches!(newer, HistoryError::Newer { found, .. } if found == SCHEMA_VERSION + 1));
    assert!(newer.to_string().contains("newer program"), "{newer}");
}

#[test]
fn damage_within_the_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.sqlite");
    let mut history = History::open(&path).unwrap();
    for i in 0..20 {
        history.record(&run(&format!("run {i}"), 50)).unwrap();
    }
    drop(history);
    let mut bytes = std::fs::read(&path).unwrap();
    // All pages but the first.
    bytes[4096..].iter_mut().for_each(|byte| *byte = 0x5a);
    std::fs::write(&path, bytes).unwrap();
    let found = History::open(&path).and_then(|mut history| history.record(&run("another", 1)));
    assert!(matches!(found, Err(HistoryError::Damaged { .. })), "{found:?}");
}

#[test]
fn a_history_that_may_not_be_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.sqlite");
    History::open(&path).unwrap().record(&run("first", 1)).unwrap();
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    assert_eq!(History::open_existing(&path).unwrap().runs().unwrap().len(), 1);
    match History::open(&path).and_then(|mut history| history.record(&run("second", 1))) {
        // To the superuser nothing is read-only.
        Ok(_) => assert!(std::fs::OpenOptions::new().append(true).open(&path).is_ok()),
        Err(error) => assert!(matches!(error, HistoryError::ReadOnly { .. }), "{error}"),
    }
}

#[test]
fn scores_come_back_bit_by_bit_and_only_under_their_conditions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.sqlite");
    let mut history = History::open(&path).unwrap();
    let score = |kept: u8, divergence: f64| StoredScore {
        kept: vec![0, kept, 255],
        accuracy: Some(0.1 + 0.2),
        divergence: Some(divergence),
        output_error: None,
    };
    // The least, subnormal and largest numbers, a whole one, and ones that no short decimal is.
    let numbers = [f64::from_bits(1), f64::MIN_POSITIVE / 3.0, f64::MAX, 1.0, 0.0, 1.0 / 3.0, 0.1 + 0.7];
    let scores: Vec<StoredScore> = numbers.iter().zip(0..).map(|(&x, kept)| score(kept, x)).collect();
    history.add_scores("here", &scores).unwrap();
    // What SQLite would give back as another number is not kept; what is there stays.
    history.add_scores("here", &[score(90, -0.0), score(91, f64::NAN), score(0, 7.0)]).unwrap();
    history.add_scores("there", &[score(0, 8.0)]).unwrap();
    let mut read = History::open(&path).unwrap().scores("here", 100).unwrap();
    read.sort_by(|a, b| a.kept.cmp(&b.kept));
    let bits = |scores: &[StoredScore]| -> Vec<(Vec<u8>, [Option<u64>; 3])> {
        let of = |s: &StoredScore| [s.accuracy, s.divergence, s.output_error].map(|x| x.map(f64::to_bits));
        scores.iter().map(|s| (s.kept.clone(), of(s))).collect()
    };
    assert_eq!(bits(&read), bits(&scores));
    assert_eq!(history.scores("there", 100).unwrap(), [score(0, 8.0)]);
    assert!(history.scores("nowhere", 100).unwrap().is_empty());
    assert_eq!(history.scores("here", 3).unwrap().len(), 3);
    history.export(&dir.path().join("csv")).unwrap();
    assert!(std::fs::read_to_string(dir.path().join("csv/scores.csv")).unwrap().contains(",0000ff,"));
    assert_eq!(history.prune(Duration::ZERO).unwrap().scores, numbers.len() + 1);
}

/// Set in a process of this test that writes.
const WRITER: &str = "SECATEUR_HISTORY_WRITER";

#[test]
fn processes_that_write_at_once_all_get_their_turn() {
    if let Some(task) = std::env::var_os(WRITER) {
        let task = task.to_str().unwrap();
        let (path, name) = task.split_once('|').unwrap();
        let mut history = History::open(Path::new(path)).unwrap();
        for i in 0..25 {
            history.record(&run(&format!("{name} {i}"), 20)).unwrap();
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.sqlite");
    // None of them finds it made.
    let children: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "processes_that_write_at_once_all_get_their_turn"]);
            command.env(WRITER, format!("{}|{name}", path.display())).spawn().unwrap()
        })
        .into();
    let ends = children.into_iter().map(|mut child| child.wait().unwrap().success());
    assert_eq!(ends.collect::<Vec<_>>(), [true; 3]);
    let runs = History::open(&path).unwrap().runs().unwrap();
    assert_eq!((runs.len(), runs.iter().map(|run| run.walks).sum::<u64>()), (75, 75 * 20));
}

#[test]
fn a_snapshot_is_the_runs_that_were_finished_and_is_known_until_one_of_them_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(&dir.path().join("h")).unwrap();
    let empty = history.snapshot().unwrap();
    assert!(history.source_tasks(&empty, 9).unwrap().is_empty());
    history.record(&RunRecord { status: RunStatus::Unfinished, ..run("running", 2) }).unwrap();
    assert_eq!(history.snapshot().unwrap(), empty);
    let first = history.record(&run("first", 4)).unwrap();
    let one = history.snapshot().unwrap();
    history.record(&RunRecord { status: RunStatus::OverBudget, ..run("running", 3) }).unwrap();
    let two = history.snapshot().unwrap();
    // What was finished first stays first, however often it is recorded.
    history.record(&run("first", 4)).unwrap();
    assert_eq!(history.snapshot().unwrap(), two);
    for snapshot in [&empty, &one, &two] {
        assert_eq!(history.snapshot_at(&snapshot.to_string()).unwrap(), *snapshot);
    }
    let found = history.source_tasks(&one, 9).unwrap();
    let [task] = &found[..] else { panic!("{found:?}") };
    assert_eq!((task.run, task.place, task.n_tasks, task.ratio, &*task.bound), (first, 0, 1, 0.5, "macs"));
    assert_eq!((&*task.network_content, &*task.dataset, &*task.reward, &*task.agent), ("c0", "d", "Kl", "mtacp"));
    assert_eq!(task.curves, [curve(1.0 / 3.0)], "to the last bit");
    // All walks have the same widths: one candidate, its best reward.
    let walks = history.source_walks(task, 9).unwrap();
    assert_eq!((walks.len(), &*walks[0].widths, walks[0].reward), (1, &[3, 5][..], 1.0 / 3.0));
    assert_eq!(history.policy_of(task).unwrap(), b"policy of first");
    assert_eq!(history.source_tasks(&two, 9).unwrap().len(), 2);
    assert_eq!(history.source_tasks(&two, 1).unwrap()[0].run, first - 1, "the newest");
    for unknown in ["", "7", "1-000000000000", "x-y", "-1-ab"] {
        let told = history.snapshot_at(unknown).unwrap_err().to_string();
        assert!(told.contains("has no snapshot") && told.contains("summary.json"), "{told}");
    }
    // A damaged policy is none.
    let policies = dir.path().join("h.policies");
    for file in std::fs::read_dir(policies).unwrap() {
        std::fs::write(file.unwrap().path(), "other").unwrap();
    }
    assert_eq!(history.policy_of(task), None);
    history.prune(Duration::ZERO).unwrap();
    assert!(matches!(history.snapshot_at(&one.to_string()), Err(HistoryError::NoSnapshot { .. })));
}

#[test]
fn curves_that_are_none_are_neither_written_nor_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let mut history = History::open(&path).unwrap();
    let mut odd = run("odd", 1);
    odd.tasks[0].curves = vec![curve(f64::NAN)];
    history.record(&odd).unwrap();
    assert!(history.source_tasks(&history.snapshot().unwrap(), 9).unwrap().is_empty());
    history.record(&run("sound", 1)).unwrap();
    let n_sources = || history.source_tasks(&history.snapshot().unwrap(), 9).unwrap().len();
    assert_eq!(n_sources(), 1);
    let plain = Connection::open(&path).unwrap();
    for changed in ["widths = '[4,1,8]'", "errors = 'none'", "channels = 7", "errors = '[0.1]'", "weight = -1.0"] {
        plain.execute_batch(&format!("SAVEPOINT a; UPDATE curves SET {changed}")).unwrap();
        plain.execute_batch("RELEASE a").unwrap();
        assert_eq!(n_sources(), 0, "{changed}");
        plain.execute_batch("DELETE FROM curves").unwrap();
        let sound = "INSERT INTO curves SELECT id, 0, 'conv1', 8, '[1,4,8]', '[0.5,0.25,0.0]', 1.0 FROM tasks";
        plain.execute_batch(sound).unwrap();
        assert_eq!(n_sources(), 2);
    }
}
