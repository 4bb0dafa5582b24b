//! Is this machine fit: the programs that make and run the virtual one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::output;

/// Programs that are used here, and the Debian packages that hold them.
const HERE: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("strip", "binutils"),
    ("setpriv", "util-linux"),
];

/// Programs that tests run, which go into the virtual machine.
pub(crate) const INSIDE: [(&str, &str); 14] = [
    ("busybox", "busybox-static"),
    ("kmod", "kmod"),
    ("nft", "nftables"),
    ("xtables-nft-multi", "iptables"),
    ("xtables-legacy-multi", "iptables"),
    ("ipset", "ipset"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("bridge", "iproute2"),
    ("ss", "iproute2"),
    ("conntrack", "conntrack"),
    ("ipvsadm", "ipvsadm"),
    ("sysctl", "procps"),
    ("strace", "strace"),
];

/// Installs what is missing and says so.
pub(crate) fn prepare() -> Result<()> {
    let absent = HERE.iter().chain(&INSIDE).filter(|(program, _)| find(program).is_none());
    let mut packages: Vec<_> = absent.map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("installing the Debian packages that are missing: {}", packages.join(" "));
    // A list of packages that cannot be refreshed may still be good enough.
    let _ = output(Command::new("apt-get").args(["--quiet", "update"]));
    let install = ["--quiet", "--yes", "--no-install-recommends", "install"];
    output(Command::new("apt-get").args(install).args(&packages)).context("Debian packages cannot be installed")?;
    Ok(())
}

/// Where a program is, in `PATH` and where Debian keeps those of root.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> =
        ["/usr/sbin", "/sbin"].map(PathBuf::from).into_iter().chain(env::split_paths(&path)).collect();
    folders.iter().map(|folder: &PathBuf| Path::new(folder).join(program)).find(|file| file.is_file())
}
