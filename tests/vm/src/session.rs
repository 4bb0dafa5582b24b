//! One machine and the tests that it runs, one after the other, each in a process of its own.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::binaries::Test;
use crate::boot::{Accelerator, Event, Machine};
use crate::kernel::Kernel;

/// How the lines begin that are not of the tests; `init.sh` prints them.
const MARK: &str = "fairlead-vm: ";
/// How a test says that the machine lacks what it needs; tests/lab prints it.
const SKIPPED: &str = "skipped:";

/// What the kernel says when it is broken. Each is a failure, whatever the test says.
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
/// KVM is there, and cannot run this kernel.
const UNFIT: &str = "KVM internal error";

/// So many of the console's last lines are shown if something is wrong.
const LAST_LINES: usize = 40;

/// A machine that has not come as far as the tests after so much processor time does not boot. With the processor's help
/// it takes a second or two.
const BOOT: Duration = Duration::from_secs(120);
/// One that does not work at all does not boot either.
const BOOT_IDLE: Duration = Duration::from_secs(60);

/// How often a machine that says nothing is looked at.
const GLANCE: Duration = Duration::from_secs(5);
/// By the clock a machine may take longer than by its processor time: others use the processor too, or it sleeps.
const MOST_SHARED: u32 = 10;

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    Ignored,
    /// The machine lacks something, with the test's own words.
    Skipped(String),
    /// The kernel or the machine broke, with a sentence about it.
    Broken(String),
}

/// One test that has run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) test: String,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
    /// Processor time of this machine.
    pub(crate) cost: Duration,
    /// What it printed, and the console's last lines if something broke.
    pub(crate) output: Vec<String>,
}

/// A machine that has booted.
#[derive(Debug)]
pub(crate) struct Session {
    machine: Machine,
    log: File,
    console: VecDeque<String>,
    /// What the kernel has complained of since the last test.
    complaints: Vec<String>,
    /// How long it took to boot.
    pub(crate) boot: Duration,
    /// Processor time that had been used before the last test.
    used: Duration,
    /// It cannot run another test.
    pub(crate) lost: bool,
}

/// What the machine says of itself, when it is not the console.
enum Said {
    Next,
    Out(String),
    Err(String),
    End(i32),
    ErrEnd,
    /// The kernel; it has been noted.
    Console,
    Off,
    /// Nothing in time.
    Nothing,
}

impl Session {
    /// Boots a machine; `None` if it does not come as far as to ask for a test.
    pub(crate) fn boot(kernel: &Kernel, initramfs: &Path, log: &Path, how: Accelerator) -> Result<Option<Self>> {
        let began = Instant::now();
        let machine = Machine::boot(&kernel.image, initramfs, how)?;
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let (console, complaints) = (VecDeque::new(), Vec::new());
        let mut session =
            Self { machine, log, console, complaints, boot: Duration::ZERO, used: Duration::ZERO, lost: false };
        loop {
            let used = session.processor_time();
            match session.hear(BOOT_IDLE) {
                Said::Next => break,
                Said::Off => return Ok(None),
                Said::Nothing if session.processor_time() == used || used > BOOT => return Ok(None),
                _ if session.console.iter().any(|line| line.contains(UNFIT)) => return Ok(None),
                _ => {}
            }
        }
        session.boot = began.elapsed();
        session.used = session.machine.processor_time();
        Ok(Some(session))
    }

    /// Runs a test.
    pub(crate) fn run(&mut self, test: &Test, arguments: &[String], patience: Duration) -> Outcome {
        let began = Instant::now();
        let mut output = Vec::new();
        let verdict = match self.machine.tell(&test.line(arguments)) {
            Ok(()) => self.observe(test.is_reported, patience, &mut output),
            Err(error) => {
                self.lost = true;
                Verdict::Broken(format!("the machine can be told nothing: {error}"))
            }
        };
        let verdict = if self.complaints.is_empty() {
            verdict
        } else {
            Verdict::Broken(format!("the kernel says: {}", self.complaints.join("; ")))
        };
        self.complaints.clear();
        if let Verdict::Broken(_) = verdict {
            output.push("----- the last lines of the console:".to_owned());
            output.extend(self.console.iter().cloned());
            output.push("-----".to_owned());
        }
        let used = self.processor_time();
        let cost = used.saturating_sub(std::mem::replace(&mut self.used, used));
        Outcome { test: test.name.clone(), verdict, took: began.elapsed(), cost, output }
    }

    /// Processor time that the machine has used.
    pub(crate) fn processor_time(&self) -> Duration {
        self.machine.processor_time()
    }

    /// Listens until the machine asks for the next test.
    fn observe(&mut self, is_reported: bool, patience: Duration, output: &mut Vec<String>) -> Verdict {
        let (mut result, mut skipped, mut status, mut err_ended) = (None, None, None, false);
        let (mut asked, mut used, mut heard) = (false, self.used, Instant::now());
        while !(asked && err_ended) {
            let said = self.hear(GLANCE);
            if !matches!(said, Said::Nothing) {
                (used, heard) = (self.machine.processor_time(), Instant::now());
            }
            match said {
                Said::Out(line) if !is_reported => println!("{line}"),
                Said::Out(line) => {
                    result = result.or_else(|| result_of(&line));
                    output.push(line);
                }
                Said::Err(line) => {
                    skipped = skipped.or_else(|| line.find(SKIPPED).map(|at| line[at..].to_owned()));
                    output.push(line);
                }
                Said::End(number) => {
                    status = Some(number);
                    if !is_reported {
                        result = Some(if number == 0 { Verdict::Passed } else { Verdict::Failed });
                    }
                }
                Said::ErrEnd => err_ended = true,
                Said::Next => asked = true,
                Said::Console => {}
                Said::Off => {
                    self.lost = true;
                    return Verdict::Broken("the machine went off".to_owned());
                }
                Said::Nothing => {
                    let worked = self.machine.processor_time().saturating_sub(used);
                    if worked > patience || heard.elapsed() > patience * MOST_SHARED {
                        self.lost = true;
                        let seconds = worked.as_secs();
                        return Verdict::Broken(format!("it said nothing while its machine worked for {seconds} s"));
                    }
                }
            }
        }
        match (result, skipped, status) {
            (Some(Verdict::Passed), Some(line), Some(0)) => Verdict::Skipped(line),
            (Some(verdict @ (Verdict::Passed | Verdict::Ignored)), None, Some(0)) => verdict,
            (Some(Verdict::Failed), _, Some(_)) => Verdict::Failed,
            (_, _, status) => {
                let status = status.map_or("without a status".to_owned(), |status| format!("with status {status}"));
                Verdict::Broken(format!("its program ended {status} and did not report it"))
            }
        }
    }

    fn hear(&mut self, patience: Duration) -> Said {
        let Some(event) = self.machine.next(patience) else { return Said::Nothing };
        match event {
            Event::Console(line) => {
                self.console(&line);
                Said::Console
            }
            Event::Out(line) => match line.strip_prefix(MARK) {
                Some("next") => Said::Next,
                Some(words) => Said::End(words.strip_prefix("end ").and_then(|word| word.parse().ok()).unwrap_or(-1)),
                None => Said::Out(line),
            },
            Event::Err(line) if line.starts_with(MARK) => Said::ErrEnd,
            Event::Err(line) => Said::Err(line),
            Event::Off => Said::Off,
        }
    }

    fn console(&mut self, line: &str) {
        // The log is for a person; that it cannot be written changes no verdict.
        let _ = writeln!(self.log, "{line}");
        if BROKEN.iter().any(|sign| line.contains(sign)) {
            self.complaints.push(line.to_owned());
        }
        if self.console.len() == LAST_LINES {
            self.console.pop_front();
        }
        self.console.push_back(line.to_owned());
    }
}

/// Reads the line that counts: `test result: ok. 1 passed; 0 failed; 0 ignored; ...`. The line of the test itself may
/// be interrupted by what programs print that it runs.
fn result_of(line: &str) -> Option<Verdict> {
    let counts = line.strip_prefix("test result: ")?;
    let is_one = |word: &str| counts.contains(&format!(" 1 {word};"));
    [("passed", Verdict::Passed), ("failed", Verdict::Failed), ("ignored", Verdict::Ignored)]
        .into_iter()
        .find_map(|(word, verdict)| is_one(word).then_some(verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_counts_says_what_became_of_the_one_test() {
        let line = |counts: &str| format!("test result: {counts}; 0 measured; 73 filtered out; finished in 9.98s");
        assert_eq!(result_of(&line("ok. 1 passed; 0 failed; 0 ignored")), Some(Verdict::Passed));
        assert_eq!(result_of(&line("FAILED. 0 passed; 1 failed; 0 ignored")), Some(Verdict::Failed));
        assert_eq!(result_of(&line("ok. 0 passed; 0 failed; 1 ignored")), Some(Verdict::Ignored));
    }

    #[test]
    fn a_program_that_ran_no_test_has_no_result() {
        assert_eq!(result_of("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured"), None);
        assert_eq!(result_of("test packets::web ... ok"), None);
    }
}
