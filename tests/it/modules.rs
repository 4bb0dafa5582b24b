//! A kernel with modules, when nobody has needed them yet.

#![expect(clippy::disallowed_methods, reason = "the module is unloaded first")]

use std::fs;
use std::process::{Command, Stdio};

use fairlead_kernel::sysctl;
use fairlead_lab::{Feature, needs};

/// Modules that hold connection tracking in memory, those first that use others.
const USERS: [&str; 14] = [
    "nft_masq",
    "nft_nat",
    "nft_ct",
    "nft_chain_nat",
    "nft_redir",
    "xt_MASQUERADE",
    "xt_conntrack",
    "xt_nat",
    "iptable_nat",
    "ip6table_nat",
    "ip_vs",
    "nf_nat",
    "nf_conntrack_netlink",
    "nf_conntrack",
];

/// Where connection tracking is a module and nobody uses it, it is gone after this; elsewhere nothing happens.
fn unload() {
    for module in USERS {
        // Not there, or in use.
        let _ = Command::new("modprobe").args(["-r", module]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

#[test]
fn settings_of_conntrack_can_be_made_before_anybody_has_tracked_a_connection() {
    if !needs(&[Feature::Conntrack]) {
        return;
    }
    unload();
    let before = fs::exists("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
    eprintln!("before, there was {} connection tracking", if before { "already" } else { "no" });
    assert!(sysctl::read_number("net/netfilter/nf_conntrack_max").unwrap() > 0);
    assert!(sysctl::conntrack_buckets().unwrap() > 0);
    assert!(sysctl::read_number("net/netfilter/nf_conntrack_tcp_timeout_established").unwrap() > 0);
}
