//! The image with exactly what the DaemonSet gives it does its job: capabilities, system calls, a root and `/proc/sys` that
//! cannot be written.

use std::net::SocketAddr;

use fairlead_lab::{Feature, Options, cluster_ip, needs, probe_set};
use fairlead_plan::{Family, Protocol};

use super::container::{Container, Pod, mask};
use super::rendered::Rendered;
use crate::faults::{PORT, service, slice, until_answered_by};
use crate::overlay::stage::Stage;
use crate::program::{Cluster, eventually};

/// What the file of settings says, and what else it can say.
const MODE: &str = "mode: nftables";
const AUTO: &str = "iptablesVariant: auto";
const LEGACY: &str = "iptablesVariant: legacy";

fn can_run(more: &[Feature]) -> bool {
    needs(&[&[Feature::Namespaces, Feature::NfTables, Feature::Deployment], more].concat())
}

/// The process has what the manifest gives it and no more, and had to complain of nothing.
fn has_least_privilege(container: &Container, rendered: &Rendered) {
    let mask = mask(&rendered.container()["securityContext"]);
    let status = container.status();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status[set], mask, "{set}");
    }
    assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"));
    assert_eq!(complaints(container), Vec::<String>::new());
}

fn complaints(container: &Container) -> Vec<String> {
    let log = container.log();
    log.lines()
        .filter(|line| ["WARN", "ERROR", "fairlead: "].iter().any(|word| line.contains(word)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_capability_is_missed_where_it_is_not_given() {
    if !can_run(&[Feature::Iptables]) {
        return;
    }
    for name in ["NET_ADMIN", "NET_RAW"] {
        let cluster = Cluster::new();
        let pod = Pod::new("iptables", cluster.node(), &cluster.directory, cluster.server.url());
        pod.set(AUTO, LEGACY);
        pod.prepare();
        let container = pod.start_without(name);
        eventually(&format!("{name} is missed"), || {
            complaints(&container).iter().any(|line| line.contains("permitted"))
        });
    }
    let given = Rendered::new("iptables");
    let given = given.container()["securityContext"]["capabilities"]["add"].as_array().unwrap().clone();
    assert_eq!(given, ["NET_ADMIN", "NET_RAW"]);
}

/// Services are answered, from a pod, the node and outside; changes arrive; and the container is ended and started again.
fn serves(folder: &str, setting: [&str; 2]) {
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    let pod = Pod::new(folder, cluster.node(), &cluster.directory, cluster.server.url());
    pod.set(setting[0], setting[1]);
    pod.prepare();
    let container = pod.start();
    for from in ["a2", "outside", "a"] {
        until_answered_by(cluster.lab.place(from), 1, &["a1", "b1"]);
    }
    has_least_privilege(&container, &Rendered::new(folder));
    assert!(container.stop().success());
    until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
    let container = pod.start();
    cluster.serve("web", 1, &["b1"]);
    until_answered_by(cluster.lab.place("a2"), 1, &["b1"]);
    has_least_privilege(&container, &Rendered::new(folder));
}

#[test]
fn mode_nft_works_in_the_container_of_the_manifests() {
    if can_run(&[]) {
        serves("nft", [MODE, MODE]);
    }
}

#[test]
fn mode_iptables_works_in_the_container_of_the_manifests() {
    if can_run(&[Feature::Iptables]) {
        serves("iptables", [AUTO, "iptablesVariant: nft"]);
    }
}

#[test]
fn mode_iptables_works_on_the_legacy_variant_in_the_container_of_the_manifests() {
    if can_run(&[Feature::Iptables]) {
        serves("iptables", [AUTO, LEGACY]);
    }
}

#[test]
fn the_overlay_works_in_the_containers_of_the_manifests() {
    if can_run(&[Feature::Vxlan]) {
        connects("nft-overlay");
    }
}

#[test]
fn the_overlay_works_beside_mode_iptables_in_the_containers_of_the_manifests() {
    if can_run(&[Feature::Vxlan, Feature::Iptables]) {
        connects("iptables-overlay");
    }
}

/// Pods of two nodes reach each other and a Service over the tunnel.
fn connects(folder: &str) {
    let stage = Stage::new();
    let nodes = ["a", "b"];
    let pods = nodes.map(|name| Pod::new(folder, stage.node(name), &stage.directory, stage.server.url()));
    let containers: Vec<_> = pods
        .iter()
        .map(|pod| {
            pod.prepare();
            pod.start()
        })
        .collect();
    stage.until_connected(&nodes);
    stage.apply([service("web", 1).manifest(&stage.lab, &Family::BOTH)]);
    stage.apply(slice("web", &["b1"]).manifests(&stage.lab, &Family::BOTH));
    for family in Family::BOTH {
        let to = SocketAddr::new(cluster_ip(1).of(family), PORT);
        let options = Options { connections: 8, ..Options::default() };
        eventually(&format!("b1 answers a1 at {to} through the tunnel"), || {
            let seen = probe_set(stage.lab.place("a1"), Protocol::Tcp, to, &options);
            seen.reached.len() == 1 && seen.reached.contains_key("b1") && seen.refused + seen.silence == 0
        });
    }
    let conflist = pods[0].volume("cni").join("10-fairlead.conflist");
    eventually("the CNI configuration is on the node", || conflist.is_file());
    for container in &containers {
        has_least_privilege(container, &Rendered::new(folder));
    }
}
