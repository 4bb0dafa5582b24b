//! A node goes over from kube-proxy, in any of its modes, and back again, while connections are opened without a pause.

use fairlead_lab::needs;

use super::iptables::{flags, holds};
use super::kube_proxy::KubeProxy;
use super::{hammers, until_answered_by, without_failure};
use crate::laws::holdings::shell;
use crate::packets::programs::Mode;
use crate::program::{BINARY, Cluster, eventually};

const PODS: [&str; 2] = ["a1", "b1"];
/// A virtual service of somebody else (RFC 5737).
const FOREIGN: &str = "192.0.2.77:80";
/// Connections of each client between one step and the next.
const BETWEEN: u64 = 30;
/// The same for mode ipvs, which is tried where the processor is emulated.
const BETWEEN_EMULATED: u64 = 10;

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
    assert_eq!(all.len(), 1 + usize::from(past.0 != Mode::Nft), "kube-proxy's state is not as it should be: {all:?}");
    let hammers = hammers(&cluster, past.spares_those_of_the_node());
    let between = if past.0 == Mode::Ipvs || mode == Mode::Ipvs { BETWEEN_EMULATED } else { BETWEEN };
    let go_on = || hammers.iter().for_each(|hammer| hammer.wait_for(between));
    go_on();
    // Somebody else's, which nothing of this is about.
    if past.0 == Mode::Ipvs {
        shell(cluster.node(), &format!("ipvsadm -A -t {FOREIGN} -s rr"));
    }
    for mode in [mode, Mode::Nft] {
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
        program.kill();
    }
    if past.0 == Mode::Ipvs {
        assert!(shell(cluster.node(), "ipvsadm -Sn").contains(FOREIGN), "the virtual service of somebody else is gone");
    }
    past.program(&cluster, &PODS);
    go_on();
    shell(cluster.node(), &format!("{BINARY} cleanup --only=nft"));
    go_on();
    assert_eq!(past.traces(cluster.node()), all, "what kube-proxy has made is its own");
    assert!(!holds(&cluster, Mode::Nft), "something of ours is left");
    let made: u64 = hammers.into_iter().map(|hammer| without_failure(hammer).successes).sum();
    println!("{past:?} to {mode:?} and back: {made} connections, 0 failures");
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
    from_the_nftables_mode_to_ipvs_and_back: Nft, Ipvs;
}
