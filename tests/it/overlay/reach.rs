//! Every pod reaches every pod, at the full MTU.

use std::net::SocketAddr;

use fairlead_lab::{Options, Outcome, PORTS, Place, probe_with};
use fairlead_plan::{Family, Protocol};

use super::stage::{Stage, can_run, pairs, run};

const NODES: [&str; 3] = ["a", "b", "c"];

/// Answers that fill a packet of this size to the last byte, and connections that carry more than one segment. No packet
/// on the way is cut in pieces.
pub fn at_full_size(stage: &Stage, mtu: u32) {
    stage.lab.set_pod_mtu(mtu).unwrap();
    for (from, to, family) in pairs(&NODES) {
        let (from, to) = (stage.lab.place(from), stage.lab.place(to));
        let headers = if family == Family::V4 { 20 + 8 } else { 40 + 8 };
        // A server says its name and whom it saw before it repeats the request with its line end.
        let source_port = 40_000;
        let said = format!("{} {} ", to.name(), SocketAddr::new(from.addr(family), source_port)).len();
        let fills = mtu as usize - headers - said - 1;
        for (protocol, source_port, payload) in [(Protocol::Udp, source_port, fills), (Protocol::Tcp, 0, 100_000)] {
            let options = Options { payload, source_port, ..Options::default() };
            let outcome = probe_with(from, protocol, SocketAddr::new(to.addr(family), PORTS[0]), &options);
            let reached = matches!(&outcome, Outcome::Reached { endpoint, .. } if endpoint == to.name());
            let (from, to, label) = (from.name(), to.name(), family.label());
            assert!(reached, "{from} to {to}, {protocol}, {payload} bytes over {label}: {outcome:?}");
        }
    }
    for node in NODES {
        assert_eq!(pieces(stage.node(node)), 0, "node {node} has cut or joined packets");
    }
}

/// How many packets a node has cut in pieces or joined again, inner and outer, both families.
fn pieces(node: &Place) -> u64 {
    let (v4, v6) = (run(node, "cat /proc/net/snmp"), run(node, "cat /proc/net/snmp6"));
    let mut lines = v4.lines().filter(|line| line.starts_with("Ip:")).map(|line| line.split(' '));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let of_v4 = names.zip(values).filter(|(name, _)| ["ReasmReqds", "FragCreates", "FragFails"].contains(name));
    let of_v6 = v6.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let of_v6 = of_v6.filter(|(name, _)| ["Ip6ReasmReqds", "Ip6FragCreates", "Ip6FragFails"].contains(name));
    of_v4.chain(of_v6).map(|(_, value)| value.trim().parse::<u64>().unwrap()).sum()
}

#[test]
fn in_mode_vxlan_every_pod_reaches_every_pod_at_the_full_mtu() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&NODES, "vxlan");
    // The smaller of the two tunnels: 1,500 less 70.
    at_full_size(&stage, 1430);
}

#[test]
fn each_node_says_in_flannels_annotations_how_to_reach_it() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b"], "vxlan");
    for name in ["a", "b"] {
        let node = stage.node(name);
        assert_eq!(stage.annotation(name, "kube-subnet-manager"), "true");
        assert_eq!(stage.annotation(name, "backend-type"), "vxlan");
        assert_eq!(stage.annotation(name, "public-ip"), node.addr(Family::V4).to_string());
        assert_eq!(stage.annotation(name, "public-ipv6"), node.addr(Family::V6).to_string());
        for (key, device) in [("backend-data", "flannel.1"), ("backend-v6-data", "flannel-v6.1")] {
            let mac = run(node, &format!("cat /sys/class/net/{device}/address"));
            let wanted = format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac.trim());
            assert_eq!(stage.annotation(name, key), wanted, "{name}: {device}");
        }
        let addresses = stage.node_object(name)["status"]["addresses"].as_array().map(Vec::len);
        assert_eq!(addresses, Some(2), "the rest of the status is as it was");
    }
}
