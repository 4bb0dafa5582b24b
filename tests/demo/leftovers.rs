//! What a run that was killed could not remove: its fairleads and its folder. Its namespaces are removed by the lab.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::cluster::FOLDER;

/// Removes what demos left behind whose process has gone.
pub(crate) fn remove() -> Result<()> {
    let temporary = env::temp_dir();
    let entries = fs::read_dir(&temporary).with_context(|| format!("cannot read {}", temporary.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(owner) = name.strip_prefix(FOLDER).and_then(|owner| owner.parse::<u32>().ok()) else { continue };
        if Path::new("/proc").join(owner.to_string()).exists() {
            continue;
        }
        end_users_of(&path)?;
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Ends the processes that were started with a file of this folder in an argument of theirs: `--kubeconfig`.
fn end_users_of(folder: &Path) -> Result<()> {
    let argument = format!("--kubeconfig={}/", folder.display());
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let path = entry?.path();
        // What is no process has no such file, and processes come and go.
        let Ok(line) = fs::read(path.join("cmdline")) else { continue };
        if !line.split(|byte| *byte == 0).any(|word| word.starts_with(argument.as_bytes())) {
            continue;
        }
        if let Some(pid) = path.file_name() {
            Command::new("kill").arg("-KILL").arg(pid).status().context("cannot run kill")?;
        }
    }
    Ok(())
}
