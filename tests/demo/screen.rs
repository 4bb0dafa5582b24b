//! How things look. Colours and lines that are written over are for terminals alone.

use std::io::{self, IsTerminal, Write};

/// How wide a chapter's line is.
const WIDTH: usize = 110;

/// Standard output.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    colour: bool,
}

impl Screen {
    /// Colours if this is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
    pub(crate) fn new() -> Self {
        let terminal = io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { terminal, colour: terminal && wanted }
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub(crate) fn accent(&self, text: &str) -> String {
        self.paint("36", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The very first line.
    pub(crate) fn title(&self, text: &str) {
        self.line(&format!("\n{}\n", self.bold(text)));
    }

    /// A line between two parts.
    pub(crate) fn chapter(&self, text: &str) {
        let rule = "─".repeat(WIDTH.saturating_sub(text.chars().count() + 4));
        self.line(&format!("\n{} {} {}\n", self.accent("──"), self.bold(text), self.accent(&rule)));
    }

    /// One step of the preparations: its name and what came of it.
    pub(crate) fn step(&self, name: &str, text: &str) {
        self.clear();
        self.line(&format!("{} {} {text}", self.good("●"), self.bold(&format!("{name:<10}"))));
    }

    /// What is going on now; the next line takes its place.
    pub(crate) fn doing(&self, text: &str) {
        if self.terminal {
            self.write(&format!("\r\x1b[K{} {text} …", self.accent("○")));
        }
    }

    /// Takes away what [`Self::doing`] has written.
    pub(crate) fn clear(&self) {
        if self.terminal {
            self.write("\r\x1b[K");
        }
    }

    pub(crate) fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// A closed pipe is no reason to stop: what was built must still be taken away.
    fn write(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// A bar for a number, `full` being the longest.
pub(crate) fn bar(number: usize, full: usize) -> String {
    const LENGTH: usize = 20;
    "█".repeat((number * LENGTH + full / 2).checked_div(full).unwrap_or(0).max(usize::from(number > 0)))
}

/// A time as a person says it.
pub(crate) fn time(duration: std::time::Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    match milliseconds {
        ..10.0 => format!("{milliseconds:.1} ms"),
        ..1000.0 => format!("{milliseconds:.0} ms"),
        _ => format!("{:.1} s", milliseconds / 1e3),
    }
}
