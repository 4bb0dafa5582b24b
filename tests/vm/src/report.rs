//! What became of the tests, from what the machine says.

use std::collections::{BTreeSet, VecDeque};

use crate::boot::Event;
use crate::script::{Said, said};

/// How a test says that the machine lacks what it needs; tests/lab prints it.
const SKIPPED: &str = "skipped:";

/// What the kernel says when it is broken. Each is a failure, whatever the tests say.
const BROKEN: [&str; 12] = [
    "Kernel panic",
    "BUG:",
    "kernel BUG at",
    "Oops:",
    "general protection fault",
    "Unable to handle kernel",
    "soft lockup",
    "hard LOCKUP",
    "detected stalls",
    "blocked for more than",
    "Out of memory:",
    "WARNING: CPU:",
];

/// So many of the console's last lines are shown if something is wrong.
const LAST_LINES: usize = 40;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The machine switched itself off.
    Off,
    /// It said nothing for so many seconds.
    Quiet(u64),
}

/// What is known so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// For each program its name and the tests that it must report.
    expected: Vec<(String, BTreeSet<String>)>,
    running: Option<usize>,
    booted: bool,
    done: bool,
    passed: usize,
    ignored: usize,
    failed: Vec<String>,
    skipped: BTreeSet<String>,
    complaints: Vec<String>,
    console: VecDeque<String>,
}

impl Report {
    /// A report on programs that hold these tests.
    pub(crate) fn new(expected: Vec<(String, BTreeSet<String>)>) -> Self {
        Self { expected, ..Self::default() }
    }

    /// Whether the tests have been reached.
    pub(crate) const fn booted(&self) -> bool {
        self.booted
    }

    /// Notes one line. Gives it back if a person should see it.
    pub(crate) fn hear(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Console(line) => {
                self.console(line);
                None
            }
            Event::Out(line) => match said(line) {
                Some(said) => {
                    self.mark(&said);
                    None
                }
                None => {
                    self.result(line);
                    Some(line.clone())
                }
            },
            Event::Err(line) => {
                if let Some(at) = line.find(SKIPPED) {
                    self.skipped.insert(line[at..].to_owned());
                }
                Some(line.clone())
            }
            Event::Qemu(line) => {
                self.console(&format!("qemu: {line}"));
                None
            }
            Event::Off => None,
        }
    }

    fn console(&mut self, line: &str) {
        if BROKEN.iter().any(|sign| line.contains(sign)) {
            self.complaints.push(format!("the kernel says: {line}"));
        }
        if self.console.len() == LAST_LINES {
            self.console.pop_front();
        }
        self.console.push_back(line.to_owned());
    }

    fn mark(&mut self, said: &Said) {
        match said {
            Said::Booted => self.booted = true,
            Said::Begin(number) => self.running = Some(*number),
            Said::End(status) => {
                let Some((name, left)) = self.running.take().and_then(|number| self.expected.get(number)) else {
                    return;
                };
                // A program whose tests failed says so by this status, and the tests are counted.
                const TESTS_FAILED: i32 = 101;
                if *status != 0 && !(*status == TESTS_FAILED && !self.failed.is_empty()) {
                    self.complaints.push(format!("{name} ended with status {status}"));
                }
                if !left.is_empty() {
                    self.complaints.push(format!("{name} ended without a word about {}", list(left)));
                }
            }
            Said::Done => self.done = true,
        }
    }

    /// `test NAME ... RESULT`.
    fn result(&mut self, line: &str) {
        let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else { return };
        let name = name.split(" - should panic").next().unwrap_or(name);
        let Some((_, left)) = self.running.and_then(|number| self.expected.get_mut(number)) else { return };
        if !left.remove(name) {
            return;
        }
        match result.split([',', ' ']).next() {
            Some("ok") => self.passed += 1,
            Some("ignored") => self.ignored += 1,
            _ => self.failed.push(name.to_owned()),
        }
    }

    /// The last words: lines for a person, and whether all is well.
    pub(crate) fn finish(mut self, ending: Ending) -> (Vec<String>, bool) {
        if !self.done {
            let running = self.running.and_then(|number| self.expected.get(number));
            let at = running.map(|(name, left)| format!(", while {name} had still to report {}", list(left)));
            self.complaints.push(match ending {
                Ending::Off => format!("the machine ended before its time{}", at.unwrap_or_default()),
                Ending::Quiet(seconds) => {
                    format!("nothing was heard for {seconds} s{}", at.unwrap_or_default())
                }
            });
        }
        let mut lines = Vec::new();
        if !self.complaints.is_empty() {
            lines.push("----- the last lines of the console:".to_owned());
            lines.extend(self.console);
            lines.push("-----".to_owned());
        }
        lines.extend(self.failed.iter().map(|name| format!("failed: {name}")));
        lines.extend(self.complaints.iter().map(|complaint| format!("failed: {complaint}")));
        // A test that is skipped has passed as far as its program knows.
        let passed = self.passed.saturating_sub(self.skipped.len());
        let failures = self.failed.len() + self.complaints.len();
        let skipped = self.skipped.len() + self.ignored;
        lines.push(format!("vm: {passed} passed, {failures} failed, {skipped} skipped"));
        (lines, failures == 0)
    }
}

/// The first few of these.
fn list(names: &BTreeSet<String>) -> String {
    const FEW: usize = 8;
    let first: Vec<_> = names.iter().take(FEW).map(String::as_str).collect();
    let more = names.len().saturating_sub(FEW);
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}
