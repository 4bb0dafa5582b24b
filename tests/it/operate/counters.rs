//! `--service-counters`: the kernel's announcements, added up while real connections are made.

use std::net::SocketAddr;

use fairlead_lab::objects::{Port, Service};
use fairlead_lab::{Feature, Options, Outcome, cluster_ip, needs, probe, probe_set};
use fairlead_plan::{Family, Protocol};
use serde_json::Value;

use crate::faults::{PORT, PROTOCOLS, slice, until_answered_by};
use crate::program::{self, Cluster, Program, eventually};

const NODE_PORT: u16 = 30_080;
const METRIC: &str = "fairlead_service_connections_total";
const CONNECTIONS: u32 = 30;

/// A cluster whose Service `web` has endpoints and a node port, and whose Service `empty` has nothing.
fn cluster() -> Cluster {
    let cluster = Cluster::new();
    cluster.serve("empty", 2, &[]);
    let port = |port: Port, name: &str| port.named(name).node_port(NODE_PORT);
    let web = Service::new("web").cluster_ip(1).spec("type", "NodePort");
    let web = web.port(port(Port::tcp(PORT), "t")).port(port(Port::udp(PORT), "u"));
    cluster.apply([web.manifest(&cluster.lab, &Family::BOTH)]);
    cluster.apply(slice("web", &["a1", "b1"]).manifests(&cluster.lab, &Family::BOTH));
    cluster
}

/// The sum of all counts whose labels hold a text.
fn count(program: &Program, labels: &str) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers, which never fall")]
    let count = program.metric(METRIC, labels) as u64;
    count
}

/// What has been counted for a Service, by port and family.
fn counted(program: &Program, service: &str, port: &str, family: Family) -> u64 {
    let protocol = if port == "t" { "tcp" } else { "udp" };
    let labels = format!(
        "ip_family=\"{}\",namespace=\"default\",port=\"{port}\",protocol=\"{protocol}\",service=\"{service}\"",
        family.label()
    );
    count(program, &labels)
}

fn counts_in(mode: &str) {
    let cluster = cluster();
    let socket = format!("--socket={}", cluster.directory.path().join("socket").display());
    let program = cluster.launch(&["--service-counters", &format!("--mode={mode}"), &socket]);
    program.wait_until_ready();
    until_answered_by(cluster.lab.place("a3"), 1, &["a1", "b1"]);
    let options = Options { connections: CONNECTIONS as usize, ..Options::default() };
    for family in Family::BOTH {
        let ways = [
            ("a2", SocketAddr::new(cluster_ip(1).of(family), PORT)),
            ("outside", SocketAddr::new(cluster.node().addr(family), NODE_PORT)),
        ];
        for ((from, to), (protocol, port)) in
            ways.into_iter().flat_map(|way| PROTOCOLS.into_iter().zip(["t", "u"]).map(move |each| (way, each)))
        {
            // What came before is counted by now, or soon.
            let before = settled(|| counted(&program, "web", port, family));
            let seen = probe_set(cluster.lab.place(from), protocol, to, &options);
            assert!(seen.failed.is_empty() && seen.refused + seen.silence == 0, "{from} {protocol} {to}: {seen:?}");
            let what = format!("{mode}: {CONNECTIONS} connections over {protocol} to {to} are counted");
            let wanted = before + u64::from(CONNECTIONS);
            eventually(&what, || counted(&program, "web", port, family) >= wanted);
            assert_eq!(settled(|| counted(&program, "web", port, family)), wanted, "{what}");
        }
        // Refused is not begun, and what reaches no Service is nobody's.
        let refused = probe(cluster.lab.place("a2"), Protocol::Tcp, SocketAddr::new(cluster_ip(2).of(family), PORT));
        assert!(matches!(refused, Outcome::Refused), "{refused:?}");
        assert_eq!(settled(|| count(&program, "service=\"empty\"")), 0);
    }
    let output = program::run(cluster.node(), &["services", "--json", &socket]);
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    for service in all.as_array().unwrap() {
        let count = service["connections"].as_u64().unwrap();
        assert_eq!(count > 0, service["name"].as_str().unwrap().starts_with("default/web"), "{service:#}");
    }
    // A Service that is gone takes its series along.
    cluster.server.delete("Service", "default", "web").unwrap();
    eventually("its series are gone", || {
        // The thread hears of plans with connections.
        let _ = probe(
            cluster.lab.place("a2"),
            Protocol::Tcp,
            SocketAddr::new(cluster.lab.place("a1").addr(Family::V4), 8080),
        );
        counted(&program, "web", "t", Family::V4) == 0
    });
}

/// A value that is the same twice with a pause between.
fn settled(mut value: impl FnMut() -> u64) -> u64 {
    let mut last = value();
    eventually("a count stays", || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = value();
        let stays = now == last;
        last = now;
        stays
    });
    last
}

#[test]
fn connections_are_counted_by_port_and_family_in_mode_nft() {
    if needs(&[Feature::Namespaces, Feature::NfTables]) {
        counts_in("nft");
    }
}

#[test]
fn connections_are_counted_by_port_and_family_in_mode_iptables() {
    if needs(&[Feature::Namespaces, Feature::NfTables, Feature::Iptables]) {
        counts_in("iptables");
    }
}

#[test]
fn without_the_flag_nobody_listens_and_nothing_is_shown() {
    if !needs(&[Feature::Namespaces, Feature::NfTables]) {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    let socket = format!("--socket={}", cluster.directory.path().join("socket").display());
    let program = cluster.launch(&[&socket]);
    program.wait_until_ready();
    until_answered_by(cluster.lab.place("a3"), 1, &["a1", "b1"]);
    assert_eq!(count(&program, ""), 0);
    let output = program::run(cluster.node(), &["services", "--json", &socket]);
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(all.as_array().unwrap().iter().all(|service| service["connections"].is_null()), "{all:#}");
    let threads = std::fs::read_dir(format!("/proc/{}/task", program.id())).unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
    let names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
    assert!(names.contains(&"flows".to_owned()) && !names.contains(&"counters".to_owned()), "{names:?}");
}
