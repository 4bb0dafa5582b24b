//! Makes this machine fit: the Debian packages, and the program itself.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::interrupt;
use crate::screen::{Screen, time};

/// The programs that the demo runs, and the Debian packages that hold them.
const PROGRAMS: [(&str, &str); 3] = [("ip", "iproute2"), ("nft", "nftables"), ("conntrack", "conntrack")];

/// Where Debian puts programs for root; a shell made by `su` does not look there.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// How the names begin of the variables in which cargo describes a package to the program that it runs.
const OWN_VARIABLES: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// Whether this process may make network namespaces.
pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.is_some_and(|line| line.split_whitespace().nth(1) == Some("0"))
}

/// Starts this program again with [`SYSTEM_PATH`] in `PATH`, where that is not there. Does not return if it succeeds.
pub(crate) fn with_system_path() -> Result<()> {
    let path = env::var("PATH").unwrap_or_default();
    let here: Vec<_> = path.split(':').collect();
    if SYSTEM_PATH.split(':').all(|folder| here.contains(&folder)) {
        return Ok(());
    }
    let example = env::current_exe().context("cannot find out where the demo is")?;
    let error = Command::new(example).args(env::args_os().skip(1)).env("PATH", format!("{path}:{SYSTEM_PATH}")).exec();
    Err(error).context("cannot start the demo again with /usr/sbin in PATH")
}

/// Installs what is missing, builds the program if it is not built, and says where it is.
pub(crate) fn prepare(screen: &Screen, built: bool) -> Result<PathBuf> {
    let mut missing: Vec<_> =
        PROGRAMS.iter().filter(|(program, _)| !is_here(program)).map(|(_, package)| *package).collect();
    missing.dedup();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if missing.is_empty() {
        screen.step("Machine", &format!("Linux {}; the programs ip, nft and conntrack are here", kernel.trim()));
    } else {
        let names = missing.join(" ");
        screen.line(&format!("Debian packages that are missing and will be installed now: {names}"));
        install(&missing)?;
        screen.step("Machine", &format!("Linux {}; installed {names}", kernel.trim()));
    }
    interrupt::check()?;
    let binary = if built { beside_the_demo()?.0 } else { build(screen)? };
    ensure!(binary.is_file(), "the program is not where it should be, {}", binary.display());
    interrupt::check()?;
    Ok(binary)
}

fn is_here(program: &str) -> bool {
    let path = env::var("PATH").unwrap_or_default();
    path.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "--yes"]).args(words).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command.output().context("cannot run apt-get; install the packages by hand")
    };
    // A list of packages that cannot be refreshed may still be good enough.
    let _ = apt(&["update"])?;
    let output = apt(&[&["install", "--no-install-recommends"], packages].concat())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "apt-get cannot install {}: {}", packages.join(" "), said.trim());
    Ok(())
}

/// The program, and the folder of its profile in the target folder.
fn beside_the_demo() -> Result<(PathBuf, PathBuf)> {
    let example = env::current_exe().context("cannot find out where the demo is")?;
    let folder = example.parent().and_then(Path::parent).context("the demo is not in a target folder")?;
    Ok((folder.join("fairlead"), folder.to_path_buf()))
}

/// Builds the program with the profile that this example was built with, and finds it beside the example's folder.
fn build(screen: &Screen) -> Result<PathBuf> {
    let (binary, folder) = beside_the_demo()?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let started = Instant::now();
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(&cargo);
    // Cargo is quick when there is nothing to do, and knows better than file times whether there is. The example is named
    // too, so that the features of dependencies are the same as for it and nothing is built twice.
    let both = ["build", "--quiet", "--bin", "fairlead", "--example", "demo"];
    command.args(both).args(["--profile", profile]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(target) = folder.parent() {
        command.arg("--target-dir").arg(target);
    }
    // What `cargo run` tells us about this package would look to build scripts of dependencies like a change of theirs.
    let told = |name: &str| OWN_VARIABLES.iter().any(|prefix| name.starts_with(prefix));
    env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)).for_each(|(name, _)| {
        command.env_remove(name);
    });
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(_) => bail!("`cargo build --bin fairlead` failed"),
        Err(error) if binary.is_file() => {
            screen.line(&format!("{cargo} cannot be run ({error}); the program is taken as it is"));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot run {cargo} to build the program")),
    }
    screen.step("Program", &format!("{}, up to date after {}", shorten(&binary), time(started.elapsed())));
    Ok(binary)
}

fn shorten(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
