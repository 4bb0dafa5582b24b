//! F10 to F16: Nodes that are replaced, contradict each other or themselves, an API server that is away, and a program that
//! ends.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fairlead_lab::{Hammer, PORTS};
use fairlead_plan::{Family, Protocol};
use serde_json::json;

use super::faults::{NODES, fault, working};
use super::stage::{Stage, can_run, listing, output, run, say, until_listed};
use crate::program::eventually;

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
    stage.until_connected(&NODES);
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
    let start = Instant::now();
    stage.apply([thief]);
    programs[0].wait_for_line(&["Node thief", "its prefix 10.244.2.0/24", "b"]);
    eventually("a metric counts it", || programs[0].metric("fairlead_overlay_peers_refused", "") == 2.0);
    eventually("an Event says it", || stage.server.events().iter().any(|event| event["reason"] == "OverlayConflict"));
    say("F12", "two nodes claim one prefix, nothing changed but for words", start.elapsed());
    assert_eq!(listing(stage.node("a")), before);
    let tally = hammer.stop();
    assert!(tally.failures.is_empty() && tally.successes > 0, "{:?}", tally.failures.first());
    stage.server.delete("Node", "", "thief").unwrap();
    let over = || programs[0].metric("fairlead_overlay_peers_refused", "") == 0.0;
    say("F12", "the second one is gone", eventually("the trouble is over", over));
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
            assert!(program.terminate().success());
        } else {
            program.kill();
        }
        thread::sleep(Duration::from_millis(200));
        assert_eq!(listing(stage.node("a")), before, "the kernel goes on alone");
        programs.insert(0, stage.launch("a", &["--overlay-backend=vxlan"]));
        let took = programs[0].wait_until_ready();
        say("F16", if round == 0 { "ended" } else { "killed" }, took);
    }
    for hammer in [hammer, back] {
        let tally = hammer.stop();
        assert!(tally.failures.is_empty() && tally.successes > 0, "{:?}", tally.failures.first());
    }
    assert_eq!(listing(stage.node("a")), before);
    assert_eq!(programs[0].metric("fairlead_overlay_writes_total", ""), 0.0, "there was nothing to write");
    assert!(output(stage.node("a"), "ip link show flannel.1").status.success());
}

#[test]
fn a_peer_that_the_kernel_refuses_is_tried_again_and_holds_up_nobody() {
    if !can_run() {
        return;
    }
    let (stage, programs, before) = working("vxlan");
    let node = stage.node("a");
    // An IPv6 gateway must not lie behind another interface.
    run(node, "ip -6 route add fd00:244:0:3::/65 via fd00:50::9 dev eth0");
    run(node, "ip -6 route del fd00:244:0:3::/64 proto 76");
    programs[0].wait_for_line(&["Node c", "the kernel refuses the way to its pods", "tried again"]);
    eventually("a metric counts it", || programs[0].metric("fairlead_overlay_peers_failing", "") == 1.0);
    eventually("an Event says it", || stage.server.events().iter().any(|event| event["reason"] == "OverlayRefused"));
    // Everybody else is repaired meanwhile.
    run(node, "ip route del 10.244.3.0/24");
    run(node, "ip -6 route del fd00:244:0:2::/64");
    let missing = |text: &str| !listing(node).iter().any(|line| line.starts_with(text));
    eventually("the others are back", || !missing("10.244.3.0/24") && !missing("fd00:244:0:2::/64"));
    assert!(missing("fd00:244:0:3::/64"));
    run(node, "ip -6 route del fd00:244:0:3::/65");
    until_listed(node, &before, Instant::now());
    eventually("nobody is refused any more", || programs[0].metric("fairlead_overlay_peers_failing", "") == 0.0);
    stage.until_connected(&NODES);
}
