//! Runs that are looked at while they go on: the served page, the terminal, and the history's page.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

fn secateur(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secateur")).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

const NAME: &str = "<img src=x onerror=alert(1)>";

fn candidate(walk: u64) -> String {
    let reward = 0.5 + 0.01 * walk as f64;
    json!({
        "event": "candidate", "agent": "mtacp", "task": NAME, "walk": walk, "reward": reward, "accuracy": reward,
        "macs": 1000 + walk, "search_s": walk as f64
    })
    .to_string()
        + "\n"
}

/// A run directory that a search of ten walks has begun to fill.
fn begun(folder: &Path) {
    let start = json!({"event": "start", "schema": 1, "seed": 7}).to_string() + "\n";
    let walks: String = (0..4).map(candidate).collect();
    fs::write(folder.join("metrics.jsonl"), start + &walks).unwrap();
    fs::write(folder.join("log.txt"), "     0.10 mtacp walks: 0 of 10\n").unwrap();
    fs::write(folder.join(".lock"), "1\n").unwrap();
    fs::write(folder.join("private"), "secret").unwrap();
}

/// `report --serve` of a directory, on a port of its own; it ends with the test.
struct Served {
    child: Child,
    at: SocketAddr,
}

impl Served {
    fn of(run: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
        command.args(["report", path(run), "--serve", "0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let at = line.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix('/')).unwrap().parse().unwrap();
        Self { child, at }
    }

    /// Status, headers and body of the answer to a request of these lines.
    fn ask(&self, lines: &[&str]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.write_all((lines.join("\r\n") + "\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = text(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
    }

    fn page(&self) -> (u16, String, String) {
        self.ask(&["GET / HTTP/1.1", &format!("Host: localhost:{}", self.at.port())])
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether it comes to hold within a minute.
fn soon(holds: impl Fn() -> bool) -> bool {
    (0..600).any(|_| {
        let now = holds();
        if !now {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        now
    })
}

#[test]
fn the_served_page_follows_the_run_and_is_all_that_is_served() {
    let folder = tempfile::tempdir().unwrap();
    begun(folder.path());
    let before: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let served = Served::of(folder.path());
    let (status, head, page) = served.page();
    assert_eq!(status, 200);
    assert!(
        page.contains("mtacp walks: 4 of 10, about 6.0 s left") && page.contains("<td class=\"number\">0.5300</td>")
    );
    // Readable without its script, and the only script is the page's own.
    assert!(page.contains("<noscript><meta http-equiv=\"refresh\""));
    let nonce = head.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(nonce.len() == 32 && page.matches("<script").count() == 1);
    assert!(page.contains(&format!("<script nonce=\"{nonce}\"")) && !page.contains("<img"));
    let other = Served::of(folder.path());
    assert!(!other.page().1.contains(nonce), "another server has another nonce");
    // Equal pages have equal tags and are not sent again.
    let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().to_owned();
    let again = served.ask(&["GET /?x HTTP/1.1", "Host: 127.0.0.1", &format!("If-None-Match: {tag}")]);
    assert_eq!((again.0, again.2.as_str()), (304, ""));
    let head_only = served.ask(&["HEAD / HTTP/1.1", "Host: [::1]:80"]);
    assert_eq!((head_only.0, head_only.2.as_str()), (200, ""));
    // Nothing else: no file, no other name, no other method.
    for other in ["/private", "/../private", "//private", "/%2e%2e/private", "/report.html", "/metrics.jsonl", "*"] {
        let (status, _, body) = served.ask(&[&format!("GET {other} HTTP/1.1"), "Host: localhost"]);
        assert!((400..500).contains(&status) && !body.contains("secret"), "{other}: {status}");
    }
    for host in ["Host: evil.example", "Host: localhost.evil.example", "X: y"] {
        assert_eq!(served.ask(&["GET / HTTP/1.1", host]).0, 403, "{host}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (status, head, _) = served.ask(&[&format!("{method} / HTTP/1.1"), "Host: localhost"]);
        assert!(status == 405 && head.contains("Allow: GET, HEAD"), "{method}: {status}");
    }
    // More of the run, and then a summary with half a line behind it.
    let mut metrics = fs::OpenOptions::new().append(true).open(folder.path().join("metrics.jsonl")).unwrap();
    (4..7).for_each(|walk| metrics.write_all(candidate(walk).as_bytes()).unwrap());
    let follows = |told: &str| soon(|| served.page().2.contains(told));
    assert!(follows("mtacp walks: 7 of 10"), "the page does not follow the run");
    metrics.write_all(b"{\"event\"").unwrap();
    assert!(follows("metrics.jsonl is damaged or was not written to its end"));
    fs::remove_file(folder.path().join(".lock")).unwrap();
    fs::write(folder.path().join("summary.json"), json!({"tasks": [], "agent": "mtacp"}).to_string()).unwrap();
    assert!(follows("The run ended without a network"));
    let ended = served.page().2;
    assert!(!ended.contains("<script") && !ended.contains("http-equiv"), "a page that is done looks for nothing");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before.len(), "nothing is written");
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(soon(|| served.page().0 == 503), "a run that is gone is still shown");
}

#[test]
fn what_cannot_be_served_is_told_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let ended = secateur(arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        text(&ended.stderr)
    };
    assert!(refused(&["report", path(folder.path()), "--serve", "0"]).contains("is empty"));
    begun(folder.path());
    let served = Served::of(folder.path());
    let taken = refused(&["report", path(folder.path()), "--serve", &served.at.to_string()]);
    assert!(taken.contains("another program listens there; name another port"), "{taken}");
    let elsewhere = refused(&["report", path(folder.path()), "--serve", "203.0.113.7:0"]);
    assert!(elsewhere.contains("name an address of this machine"), "{elsewhere}");
    assert!(refused(&["report", "--serve", path(folder.path())]).contains("in front of --serve"));
}

#[test]
fn a_run_is_watched_without_a_terminal_only_once() {
    let folder = tempfile::tempdir().unwrap();
    begun(folder.path());
    let refused = secateur(&["watch", path(folder.path())]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("no terminal") && text(&refused.stderr).contains("--once"));
    let once = secateur(&["watch", path(folder.path()), "--once"]);
    let shown = text(&once.stdout);
    assert!(once.status.success() && shown.contains("mtacp walks: 4 of 10, about 6 s left"), "{shown}");
    assert!(shown.contains(NAME) && shown.contains("0.5300"), "{shown}");
    let numbers: Value = serde_json::from_slice(&secateur(&["watch", path(folder.path()), "--json"]).stdout).unwrap();
    assert_eq!(numbers["progress"]["state"], "goes_on");
    assert_eq!(
        (&numbers["tasks"][0]["agents"][0]["walks"], &numbers["tasks"][0]["agents"][0]["all_walks"]),
        (&json!(4), &json!(10))
    );
    let none = secateur(&["watch", path(&folder.path().join("absent")), "--once"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("absent' cannot be read"));
}

#[test]
fn the_page_of_a_history_shows_who_won_each_budget_over_all_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (store, page, drawings) =
        (folder.path().join("h.sqlite"), folder.path().join("h.html"), folder.path().join("drawings"));
    let report = |more: &[&str]| {
        let file = format!("--history={}", store.display());
        secateur(&[&["report", &file, "-o", path(&page)], more].concat())
    };
    let missing = report(&[]);
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
    let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron");
    let mut found: Vec<(String, f64)> = Vec::new();
    for seed in ["1", "2"] {
        let out = folder.path().join(format!("<b>{seed}"));
        let sets = [
            format!("seed={seed}"),
            "budgets=[Macs(ratio: 0.5)]".to_owned(),
            "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 300, test: 100))]"
                .to_owned(),
            "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\", datasets: [\"shapes\"])]"
                .to_owned(),
            "images=(reward: 60, calibration: 30, walk: 10, refit: 30, probe: 20, finalists: 0)".to_owned(),
            "walks_per_task=4".to_owned(),
            "controls=[Uniform]".to_owned(),
            "finalists=1".to_owned(),
            "refit_in_pairs=false".to_owned(),
        ];
        let mut arguments = vec!["run", path(&scene), "--quiet", "--out", path(&out), "--history", path(&store)];
        sets.iter().for_each(|set| arguments.extend(["--set", set.as_str()]));
        let ended = secateur(&arguments);
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
        for (agent, result) in [("mtacp", &summary["tasks"][0]), ("uniform", &summary["controls"][0])] {
            found.push((agent.to_owned(), result["test_accuracy_before_tuning"].as_f64().unwrap()));
        }
    }
    let written = report(&["--svg", path(&drawings)]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let html = fs::read_to_string(&page).unwrap();
    // Of equals the first.
    let (agent, best) = found.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let row = html.split("<caption>The best network of every budget").nth(1).unwrap().split("</table>").next().unwrap();
    let cells: Vec<&str> =
        row.split("<td class=\"").skip(1).map(|cell| cell.split(['>', '<']).nth(1).unwrap()).collect();
    assert_eq!((cells[2], cells[6]), (agent.as_str(), format!("{:.2} %", 100.0 * best).as_str()), "{found:?}");
    assert_eq!(cells[8], "4", "networks of that budget");
    assert!(cells[1].starts_with("macs at most "), "{cells:?}");
    assert!(html.contains("2 of 2") && html.contains("&#60;b&#62;1") && !html.contains("<b>1"));
    assert_eq!(fs::read_dir(&drawings).unwrap().count(), html.matches("<svg ").count());
    assert!(html.matches("<svg ").count() >= 1);
    // One of a later version, and one that is damaged.
    fs::write(&store, "no data base at all, but long enough to be taken for one. ".repeat(40)).unwrap();
    let damaged = report(&[]);
    assert!(!damaged.status.success() && text(&damaged.stderr).contains("is damaged"), "{}", text(&damaged.stderr));
    let both = secateur(&["report", path(folder.path()), "--history"]);
    assert_eq!(both.status.code(), Some(2));
}
