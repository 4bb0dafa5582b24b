//! Every command of every page runs, in the order of the page, where what the page assumes is there.
//!
//! A command that stands in a `console` block, or as a whole in a sentence, has a step in one of the modules below, or a
//! reason in [`NOT_RUN`] why it has none. One that is in no page fails as well.

mod deploy;
mod kubeadm;
mod others;
mod page;
mod readme;
mod scene;
mod step;

use std::collections::BTreeSet;

use page::{pages, shown_in};
use step::is_played;

/// Commands that do not run here, and why.
const NOT_RUN: [(&str, &str); 7] = [
    ("cargo demo", "`cargo verify` runs it as a check of its own, and fails if a result of it is not as expected"),
    ("cargo verify", "it is what runs this"),
    ("cargo vm", "the last check of `cargo verify` runs it, for a part of the tests"),
    (
        "docker build --file deploy/Dockerfile --tag REGISTRY/fairlead:0.1.0 .",
        "the machines of the tests have no container engine; `operate::image` reads the file and makes what it makes",
    ),
    (
        "FAIRLEAD_PICTURES=120 cargo test --test it every_query_of_every_panel",
        "it is one of these tests, which draws the same pictures each time, and keeps them only if asked",
    ),
    (
        "systemctl restart k3s",
        "k3s is no Debian package; what it leaves in the kernel is what kube-proxy and flanneld leave",
    ),
    ("systemctl restart k3s-agent", "the same"),
];
/// Commands in sentences that lack words, or that stand for what has a step or a reason elsewhere.
const MENTIONED: [(&str, &str); 4] = [
    ("fairlead explain", "it names the command; whole ones have steps"),
    ("fairlead explain FROM TO", "the same"),
    ("fairlead services NAME", "the same"),
    ("kubectl -n kube-system logs --previous", "it lacks the pod"),
];

/// The pages that have steps.
const PLAYED: [&str; 9] = [
    "README.md",
    "backends/iptables/README.md",
    "dashboards/README.md",
    "dashboards/metrics.md",
    "deploy/README.md",
    "deploy/ipvs.md",
    "deploy/k3s.md",
    "deploy/kubeadm.md",
    "deploy/other-cni.md",
];

#[test]
fn every_command_that_is_declared_is_in_a_page() {
    let all: BTreeSet<String> = pages().iter().flat_map(|page| shown_in(page)).map(|shown| shown.text).collect();
    for (command, reason) in NOT_RUN.iter().chain(&MENTIONED) {
        assert!(all.contains(*command), "`{command}` is declared ({reason}), and no page has it");
    }
}

#[test]
fn every_page_with_commands_is_played() {
    let with_commands = pages().into_iter().filter(|page| shown_in(page).iter().any(is_played));
    assert_eq!(with_commands.collect::<BTreeSet<_>>(), PLAYED.map(str::to_owned).into());
}
