//! What was tried and what came of it: a line each while it goes on, a table at the end.

use anyhow::Result;
use fairlead_plan::Family;

use crate::interrupt;
use crate::screen::Screen;

/// Between two columns.
const GAP: &str = "  ";
/// The width of one family's part of a line.
const HALF: usize = 51;

/// What one family saw.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    /// For the table, as short as can be.
    pub(crate) seen: String,
    /// Whether it was expected.
    pub(crate) good: bool,
    /// For the line under way; `seen` if there is nothing more to say.
    pub(crate) lines: Vec<String>,
}

impl Cell {
    pub(crate) fn new(good: bool, seen: impl Into<String>) -> Self {
        let seen = seen.into();
        Self { lines: vec![seen.clone()], seen, good }
    }

    /// With a line that says more than the table.
    pub(crate) fn line(mut self, text: impl Into<String>) -> Self {
        self.lines = vec![text.into()];
        self
    }

    /// With several such lines.
    pub(crate) fn lines(mut self, lines: Vec<String>) -> Self {
        self.lines = lines;
        self
    }

    /// What happened instead.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        Self::new(false, "failed").line(format!("{error:#}"))
    }
}

/// One line of the table, without its first column.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) from: String,
    pub(crate) expected: String,
    /// IPv4, IPv6.
    pub(crate) seen: [Cell; 2],
    /// More for a person to know, below the line.
    pub(crate) remark: Option<String>,
}

impl Row {
    fn good(&self) -> bool {
        self.seen.iter().all(|cell| cell.good)
    }
}

/// All rows so far.
pub(crate) struct Ledger<'a> {
    screen: &'a Screen,
    rows: Vec<(String, Row)>,
}

impl<'a> Ledger<'a> {
    pub(crate) const fn new(screen: &'a Screen) -> Self {
        Self { screen, rows: Vec::new() }
    }

    /// Does something, and shows and notes what came of it. What fails because the person has interrupted it is no
    /// result.
    pub(crate) fn add(&mut self, what: &str, work: impl FnOnce() -> Result<Row>) -> Result<()> {
        self.screen.doing(what);
        let row = work();
        interrupt::check()?;
        let row = row?;
        self.show(what, &row);
        self.rows.push((what.to_owned(), row));
        Ok(())
    }

    fn show(&self, what: &str, row: &Row) {
        let screen = self.screen;
        screen.clear();
        let from = screen.dim(&format!("from {}; expected: {}", row.from, row.expected));
        screen.line(&format!("{} {}  {from}", self.mark(row.good()), screen.bold(what)));
        let halves = Family::BOTH.map(|family| half(&row.seen[family as usize], family));
        let narrow = halves.iter().flatten().all(|line| line.chars().count() <= HALF);
        let painted = |half: &[String], cell: &Cell, width: usize| -> Vec<String> {
            let paint = |line: &String| {
                let line = format!("{line:<width$}");
                if cell.good { line } else { screen.bad(&line) }
            };
            half.iter().map(paint).collect()
        };
        let [v4, v6] = &row.seen;
        if narrow {
            let (left, right) = (painted(&halves[0], v4, HALF), painted(&halves[1], v6, 0));
            for index in 0..left.len().max(right.len()) {
                let part = |half: &[String]| half.get(index).cloned();
                let left = part(&left).unwrap_or_else(|| " ".repeat(HALF));
                screen.line(format!("    {left}{GAP}{}", part(&right).unwrap_or_default()).trim_end());
            }
        } else {
            let lines = [painted(&halves[0], v4, 0), painted(&halves[1], v6, 0)].concat();
            lines.iter().for_each(|line| screen.line(&format!("    {line}")));
        }
        if let Some(remark) = &row.remark {
            screen.line(&format!("    {}", screen.dim(remark)));
        }
    }

    fn mark(&self, good: bool) -> String {
        if good { self.screen.good("✓") } else { self.screen.bad("✗") }
    }

    /// The table of everything. Whether all was as expected.
    pub(crate) fn summary(&self) -> bool {
        const HEAD: [&str; 5] = ["What was tried", "From", "Expected", "IPv4", "IPv6"];
        let screen = self.screen;
        screen.chapter("Summary");
        let texts: Vec<[&str; 5]> = self.rows.iter().map(|(what, row)| columns(what, row)).collect();
        let width = |column: usize| {
            texts.iter().chain([&HEAD]).map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths = [0, 1, 2, 3, 4].map(width);
        let cells = |row: &[&str; 5]| [0, 1, 2, 3, 4].map(|column| format!("{:<1$}", row[column], widths[column]));
        screen.line(&format!("  {}", screen.dim(cells(&HEAD).join(GAP).trim_end())));
        for ((_, row), text) in self.rows.iter().zip(&texts) {
            let [what, from, expected, v4, v6] = cells(text);
            let seen = |cell: &Cell, text: &str| if cell.good { screen.good(text) } else { screen.bad(text) };
            let (v4, v6) = (seen(&row.seen[0], &v4), seen(&row.seen[1], v6.trim_end()));
            let parts = [screen.bold(&what), screen.dim(&from), screen.dim(&expected), v4, v6];
            screen.line(&format!("{} {}", self.mark(row.good()), parts.join(GAP)));
        }
        self.verdict()
    }

    fn verdict(&self) -> bool {
        let wrong = self.rows.iter().flat_map(|(_, row)| &row.seen).filter(|cell| !cell.good).count();
        let all = self.rows.len() * Family::BOTH.len();
        let text = if wrong == 0 {
            self.screen.good(&format!("All {all} results were as expected."))
        } else {
            self.screen.bad(&format!("{wrong} of {all} results were not as expected."))
        };
        self.screen.line(&format!("\n{text}\n"));
        wrong == 0
    }
}

/// The lines of one family, its name in front of the first.
fn half(cell: &Cell, family: Family) -> Vec<String> {
    let label = |index: usize| if index == 0 { family.label() } else { "" };
    cell.lines.iter().enumerate().map(|(index, line)| format!("{:<4}{GAP}{line}", label(index))).collect()
}

fn columns<'a>(what: &'a str, row: &'a Row) -> [&'a str; 5] {
    [what, &row.from, &row.expected, &row.seen[0].seen, &row.seen[1].seen]
}
