//! Is this machine fit: root, and the programs that tests call.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::run::{Outcome, find, run};
use crate::say;

/// Programs that tests look at the kernel with, and the Debian packages that hold them.
const PROGRAMS: [(&str, &str); 12] = [
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ipset", "ipset"),
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("tc", "iproute2"),
    ("conntrack", "conntrack"),
    ("ping", "iputils-ping"),
    ("traceroute", "traceroute"),
    ("tcpdump", "tcpdump"),
    ("cc", "gcc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
];

/// Installs what is missing and says so.
pub(crate) fn prepare() -> Outcome {
    let started = Instant::now();
    if !is_root() {
        let why = "tests make network namespaces, which only root may; run `cargo verify` as root";
        return Outcome::failure(why, started);
    }
    let absent = PROGRAMS.iter().filter(|(program, _)| find(program).is_none());
    let mut packages: Vec<&str> = absent.map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Outcome { good: true, took: started.elapsed(), ..Outcome::default() };
    }
    say(&format!("\ninstalling the Debian packages that are missing: {}", packages.join(" ")));
    install(&packages, started)
}

fn install(packages: &[&str], started: Instant) -> Outcome {
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    let update = run(Path::new("/"), "apt-get", &["update", "--quiet"], &quiet);
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend(packages);
    let mut outcome = run(Path::new("/"), "apt-get", &arguments, &quiet);
    outcome.output = update.output + &outcome.output;
    outcome.took = started.elapsed();
    outcome.remark(&format!("installed {}", packages.join(" ")))
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.is_some_and(|line| line.split_whitespace().nth(1) == Some("0"))
}
