//! Running one command: its output kept, its time taken.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::tally::Tally;

/// What came of one check.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) good: bool,
    pub(crate) took: Duration,
    /// Everything that it printed, shown only if it failed.
    pub(crate) output: String,
    /// A few words behind its line.
    pub(crate) remark: String,
    pub(crate) tally: Tally,
}

impl Outcome {
    /// A check that found these complaints, one a line.
    pub(crate) fn of(complaints: &[String], started: Instant) -> Self {
        let output = complaints.join("\n");
        Self { good: complaints.is_empty(), took: started.elapsed(), output, ..Self::default() }
    }

    pub(crate) fn failure(output: impl Into<String>, started: Instant) -> Self {
        Self { output: output.into(), took: started.elapsed(), ..Self::default() }
    }

    pub(crate) fn remark(mut self, remark: &str) -> Self {
        self.remark = format!("  {remark}");
        self
    }
}

/// Runs a program to its end. It reads nothing from the terminal.
pub(crate) fn run(root: &Path, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let started = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("CARGO_TERM_COLOR", "never").envs(environment.iter().copied());
    let told = format!("$ {program} {}\n", arguments.join(" "));
    match collect(command) {
        Ok((good, output)) => Outcome { good, took: started.elapsed(), output: told + &output, ..Outcome::default() },
        Err(error) => Outcome::failure(format!("{told}{program} cannot be started: {error}"), started),
    }
}

/// Both streams in the order of their arrival, as far as two pipes keep it.
fn collect(mut command: Command) -> io::Result<(bool, String)> {
    let mut child = command.spawn()?;
    let errors = child.stderr.take().map(|stream| thread::spawn(move || drain(stream)));
    let mut output = child.stdout.take().map(drain).unwrap_or_default();
    if let Some(Ok(errors)) = errors.map(thread::JoinHandle::join) {
        output = errors + &output;
    }
    Ok((child.wait()?.success(), output))
}

fn drain(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is still worth showing.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where a program is, in `PATH` and where Debian keeps those of root.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}
