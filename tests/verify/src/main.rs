//! `cargo verify`: every check and test of the project, on a fresh Debian machine with a Rust toolchain, as root.
//!
//! ```text
//!   machine    is this root, and are the programs here? installs what is missing
//!   manifest_tools  Debian's kubectl and the schemas of Kubernetes, below target/tools
//!   tools      builds cargo-deny beside the checks, if it is not there
//!   checks     the list: what is checked, in order
//!   run        one command: its output kept, its time taken
//!   sources    checks that read the sources: unsafe, length
//!   documents  checks that read the pages: their commands, paths and links
//!   failures   why tests failed, in a few lines each
//!   tally      counts tests in the output of cargo test
//! ```
//!
//! Each check prints its name and time as it ends; the whole output of those that failed follows, then why each test failed; the
//! last line counts. The crate uses nothing but the standard library, so that it is built in a second.
#![forbid(unsafe_code)]

mod checks;
mod documents;
mod failures;
mod machine;
mod manifest_tools;
mod run;
mod sources;
mod tally;
mod tools;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use checks::Check;
use tally::Tally;

fn main() -> ExitCode {
    let started = Instant::now();
    let root = root();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word.starts_with('-')) {
        say("cargo verify runs every check; cargo verify WORD... runs those whose names hold one of the words.");
        return ExitCode::from(2);
    }
    let mut report = Report::default();
    let here = root.clone();
    report.run(Check::new("machine", move || machine::prepare(&here)));
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let deny = wanted(tools::DENY).then(|| tools::Deny::start(&root));
    for check in checks::all(&root).into_iter().filter(|check| wanted(&check.name)) {
        report.run(check);
    }
    if let Some(deny) = deny {
        report.run(Check::new(tools::DENY, move || deny.check(&root)));
    }
    report.finish(started)
}

/// The top of the repository: two folders above this crate's manifest, wherever the command is started.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// One line to the terminal.
pub(crate) fn say(line: &str) {
    show(&format!("{line}\n"));
}

/// A closed pipe is no reason to stop checking.
fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[derive(Default)]
struct Report {
    passed: u64,
    failed: Vec<(String, String)>,
    tally: Tally,
    /// Failed checks that are counted by their tests.
    counted: u64,
}

impl Report {
    fn run(&mut self, check: Check) {
        // Its name stands there while it runs.
        show(&format!("{:.<44} ", check.name));
        let outcome = (check.work)();
        let word = if outcome.good { "ok" } else { "FAILED" };
        say(&format!("{word:6} {:7.1} s{}", outcome.took.as_secs_f64(), outcome.remark));
        // A check that runs tests is counted by its tests; it failed as a check if the tests could not be run.
        self.counted += u64::from(!outcome.good && outcome.tally.failed > 0);
        self.tally += outcome.tally;
        if outcome.good {
            self.passed += 1;
        } else {
            self.failed.push((check.name, outcome.output));
        }
    }

    fn finish(mut self, started: Instant) -> ExitCode {
        for (name, output) in &self.failed {
            say(&format!("\n===== {name} failed; its whole output:\n{output}\n===== end of {name}"));
        }
        for name in self.tally.settle() {
            say(&format!("passed in the virtual machine, not possible on this one: {name}"));
        }
        for line in &self.tally.skipped {
            say(line);
        }
        for (_, output) in &self.failed {
            failures::digest(output).iter().for_each(|told| say(told));
        }
        let failed = self.failed.len() as u64;
        let minutes = started.elapsed().as_secs_f64() / 60.0;
        let (tests, cpus) = (self.tally.passed, std::thread::available_parallelism().map_or(1, usize::from));
        say(&format!("{} checks and {tests} tests passed, {minutes:.1} minutes on {cpus} CPUs", self.passed));
        let failures = self.tally.failed + failed - self.counted;
        let skipped = self.tally.ignored + self.tally.skipped.len() as u64;
        say(&format!("verify: {} passed, {failures} failed, {skipped} skipped", self.passed + tests));
        if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
