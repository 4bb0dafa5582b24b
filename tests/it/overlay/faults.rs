//! F1 to F16: what others do to the overlay, and how long it takes until it is as it was. The times are printed.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fairlead_lab::{Hammer, PORTS};
use fairlead_plan::{Family, Protocol};
use serde_json::json;

use super::stage::{DEVICES, Stage, can_run, listing, output, run, say, until_listed};
use crate::program::{Program, eventually};

const NODES: [&str; 3] = ["a", "b", "c"];

/// A stage on which everything works, and what node `a` holds then.
fn working(backend: &str) -> (Stage, Vec<Program>, Vec<String>) {
    let stage = Stage::new();
    let programs = stage.start(&NODES, backend);
    let before = listing(stage.node("a"));
    (stage, programs, before)
}

/// Does something to node `a`; all of it must be as before, in the kernel and for packets.
fn repaired(check: &str, lines: &[&str]) {
    if !can_run() {
        return;
    }
    let (stage, _programs, before) = working("vxlan");
    for line in lines {
        fault(&stage, &before, check, line);
    }
    stage.until_connected(&NODES);
}

/// Runs lines, with `;` between, and waits for the repair.
fn fault(stage: &Stage, before: &[String], check: &str, line: &str) {
    let node = stage.node("a");
    for command in line.split(';') {
        run(node, command.trim());
    }
    say(check, line, until_listed(node, before, Instant::now()));
}

/// The Ethernet address of a node's device.
fn mac(stage: &Stage, node: &str, device: &str) -> String {
    run(stage.node(node), &format!("cat /sys/class/net/{device}/address")).trim().to_owned()
}

#[test]
fn f1_a_deleted_route_neighbour_or_forwarding_entry_comes_back_one_by_one_and_together() {
    if !can_run() {
        return;
    }
    let (stage, _programs, before) = working("vxlan");
    let (v4, v6) = (mac(&stage, "b", DEVICES[0]), mac(&stage, "b", DEVICES[1]));
    let single = [
        "ip route del 10.244.2.0/24".to_owned(),
        "ip -6 route del fd00:244:0:2::/64".to_owned(),
        "ip neigh del 10.244.2.0 dev flannel.1".to_owned(),
        "ip -6 neigh del fd00:244:0:2:: dev flannel-v6.1".to_owned(),
        format!("bridge fdb del {v4} dev flannel.1 dst 192.168.50.2"),
        format!("bridge fdb del {v6} dev flannel-v6.1 dst fd00:50::2"),
    ];
    for line in &single {
        fault(&stage, &before, "F1", line);
    }
    fault(&stage, &before, "F1", &single.join("; "));
    stage.until_connected(&NODES);
}

#[test]
fn f2_an_overwritten_route_neighbour_or_forwarding_entry_is_put_right() {
    if !can_run() {
        return;
    }
    let (stage, _programs, before) = working("vxlan");
    let (v4, v6) = (mac(&stage, "b", DEVICES[0]), mac(&stage, "b", DEVICES[1]));
    let lines = [
        "ip route replace 10.244.2.0/24 via 192.168.50.9 dev eth0".to_owned(),
        "ip route replace blackhole 10.244.2.0/24".to_owned(),
        "ip -6 route replace fd00:244:0:2::/64 via fd00:50::9 dev eth0".to_owned(),
        "ip -6 route append fd00:244:0:2::/64 via fd00:50::9 dev eth0".to_owned(),
        "ip neigh replace 10.244.2.0 lladdr 0a:00:00:00:00:99 dev flannel.1 nud permanent".to_owned(),
        "ip neigh replace 10.244.2.0 lladdr 0a:00:00:00:00:99 dev flannel.1 nud reachable".to_owned(),
        "ip -6 neigh replace fd00:244:0:2:: lladdr 0a:00:00:00:00:99 dev flannel-v6.1 nud permanent".to_owned(),
        format!("bridge fdb replace {v4} dev flannel.1 dst 192.168.50.99"),
        format!("bridge fdb replace {v4} dev flannel.1 dst 192.168.50.2 port 9999"),
        format!("bridge fdb replace {v6} dev flannel-v6.1 dst fd00:50::99"),
        "bridge fdb append 0a:00:00:00:00:98 dev flannel.1 dst 192.168.50.98".to_owned(),
        "ip neigh add 10.244.98.0 lladdr 0a:00:00:00:00:98 dev flannel.1".to_owned(),
        "ip addr add 10.244.98.1/24 dev flannel.1".to_owned(),
        "ip addr del 10.244.1.0/32 dev flannel.1".to_owned(),
        "ip -6 addr del fd00:244:0:1::/128 dev flannel-v6.1".to_owned(),
    ];
    for line in &lines {
        fault(&stage, &before, "F2", line);
    }
    stage.until_connected(&NODES);
}

#[test]
fn f3_a_device_that_was_switched_off_and_on_carries_packets_again() {
    repaired(
        "F3",
        &[
            "ip link set flannel.1 down; ip link set flannel.1 up",
            "ip link set flannel-v6.1 down; ip link set flannel-v6.1 up",
            "ip link set flannel.1 down",
            "ip link set flannel-v6.1 down",
        ],
    );
}

#[test]
fn f4_a_deleted_device_comes_back_with_all_peers() {
    repaired(
        "F4",
        &["ip link del flannel.1", "ip link del flannel-v6.1", "ip link del flannel.1; ip link del flannel-v6.1"],
    );
}

#[test]
fn f4_a_device_made_again_by_others_with_other_properties_is_put_right() {
    if !can_run() {
        return;
    }
    let (stage, programs, before) = working("vxlan");
    for other in ["vxlan id 1 dev eth0 dstport 4789", "vxlan id 1 dev eth0 dstport 8472 group 239.1.1.1", "bridge"] {
        // Else it would be there again before the others come to it.
        programs[0].signal("STOP");
        run(stage.node("a"), "ip link del flannel.1");
        run(stage.node("a"), &format!("ip link add flannel.1 type {other}"));
        programs[0].signal("CONT");
        say("F4", &format!("flannel.1 is {other}"), until_listed(stage.node("a"), &before, Instant::now()));
    }
    stage.until_connected(&NODES);
}

/// Takes the cable out and puts it in again; the machine's network service restores addresses and routes.
fn flap(stage: &Stage, node: &str) {
    let place = stage.node(node);
    run(place, "ip link set eth0 down");
    run(place, "ip link set eth0 up");
    place.address_eth0(place.addresses()).or_else(|_| restore(place)).unwrap();
}

/// IPv4 addresses outlive the link.
fn restore(place: &fairlead_lab::Place) -> anyhow::Result<()> {
    place.ip("addr flush dev eth0 scope global")?;
    place.address_eth0(place.addresses())
}

#[test]
fn f5_the_network_card_goes_down_and_up() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "host-gw"] {
        let (stage, _programs, before) = working(backend);
        flap(&stage, "a");
        let took = until_listed(stage.node("a"), &before, Instant::now());
        say("F5", &format!("eth0 down and up, {backend}"), took);
        stage.until_connected(&NODES);
    }
}

#[test]
fn f6_the_network_card_is_replaced_by_another() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "host-gw"] {
        let (stage, _programs, before) = working(backend);
        stage.lab.unplug("a").unwrap();
        thread::sleep(Duration::from_millis(300));
        stage.lab.plug("a").unwrap();
        let took = until_listed(stage.node("a"), &before, Instant::now());
        say("F6", &format!("eth0 deleted and made again, {backend}"), took);
        stage.until_connected(&NODES);
    }
}

#[test]
fn f7_the_nodes_address_changes_and_the_peers_follow() {
    if !can_run() {
        return;
    }
    let (stage, _programs, _) = working("vxlan");
    let node = stage.node("a");
    let start = Instant::now();
    for line in [
        // With the first address of a network the others go.
        "ip addr del 192.168.50.1/24 dev eth0",
        "ip addr add 192.168.50.71/24 dev eth0",
        "ip -6 addr add fd00:50::71/64 dev eth0 nodad",
        "ip -6 addr del fd00:50::1/64 dev eth0",
        "ip route replace default via 192.168.50.254",
        "ip -6 route replace default via fd00:50::fe",
    ] {
        run(node, line);
    }
    eventually("the Node says the new addresses", || {
        stage.annotation("a", "public-ip") == "192.168.50.71" && stage.annotation("a", "public-ipv6") == "fd00:50::71"
    });
    stage.until_connected(&NODES);
    say("F7", "eth0 has other addresses", start.elapsed());
    assert!(run(node, "ip -d link show flannel.1").contains("local 192.168.50.71 dev eth0"));
    assert!(run(node, "ip -d link show flannel-v6.1").contains("local fd00:50::71 dev eth0"));
}

#[test]
fn f8_the_underlays_mtu_changes_and_the_tunnels_follow() {
    if !can_run() {
        return;
    }
    let (stage, _programs, before) = working("vxlan");
    let node = stage.node("a");
    let mtu = |device: &str| run(node, &format!("cat /sys/class/net/{device}/mtu")).trim().to_owned();
    run(node, "ip link set eth0 mtu 1400");
    let took =
        eventually("both devices leave room", || (mtu(DEVICES[0]), mtu(DEVICES[1])) == ("1350".into(), "1330".into()));
    say("F8", "eth0 has MTU 1400", took);
    run(node, "ip link set eth0 mtu 1500");
    say("F8", "eth0 has MTU 1500 again", until_listed(node, &before, Instant::now()));
    run(node, "ip link set flannel.1 mtu 1200");
    say("F8", "flannel.1 has MTU 1200", until_listed(node, &before, Instant::now()));
    stage.until_connected(&NODES);
}

#[test]
fn f9_the_devices_own_address_is_changed_and_changed_back() {
    repaired(
        "F9",
        &["ip link set flannel.1 address 0a:00:00:00:00:77", "ip link set flannel-v6.1 address 0a:00:00:00:00:77"],
    );
}

/// Another Node object for the machine of node `b`.
fn successor(stage: &Stage, name: &str) -> serde_json::Value {
    let mut node = stage.node_object("b");
    let metadata = node["metadata"].as_object_mut().unwrap();
    for field in ["uid", "creationTimestamp"] {
        metadata.remove(field);
    }
    node["metadata"]["name"] = json!(name);
    node
}

#[test]
fn f10_a_node_is_replaced_by_one_with_the_same_prefix_in_both_orders() {
    if !can_run() {
        return;
    }
    let (stage, mut programs, before) = working("vxlan");
    // Its agent would write its own Node again.
    programs.remove(1).kill();
    let hammer = Hammer::start(stage.lab.place("a1"), &targets(&stage, "b1")).unwrap();
    stage.apply([successor(&stage, "b-new")]);
    thread::sleep(Duration::from_millis(300));
    stage.server.delete("Node", "", "b").unwrap();
    thread::sleep(Duration::from_millis(300));
    let tally = hammer.stop();
    assert!(tally.failures.is_empty() && tally.successes > 0, "{:?}", tally.failures.first());
    assert_eq!(listing(stage.node("a")), before, "the new node has all that the old one had");
    let newest = {
        let mut node = stage.node_object("b-new");
        for field in ["uid", "creationTimestamp"] {
            node["metadata"].as_object_mut().unwrap().remove(field);
        }
        node["metadata"]["name"] = json!("b-newest");
        node
    };
    stage.server.delete("Node", "", "b-new").unwrap();
    eventually("the prefix has no owner", || listing(stage.node("a")) != before);
    stage.apply([newest]);
    say("F10", "deleted, then created", until_listed(stage.node("a"), &before, Instant::now()));
    stage.until_connected(&["a", "c"]);
    assert!(stage.reaches("a1", "b1", Family::V4) && stage.reaches("a1", "b1", Family::V6));
}

#[test]
fn f11_what_a_node_left_behind_that_was_deleted_meanwhile_goes_at_the_start() {
    if !can_run() {
        return;
    }
    let (stage, mut programs, _) = working("vxlan");
    programs.remove(0).terminate();
    programs.remove(1).kill();
    stage.server.delete("Node", "", "c").unwrap();
    let node = stage.node("a");
    assert!(listing(node).iter().any(|line| line.contains("10.244.3.0")), "nothing has gone yet");
    let start = Instant::now();
    programs.push(stage.launch("a", &["--overlay-backend=vxlan"]));
    let traces = ["10.244.3.0", "fd00:244:0:3::", "192.168.50.3", "fd00:50::3"];
    eventually("no trace of the deleted node is left", || {
        listing(node).iter().all(|line| traces.iter().all(|trace| !line.contains(trace)))
    });
    say("F11", "a peer was deleted while fairlead was stopped", start.elapsed());
    stage.until_connected(&["a", "b"]);
}

/// TCP and UDP, both families, to a pod.
fn targets(stage: &Stage, pod: &str) -> Vec<(Protocol, SocketAddr)> {
    let to = stage.lab.place(pod);
    let of =
        |family| [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, SocketAddr::new(to.addr(family), PORTS[0])));
    Family::BOTH.into_iter().flat_map(of).collect()
}

#[test]
fn f12_of_two_nodes_that_claim_one_prefix_the_older_keeps_it_and_the_operator_is_told() {
    if !can_run() {
        return;
    }
    let (stage, programs, before) = working("vxlan");
    let hammer = Hammer::start(stage.lab.place("a1"), &targets(&stage, "b1")).unwrap();
    let mut thief = successor(&stage, "thief");
    for (name, value) in [("public-ip", "192.168.50.66"), ("public-ipv6", "fd00:50::66")] {
        thief["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{name}")] = json!(value);
    }
    for name in ["backend-data", "backend-v6-data"] {
        let data = r#"{"VNI":1,"VtepMAC":"0a:00:00:00:00:66"}"#;
        thief["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{name}")] = json!(data);
    }
    stage.apply([thief]);
    programs[0].wait_for_line(&["Node thief", "its prefix 10.244.2.0/24", "b"]);
    eventually("a metric counts it", || programs[0].metric("fairlead_overlay_peers_refused", "") == 2.0);
    eventually("an Event says it", || stage.server.events().iter().any(|event| event["reason"] == "OverlayConflict"));
    assert_eq!(listing(stage.node("a")), before);
    let tally = hammer.stop();
    assert!(tally.failures.is_empty() && tally.successes > 0, "{:?}", tally.failures.first());
    stage.server.delete("Node", "", "thief").unwrap();
    eventually("the trouble is over", || programs[0].metric("fairlead_overlay_peers_refused", "") == 0.0);
}

#[test]
fn f13_a_node_that_gets_another_prefix_is_followed_by_itself_and_by_its_peers() {
    if !can_run() {
        return;
    }
    let (stage, _programs, _) = working("vxlan");
    let mut node = stage.node_object("c");
    node["spec"]["podCIDRs"] = json!(["10.244.40.0/21", "fd00:244:0:40::/64"]);
    let start = Instant::now();
    stage.apply([node]);
    let of_a = |text: &str| listing(stage.node("a")).iter().filter(|line| line.contains(text)).count();
    eventually("the peers follow", || {
        of_a("10.244.40.0/21 via 10.244.40.0 dev flannel.1 onlink") == 1
            && of_a("fd00:244:0:40::/64 via fd00:244:0:40:: dev flannel-v6.1") == 1
            && of_a("10.244.3.0") == 0
            && of_a("fd00:244:0:3::") == 0
    });
    let own = || run(stage.node("c"), "ip -o addr show dev flannel.1 scope global");
    eventually("the node itself follows", || own().contains("10.244.40.0/32") && !own().contains("10.244.3.0"));
    say("F13", "a node has another prefix", start.elapsed());
    stage.until_connected(&["a", "b"]);
}

#[test]
fn f14_a_bad_annotation_of_one_node_costs_that_node_alone() {
    if !can_run() {
        return;
    }
    let (stage, mut programs, before) = working("vxlan");
    programs.remove(2).kill();
    let mut node = stage.node_object("c");
    node["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-data"] = json!("{broken");
    stage.apply([node]);
    programs[0].wait_for_line(&["Node c", "annotation flannel.alpha.coreos.com/backend-data"]);
    eventually("the broken peer has no way", || {
        !listing(stage.node("a")).iter().any(|line| line.contains("10.244.3.0"))
    });
    assert!(programs[0].metric("fairlead_objects_rejected_total", "InvalidAnnotation") > 0.0);
    // While one is broken, the others are followed as fast as ever.
    let start = Instant::now();
    let mut other = stage.node_object("b");
    let right = other["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"].take();
    other["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"] = json!("192.168.50.55");
    programs.remove(1).kill();
    stage.apply([other.clone()]);
    eventually("a good peer is followed", || {
        listing(stage.node("a")).iter().any(|line| line.contains("dst 192.168.50.55"))
    });
    say("F14", "a good peer changes while another is broken", start.elapsed());
    other["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"] = right;
    stage.apply([other]);
    let _c = stage.launch("c", &["--overlay-backend=vxlan"]);
    say("F14", "the annotation is good again", until_listed(stage.node("a"), &before, Instant::now()));
}

#[test]
fn f15_while_the_api_server_is_away_the_kernel_stays_as_it_is_and_is_still_repaired() {
    if !can_run() {
        return;
    }
    let (stage, _programs, before) = working("vxlan");
    stage.server.set_fault(|faults| faults.refuse = true);
    let hammer = Hammer::start(stage.lab.place("a1"), &targets(&stage, "b1")).unwrap();
    // Longer than the timer after which everything is compared.
    thread::sleep(Duration::from_secs(11));
    assert_eq!(listing(stage.node("a")), before);
    let tally = hammer.stop();
    assert!(tally.failures.is_empty() && tally.successes > 0, "{:?}", tally.failures.first());
    fault(&stage, &before, "F15", "ip link del flannel.1");
    stage.server.clear_faults();
    stage.until_connected(&NODES);
}

#[test]
fn f16_no_packet_is_lost_when_the_program_ends_is_killed_or_starts_again() {
    if !can_run() {
        return;
    }
    let (stage, mut programs, before) = working("vxlan");
    let hammer = Hammer::start(stage.lab.place("a1"), &targets(&stage, "b1")).unwrap();
    let back = Hammer::start(stage.lab.place("b1"), &targets(&stage, "a1")).unwrap();
    for round in 0..3 {
        let program = programs.remove(0);
        if round == 0 {
            let _ = program.terminate();
        } else {
            program.kill()
        }
        thread::sleep(Duration::from_millis(200));
        assert_eq!(listing(stage.node("a")), before, "the kernel goes on alone");
        programs.insert(0, stage.launch("a", &["--overlay-backend=vxlan"]));
        programs[0].wait_until_ready();
    }
    for hammer in [hammer, back] {
        let tally = hammer.stop();
        assert!(tally.failures.is_empty() && tally.successes > 0, "{:?}", tally.failures.first());
    }
    assert_eq!(listing(stage.node("a")), before);
    assert_eq!(programs[0].metric("fairlead_overlay_writes_total", ""), 0.0, "there was nothing to write");
    assert!(output(stage.node("a"), "ip link show flannel.1").status.success());
}
