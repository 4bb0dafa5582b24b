//! Counting tests in what `cargo test` prints.

use std::collections::BTreeSet;
use std::ops::AddAssign;

/// How a test says that this machine lacks what it needs; tests/lab prints it.
const SKIPPED: &str = "skipped:";

/// Numbers of tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// The lines of tests that could not run here. They returned early, so `passed` does not count them.
    pub(crate) skipped: Vec<String>,
    /// The names of tests that have passed in the virtual machine.
    pub(crate) elsewhere: BTreeSet<String>,
}

impl Tally {
    /// Adds up every `test result:` line.
    pub(crate) fn of(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            // A test binary may be in the middle of its own line when it prints.
            if let Some(at) = line.find(SKIPPED) {
                tally.skipped.push(line[at..].to_owned());
            } else if let Some(counts) = line.strip_prefix("test result: ") {
                tally.passed += count(counts, " passed");
                tally.failed += count(counts, " failed");
                tally.ignored += count(counts, " ignored");
            }
        }
        tally.skipped.sort();
        tally.skipped.dedup();
        tally.passed = tally.passed.saturating_sub(tally.skipped.len() as u64);
        tally
    }

    /// Reads what `cargo vm` prints: a line for each test, at the end one with the counts.
    pub(crate) fn of_machine(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
                && result.starts_with("ok (")
            {
                tally.elsewhere.insert(name.to_owned());
            } else if let Some(counts) = line.strip_prefix("vm: ") {
                tally.passed = count(counts, " passed");
                tally.failed = count(counts, " failed");
            } else if line.starts_with(SKIPPED) {
                tally.skipped.push(line.to_owned());
            }
        }
        tally
    }

    /// The names of tests that could not run here.
    pub(crate) fn names_of_skipped(&self) -> Vec<String> {
        self.skipped.iter().filter_map(|line| name_of_skipped(line)).map(str::to_owned).collect()
    }

    /// Takes those out of the skipped ones that have passed in the virtual machine, and gives back their names.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        let elsewhere = &self.elsewhere;
        let passed = |line: &str| name_of_skipped(line).is_some_and(|name| elsewhere.contains(name));
        let (settled, left): (Vec<_>, Vec<_>) = self.skipped.drain(..).partition(|line| passed(line));
        self.skipped = left;
        settled.iter().filter_map(|line| name_of_skipped(line)).map(str::to_owned).collect()
    }
}

/// `skipped: NAME: this machine lacks ...`
fn name_of_skipped(line: &str) -> Option<&str> {
    line.strip_prefix(SKIPPED)?.trim_start().split_once(": ").map(|(name, _)| name)
}

/// The number before this word.
fn count(counts: &str, word: &str) -> u64 {
    let before = counts.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

impl AddAssign for Tally {
    fn add_assign(&mut self, mut other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped.append(&mut other.skipped);
        self.elsewhere.append(&mut other.elsewhere);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_test_binaries_are_added_up() {
        let output = "running 2 tests\ntest a ... ok\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s\n\
            test result: FAILED. 10 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9s\n";
        assert_eq!(Tally::of(output), Tally { passed: 12, failed: 4, ignored: 1, ..Tally::default() });
    }

    #[test]
    fn a_test_that_could_not_run_counts_as_skipped_and_not_as_passed() {
        let output = "test b ... skipped: packets::sctp: this machine lacks sctp\n\
            skipped: packets::ipvs: this machine lacks ip_vs\n\
            skipped: packets::ipvs: this machine lacks ip_vs\n\
            test result: ok. 5 passed; 0 failed; 0 ignored\n";
        let tally = Tally::of(output);
        assert_eq!((tally.passed, tally.skipped.len()), (3, 2));
        assert_eq!(tally.skipped[1], "skipped: packets::sctp: this machine lacks sctp");
    }

    #[test]
    fn a_test_that_passed_in_the_virtual_machine_is_no_longer_skipped() {
        let mut tally = Tally::of(
            "skipped: packets::sctp: this machine lacks sctp\n\
             skipped: packets::ipvs: this machine lacks ip_vs\n\
             test result: ok. 5 passed; 0 failed; 0 ignored\n",
        );
        assert_eq!(tally.names_of_skipped(), ["packets::ipvs", "packets::sctp"]);
        tally += Tally::of_machine(
            "machine 1 has booted after 4.2 s, processor 4.1 s\n\
             test packets::sctp ... ok (1.0 s, processor 0.9 s)\n\
             test packets::ipvs ... FAILED: the machine went off (1.0 s, processor 0.9 s)\n\
             vm: 1 passed, 1 failed, 0 skipped\n",
        );
        assert_eq!(tally.settle(), ["packets::sctp"]);
        assert_eq!(tally.skipped, ["skipped: packets::ipvs: this machine lacks ip_vs"]);
        assert_eq!((tally.passed, tally.failed), (4, 1));
    }

    #[test]
    fn output_without_results_counts_nothing() {
        assert_eq!(Tally::of("error: could not compile"), Tally::default());
    }
}
