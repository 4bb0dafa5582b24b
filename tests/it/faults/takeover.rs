//! A node goes over from kube-proxy, in any of its modes, and back again, while connections are opened without a pause.

use fairlead_lab::needs;

use super::iptables::{flags, holds};
use super::kube_proxy::KubeProxy;
use super::{until_answered_by, without_failure};
use crate::laws::holdings::shell;
use crate::packets::programs::Mode;
use crate::program::{BINARY, Cluster};

const PODS: [&str; 2] = ["a1", "b1"];
/// Connections of each client between one step and the next.
const BETWEEN: u64 = 30;

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
    let hammers = ["a2", "a", "outside"].map(|from| cluster.hammer(from, 1));
    let go_on = || hammers.iter().for_each(|hammer| hammer.wait_for(BETWEEN));
    go_on();
    for mode in [mode, Mode::Nft] {
        let program = cluster.launch(flags(mode));
        program.wait_until_ready();
        assert_eq!(
            past.traces(cluster.node()),
            [""; 0],
            "{mode:?} has left something of kube-proxy\n{}",
            program.log()
        );
        go_on();
        program.kill();
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
}
