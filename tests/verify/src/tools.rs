//! cargo-deny: used where it is, else built in the background while other checks run.

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::run::{Outcome, find, run};
use crate::say;

const CRATE: &str = "cargo-deny";
const VERSION: &str = "0.20.2";
/// Where it is built, below the top of the repository.
const FOLDER: &str = "target/tools";

/// The name of its check.
pub(crate) const DENY: &str = "licences, bans and sources (cargo-deny)";

/// cargo-deny, here or on its way.
pub(crate) enum Deny {
    Here(PathBuf),
    Building(JoinHandle<Outcome>),
}

impl Deny {
    /// Looks for it, and starts to build it if it is not here.
    pub(crate) fn start(root: &Path) -> Self {
        let built = root.join(FOLDER).join("bin").join(CRATE);
        if let Some(here) = [Some(built), find(CRATE)].into_iter().flatten().find(|program| is_right(root, program)) {
            return Self::Here(here);
        }
        say(&format!("building {CRATE} {VERSION} into {FOLDER} while other checks run"));
        let root = root.to_path_buf();
        Self::Building(thread::spawn(move || build(&root)))
    }

    /// Licences, duplicate versions and sources of all dependencies.
    pub(crate) fn check(self, root: &Path) -> Outcome {
        let program = match self {
            Self::Here(program) => program,
            Self::Building(building) => match building.join() {
                Ok(built) if !built.good => return built,
                _ => root.join(FOLDER).join("bin").join(CRATE),
            },
        };
        let started = Instant::now();
        // It reads the manifests of all dependencies, also of those for other systems, which no build has brought.
        let fetched = run(root, "cargo", &["fetch", "--locked"], &[]);
        if !fetched.good {
            return fetched;
        }
        let arguments =
            ["--locked", "--offline", "--workspace", "--config", ".deny.toml", "check", "bans", "licenses", "sources"];
        let mut outcome = run(root, &program.to_string_lossy(), &arguments, &[]);
        outcome.took = started.elapsed();
        outcome.remark("advisories are not checked: their database is in no package registry")
    }
}

fn is_right(root: &Path, program: &Path) -> bool {
    program.is_file() && run(root, &program.to_string_lossy(), &["--version"], &[]).output.contains(VERSION)
}

fn build(root: &Path) -> Outcome {
    let version = format!("{CRATE}@{VERSION}");
    // Without optimisation it is built in a third of the time and still checks in a second. One job: the checks have the
    // other CPUs, and nothing waits for this one until the end.
    run(root, "cargo", &["install", "--locked", "--debug", "--jobs", "1", "--root", FOLDER, &version], &[])
}
