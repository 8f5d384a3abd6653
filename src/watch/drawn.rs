//! A frame: what of a run fits on a terminal, the most wanted first.

use std::time::SystemTime;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LineGauge, Paragraph, Row, Table, Widget, Wrap};
use secateur_report::{RunProgressState, WatchedRun};

use super::lines::{number, percent, sparkline, time};

/// Colours of agents, which every terminal has in its own scheme.
const COLOURS: [Color; 6] = [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta, Color::Red, Color::Blue];
/// Numbers of a learner that are shown; `secateur report` draws all.
const N_NUMBERS: usize = 9;
/// Rows of the drawing in a frame that may be as high as it likes.
const CHART_ROWS: u16 = 16;
/// With fewer nothing is to be seen in it.
const CHART_ROWS_MIN: u16 = 10;
/// A run that wrote nothing for so long may have been killed, whatever its lock says.
const SILENT_S: f64 = 300.0;

/// A run to be drawn.
pub(super) struct WatchView<'a> {
    pub(super) run: &'a WatchedRun,
    /// The task whose curves are drawn.
    pub(super) task: usize,
    /// Rows that are above the terminal's upper edge.
    pub(super) scrolled: u16,
    /// Why the directory can no longer be read.
    pub(super) gone: Option<&'a str>,
    pub(super) now: SystemTime,
}

/// A part of the frame under its title.
struct FramePart<'a> {
    rows: u16,
    drawn: PartContent<'a>,
}

/// What it holds.
enum PartContent<'a> {
    Table(Table<'a>),
    Text(Paragraph<'a>),
    Curves,
}

/// The whole frame as plain text.
pub(super) fn once(run: &WatchedRun, columns: u16, now: SystemTime) -> String {
    let view = WatchView { run, task: 0, scrolled: 0, gone: None, now };
    let rows = 3 + view.parts(columns.max(20)).iter().map(|part| part.rows).sum::<u16>();
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns.max(20), rows));
    view.draw(buffer.area, &mut buffer, false);
    plain(&buffer)
}

/// The cells' letters, line by line.
fn plain(buffer: &Buffer) -> String {
    let area = buffer.area;
    let line = |y: u16| {
        let letters: String = (area.left()..area.right()).map(|x| buffer[(x, y)].symbol()).collect();
        letters.trim_end().to_owned()
    };
    let lines: Vec<String> = (area.top()..area.bottom()).map(line).collect();
    lines.join("\n").trim_end().to_owned()
}

impl Widget for &WatchView<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        self.draw(area, buffer, true);
    }
}

impl WatchView<'_> {
    fn draw(&self, area: Rect, buffer: &mut Buffer, has_keys: bool) {
        let keys = u16::from(has_keys);
        let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Fill(1), Constraint::Length(keys)];
        let [head, gauge, body, foot] = Layout::vertical(rows).areas(area);
        self.head().render(head, buffer);
        self.gauge(gauge, buffer);
        let whole = self.body(body.width, body.height);
        let hidden = whole.area.height.saturating_sub(body.height);
        let first = self.scrolled.min(hidden);
        for (row, y) in (first..whole.area.height).zip(body.top()..body.bottom()) {
            (0..body.width).for_each(|x| buffer[(body.left() + x, y)] = whole[(x, row)].clone());
        }
        if has_keys {
            let turns = if self.run.tasks.len() > 1 { "   \u{2190} \u{2192} another task" } else { "" };
            let scrolls = if hidden > 0 { "   \u{2191} \u{2193} more" } else { "" };
            Line::from(format!("q quits{turns}{scrolls}")).dim().render(foot, buffer);
        }
    }

    /// Rows that a terminal of this size does not show at once.
    pub(super) fn hidden_rows(&self, size: Size) -> u16 {
        let rows = size.height.saturating_sub(3);
        self.body(size.width, rows).area.height.saturating_sub(rows)
    }

    /// All parts, one below the other, at least so many rows: the drawing takes what the others leave.
    fn body(&self, columns: u16, rows: u16) -> Buffer {
        let parts = self.parts(columns);
        let fixed: u16 = parts.iter().filter(|part| !part.is_curves()).map(|part| part.rows).sum();
        let curves =
            if parts.iter().any(FramePart::is_curves) { rows.saturating_sub(fixed).max(CHART_ROWS_MIN) } else { 0 };
        let mut buffer = Buffer::empty(Rect::new(0, 0, columns, fixed + curves));
        let mut y = 0;
        for part in parts {
            let place = Rect::new(0, y, columns, if part.is_curves() { curves } else { part.rows });
            y += place.height;
            match part.drawn {
                PartContent::Table(table) => Widget::render(table, place, &mut buffer),
                PartContent::Text(text) => text.render(place, &mut buffer),
                PartContent::Curves => self.curves(place, &mut buffer),
            }
        }
        buffer
    }

    fn head(&self) -> Line<'_> {
        let age = self.run.progress.written.and_then(|written| self.now.duration_since(written).ok());
        let is_silent = age.is_some_and(|age| age.as_secs_f64() > SILENT_S);
        let state = match &self.run.progress.state {
            RunProgressState::GoesOn if is_silent => "goes on, unless it was killed".yellow(),
            RunProgressState::GoesOn => "goes on".green(),
            RunProgressState::Stopped => "stopped before its end; --resume goes on with it".yellow(),
            RunProgressState::Failed(_) => "failed".red(),
            RunProgressState::Interrupted => "was interrupted; --resume goes on with it".yellow(),
            RunProgressState::Finished => "finished".green(),
        };
        let mut spans = vec![self.run.name.as_str().bold(), "  ".into(), state];
        if let (Some(age), RunProgressState::GoesOn) = (age, &self.run.progress.state) {
            spans.push(Span::from(format!("  last wrote {} ago", time(age.as_secs_f64()))).dim());
        }
        Line::from(spans)
    }

    fn gauge(&self, area: Rect, buffer: &mut Buffer) {
        let Some(stage) = &self.run.progress.stage else { return };
        if self.run.progress.state == RunProgressState::Finished {
            return;
        }
        let left = stage.left_s.filter(|_| self.run.progress.state == RunProgressState::GoesOn);
        let left = left.map_or_else(String::new, |left| format!(", about {} left", time(left)));
        let label = format!("{}: {} of {}{left}", stage.name, stage.done, stage.total);
        let ratio = (stage.done as f64 / stage.total.max(1) as f64).clamp(0.0, 1.0);
        let gauge = LineGauge::default().ratio(ratio).label(label).filled_style(Style::new().fg(Color::Green));
        gauge.filled_symbol("\u{2501}").unfilled_symbol("\u{2500}").render(area, buffer);
    }

    fn parts(&self, columns: u16) -> Vec<FramePart<'_>> {
        let told = self.problems(columns);
        let all = [self.results(), self.searches(), Some(FramePart::curves()), self.learners(), self.trainings()];
        let has_curves = !self.run.tasks.is_empty();
        let parts = all.into_iter().flatten().filter(|part| has_curves || !part.is_curves());
        told.into_iter().chain(parts).collect()
    }

    /// What is missing or damaged, and why it failed.
    fn problems(&self, columns: u16) -> Option<FramePart<'_>> {
        let gone = self.gone.map(|gone| format!("the directory can no longer be read, numbers are the last: {gone}"));
        let told: Vec<String> = gone.into_iter().chain(self.run.problems.iter().cloned()).collect();
        if told.is_empty() {
            return None;
        }
        let rows = |text: &String| (text.chars().count() as u16 + 2).div_ceil(columns.saturating_sub(2).max(10)) + 1;
        let n_rows = told.iter().map(rows).sum();
        let lines: Vec<Line> = told.into_iter().map(|text| Line::from(format!("! {text}")).red()).collect();
        let text = Paragraph::new(lines).wrap(Wrap { trim: true });
        Some(FramePart { rows: n_rows, drawn: PartContent::Text(text) })
    }

    fn results(&self) -> Option<FramePart<'_>> {
        let rows: Vec<Vec<String>> = self
            .run
            .results
            .iter()
            .map(|result| {
                let [macs, dense] = result.macs;
                let share = macs.zip(dense).map(|(macs, dense)| percent(macs as f64 / dense.max(1) as f64));
                let mut told: Vec<String> =
                    result.accuracies.iter().map(|(stage, share)| format!("{stage} {}", percent(*share))).collect();
                told.extend(result.output_error.map(|error| format!("output error {}", number(error))));
                let macs = macs.map_or_else(String::new, |macs| macs.to_string());
                vec![result.task.clone(), macs, share.unwrap_or_default(), told.join(", ")]
            })
            .collect();
        let widths = [Constraint::Fill(2), Constraint::Length(12), Constraint::Length(9), Constraint::Fill(3)];
        table("Networks", &["task", "MACs", "of dense", "on the test images"], rows, &widths)
    }

    fn searches(&self) -> Option<FramePart<'_>> {
        let rows: Vec<Vec<String>> = self
            .run
            .tasks
            .iter()
            .flat_map(|task| task.agents.iter().map(move |agent| (task, agent)))
            .map(|(task, agent)| {
                let walks = match agent.all_walks {
                    Some(all) => format!("{} of {all}", agent.walks),
                    None => agent.walks.to_string(),
                };
                vec![
                    task.name.clone(),
                    agent.name.clone(),
                    walks,
                    agent.scored.to_string(),
                    number(agent.best),
                    agent.accuracy.map_or_else(String::new, percent),
                    agent.macs.map_or_else(String::new, |macs| macs.to_string()),
                ]
            })
            .collect();
        let heads = ["task", "agent", "walks", "scored", "best", "images", "MACs"];
        let widths = [
            Constraint::Fill(2),
            Constraint::Fill(1),
            Constraint::Length(12),
            Constraint::Length(7),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(11),
        ];
        table("Searches: the best candidates so far, before the final refit", &heads, rows, &widths)
    }

    fn learners(&self) -> Option<FramePart<'_>> {
        let mut rows = Vec::new();
        for learner in &self.run.learners {
            for curve in learner.numbers.iter().take(N_NUMBERS) {
                let last = curve.points.last().map_or_else(String::new, |point| number(point[1]));
                let first = curve.points.first().map_or_else(String::new, |point| number(point[1]));
                let line = sparkline(&curve.points, usize::from(SPARK_COLUMNS));
                rows.push(vec![learner.agent.clone(), curve.name.replace('_', " "), first, last, line]);
            }
        }
        let updates: Vec<String> =
            self.run.learners.iter().map(|learner| format!("{} {}", learner.agent, learner.n_updates)).collect();
        let title = format!("Learners, updates: {}", updates.join(", "));
        table(&title, &["agent", "number", "first", "now", "over its updates"], rows, &CURVE_WIDTHS)
    }

    fn trainings(&self) -> Option<FramePart<'_>> {
        let row = |curve: &secateur_report::WatchedCurve| {
            let first = curve.points.first().map_or_else(String::new, |point| number(point[1]));
            let last = curve.points.last().map_or_else(String::new, |point| number(point[1]));
            vec![
                curve.name.clone(),
                format!("{} epochs", curve.points.len()),
                first,
                last,
                sparkline(&curve.points, usize::from(SPARK_COLUMNS)),
            ]
        };
        let rows = self.run.trainings.iter().map(row).collect();
        let heads = ["training", "done", "first", "now", "over its epochs"];
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(11),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(SPARK_COLUMNS),
        ];
        table("Trainings", &heads, rows, &widths)
    }

    /// The best reward so far of every agent on the task that was chosen.
    fn curves(&self, area: Rect, buffer: &mut Buffer) {
        let Some(task) = self.run.tasks.get(self.task).or(self.run.tasks.last()) else { return };
        let points = || task.agents.iter().flat_map(|agent| &agent.curve);
        let most_x = points().map(|point| point[0]).fold(1.0, f64::max);
        // As in the report: what the first candidates of the worst agent had must not flatten the rest.
        let ends = || task.agents.iter().filter_map(|agent| agent.curve.last()).map(|point| point[1]);
        let (low, high) = (ends().fold(f64::INFINITY, f64::min), ends().fold(f64::NEG_INFINITY, f64::max));
        let least = points().map(|point| point[1]).fold(f64::INFINITY, f64::min);
        let least = least.max(low - (high - low).max(0.05 * high.abs().max(1e-3)));
        let most = if high > least { high } else { least + 1e-3 };
        let steps: Vec<Vec<(f64, f64)>> = task.agents.iter().map(|agent| stairs(&agent.curve, most_x)).collect();
        let datasets = task.agents.iter().zip(&steps).enumerate().map(|(at, (agent, steps))| {
            Dataset::default()
                .name(agent.name.as_str())
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(COLOURS[at % COLOURS.len()]))
                .data(steps)
        });
        let title = format!(" {}: best reward over candidates scored ", task.name);
        let x = Axis::default().bounds([0.0, most_x]).labels(["0".to_owned(), format!("{most_x:.0}")]);
        let y = Axis::default().bounds([least, most]).labels([number(least), number(most)]);
        let legend = Some(ratatui::widgets::LegendPosition::BottomRight);
        let chart = Chart::new(datasets.collect()).block(Block::bordered().title(title)).x_axis(x).y_axis(y);
        let always = (Constraint::Fill(1), Constraint::Fill(1));
        chart.legend_position(legend).hidden_legend_constraints(always).render(area, buffer);
    }
}

impl FramePart<'_> {
    const fn curves() -> Self {
        Self { rows: CHART_ROWS, drawn: PartContent::Curves }
    }

    const fn is_curves(&self) -> bool {
        matches!(self.drawn, PartContent::Curves)
    }
}

/// Cells of a curve beside its numbers.
const SPARK_COLUMNS: u16 = 28;
const CURVE_WIDTHS: [Constraint; 5] = [
    Constraint::Fill(1),
    Constraint::Fill(1),
    Constraint::Length(10),
    Constraint::Length(10),
    Constraint::Length(SPARK_COLUMNS),
];

/// A table under its title; none without rows.
fn table<'a>(
    title: &str,
    heads: &[&'static str],
    rows: Vec<Vec<String>>,
    widths: &[Constraint],
) -> Option<FramePart<'a>> {
    if rows.is_empty() {
        return None;
    }
    let n_rows = 2 + rows.len() as u16 + 1;
    let head = Row::new(heads.to_vec()).style(Style::new().add_modifier(Modifier::DIM));
    let block = Block::new().title(Line::from(title.to_owned()).bold());
    let table = Table::new(rows.into_iter().map(Row::new), widths.iter().copied()).header(head).block(block);
    Some(FramePart { rows: n_rows, drawn: PartContent::Table(table) })
}

/// A best reward so far holds until a better one comes, and to the end.
fn stairs(curve: &[[f64; 2]], end: f64) -> Vec<(f64, f64)> {
    let mut out: Vec<(f64, f64)> = Vec::new();
    for &[x, y] in curve {
        if let Some(&(_, before)) = out.last() {
            out.push((x, before));
        }
        out.push((x, y));
    }
    if let Some(&(_, last)) = out.last() {
        out.push((end, last));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use secateur_run::RunSpec;
    use secateur_sim::PluginList;

    use super::*;

    /// Runs the quickstart, short, and returns its directory.
    fn quickstart(folder: &Path) -> PathBuf {
        let out = folder.join("a run");
        let sets = [
            "budgets=[Macs(ratio: 0.5), Macs(ratio: 0.7)]",
            "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 300, test: 100))]",
            "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\", datasets: [\"shapes\"])]",
            "images=(reward: 100, calibration: 100, walk: 30, refit: 60, probe: 50)",
            "actors_per_task=2",
            "walks_per_task=12",
            "finalists=1",
            "refit_in_pairs=false",
            "controls=[Random(candidates: 4)]",
            "tune=(epochs: 2, held_out: 50)",
        ];
        let spec = RunSpec {
            sets: sets.map(str::to_owned).into(),
            out: Some(out.clone()),
            history: Some("none".into()),
            ..RunSpec::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron"))
        };
        secateur_run::run(&spec, &PluginList::default(), &mut ()).unwrap();
        out
    }

    fn view(run: &WatchedRun) -> WatchView<'_> {
        WatchView { run, task: 0, scrolled: 0, gone: None, now: SystemTime::now() }
    }

    /// What a terminal of this size shows.
    fn shown(view: &WatchView<'_>, columns: u16, rows: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| frame.render_widget(view, frame.area())).unwrap();
        let shown = plain(terminal.backend().buffer());
        assert!(shown.lines().all(|line| line.chars().count() <= usize::from(columns)), "{shown}");
        shown
    }

    fn row<'a>(shown: &'a str, begin: &str) -> Vec<&'a str> {
        let line = shown.lines().find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("no line '{begin}' in\n{shown}")).split_whitespace().collect()
    }

    #[test]
    fn a_run_is_shown_while_it_goes_on_and_at_its_end_damaged_or_whole() {
        let folder = tempfile::tempdir().unwrap();
        let run = quickstart(folder.path());
        let read = || WatchedRun::read(&run).unwrap();
        let summary: serde_json::Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
        let whole = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let events: Vec<serde_json::Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |event: &str| events.iter().filter(|line| line["event"] == event).cloned().collect::<Vec<_>>();

        // At its end: the networks, the epochs of both trainings.
        let ended = read();
        let all = shown(&view(&ended), 120, 60);
        assert!(all.starts_with("a run  finished"), "{all}");
        let task = &summary["tasks"][0];
        let line = row(&all, &task["name"].as_str().unwrap()[..20]);
        assert_eq!(line[1], task["macs"].to_string());
        let dense = format!("dense {:.2} %", 100.0 * task["test_accuracy_original"].as_f64().unwrap());
        assert!(all.contains(&dense) && all.contains("pruned "), "{all}");
        assert!(all.lines().filter(|line| line.starts_with("tune of")).count() >= 2, "{all}");

        // Half of it, with a lock: it goes on, with the time that is left.
        let half: Vec<&str> = whole.lines().take_while(|line| !line.contains("\"random\"")).collect();
        let n_walks = half.iter().filter(|line| line.contains("\"candidate\"")).count();
        fs::write(run.join("metrics.jsonl"), half.join("\n")).unwrap();
        fs::rename(run.join("summary.json"), folder.path().join("summary.json")).unwrap();
        fs::write(run.join(".lock"), "1\n").unwrap();
        let log = fs::read_to_string(run.join("log.txt")).unwrap();
        let search = log.lines().find(|line| line.ends_with(" walks: 0 of 24")).unwrap().to_owned();
        fs::write(run.join("log.txt"), search).unwrap();
        let goes_on = read();
        let now = shown(&view(&goes_on), 120, 40);
        assert!(now.starts_with("a run  goes on"), "{now}");
        assert!(now.contains(&format!("walks: {n_walks} of 24")), "{now}");
        let learned = half.iter().filter(|line| line.contains("\"learned\"")).count();
        assert!(now.contains(&format!("updates: mtacp {learned}")) && learned > 1, "{now}");
        // The best reward, worked out from the lines.
        let of_task = |line: &&serde_json::Value| line["agent"] == "mtacp" && line["task"] == task["name"];
        let candidates = of("candidate");
        let rewards = candidates.iter().filter(of_task).map(|line| line["reward"].as_f64().unwrap());
        let best = number(rewards.fold(0.0, f64::max));
        let name = task["name"].as_str().unwrap();
        let line = row(&now, name);
        assert_eq!((line[1], &line[2..5], line[6]), ("mtacp", &["12", "of", "12"][..], best.as_str()), "{now}");
        assert!(now.lines().any(|line| line.starts_with("mtacp") && line.contains("entropy")), "{now}");
        assert!(
            now.contains("best reward over candidates scored")
                && now.contains(|c| ('\u{2801}'..='\u{28ff}').contains(&c)),
            "{now}"
        );
        assert!(now.lines().last().unwrap().contains("q quits   \u{2190} \u{2192} another task"), "{now}");
        let second = shown(&WatchView { task: 1, ..view(&goes_on) }, 120, 40);
        assert!(
            second.contains(&format!(" {}: best reward", summary["tasks"][1]["name"].as_str().unwrap())),
            "{second}"
        );
        let later = WatchView { now: SystemTime::now() + Duration::from_secs(4000), ..view(&goes_on) };
        assert!(
            shown(&later, 120, 40).contains("unless it was killed  last wrote 66 min"),
            "{}",
            shown(&later, 120, 40)
        );

        // Any size does; what does not fit can be reached.
        for (columns, rows) in [(1, 1), (3, 2), (20, 5), (40, 12), (80, 24), (300, 100)] {
            shown(&view(&goes_on), columns, rows);
        }
        let small = shown(&view(&goes_on), 80, 12);
        assert!(small.contains("\u{2191} \u{2193} more") && !small.contains("importance"), "{small}");
        let below = shown(&WatchView { scrolled: 1000, ..view(&goes_on) }, 80, 12);
        assert!(below.contains("importance"), "{below}");

        // Damaged, of another version, without metrics, and gone.
        fs::write(run.join("metrics.jsonl"), format!("{}\nrubbish\n{{\"event\":", half.join("\n"))).unwrap();
        let damaged = read();
        assert!(shown(&view(&damaged), 160, 40).contains("! metrics.jsonl is damaged"));
        assert_eq!(damaged.tasks, goes_on.tasks);
        fs::write(run.join("metrics.jsonl"), whole.replacen("\"schema\":1", "\"schema\":9", 1)).unwrap();
        assert!(shown(&view(&read()), 160, 40).contains("lines of version 9, this program knows version 1"));
        fs::remove_file(run.join("metrics.jsonl")).unwrap();
        assert!(shown(&view(&read()), 160, 40).contains("! metrics.jsonl cannot be read"));
        fs::write(run.join("log.txt"), "     3.00 error: the disk is full\n").unwrap();
        let failed = shown(&view(&read()), 160, 40);
        assert!(
            failed.starts_with("a run  failed") && failed.contains("! the run failed: the disk is full"),
            "{failed}"
        );
        let gone = WatchView { gone: Some("no such folder"), ..view(&goes_on) };
        assert!(shown(&gone, 120, 40).contains("! the directory can no longer be read"));
        // The frame without a terminal has all of it, and no keys.
        let text = once(&goes_on, 100, SystemTime::now());
        assert!(text.contains("importance mean") && !text.contains("q quits"), "{text}");
    }

    #[test]
    fn names_cannot_command_the_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let name = "\u{1b}[31mred\u{7}\r\n";
        let lines = [
            serde_json::json!({"event": "start", "schema": 1, "seed": 7}),
            serde_json::json!({"event": "candidate", "agent": name, "task": name, "reward": 0.5, "search_s": 1.0}),
            serde_json::json!({"event": "learned", "agent": name, "n_updates": 1, name: 1.0}),
            serde_json::json!({"event": "epoch", "stage": name, "agent": name, "task": name, "epoch": 1, "loss": 2}),
        ];
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        fs::write(folder.path().join("metrics.jsonl"), lines.join("\n")).unwrap();
        let run = WatchedRun::read(folder.path()).unwrap();
        let text = once(&run, 100, SystemTime::now());
        assert!(text.contains("red") && !text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}
