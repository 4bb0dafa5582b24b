//! A node goes over from kube-proxy, in any of its modes, and back again, while connections are opened without a pause.

use std::net::SocketAddr;
use std::time::Duration;

use fairlead_lab::{Conversation, Options, Outcome, cluster_ip, needs};
use fairlead_plan::{Family, Protocol};

use super::iptables::{flags, holds};
use super::kube_proxy::KubeProxy;
use super::{frontends, hammers, until_answered_by, without_failure};
use crate::laws::holdings::shell;
use crate::packets::programs::Mode;
use crate::program::{BINARY, Cluster, NEVER, eventually};

const PODS: [&str; 2] = ["a1", "b1"];
/// A virtual service of somebody else (RFC 5737).
const FOREIGN: &str = "192.0.2.77:80";
/// Connections of each client between one step and the next.
const BETWEEN: u64 = 30;
/// The same for mode ipvs, which is tried where the processor is emulated.
const BETWEEN_EMULATED: u64 = 10;

/// So long the program looks a few times which addresses are still needed.
const SEVERAL_LOOKS: Duration = Duration::from_secs(5);

/// Connections that the node itself has opened and that stay open, one for each protocol and family.
struct Open(Vec<(Protocol, SocketAddr, Conversation)>);

impl Open {
    fn from_the_node(cluster: &Cluster) -> Self {
        let options = Options { patience: NEVER, ..Options::default() };
        let open = |(protocol, to)| (protocol, to, Conversation::open(cluster.node(), protocol, to, &options).unwrap());
        let mut all = Self(frontends(1).into_iter().map(open).collect());
        all.go_on("at first");
        all
    }

    fn go_on(&mut self, when: &str) {
        for (protocol, to, conversation) in &mut self.0 {
            let outcome = conversation.ask();
            assert!(
                matches!(outcome, Outcome::Reached { .. }),
                "{protocol} to {to}, open from the node, {when}: {outcome:?}"
            );
        }
    }
}

/// The addresses of the first Service, which connections of the node have as their source under kube-proxy's ipvs mode.
fn addresses() -> [String; 2] {
    Family::BOTH.map(|family| cluster_ip(1).of(family).to_string())
}

/// Whether connections of the node have [`addresses`] as their source.
fn are_sources(cluster: &Cluster) -> [bool; 2] {
    addresses().map(|address| !from_address(cluster, "-L", &address).is_empty())
}

/// Lists or deletes what connection tracking has from an address; gives back what there was.
fn from_address(cluster: &Cluster, what: &str, address: &str) -> String {
    let family = if address.contains(':') { "ipv6" } else { "ipv4" };
    shell(cluster.node(), &format!("conntrack -f {family} {what} -s {address} 2>/dev/null || true"))
}

/// Routes by which the node keeps addresses that no link has any more. Not by a shell: some have an `ip` of their own.
fn kept(cluster: &Cluster) -> String {
    let show = |family| {
        let list = [family, "route", "show", "table", "local", "proto", "76"];
        let output = cluster.node().command("ip").args(list).output().expect("ip runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    show("-4") + &show("-6")
}

/// From kube-proxy to a mode of ours; back by way of `nft`, whose tables no mode of kube-proxy touches, so that kube-proxy can
/// program everything before ours goes.
fn over_and_back(past: KubeProxy, mode: Mode) {
    if !needs(past.needed()) || !needs(mode.needed()) {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &PODS);
    past.program(&cluster, &PODS);
    until_answered_by(cluster.lab.place("a2"), 1, &PODS);
    let all = past.traces(cluster.node());
    assert_eq!(all.len(), past.traces_made(), "kube-proxy's state is not as it should be: {all:?}");
    let hammers = hammers(&cluster);
    let between = if past.0 == Mode::Ipvs || mode == Mode::Ipvs { BETWEEN_EMULATED } else { BETWEEN };
    let go_on = || hammers.iter().for_each(|hammer| hammer.wait_for(between));
    go_on();
    // Somebody else's, which nothing of this is about.
    if past.0 == Mode::Ipvs {
        shell(cluster.node(), &format!("ipvsadm -A -t {FOREIGN} -s rr"));
    }
    let mut open = Open::from_the_node(&cluster);
    if past.0 == Mode::Ipvs {
        assert_eq!(
            are_sources(&cluster),
            [true; 2],
            "the node's connections have another source than the Service's address"
        );
    }
    for (before, mode) in [(past.0, mode), (mode, Mode::Nft)] {
        // What IPVS has is cut when its mode ends.
        if before == Mode::Ipvs && mode != Mode::Ipvs {
            open.0.clear();
        }
        let program = cluster.launch(flags(mode));
        program.wait_until_ready();
        // A virtual service that nobody wants any more stays until no connection can be under way.
        let what = format!("{mode:?} has nothing left of kube-proxy");
        eventually(&what, || past.traces(cluster.node()).is_empty());
        for other in Mode::ALL.into_iter().filter(|other| *other != mode) {
            assert!(!holds(&cluster, other), "{mode:?} has left something of {other:?}\n{}", program.log());
        }
        assert!(!program.log().contains("may fail"), "{}", program.log());
        go_on();
        open.go_on(&format!("from {before:?} to {mode:?}"));
        if open.0.is_empty() {
            open = Open::from_the_node(&cluster);
        } else if past.0 == Mode::Ipvs && mode == Mode::Ipvs {
            let kept = kept(&cluster);
            assert!(addresses().iter().all(|address| kept.contains(&format!("local {address} "))), "{kept}");
        }
        program.kill();
    }
    if past.0 == Mode::Ipvs {
        assert!(shell(cluster.node(), "ipvsadm -Sn").contains(FOREIGN), "the virtual service of somebody else is gone");
    }
    past.program(&cluster, &PODS);
    go_on();
    shell(cluster.node(), &format!("{BINARY} cleanup --only=nft"));
    go_on();
    open.go_on("back with kube-proxy");
    assert_eq!(kept(&cluster), "");
    assert_eq!(past.traces(cluster.node()), all, "what kube-proxy has made is its own");
    assert!(!holds(&cluster, Mode::Nft), "something of ours is left");
    let made: u64 = hammers.into_iter().map(|hammer| without_failure(hammer).successes).sum();
    println!("{past:?} to {mode:?} and back: {made} connections, 0 failures, and those that stayed open went on");
}

#[test]
fn an_address_is_kept_as_long_as_connections_come_from_it_by_a_later_start_too() {
    if !needs(Mode::Nft.needed()) {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &PODS);
    let ip = |words: &str, address: &str| {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let status = cluster.node().command("ip").arg(family).args(words.split(' ')).status().expect("ip runs");
        assert!(status.success(), "ip {words}");
    };
    addresses().iter().for_each(|address| ip(&format!("address add {address} dev lo"), address));
    let program = cluster.start();
    let mut open = Open::from_the_node(&cluster);
    assert_eq!(are_sources(&cluster), [true; 2]);
    for address in addresses() {
        ip(&format!("route prepend local {address} dev lo table local proto 76"), &address);
        ip(&format!("address del {address} dev lo"), &address);
    }
    open.go_on("from an address that no link has");
    // The routes are those of a start before.
    program.kill();
    let program = cluster.start();
    std::thread::sleep(SEVERAL_LOOKS);
    open.go_on("after a start");
    assert_eq!(kept(&cluster).lines().count(), 2, "{}", program.log());
    drop(open);
    addresses().iter().for_each(|address| drop(from_address(&cluster, "-D", address)));
    eventually("no address is kept", || kept(&cluster).is_empty());
}

macro_rules! ways {
    ($($name:ident: $past:ident, $mode:ident;)*) => {
        $(#[test] fn $name() { over_and_back(KubeProxy(Mode::$past), Mode::$mode); })*
    };
}

ways! {
    from_the_nftables_mode_to_nft_and_back: Nft, Nft;
    from_the_nftables_mode_to_iptables_and_back: Nft, IptablesNft;
    from_legacy_iptables_to_nft_and_back: IptablesLegacy, Nft;
    from_iptables_to_nft_and_back: IptablesNft, Nft;
    from_iptables_to_iptables_and_back: IptablesNft, IptablesNft;
    from_the_ipvs_mode_to_ipvs_and_back: Ipvs, Ipvs;
    from_the_ipvs_mode_to_nft_and_back: Ipvs, Nft;
    from_the_ipvs_mode_to_iptables_and_back: Ipvs, IptablesNft;
    from_the_nftables_mode_to_ipvs_and_back: Nft, Ipvs;
    from_legacy_iptables_to_ipvs_and_back: IptablesLegacy, Ipvs;
}
