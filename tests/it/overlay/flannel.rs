//! A node that somebody else has set up as flannel does, by hand with `ip` and `bridge`.

use std::net::SocketAddr;

use fairlead_lab::{Hammer, PORTS};
use fairlead_plan::{Family, Protocol};
use serde_json::json;

use super::stage::{PROTOCOL, Stage, can_run, listing, run};
use crate::program::eventually;

/// What flannel has given its device on the node of this number.
fn mac(number: u8) -> String {
    format!("0a:58:0a:f4:00:{number:02x}")
}

/// The device and address of a node, in both families.
fn install_devices(stage: &Stage, node: &str, number: u8) {
    let place = stage.node(node);
    let mac = mac(number);
    for line in [
        format!(
            "ip link add flannel.1 address {mac} type vxlan id 1 dev eth0 local 192.168.50.{number} dstport 8472 nolearning"
        ),
        "ip link set flannel.1 mtu 1450 up".to_owned(),
        format!("ip addr add 10.244.{number}.0/32 dev flannel.1"),
        format!(
            "ip link add flannel-v6.1 address {mac} type vxlan id 1 dev eth0 local fd00:50::{number} dstport 8472 nolearning"
        ),
        "ip link set flannel-v6.1 mtu 1430 up".to_owned(),
        format!("ip -6 addr add fd00:244:0:{number}::/128 dev flannel-v6.1 nodad"),
    ] {
        run(place, &line);
    }
}

/// What flannel writes for one peer, in its order.
fn install_peer(stage: &Stage, node: &str, number: u8, mac: &str) {
    let place = stage.node(node);
    for line in [
        format!("ip neigh replace 10.244.{number}.0 lladdr {mac} dev flannel.1 nud permanent"),
        format!("bridge fdb replace {mac} dev flannel.1 dst 192.168.50.{number} self permanent"),
        format!("ip route replace 10.244.{number}.0/24 via 10.244.{number}.0 dev flannel.1 onlink"),
        format!("ip -6 neigh replace fd00:244:0:{number}:: lladdr {mac} dev flannel-v6.1 nud permanent"),
        format!("bridge fdb replace {mac} dev flannel-v6.1 dst fd00:50::{number} self permanent"),
        format!("ip -6 route replace fd00:244:0:{number}::/64 via fd00:244:0:{number}:: dev flannel-v6.1 onlink"),
    ] {
        run(place, &line);
    }
}

/// The annotations that flanneld has written.
fn announce(stage: &Stage, node: &str, number: u8) {
    let mut object = stage.node_object(node);
    let data = format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac(number));
    for (key, value) in [
        ("kube-subnet-manager", "true".to_owned()),
        ("backend-type", "vxlan".to_owned()),
        ("public-ip", format!("192.168.50.{number}")),
        ("public-ipv6", format!("fd00:50::{number}")),
        ("backend-data", data.clone()),
        ("backend-v6-data", data),
    ] {
        object["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{key}")] = json!(value);
    }
    stage.apply([object]);
}

fn device_mac(stage: &Stage, node: &str) -> String {
    run(stage.node(node), "cat /sys/class/net/flannel.1/address").trim().to_owned()
}

#[test]
fn a_node_of_flannel_and_a_node_of_fairlead_exchange_pod_traffic() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    install_devices(&stage, "b", 2);
    announce(&stage, "b", 2);
    let program = stage.launch("a", &["--overlay-backend=vxlan"]);
    program.wait_until_ready();
    eventually("fairlead has told how to reach it", || stage.annotation("a", "backend-v6-data").contains("VtepMAC"));
    // What flannel reads of the annotations: a part between quotation marks, and the public address.
    let said = stage.annotation("a", "backend-data");
    let read = said.split("\"VtepMAC\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    assert_eq!(read, device_mac(&stage, "a"));
    assert_eq!(stage.annotation("a", "public-ip"), "192.168.50.1");
    let of_v6 = run(stage.node("a"), "cat /sys/class/net/flannel-v6.1/address");
    install_peer(&stage, "b", 1, &read);
    // The device of each family has an address of its own.
    for line in [
        format!("ip -6 neigh replace fd00:244:0:1:: lladdr {} dev flannel-v6.1 nud permanent", of_v6.trim()),
        format!("bridge fdb replace {} dev flannel-v6.1 dst fd00:50::1 self permanent", of_v6.trim()),
    ] {
        run(stage.node("b"), &line);
    }
    stage.until_connected(&["a", "b"]);
}

#[test]
fn a_live_node_of_flannel_is_taken_over_and_given_back_without_a_lost_packet_and_rid_of_what_was_left_behind() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    for (node, number, peer) in [("a", 1, 2), ("b", 2, 1)] {
        install_devices(&stage, node, number);
        announce(&stage, node, number);
        install_peer(&stage, node, peer, &mac(peer));
    }
    // A node that was deleted while flanneld was down.
    install_peer(&stage, "a", 77, &mac(77));
    stage.until_connected(&["a", "b"]);
    let device = run(stage.node("a"), "cat /sys/class/net/flannel.1/ifindex");
    let targets = |pod: &str| -> Vec<(Protocol, SocketAddr)> {
        let to = stage.lab.place(pod);
        let of = |family| [Protocol::Tcp, Protocol::Udp].map(|p| (p, SocketAddr::new(to.addr(family), PORTS[0])));
        Family::BOTH.into_iter().flat_map(of).collect()
    };
    let there = Hammer::start(stage.lab.place("a1"), &targets("b1")).unwrap();
    let back = Hammer::start(stage.lab.place("b1"), &targets("a1")).unwrap();
    // One node at a time; the other goes on with flannel.
    let mut programs = Vec::new();
    for node in ["a", "b"] {
        programs.push(stage.launch(node, &["--overlay-backend=vxlan"]));
        eventually("its routes are ours", || {
            let routes = run(stage.node(node), &format!("ip route show proto {PROTOCOL}"));
            routes.contains("dev flannel.1 onlink")
        });
        programs.last().unwrap().wait_until_ready();
    }
    let node = stage.node("a");
    assert_eq!(run(node, "ip route show proto boot dev flannel.1"), "");
    let stale = listing(node).into_iter().filter(|line| line.contains("77")).collect::<Vec<_>>();
    assert_eq!(stale, Vec::<String>::new());
    // The way back: flanneld writes its own over ours before what is left of ours goes.
    for ((node, peer), program) in [("a", 2), ("b", 1)].into_iter().zip(programs) {
        program.terminate();
        install_peer(&stage, node, peer, &mac(peer));
        let cleaned = crate::program::run(stage.node(node), &["cleanup"]);
        assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
        assert_eq!(run(stage.node(node), &format!("ip route show proto {PROTOCOL}")), "");
        assert_eq!(run(stage.node(node), "nft list tables"), "");
    }
    for hammer in [there, back] {
        let tally = hammer.stop();
        assert!(tally.failures.is_empty() && tally.successes > 0, "{:?}", tally.failures.first());
    }
    assert_eq!(run(node, "cat /sys/class/net/flannel.1/ifindex"), device, "the device is the same");
    assert_eq!(device_mac(&stage, "a"), mac(1), "and has the address that its peers know");
    stage.until_connected(&["a", "b"]);
}
