use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, io, thread};

use fairlead_kernel::netns;

/// How the line begins that a skipped test prints; `cargo verify` counts these lines.
pub const SKIPPED: &str = "skipped:";

/// The environment variable that names, with commas between, the features that this machine must have, or [`ALL`].
const REQUIRE: &str = "FAIRLEAD_REQUIRE";

/// Where this is listed, nothing is skipped for want of something in the kernel: so it is in `cargo vm`.
const ALL: &str = "all";

/// [`Feature::Deployment`]
const DEPLOYMENT_NAME: &str = "deployment";
/// [`Feature::Browser`]
const BROWSER_NAME: &str = "browser";
/// What says nothing about a kernel.
const PROGRAMS: [&str; 2] = [DEPLOYMENT_NAME, BROWSER_NAME];
/// What the first needs, in `PATH` or as a whole path.
const DEPLOYMENT: [&str; 6] =
    ["runc", "prometheus", "mandoc", "skopeo", "docker-registry", "/usr/share/containers/seccomp.json"];
/// The same below `target/tools`, where `cargo verify` puts them.
const TOOLS: [&str; 2] = ["kubernetes-client/usr/bin/kubectl", "kubernetes-validate-1.37.0/bin/kubernetes-validate"];

/// Something that a test needs and that a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Network namespaces, and the right to make them (root).
    Namespaces,
    /// nf_tables in the kernel, and the program `nft` to look at it with.
    NfTables,
    /// The program `conntrack`.
    Conntrack,
    /// xtables, either variant, and the program `iptables`.
    Iptables,
    /// ipset in the kernel, and its program.
    Ipset,
    /// IPVS in the kernel.
    IpVs,
    /// SCTP sockets.
    Sctp,
    /// VXLAN links.
    Vxlan,
    /// Dummy links.
    Dummy,
    /// The queueing discipline that loses and delays packets.
    Netem,
    /// The programs that build, check and run what is in `deploy` and `dashboards`, and that read manual pages; no matter of the kernel.
    Deployment,
    /// Chromium, which shows pages; no matter of the kernel.
    Browser,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Namespaces,
        Self::NfTables,
        Self::Conntrack,
        Self::Iptables,
        Self::Ipset,
        Self::IpVs,
        Self::Sctp,
        Self::Vxlan,
        Self::Dummy,
        Self::Netem,
        Self::Deployment,
        Self::Browser,
    ];

    /// Its name in `FAIRLEAD_REQUIRE`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::NfTables => "nf_tables",
            Self::Conntrack => "conntrack",
            Self::Iptables => "iptables",
            Self::Ipset => "ipset",
            Self::IpVs => "ip_vs",
            Self::Sctp => "sctp",
            Self::Vxlan => "vxlan",
            Self::Dummy => "dummy",
            Self::Netem => "netem",
            Self::Deployment => DEPLOYMENT_NAME,
            Self::Browser => BROWSER_NAME,
        }
    }

    /// Tries it out, in a namespace that vanishes afterwards. Loads a kernel module where that is how it gets there.
    #[must_use]
    pub fn is_here(self) -> bool {
        match self {
            Self::Namespaces => in_fresh_namespace(|| true),
            Self::NfTables => in_fresh_namespace(|| succeeds("nft", "add table inet probe")),
            Self::Conntrack => succeeds("conntrack", "--version"),
            Self::Iptables => in_fresh_namespace(|| succeeds("iptables", "-t nat -S")),
            Self::Ipset => in_fresh_namespace(|| succeeds("ipset", "create probe hash:ip")),
            Self::IpVs => has_module("ip_vs", "/proc/net/ip_vs"),
            Self::Sctp => has_module("sctp", "/proc/net/sctp"),
            Self::Vxlan => {
                in_fresh_namespace(|| succeeds("ip", "link add probe type vxlan id 1 dstport 8472 local 127.0.0.1"))
            }
            Self::Dummy => in_fresh_namespace(|| succeeds("ip", "link add probe type dummy")),
            Self::Netem => in_fresh_namespace(|| succeeds("tc", "qdisc add dev lo root netem delay 1ms")),
            Self::Deployment => has_programs(),
            Self::Browser => installed("chromium"),
        }
    }
}

/// Whether a test can run here. If not, one line that starts with [`SKIPPED`] says so, and the test must return.
///
/// # Panics
/// If `FAIRLEAD_REQUIRE` lists a feature that is missing: where a machine is known to have something, its absence is a
/// failure.
#[must_use]
pub fn needs(features: &[Feature]) -> bool {
    let missing: Vec<_> = features.iter().filter(|feature| !feature.is_here()).map(|feature| feature.name()).collect();
    if missing.is_empty() {
        return true;
    }
    let required = env::var(REQUIRE).unwrap_or_default();
    if let Some(name) = demanded(&required, &missing) {
        panic!("this machine must have {name} ({REQUIRE} lists it) and does not");
    }
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    // Written directly, because the test harness hides what a passing test prints.
    let _ = writeln!(io::stderr(), "{SKIPPED} {test}: this machine lacks {}", missing.join(", "));
    false
}

/// The first of the missing features that the list, with commas between, demands.
fn demanded<'a>(list: &str, missing: &[&'a str]) -> Option<&'a str> {
    let words = || list.split(',').map(str::trim);
    let wanted = |name: &str| words().any(|word| word == name || (word == ALL && !PROGRAMS.contains(&name)));
    missing.iter().copied().find(|name| wanted(name))
}

fn installed(name: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(name).is_file())
}

fn has_programs() -> bool {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
    DEPLOYMENT.into_iter().all(installed) && TOOLS.iter().all(|name| tools.join(name).is_file())
}

fn in_fresh_namespace(attempt: impl FnOnce() -> bool + Send) -> bool {
    thread::scope(|scope| scope.spawn(|| netns::unshare().is_ok() && attempt()).join().unwrap_or(false))
}

fn succeeds(program: &str, args: &str) -> bool {
    let mut command = Command::new(program);
    command.args(args.split(' ')).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether the kernel shows this file, if need be after loading the module.
fn has_module(module: &str, file: &str) -> bool {
    fs::exists(file).unwrap_or(false) || (succeeds("modprobe", module) && fs::exists(file).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_is_demanded_by_its_whole_name_only() {
        assert_eq!(demanded("nf_tables, sctp", &["ip_vs", "sctp"]), Some("sctp"));
        assert_eq!(demanded("nf_tables,ip_vs_rr", &["ip_vs", "sctp"]), None);
        assert_eq!(demanded("", &["ip_vs"]), None);
        assert_eq!(demanded("all", &["ip_vs"]), Some("ip_vs"));
        assert_eq!(demanded("all", &[]), None);
        assert_eq!(demanded("all", &["deployment", "browser"]), None);
        assert_eq!(demanded("deployment", &["deployment"]), Some("deployment"));
    }

    #[test]
    fn features_have_different_names() {
        let names: std::collections::BTreeSet<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
        assert_eq!(names.len(), Feature::ALL.len());
    }

    #[test]
    fn a_machine_with_everything_asked_for_is_told_to_run() {
        assert!(needs(&[]));
    }
}
