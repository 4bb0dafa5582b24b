//! What is in the virtual machine: the tests and what they run, at the paths that they have on this machine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::Archive;
use crate::binaries::Binary;
use crate::kernel::Kernel;
use crate::machine::{INSIDE, find};
use crate::run::{finish, output};

/// Files and folders of the system that programs read.
const SYSTEM: [&str; 8] = [
    "/etc/protocols",
    "/etc/services",
    "/etc/hosts",
    "/etc/passwd",
    "/etc/iproute2",
    "/usr/share/iproute2",
    "/etc/ssl/certs",
    "/etc/nsswitch.conf",
];
/// Where Debian keeps what iptables loads for each match and target.
const XTABLES: &str = "/usr/lib/x86_64-linux-gnu/xtables";
/// The names by which one program is many: iptables-save, ip6tables-legacy and so on.
const TABLES: [&str; 2] = ["iptables", "ip6tables"];
/// What busybox is called in the virtual machine besides its own name.
const APPLETS: [&str; 12] =
    ["sh", "cat", "kill", "ls", "mkdir", "mount", "ping", "rm", "sed", "sleep", "true", "umount"];
/// What is not of the sources.
const NOT_SOURCES: [&str; 2] = ["target", ".git"];

/// Packs everything into an initramfs.
pub(crate) fn pack(file: &Path, root: &Path, kernel: &Kernel, binaries: &[Binary]) -> Result<()> {
    let out = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut archive = Archive::new(BufWriter::new(out));
    for folder in ["/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/usr/bin", "/usr/sbin", "/usr/lib", "/var/lock"] {
        archive.folder(Path::new(folder))?;
    }
    for name in ["/bin", "/sbin", "/lib", "/lib64"].map(Path::new).into_iter().filter(|name| name.is_symlink()) {
        archive.link(name, &fs::read_link(name)?)?;
    }
    archive.console()?;
    programs(&mut archive)?;
    for path in SYSTEM.map(Path::new).into_iter().filter(|path| path.exists()) {
        archive.copy_to(path, path)?;
    }
    let modules = Path::new("usr/lib/modules").join(&kernel.release);
    archive.copy_to(&kernel.root.join("lib/modules").join(&kernel.release), &Path::new("/").join(modules))?;
    sources(&mut archive, root)?;
    for binary in binaries {
        stripped(&mut archive, &binary.file, file)?;
    }
    archive.file(Path::new("/init"), 0o755, include_bytes!("init.sh"))?;
    archive.finish()?;
    Ok(())
}

fn programs(archive: &mut Archive<impl Write>) -> Result<()> {
    let mut files = BTreeSet::new();
    for (program, package) in INSIDE {
        files.insert(find(program).with_context(|| format!("there is no {program} (Debian package {package})"))?);
    }
    files.extend(find("modprobe"));
    files.extend(table_programs()?);
    for file in &files {
        archive.copy(file)?;
        libraries(archive, file)?;
    }
    archive.copy_to(Path::new(XTABLES), Path::new(XTABLES))?;
    let busybox = find("busybox").context("there is no busybox")?;
    // At this path the first process looks for it.
    archive.link(Path::new("/usr/bin/busybox"), &busybox)?;
    for applet in APPLETS {
        archive.link(&Path::new("/usr/bin").join(applet), Path::new("busybox"))?;
    }
    Ok(())
}

fn table_programs() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/usr/sbin")? {
        let entry = entry?;
        let name = entry.file_name();
        if TABLES.iter().any(|tables| name.to_string_lossy().starts_with(tables)) && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The shared libraries that a program is linked with.
fn libraries(archive: &mut Archive<impl Write>, program: &Path) -> Result<()> {
    // ldd refuses programs that need none.
    let Ok(told) = output(Command::new("ldd").arg(program)) else { return Ok(()) };
    let paths = told.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(Path::new).try_for_each(|path| archive.copy(path))
}

/// Some tests read the sources.
fn sources(archive: &mut Archive<impl Write>, root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if !NOT_SOURCES.iter().any(|name| entry.file_name() == *name) {
            archive.copy_to(&entry.path(), &entry.path())?;
        }
    }
    Ok(())
}

/// A program without what only debuggers read, which is nine tenths of it.
fn stripped(archive: &mut Archive<impl Write>, program: &Path, image: &Path) -> Result<()> {
    let beside = image.with_extension("stripped");
    finish(Command::new("strip").arg("-o").args([&beside, program]))?;
    archive.copy_to(&beside, program)?;
    fs::remove_file(&beside)?;
    libraries(archive, program)
}
