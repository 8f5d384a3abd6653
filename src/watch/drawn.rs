//! A frame: what of a run fits on a terminal, the most wanted first.

use std::time::SystemTime;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
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
/// With fewer it is left out.
const CHART_ROWS_MIN: u16 = 7;

/// A run to be drawn.
pub(super) struct WatchView<'a> {
    pub(super) run: &'a WatchedRun,
    /// The task whose curves are drawn.
    pub(super) task: usize,
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
    let view = WatchView { run, task: 0, gone: None, now };
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
        let [head, gauge, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(keys),
        ])
        .areas(area);
        self.head().render(head, buffer);
        self.gauge(gauge, buffer);
        let parts = self.parts(area.width);
        // The drawing takes what the others leave, and gives way to them.
        let fixed: u16 = parts.iter().filter(|part| !part.is_curves()).map(|part| part.rows).sum();
        let left = body.height.saturating_sub(fixed);
        let mut y = body.top();
        for part in parts {
            let rows = match part.is_curves() {
                true if left < CHART_ROWS_MIN => continue,
                true => left,
                false => part.rows.min(body.bottom().saturating_sub(y)),
            };
            let place = Rect::new(body.left(), y, body.width, rows);
            match part.drawn {
                PartContent::Table(table) => Widget::render(table, place, buffer),
                PartContent::Text(text) => text.render(place, buffer),
                PartContent::Curves => self.curves(place, buffer),
            }
            y += rows;
        }
        if has_keys {
            let keys = if self.run.tasks.len() > 1 { "q quits   ← → another task" } else { "q quits" };
            Line::from(keys).dim().render(foot, buffer);
        }
    }

    fn head(&self) -> Line<'_> {
        let state = match &self.run.progress.state {
            RunProgressState::GoesOn => "goes on".green(),
            RunProgressState::Stopped => "stopped before its end; --resume goes on with it".yellow(),
            RunProgressState::Failed(_) => "failed".red(),
            RunProgressState::Interrupted => "was interrupted; --resume goes on with it".yellow(),
            RunProgressState::Finished => "finished".green(),
        };
        let mut spans = vec![self.run.name.as_str().bold(), "  ".into(), state];
        let age = self.run.progress.written.and_then(|written| self.now.duration_since(written).ok());
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
        gauge.render(area, buffer);
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
        chart.legend_position(legend).render(area, buffer);
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
