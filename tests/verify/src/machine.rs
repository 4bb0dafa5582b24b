//! Is this machine fit: root, and the programs that tests call.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use crate::run::{Outcome, find, run};
use crate::{manifest_tools, say};

/// Programs that tests look at the kernel with, and the Debian packages that hold them.
const PROGRAMS: [(&str, &str); 20] = [
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
    ("prometheus", "prometheus"),
    ("runc", "runc"),
    ("skopeo", "skopeo"),
    ("docker-registry", "docker-registry"),
    ("hostname", "hostname"),
    ("chromium", "chromium"),
    ("mandoc", "mandoc"),
    ("/usr/share/containers/seccomp.json", "golang-github-containers-common"),
];
/// Where Debian's packages ask whether they may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Tests start what they need, in namespaces of their own.
const START_NOTHING: &str = "#!/bin/sh\nexit 101\n";

/// Installs what is missing and says so.
pub(crate) fn prepare(root: &Path) -> Outcome {
    let started = Instant::now();
    if !is_root() {
        let why = "tests make network namespaces, which only root may; run `cargo verify` as root";
        return Outcome::failure(why, started);
    }
    let absent = PROGRAMS.iter().filter(|(program, _)| find(program).is_none());
    let mut packages: Vec<&str> = absent.map(|(_, package)| *package).chain(manifest_tools::packages(root)).collect();
    packages.dedup();
    let mut outcome = Outcome { good: true, took: started.elapsed(), ..Outcome::default() };
    if !packages.is_empty() {
        say(&format!("\ninstalling the Debian packages that are missing: {}", packages.join(" ")));
        outcome = install(&packages, started);
    }
    if outcome.good {
        let tools = manifest_tools::prepare(root);
        outcome.good = tools.good;
        outcome.output += &tools.output;
        outcome.took = started.elapsed();
    }
    outcome
}

fn install(packages: &[&str], started: Instant) -> Outcome {
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    let update = run(Path::new("/"), "apt-get", &["update", "--quiet"], &quiet);
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend(packages);
    let policy = Policy::set();
    let mut outcome = run(Path::new("/"), "apt-get", &arguments, &quiet);
    drop(policy);
    outcome.output = update.output + &outcome.output;
    outcome.took = started.elapsed();
    outcome.remark(&format!("installed {}", packages.join(" ")))
}

/// While it lives, packages that are installed start no service. A policy that is there already stays.
struct Policy {
    ours: bool,
}

impl Policy {
    fn set() -> Self {
        let ours = !Path::new(POLICY).exists()
            && fs::write(POLICY, START_NOTHING).is_ok()
            && fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)).is_ok();
        Self { ours }
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            // Left behind it would only be what containers have anyway.
            let _ = fs::remove_file(POLICY);
        }
    }
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.is_some_and(|line| line.split_whitespace().nth(1) == Some("0"))
}
