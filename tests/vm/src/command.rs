//! The command line.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::binaries::Scope;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
cargo vm [OPTIONS] [WORD...] [-- ARGUMENT...]

Runs the integration tests on another kernel in a virtual machine: those whose names hold one of the words, or all.
Arguments after -- go to the test program (--exact, --skip WORD, --nocapture, --test-threads N).

  --kernel VERSION   which of Debian's kernels, as 6.1 (default: 6.12 if Debian has it, else its newest)
  --workspace        the integration tests of all crates, not only those of the program
  --cpus N           processors of the machine (default: those of this one, at most 4)
  --patience SECONDS a machine that says nothing for so long hangs (default: 300)";

/// So many processors help; more only cost.
const MOST_CPUS: usize = 4;
/// Some tests take minutes in an emulated processor, and say nothing meanwhile.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Say what can be done.
    Help,
    /// Run tests.
    Run(Options),
}

/// How to run tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Parts of the names of tests; none means all tests.
    pub(crate) words: Vec<String>,
    /// For the test program.
    more: Vec<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) scope: Scope,
    pub(crate) cpus: usize,
    pub(crate) patience: Duration,
}

impl Command {
    /// Reads the words of the command line.
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let mut options = Options {
            words: Vec::new(),
            more: Vec::new(),
            kernel: None,
            scope: Scope::Program,
            cpus: std::thread::available_parallelism().map_or(1, usize::from).min(MOST_CPUS),
            patience: PATIENCE,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value; see cargo vm --help"));
            match word.as_str() {
                "-h" | "--help" => return Ok(Self::Help),
                "--kernel" => options.kernel = Some(value()?.clone()),
                "--workspace" => options.scope = Scope::Workspace,
                "--cpus" => options.cpus = number(word, value()?)?,
                "--patience" => options.patience = Duration::from_secs(number(word, value()?)? as u64),
                "--" => options.more = words.by_ref().cloned().collect(),
                _ if word.starts_with('-') => bail!("{word} is unknown; see cargo vm --help"),
                _ => options.words.push(word.clone()),
            }
        }
        Ok(Self::Run(options))
    }
}

impl Options {
    /// What the test program is told.
    pub(crate) fn arguments(&self) -> Vec<String> {
        [self.words.as_slice(), self.more.as_slice()].concat()
    }
}

fn number(word: &str, value: &str) -> Result<usize> {
    let number = value.parse().ok().filter(|number| *number > 0);
    number.with_context(|| format!("{word} needs a number from 1, not {value}"))
}
