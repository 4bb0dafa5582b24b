//! The command line.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::binaries::Scope;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
cargo vm [OPTIONS] [WORD...] [-- ARGUMENT...]
cargo vm bench [OPTIONS] [SERVICES...] [MODE...] [-- --quick]

Runs the integration tests on another kernel in a virtual machine: those whose names hold one of the words, or all.
Arguments after -- go to the test program (--exact, --skip WORD, --nocapture, --test-threads N).

With the word bench, compares the modes there (nft, iptables-nft, iptables-legacy, ipvs; default: all) at these numbers of
services (default: 1000 10000).

  --kernel VERSION   which of Debian's kernels, as 6.1 (default: 6.12 if Debian has it, else its newest)
  --workspace        the integration tests of all crates, not only those of the program
  --machines N       so many at once, each with one processor (default: the processors of this one, at most 4)
  --patience SECONDS a test that says nothing hangs if its machine has worked for so long (default: 300,
                     with bench 1800)";

/// So many machines help; more only cost memory.
const MOST_MACHINES: usize = 4;
/// Some tests take minutes of an emulated processor, and say nothing meanwhile.
const PATIENCE: Duration = Duration::from_secs(300);
/// So does the bench.
const BENCH_PATIENCE: Duration = Duration::from_secs(1_800);
/// The first word that means something else than a part of a test's name.
const BENCH: &str = "bench";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Say what can be done.
    Help,
    /// Run tests.
    Run(Options),
    /// Compare the modes; words and arguments are for the bench.
    Bench(Options),
}

/// How to run tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Parts of the names of tests; none means all tests.
    pub(crate) words: Vec<String>,
    /// What else the test program is told.
    pub(crate) more: Vec<String>,
    /// Which kernel, as 6.1.
    pub(crate) kernel: Option<String>,
    pub(crate) scope: Scope,
    /// So many at once.
    pub(crate) machines: usize,
    /// Processor time for which a test may say nothing.
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
            machines: std::thread::available_parallelism().map_or(1, usize::from).min(MOST_MACHINES),
            patience: PATIENCE,
        };
        let bench = words.first().is_some_and(|word| word == BENCH);
        if bench {
            options.scope = Scope::Bench;
            options.patience = BENCH_PATIENCE;
        }
        let mut words = words.iter().skip(usize::from(bench));
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value; see cargo vm --help"));
            match word.as_str() {
                "-h" | "--help" => return Ok(Self::Help),
                "--kernel" => options.kernel = Some(value()?.clone()),
                "--workspace" => options.scope = Scope::Workspace,
                "--machines" => options.machines = number(word, value()?)?,
                "--patience" => options.patience = Duration::from_secs(number(word, value()?)? as u64),
                "--" => options.more = words.by_ref().cloned().collect(),
                _ if word.starts_with('-') => bail!("{word} is unknown; see cargo vm --help"),
                _ => options.words.push(word.clone()),
            }
        }
        Ok(if bench { Self::Bench(options) } else { Self::Run(options) })
    }
}

fn number(word: &str, value: &str) -> Result<usize> {
    let number = value.parse().ok().filter(|number| *number > 0);
    number.with_context(|| format!("{word} needs a number from 1, not {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command> {
        Command::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_options_and_what_is_for_the_test_program_are_told_apart() {
        let Command::Run(options) = parse("ipv4 --kernel 6.1 laws --machines 3 -- --nocapture --skip slow").unwrap()
        else {
            panic!("it is no call for help");
        };
        assert_eq!(options.words, ["ipv4", "laws"]);
        assert_eq!(options.more, ["--nocapture", "--skip", "slow"]);
        assert_eq!((options.kernel.as_deref(), options.machines), (Some("6.1"), 3));
    }

    #[test]
    fn bench_as_the_first_word_asks_for_figures() {
        let Command::Bench(options) = parse("bench 1000 ipvs --kernel 6.1 -- --quick").unwrap() else {
            panic!("it asks for the bench");
        };
        assert_eq!(
            (options.words, options.more),
            (vec!["1000".to_owned(), "ipvs".to_owned()], vec!["--quick".to_owned()])
        );
        assert_eq!((options.scope, options.patience), (Scope::Bench, BENCH_PATIENCE));
        let Command::Run(options) = parse("laws bench").unwrap() else { panic!("it asks for tests") };
        assert_eq!((options.words.len(), options.scope), (2, Scope::Program));
    }

    #[test]
    fn a_wrong_word_is_named() {
        for (line, named) in [("--kernal 6.1", "--kernal"), ("--machines 0", "not 0"), ("--kernel", "needs a value")] {
            let said = parse(line).unwrap_err().to_string();
            assert!(said.contains(named), "{line}: {said}");
        }
    }
}
