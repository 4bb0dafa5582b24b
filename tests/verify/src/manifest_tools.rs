//! What tests read the manifests with: Debian's `kubectl`, and a program that knows the schemas of every Kubernetes release.
//!
//! Both are put below `target/tools`, because neither may be what the machine has: Debian's `kubectl` conflicts with that of
//! Kubernetes' own packages, and it is its old kustomize that is wanted; and the schemas come from the Python registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::run::{Outcome, run};

/// Where both are, below the top of the repository.
const FOLDER: &str = "target/tools";
const CLIENT: &str = "kubernetes-client";
const VALIDATE: &str = "kubernetes-validate";
/// The newest, which holds the schemas of all releases before it.
const VALIDATE_VERSION: &str = "1.37.0";
/// A Python environment of its own, with `pip`, is made with this Debian package,
const VENV: &str = "python3-venv";
/// by the Python of Debian.
const PYTHON: &str = "/usr/bin/python3";

fn kubectl(root: &Path) -> PathBuf {
    root.join(FOLDER).join(CLIENT).join("usr/bin/kubectl")
}

fn environment(root: &Path) -> PathBuf {
    root.join(FOLDER).join(format!("{VALIDATE}-{VALIDATE_VERSION}"))
}

fn validator(root: &Path) -> PathBuf {
    environment(root).join("bin").join(VALIDATE)
}

/// The Debian packages without which [`prepare`] cannot work.
pub(crate) fn packages(root: &Path) -> Option<&'static str> {
    (!validator(root).is_file()).then_some(VENV)
}

/// Puts there what is not.
pub(crate) fn prepare(root: &Path) -> Outcome {
    let started = Instant::now();
    let mut outcome = Outcome { good: true, ..Outcome::default() };
    let folder = root.join(FOLDER);
    if let Err(error) = fs::create_dir_all(&folder) {
        return Outcome::failure(format!("{} cannot be made: {error}", folder.display()), started);
    }
    if !kubectl(root).is_file() {
        let script = format!(
            "set -e; rm -rf {CLIENT} {CLIENT}_*.deb; apt-get --quiet update; apt-get --quiet download {CLIENT}; \
             dpkg-deb --extract {CLIENT}_*.deb {CLIENT}; rm {CLIENT}_*.deb"
        );
        outcome = run(&folder, "sh", &["-c", &script], &[]);
    }
    if outcome.good && !validator(root).is_file() {
        let environment = environment(root);
        let script = format!(
            "set -e; rm -rf {0}; {PYTHON} -m venv {0}; {0}/bin/pip --quiet install {VALIDATE}=={VALIDATE_VERSION}",
            environment.display()
        );
        let made = run(&folder, "sh", &["-c", &script], &[]);
        outcome.good = made.good;
        outcome.output += &made.output;
    }
    outcome
}
