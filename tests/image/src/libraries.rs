//! All files that a program needs to start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::elf::{self, Machine};

/// Where the loader looks by itself, in its order; `*` stands for the folder of the processor.
const FOLDERS: [&str; 6] = ["/lib/*", "/usr/lib/*", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// The loader and the libraries of a program: their paths in the image, at which the loader finds them, and on this machine.
pub(crate) fn of(program: &Path) -> Result<(Machine, BTreeMap<PathBuf, PathBuf>)> {
    let first = read(program)?;
    let mut found = BTreeMap::new();
    if let Some(loader) = first.interpreter {
        found.insert(PathBuf::from(&loader), PathBuf::from(loader));
    }
    let mut names = first.libraries;
    while let Some(name) = names.pop() {
        if found.keys().any(|path| path.file_name().is_some_and(|known| *known == *name)) {
            continue;
        }
        let path = find(&name, first.machine)?;
        let needs = read(&path)?;
        ensure!(needs.machine == first.machine, "{} is for another processor", path.display());
        names.extend(needs.libraries);
        found.insert(path.clone(), path);
    }
    Ok((first.machine, found))
}

fn read(file: &Path) -> Result<elf::Needs> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    elf::needs(&bytes).with_context(|| format!("cannot use {}", file.display()))
}

fn find(name: &str, machine: Machine) -> Result<PathBuf> {
    let folders = FOLDERS.map(|folder| folder.replace('*', machine.triplet()));
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.with_context(|| format!("the library {name} is in none of {}", folders.join(", ")))
}
