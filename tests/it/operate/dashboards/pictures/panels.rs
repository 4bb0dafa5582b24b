//! Panels, each drawn as Grafana draws its type.

use serde_json::Value;

use super::Answers;
use super::canvas::{Area, Canvas, EDGE, FAINT, PANEL, SERIES, Style, TEXT};
use super::units::{marks, shown};

const TITLE: Style = Style::of(13, TEXT).bold();
const SMALL: Style = Style::of(11, FAINT);
const CELL: Style = Style::of(12, TEXT);
/// Room around what a panel shows.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 36.0;
/// One line of text below the plot, and the legend's lines.
const LINE: f64 = 18.0;
/// The widest part of a panel that a legend may take, in lines.
const LEGEND_LINES: usize = 2;
/// Longer than this part of the picture is a gap.
const GAPS: f64 = 70.0;
/// Times on the axis.
const TIMES: u32 = 4;
const RED: &str = "#f2495c";

/// The numbers of one line, with their times.
pub struct Series {
    pub name: String,
    pub labels: Value,
    pub points: Vec<(f64, f64)>,
}

/// Draws a panel and says whether it had data.
pub fn draw(canvas: &mut Canvas, panel: &Value, area: Area, answers: &Answers<'_>) -> bool {
    let title = panel["title"].as_str().unwrap();
    if panel["type"] == "row" {
        canvas.text((area.x + 4.0, area.y + area.height - 10.0), TITLE, &format!("⌄ {title}"));
        return true;
    }
    canvas.rectangle(area, PANEL, EDGE);
    canvas.text((area.x + 10.0, area.y + 22.0), TITLE, &TITLE.fitted(title, area.width - 20.0));
    let series = answers.of(panel);
    match panel["type"].as_str().unwrap() {
        "stat" => stat(canvas, panel, area, &series),
        "table" => table(canvas, area, &series),
        "timeseries" => chart(canvas, panel, area, &series, answers.span),
        other => panic!("{title} is a panel of type {other}"),
    }
    series.iter().any(|series| !series.points.is_empty())
}

fn unit(panel: &Value) -> &str {
    panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default()
}

/// The colour of the highest threshold that a value reaches.
fn threshold(panel: &Value, value: f64) -> &'static str {
    let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array();
    let reached = steps.into_iter().flatten().rfind(|step| step["value"].as_f64().is_none_or(|least| value >= least));
    match reached.and_then(|step| step["color"].as_str()) {
        Some("red") => RED,
        Some("orange") => SERIES[3],
        _ => SERIES[0],
    }
}

fn stat(canvas: &mut Canvas, panel: &Value, area: Area, series: &[Series]) {
    let width = area.width / series.len().max(1) as f64;
    for (number, one) in series.iter().enumerate() {
        let Some((_, value)) = one.points.last() else { continue };
        let middle = (number as f64 + 0.5).mul_add(width, area.x);
        let style = Style::of(34, threshold(panel, *value)).bold().anchored("middle");
        canvas.text((middle, area.y + area.height * 0.62), style, &shown(*value, unit(panel)));
        if series.len() > 1 {
            canvas.text((middle, area.y + area.height - 14.0), SMALL.anchored("middle"), &one.name);
        }
    }
}

fn table(canvas: &mut Canvas, area: Area, series: &[Series]) {
    let Some(first) = series.first() else { return };
    let names: Vec<&String> = first.labels.as_object().unwrap().keys().filter(|name| *name != "__name__").collect();
    let width = (area.width - 20.0) / (names.len() + 1) as f64;
    let place = |column: usize, row: usize| {
        ((column as f64).mul_add(width, area.x + 10.0), (row as f64).mul_add(26.0, area.y + TOP + 16.0))
    };
    for (column, name) in names.iter().map(|name| name.as_str()).chain(["Value"]).enumerate() {
        canvas.text(place(column, 0), CELL.bold(), &CELL.fitted(name, width - 6.0));
    }
    for (row, one) in series.iter().enumerate() {
        let (_, y) = place(0, row + 1);
        canvas.line((area.x + 10.0, y - 18.0), (area.x + area.width - 10.0, y - 18.0), EDGE, 1.0);
        let value = one.points.last().map_or_else(String::new, |(_, value)| shown(*value, "short"));
        let cells = names.iter().map(|name| one.labels[name.as_str()].as_str().unwrap_or_default());
        for (column, cell) in cells.chain([value.as_str()]).enumerate() {
            canvas.text(place(column, row + 1), CELL, &CELL.fitted(cell, width - 6.0));
        }
    }
}

fn chart(canvas: &mut Canvas, panel: &Value, area: Area, series: &[Series], span: (f64, f64)) {
    let lines = legend(canvas, area, series);
    let (left, right) = (area.x + LEFT, area.x + area.width - RIGHT);
    let (top, ground) = (area.y + TOP, area.y + area.height - LINE.mul_add(lines as f64, 30.0));
    let most = series.iter().flat_map(|one| &one.points).map(|(_, value)| *value).fold(0.0, f64::max);
    let marks = marks(most, unit(panel));
    let end = marks[marks.len() - 1];
    let y_of = |value: f64| (value / end).mul_add(top - ground, ground);
    let x_of = |time: f64| ((time - span.0) / (span.1 - span.0)).mul_add(right - left, left);
    for mark in marks {
        canvas.line((left, y_of(mark)), (right, y_of(mark)), EDGE, 1.0);
        canvas.text((left - 6.0, y_of(mark) + 4.0), SMALL.anchored("end"), &shown(mark, unit(panel)));
    }
    for number in 0..TIMES {
        let time = (span.1 - span.0).mul_add((f64::from(number) + 0.5) / f64::from(TIMES), span.0);
        canvas.line((x_of(time), top), (x_of(time), ground), EDGE, 1.0);
        canvas.text((x_of(time), ground + 16.0), SMALL.anchored("middle"), &clock(time));
    }
    for (one, colour) in series.iter().zip(SERIES.iter().cycle()) {
        // Where there was nothing to tell for a while, nothing is drawn.
        for run in one.points.chunk_by(|one, next| next.0 - one.0 < (span.1 - span.0) / GAPS) {
            let points = run.iter().map(|(time, value)| (x_of(*time), y_of(*value)));
            canvas.curve(&points.collect::<Vec<_>>(), ground, colour);
        }
    }
}

/// The names of the lines, from the bottom of the panel upwards. Gives back how many lines of text they take.
fn legend(canvas: &mut Canvas, area: Area, series: &[Series]) -> usize {
    let mut rows: Vec<Vec<(f64, &str, &str)>> = vec![Vec::new()];
    let mut x = 12.0;
    for (one, colour) in series.iter().zip(SERIES.iter().cycle()) {
        let width = SMALL.width(&one.name) + 34.0;
        if x + width > area.width && x > 12.0 {
            if rows.len() == LEGEND_LINES {
                break;
            }
            rows.push(Vec::new());
            x = 12.0;
        }
        rows.last_mut().unwrap().push((area.x + x, &one.name, colour));
        x += width;
    }
    for (number, row) in rows.iter().enumerate() {
        let y = LINE.mul_add((number + 1) as f64, area.y + area.height - 10.0 - LINE * rows.len() as f64);
        for (x, name, colour) in row {
            canvas.line((*x, y - 4.0), (*x + 14.0, y - 4.0), colour, 3.0);
            canvas.text((*x + 19.0, y), SMALL, &SMALL.fitted(name, area.width - 40.0));
        }
    }
    rows.len()
}

/// The time of the day, UTC.
pub fn clock(time: f64) -> String {
    let seconds = time as u64 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
