//! The iptables mode on a node with other programs: what they destroy, what they leave, and what was there before.

use std::time::Duration;

use fairlead_iptables::is_ours;
use fairlead_lab::{Feature, Hammer, needs};
use fairlead_plan::Family;

use super::kube_proxy::KubeProxy;
use super::{frontends, hammers, service, slice, until_answered_by, without_failure};
use crate::laws::holdings::{foreign, held, load_foreign, ruleset, shell};
use crate::packets::programs::Mode;
use crate::program::{Cluster, Program, eventually, tables};

pub const VARIANTS: [Mode; 2] = [Mode::IptablesLegacy, Mode::IptablesNft];

pub fn can_run() -> bool {
    needs(&[Feature::Namespaces, Feature::NfTables, Feature::Iptables])
}

pub fn flags(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Nft => &["--mode=nft"],
        Mode::IptablesLegacy => &["--mode=iptables", "--iptables-variant=legacy"],
        Mode::IptablesNft => &["--mode=iptables", "--iptables-variant=nft"],
        Mode::Ipvs => &["--mode=ipvs"],
    }
}

fn start(cluster: &Cluster, mode: Mode) -> Program {
    let program = cluster.launch(flags(mode));
    program.wait_until_ready();
    program
}

fn cluster() -> Cluster {
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    cluster.put(&service("sticky", 2).sticky(600));
    cluster.put_slice(&slice("sticky", &["a1", "b1"]));
    cluster
}

/// Whether a mode has anything of ours, or of kube-proxy's, in the kernel.
pub fn holds(cluster: &Cluster, mode: Mode) -> bool {
    match mode {
        Mode::Nft => tables(cluster.node()) != [false, false],
        // Its rules stand in the tables of the iptables modes; its sets are its own.
        Mode::Ipvs => shell(cluster.node(), "ipset list -n").contains("KUBE-"),
        _ => ruleset(cluster.node(), mode).split([' ', ':', '\n']).any(is_ours),
    }
}

#[test]
fn chains_and_jumps_that_somebody_takes_away_come_back_in_front_of_those_of_others() {
    if !can_run() {
        return;
    }
    for mode in VARIANTS {
        let cluster = cluster();
        let node = cluster.node();
        load_foreign(node, mode);
        let others = foreign(node, mode);
        let program = start(&cluster, mode);
        until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
        let whole = held(node, mode);
        for family in Family::BOTH {
            let tool = mode.tool(family).expect("the mode has a program");
            let harms = [
                format!("{tool} -t nat -F KUBE-SERVICES"),
                format!("{tool} -t nat -D PREROUTING 1"),
                // All but the first fail if the repair comes between.
                format!("{tool} -D FORWARD 1 && {{ {tool} -D FORWARD 1; {tool} -D INPUT 1; true; }}"),
                format!("{tool} -t nat -D KUBE-POSTROUTING 1"),
                format!("{tool} -t nat -I KUBE-SERVICES -j RETURN"),
                format!("{tool} -t nat -N KUBE-SVC-LEFTOVER"),
                // The second half fails if the first is repaired already.
                format!(
                    "{tool} -D FORWARD -m comment --comment 'kubernetes forwarding rules' -j KUBE-FORWARD; {tool} -X KUBE-FORWARD || true"
                ),
            ];
            for harm in harms {
                let logged = program.log().len();
                shell(node, &harm);
                let took = eventually(&format!("repaired: {harm}"), || held(node, mode) == whole);
                println!("repaired after {took:?}: {harm}");
                let said = || program.log()[logged..].lines().any(|line| line.contains("repaired: "));
                eventually(&format!("the log names the repair after {harm}"), said);
            }
        }
        // As when firewalld loads its rules again: everything goes, and what is not ours comes back.
        load_foreign(node, mode);
        eventually("everything is back", || held(node, mode) == whole && foreign(node, mode) == others);
        until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
        until_answered_by(cluster.lab.place("outside"), 1, &["a1", "b1"]);
        drop(program);
    }
}

#[test]
fn a_change_that_leaves_a_legacy_table_its_size_is_repaired_within_the_sync_period() {
    const READ: &str = "kubeproxy_sync_full_proxy_rules_duration_seconds_count";
    if !can_run() {
        return;
    }
    let mode = Mode::IptablesLegacy;
    let cluster = cluster();
    let node = cluster.node();
    load_foreign(node, mode);
    let program = cluster.launch(&["--mode=iptables", "--iptables-variant=legacy", "--iptables-sync-period=1s"]);
    program.wait_until_ready();
    for family in Family::BOTH {
        let tool = mode.tool(family).expect("the mode has a program");
        let read = program.metric(READ, "IPv4");
        // What is somebody else's is nobody's business: it is looked at, and that is all.
        shell(node, &format!("{tool} -R DOCKER-USER 1 -j ACCEPT"));
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(program.metric(READ, "IPv4"), read, "the kernel was compared with the plan:\n{}", program.log());
        let whole = held(node, mode);
        let address = cluster.lab.place("a3").addr(family);
        let to = if family == Family::V4 { format!("{address}:8080") } else { format!("[{address}]:8080") };
        for harm in [
            format!("{tool} -t nat -R KUBE-MARK-MASQ 1 -j MARK --or-mark 0x8000"),
            format!("{tool} -t nat -R KUBE-POSTROUTING 1 -m mark ! --mark 0x8000/0x8000 -j RETURN"),
            format!("{tool} -R KUBE-FORWARD 1 -m conntrack --ctstate NEW -j DROP"),
            format!("{tool} -t nat -R PREROUTING 1 -m comment --comment other -j KUBE-NODEPORTS"),
            format!(
                "chain=$({tool}-save -t nat | sed -n 's/^-A \\(KUBE-SEP-[A-Z0-9]*\\) -p tcp -j DNAT.*/\\1/p' | head -n 1) && \
                 number=$({tool} -t nat -S $chain | grep -c -e -A) && \
                 {tool} -t nat -R $chain $number -p tcp -j DNAT --to-destination {to}"
            ),
        ] {
            let logged = program.log().len();
            let entries = || shell(node, &format!("{tool}-save | grep -c -e -A"));
            let size = entries();
            shell(node, &harm);
            assert_eq!(entries(), size, "the harm was to leave the size");
            let took = eventually(&format!("repaired: {harm}"), || held(node, mode) == whole);
            println!("repaired after {took:?}: {harm}");
            let said = || program.log()[logged..].lines().any(|line| line.contains("as many entries as before"));
            eventually(&format!("the log says what was noticed after {harm}"), said);
        }
    }
}

#[test]
fn a_node_goes_over_from_kube_proxy_without_a_failed_connection_and_nothing_of_it_is_left() {
    if !can_run() {
        return;
    }
    for mode in VARIANTS {
        let cluster = cluster();
        let node = cluster.node();
        KubeProxy(mode).program(&cluster, &["a1", "b1"]);
        until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
        let hammers = ["a2", "a", "outside"].map(|from| cluster.hammer(from, 1));
        let program = start(&cluster, mode);
        hammers.iter().for_each(|hammer| hammer.wait_for(50));
        hammers.into_iter().for_each(|hammer| drop(without_failure(hammer)));
        let taken_over = held(node, mode);
        assert!(!ruleset(node, mode).contains("CANARY"), "kube-proxy's canary is left");
        program.kill();
        shell(node, &format!("{} cleanup", crate::program::BINARY));
        assert!(!holds(&cluster, mode));
        drop(start(&cluster, mode));
        assert_eq!(held(node, mode), taken_over, "something of kube-proxy is left");
    }
}

/// One mode after the other, under connections without a pause: none fails, and none leaves something for the next.
fn goes_through(cluster: &Cluster, hammers: impl IntoIterator<Item = Hammer>, modes: &[Mode], between: u64) {
    let hammers: Vec<_> = hammers.into_iter().collect();
    for mode in modes.iter().copied() {
        let program = start(cluster, mode);
        hammers.iter().for_each(|hammer| hammer.wait_for(between));
        for other in Mode::ALL.into_iter().filter(|other| *other != mode) {
            assert!(!holds(cluster, other), "{other:?} has left something for {mode:?}:\n{}", program.log());
        }
        assert!(holds(cluster, mode));
        assert!(!program.log().contains("may fail"), "{}", program.log());
        assert!(!shell(cluster.node(), "nft list tables").contains("fairlead-ipvs"), "a table from between is left");
        program.kill();
    }
    let made: u64 = hammers.into_iter().map(|hammer| without_failure(hammer).successes).sum();
    println!("{modes:?}: {made} connections, 0 failures");
}

#[test]
fn a_node_changes_its_mode_in_every_direction_without_a_failed_connection() {
    if !can_run() {
        return;
    }
    use Mode::{IptablesLegacy, IptablesNft, Nft};
    let cluster = cluster();
    drop(start(&cluster, Nft));
    until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
    let hammers = ["a2", "a", "outside"].map(|from| cluster.hammer(from, 1));
    let modes = [IptablesLegacy, Nft, IptablesNft, Nft, IptablesLegacy, IptablesNft, IptablesLegacy, Nft];
    goes_through(&cluster, hammers, &modes, 20);
    assert!(!frontends(1).is_empty());
}

#[test]
fn a_node_goes_between_mode_ipvs_and_the_others_without_a_failed_connection() {
    use Mode::{IptablesNft, Ipvs, Nft};
    if !can_run() || !needs(Ipvs.needed()) {
        return;
    }
    let cluster = cluster();
    drop(start(&cluster, IptablesNft));
    until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
    goes_through(&cluster, hammers(&cluster), &[Ipvs, Nft, Ipvs, IptablesNft], 10);
}

#[test]
fn the_variant_is_the_one_that_the_kubelet_has_marked() {
    if !can_run() {
        return;
    }
    for mode in VARIANTS {
        let cluster = cluster();
        // Rules of the other variant do not count against the mark.
        for (of, count) in [(Mode::IptablesLegacy, 3), (Mode::IptablesNft, 3)] {
            let tool = of.tool(Family::V4).expect("the mode has a program");
            (0..count).for_each(|number| {
                drop(shell(cluster.node(), &format!("{tool} -A INPUT -s 192.0.2.{number} -j DROP")))
            });
        }
        let tool = mode.tool(Family::V4).expect("the mode has a program");
        shell(cluster.node(), &format!("{tool} -t mangle -N KUBE-IPTABLES-HINT"));
        let program = cluster.launch(&["--mode=iptables"]);
        program.wait_until_ready();
        for one in VARIANTS {
            assert_eq!(holds(&cluster, one), one == mode, "{one:?} where {mode:?} is marked");
        }
    }
}
