//! `cargo vm bench`: the modes beside each other on a kernel that has all of them.
//!
//! The emulated clock counts instructions, so what is measured depends neither on this machine nor on who else works on it;
//! but everything takes several times as long as on a processor. How many times is told by our own time for one change in
//! mode nft, which is measured here too.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::binaries::{Binary, Test};
use crate::run::output;

/// The part of the bench that needs no API server.
const PART: &str = "modes";
/// What is measured here: the mode that every kernel has, at the size that takes a moment.
const HERE: [&str; 4] = [PART, "nft", "1000", "--quick"];

/// The bench as something that a machine runs, with these words of the command line.
pub(crate) fn test(built: &[Binary], words: &[String]) -> Result<Test> {
    let bench = built.iter().find(|binary| binary.is_test).context("cargo has built no bench")?;
    let mut arguments = vec![PART.to_owned()];
    arguments.extend(words.iter().cloned());
    match own_time(&bench.file) {
        Ok(us) => arguments.push(format!("--host={us}")),
        Err(error) => println!("how fast this machine itself is, is not known: {error:#}"),
    }
    Ok(bench.program("bench", arguments))
}

/// Our own time for one change in mode nft on this machine, in microseconds.
fn own_time(bench: &Path) -> Result<f64> {
    let told = output(Command::new(bench).args(HERE))?;
    read(&told).with_context(|| format!("the bench says no time for mode nft:\n{told}"))
}

/// Reads the line `nft at 1000 services 0.031 ms`.
fn read(told: &str) -> Option<f64> {
    told.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &["nft", "at", _, "services", ms, "ms", ..] = words.as_slice() else { return None };
        ms.parse::<f64>().ok().map(|ms| ms * 1e3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_this_machine_is_read_from_what_the_bench_prints() {
        let told = "  mode              start from nothing\n  nft   26.4, 12.0 | 0.1, 0.03\n\nour own time for one change\n  \
                    nft              at   1000 services    0.031 ms\n";
        assert_eq!(read(told), Some(31.0));
        assert_eq!(read("  ipvs at 1000 services 0.2 ms"), None);
    }
}
