//! SVG, as text.

use std::fmt::Write;

/// The colours of Grafana's dark theme, and of its series in their order.
pub const BACKGROUND: &str = "#111217";
pub const PANEL: &str = "#181b1f";
pub const EDGE: &str = "#25282e";
pub const TEXT: &str = "#ccccdc";
pub const FAINT: &str = "#8e8e99";
pub const SERIES: [&str; 8] = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#37872d"];

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy)]
pub struct Area {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

/// How text stands at its place.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub size: u32,
    pub colour: &'static str,
    /// `start`, `middle` or `end`.
    pub anchor: &'static str,
    pub bold: bool,
}

impl Style {
    pub const fn of(size: u32, colour: &'static str) -> Self {
        Self { size, colour, anchor: "start", bold: false }
    }

    pub const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub const fn anchored(self, anchor: &'static str) -> Self {
        Self { anchor, ..self }
    }

    /// About how wide a text is.
    pub fn width(self, text: &str) -> f64 {
        text.chars().count() as f64 * f64::from(self.size) * 0.56
    }

    /// The text, with an ellipsis if it is wider than this.
    pub fn fitted(self, text: &str, width: f64) -> String {
        let fits = (width / (f64::from(self.size) * 0.56)) as usize;
        if text.chars().count() <= fits {
            return text.to_owned();
        }
        text.chars().take(fits.saturating_sub(1)).collect::<String>() + "…"
    }
}

/// A path through points, without those in the middle of a level stretch.
fn path(points: &[(f64, f64)]) -> String {
    let tenths = |value: f64| (value * 10.0).round() as i64;
    let level = |one: (f64, f64), other: (f64, f64)| tenths(one.1) == tenths(other.1);
    let mut path = String::new();
    let (mut x, mut y) = (0, 0);
    for (number, point) in points.iter().enumerate() {
        let inside = number > 0 && number + 1 < points.len();
        if inside && level(points[number - 1], *point) && level(*point, points[number + 1]) {
            continue;
        }
        // Each is told by the way from the one before, which is shorter.
        let (right, down) = (tenths(point.0) - x, tenths(point.1) - y);
        (x, y) = (x + right, y + down);
        let letter = if number == 0 { 'M' } else { 'l' };
        // Writing to a string cannot fail.
        let _ = write!(path, "{letter}{} {}", right as f64 / 10.0, down as f64 / 10.0);
    }
    path
}

/// A picture that grows.
#[derive(Default)]
pub struct Canvas(String);

impl Canvas {
    pub fn rectangle(&mut self, area: Area, fill: &str, edge: &str) {
        let Area { x, y, width, height } = area;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            self.0,
            r#"<rect x="{x:.0}" y="{y:.0}" width="{width:.0}" height="{height:.0}" rx="2" fill="{fill}" stroke="{edge}"/>"#
        );
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.0,
            r#"<path d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
        );
    }

    pub fn text(&mut self, (x, y): (f64, f64), style: Style, text: &str) {
        let Style { size, colour, anchor, bold } = style;
        let weight = if bold { r#" font-weight="600""# } else { "" };
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(
            self.0,
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>{text}</text>"#
        );
    }

    /// A line through points with the area below it down to `ground`.
    pub fn curve(&mut self, points: &[(f64, f64)], ground: f64, colour: &str) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        let path = path(points);
        let (start, end) = (first.0, last.0);
        let _ = writeln!(
            self.0,
            r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-linejoin="round"/>"#
        );
        let _ = writeln!(
            self.0,
            r#"<path d="{path}L{end:.1} {ground:.1}L{start:.1} {ground:.1}Z" fill="{colour}" fill-opacity="0.1"/>"#
        );
    }

    /// The file.
    pub fn finish(self, width: f64, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} \
             {height:.0}\" font-family=\"Inter, Helvetica, Arial, sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"{BACKGROUND}\"/>\n{}</svg>\n",
            self.0
        )
    }
}
