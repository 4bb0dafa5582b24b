//! The panels of the dashboards as pictures, drawn from what Prometheus answers, laid out as Grafana does it.

mod canvas;
mod panels;
mod units;

use serde_json::Value;

use super::documents::board;
use super::prometheus::Prometheus;
use canvas::{Area, Canvas, FAINT, Style, TEXT};
use panels::{Series, clock};

/// The environment variable that asks for the pictures in `dashboards/`, and how many seconds they show.
pub const WANTED: &str = "FAIRLEAD_PICTURES";
/// Grafana's grid: 24 columns; a unit of height and the gap between panels in pixels.
const WIDTH: f64 = 1200.0;
const COLUMN: f64 = WIDTH / 24.0;
const UNIT: f64 = 36.0;
const GAP: f64 = 8.0;
/// The line above the panels.
const HEAD: f64 = 48.0;
/// Values of a line.
const POINTS: f64 = 140.0;
/// No file may be larger, in bytes.
const LARGEST: usize = 150_000;

/// What Prometheus answers for a span of time, from and to in seconds since 1970.
pub struct Answers<'a> {
    pub prometheus: &'a Prometheus,
    pub span: (f64, f64),
    /// Puts values in the place of the variables of a query.
    pub put_in: &'a dyn Fn(&str) -> String,
}

impl Answers<'_> {
    fn of(&self, panel: &Value) -> Vec<Series> {
        let targets = panel["targets"].as_array().unwrap();
        targets.iter().flat_map(|target| self.of_target(target)).collect()
    }

    fn of_target(&self, target: &Value) -> Vec<Series> {
        let expression = (self.put_in)(target["expr"].as_str().unwrap());
        let answer = if target["instant"] == true {
            self.prometheus.query_at(&expression, self.span.1)
        } else {
            self.prometheus.query_range(&expression, self.span, (self.span.1 - self.span.0) / POINTS)
        };
        let name = target["legendFormat"].as_str().unwrap_or_default();
        answer.into_iter().map(|series| one(name, &series)).collect()
    }
}

fn one(name: &str, series: &Value) -> Series {
    let single = [series["value"].clone()];
    let samples = series["values"].as_array().map_or(single.as_slice(), Vec::as_slice);
    let number = |sample: &Value| Some((sample[0].as_f64()?, sample[1].as_str()?.parse::<f64>().ok()?));
    let points = samples.iter().filter_map(number).filter(|(_, value)| value.is_finite()).collect();
    let labels = series["metric"].as_object().unwrap();
    let put_in = |name: String, (label, value): (&String, &Value)| {
        name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default())
    };
    let name = labels.iter().fold(name.to_owned(), put_in);
    Series { name, labels: series["metric"].clone(), points }
}

/// The picture of a dashboard. Every panel of it has data.
pub fn picture(file: &str, answers: &Answers<'_>) -> String {
    let board = board(file);
    let mut canvas = Canvas::default();
    canvas.text((GAP + 4.0, 31.0), Style::of(18, TEXT).bold(), board["title"].as_str().unwrap());
    let span = format!("{} to {} UTC", clock(answers.span.0), clock(answers.span.1));
    canvas.text((WIDTH - GAP, 30.0), Style::of(12, FAINT).anchored("end"), &span);
    let mut bottom = 0.0;
    for panel in board["panels"].as_array().unwrap() {
        let of = |name: &str| panel["gridPos"][name].as_f64().unwrap();
        let area = Area {
            x: of("x").mul_add(COLUMN, GAP / 2.0),
            y: of("y").mul_add(UNIT, HEAD),
            width: of("w").mul_add(COLUMN, -GAP),
            height: of("h").mul_add(UNIT, -GAP),
        };
        assert!(panels::draw(&mut canvas, panel, area, answers), "{file}: {} has no data", panel["title"]);
        bottom = f64::max(bottom, area.y + area.height);
    }
    let picture = canvas.finish(WIDTH, bottom + GAP);
    assert!(picture.len() < LARGEST, "{file}: {} bytes", picture.len());
    picture
}
