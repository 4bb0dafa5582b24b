//! What `fairlead explain` says of a packet, held against what packets met. It knows no plan and no scenario: it reads the kernel of
//! node `a`. And the command itself, where somebody has changed what the kernel holds.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead::explain::{Decision, Explanation, From, Kernel, packet};
use fairlead::local::{self, Facts};
use fairlead_lab::{Lab, Seen, cluster_ip};
use fairlead_plan::{Family, Packet, Plan, Protocol, Report, Verdict};
use serde_json::Value;

use super::observe::{from_pod_to_other_node, is_masquerade};
use super::programs::Mode;
use super::scenario::{Check, Stack, endpoint_address};
use super::stage::Stage;
use super::web::{PORT, web, with_ready};
use crate::program::{self, Directory};

/// What node `a` holds before packets come.
pub struct Explainer<'a> {
    lab: &'a Lab,
    plan: &'a Plan,
    kernel: Kernel,
}

impl<'a> Explainer<'a> {
    /// Reads the kernel of node `a`, and makes sure that it is the mode under test that is found there.
    pub fn new(stage: &'a Stage, plan: &'a Plan) -> anyhow::Result<Self> {
        let kernel = stage.lab.node("a").run(Kernel::read)?;
        let name = match stage.mode {
            Mode::Nft => "nft",
            Mode::IptablesLegacy => "iptables, legacy variant",
            Mode::IptablesNft => "iptables, nf_tables variant",
            Mode::Ipvs => "ipvs",
        };
        anyhow::ensure!(kernel.name() == name, "{} is found instead of {name}", kernel.name());
        Ok(Self { lab: &stage.lab, plan, kernel })
    }

    /// Explains a packet, which must be the one that follows from its addresses.
    pub fn explain(&self, wanted: &Packet) -> Result<Explanation, String> {
        let found = self.lab.node("a").run(|| {
            let from = From::Addr(wanted.source);
            let packet = packet(from, None, wanted.destination, wanted.protocol)?;
            Explanation::of(&self.kernel, &packet, Some(Decision::of(self.plan, wanted)))
        });
        let found = found.map_err(|error| format!("{error:#}"))?;
        if comes_in_otherwise(&found.packet, wanted) {
            return Err(format!("it is taken for {:?}", found.packet));
        }
        Ok(found)
    }
}

/// Whether the packet that was made of addresses differs from the one that is sent. By tunnels packets come in through their device.
fn comes_in_otherwise(found: &Packet, sent: &Packet) -> bool {
    let plain =
        |packet: &Packet| Packet { interface: packet.interface.as_ref().map(|_| String::new()), ..packet.clone() };
    let tunnelled = found.interface.as_deref().is_some_and(|name| name.starts_with("flannel"));
    if tunnelled { plain(found) != plain(sent) } else { found != sent }
}

/// What is wrong with an explanation, given what packets met; `None` stands for packets that this kernel cannot send.
pub fn disagrees(
    lab: &Lab,
    tunnelled: bool,
    check: &Check,
    explained: &Explanation,
    seen: Option<&Seen>,
) -> Option<String> {
    if let Some(difference) = &explained.difference {
        return Some(format!("explain sees a difference: {difference}"));
    }
    let Some(followed) = &explained.rules else { return Some("explain finds no rules".to_owned()) };
    let shares: f64 = followed.branches.iter().map(|branch| branch.share).sum();
    if (shares - 1.0).abs() > 1e-6 {
        return Some(format!("the shares that explain tells add up to {shares}"));
    }
    let right = seen.is_none_or(|seen| agrees(lab, tunnelled, check, (&explained.packet, &followed.verdict), seen));
    (!right).then(|| format!("explain says {:?} ({}), and the packets met {seen:?}", followed.verdict, explained.end))
}

/// Whether packets met what is explained.
fn agrees(lab: &Lab, tunnelled: bool, check: &Check, (packet, verdict): (&Packet, &Verdict), seen: &Seen) -> bool {
    let family = Family::of(packet.source);
    let address = |name: &str| endpoint_address(lab, family, name);
    match verdict {
        Verdict::Forward { endpoints, masqueraded } => {
            let reached: BTreeSet<SocketAddr> = seen.reached.keys().map(|name| address(name)).collect();
            let sources = seen.reached.iter().all(|(name, sources)| {
                let leaves_pods = tunnelled && from_pod_to_other_node(lab, check, name);
                let hidden = leaves_pods || masqueraded.contains(&address(name));
                sources.iter().all(|saw| match hidden {
                    true => is_masquerade(lab, tunnelled, packet.source, name, *saw),
                    false => *saw == packet.source,
                })
            });
            reached == *endpoints && sources && seen.refused + seen.silence + seen.failed.len() == 0
        }
        // SCTP sockets go on regardless of the message that refuses them.
        Verdict::Reject if packet.protocol == Protocol::Sctp => only(seen, seen.silence),
        Verdict::Reject => only(seen, seen.refused),
        Verdict::Drop => only(seen, seen.silence),
        // Nobody listens at the address itself.
        Verdict::Pass => only(seen, seen.refused.max(seen.silence)),
    }
}

/// Whether all packets met the same, and no endpoint.
fn only(seen: &Seen, those: usize) -> bool {
    those > 0 && seen.reached.is_empty() && seen.failed.is_empty() && those == seen.refused + seen.silence
}

/// A node whose kernel carries out a plan, and nobody who would repair it: what answers at the socket is of this process.
struct Asked {
    stage: Stage,
    directory: Directory,
    _local: fairlead_kernel::local::Local,
}

impl Asked {
    fn new(mode: Mode, family: Family) -> Option<Self> {
        let mut stage = super::stage(mode, family)?;
        let plan = stage.apply(&with_ready(web(), &["a1", "b1"]), Stack::Single).plan;
        let (directory, facts) = (Directory::new(), Arc::new(Facts::new("nftables")));
        facts.planned(plan);
        facts.synced(&Report::default(), Duration::ZERO, SystemTime::now());
        let local = local::serve(&directory.path().join("socket"), facts).expect("a path of its own");
        Some(Self { stage, directory, _local: local })
    }

    /// Runs the real program on node `a`.
    fn run(&self, args: &[&str]) -> Output {
        let socket = format!("--socket={}", self.directory.path().join("socket").display());
        let args: Vec<&str> = args.iter().copied().chain([socket.as_str()]).collect();
        program::run(self.stage.lab.node("a"), &args)
    }

    /// From pod `a2` to the Service.
    fn explain(&self, more: &[&str]) -> Output {
        let family = self.stage.family;
        let from = self.stage.lab.place("a2").addr(family).to_string();
        let to = SocketAddr::new(cluster_ip(1).of(family), PORT).to_string();
        self.run(&[&["explain", &from, &to], more].concat())
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn what_somebody_deletes_is_marked_as_a_difference() {
    for (family, ip) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let Some(asked) = Asked::new(Mode::Nft, family) else { return };
        let whole = asked.explain(&[]);
        assert!(whole.status.success() && text(&whole).contains("plan         says the same"), "{}", text(&whole));
        let addr = cluster_ip(1).of(family);
        let node = asked.stage.lab.node("a");
        program::nft(node, &format!("delete element {ip} fairlead frontends {{ tcp . {addr} . {PORT} }}"));
        let hurt = asked.explain(&[]);
        let said = text(&hurt);
        assert_eq!(hurt.status.code(), Some(1), "{said}");
        assert!(said.contains("DIFFERS: the kernel rejects it, the plan sends it to"), "{said}");
        assert!(said.contains("the kernel does not do what the plan says"), "{said}");
        let json: Value = serde_json::from_slice(&asked.explain(&["--json"]).stdout).expect("it is JSON");
        assert!(json[0]["difference"].is_string(), "{json:#}");
        assert_eq!(json[0]["rules"]["verdict"], "Reject", "{json:#}");
        // Whoever names no port is told of it too, and no other port is blamed.
        let all = asked.run(&["explain", "node", &format!("{addr}")]);
        assert_eq!((all.status.code(), text(&all).matches("DIFFERS").count()), (Some(1), 1), "{}", text(&all));
    }
}

#[test]
fn without_a_running_program_the_kernel_alone_is_told_and_that_is_said() {
    for mode in [Mode::Nft, Mode::IptablesLegacy, Mode::IptablesNft] {
        for family in Family::BOTH {
            let Some(asked) = Asked::new(mode, family) else { return };
            let node = asked.stage.lab.node("a");
            let (from, to) = (asked.stage.lab.place("a2").addr(family), cluster_ip(1).of(family));
            let explain = |port: u16| {
                let to = SocketAddr::new(to, port).to_string();
                text(&program::run(node, &["explain", &from.to_string(), &to, "--socket="]))
            };
            let said = explain(PORT);
            assert!(said.contains("no running fairlead answers"), "{said}");
            assert!(said.contains("50.00 %") && said.contains("one of 2 endpoints"), "{said}");
            let said = explain(PORT + 1);
            assert!(said.contains("nobody is there: no Service has TCP port 81"), "{said}");
            assert!(said.contains("80/tcp, 80/udp"), "{said}");
        }
    }
}

#[test]
fn a_node_without_rules_says_so() {
    let Some(mut stage) = super::stage(Mode::Nft, Family::V4) else { return };
    stage.restart(super::programs::nothing());
    let to = cluster_ip(1).of(Family::V4).to_string();
    let said = text(&program::run(stage.lab.node("a"), &["explain", "node", &to, "--socket="]));
    assert!(said.contains("No mode of fairlead has rules in this kernel"), "{said}");
}
