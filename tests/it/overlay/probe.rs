//! `fairlead overlay probe`: every cause is produced for real, in both families.

use fairlead_plan::Family;
use serde_json::{Value, json};

use super::stage::{DEVICES, Stage, can_run, run};
use crate::program;

const NODES: [&str; 3] = ["a", "b", "c"];
/// An Ethernet address that nobody has.
const NOBODY: &str = "02:00:00:00:00:66";

/// What the command prints as JSON on node `a`, and whether it says that all is well.
fn findings(stage: &Stage) -> (Vec<Value>, bool) {
    let items = NODES.map(|name| stage.node_object(name));
    let nodes = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let file = stage.directory.write("nodes.json", &nodes.to_string()).display().to_string();
    let output = program::run(stage.node("a"), &["overlay", "probe", "--json", "-f", &file]);
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{said}")), output.status.success())
}

/// Both families of node `b` have this problem, of which the sentence has these words, and node `c` none.
fn only_b_is_wrong(stage: &Stage, cause: &str, words: &[&[&str]; 2]) -> Vec<Value> {
    let (found, well) = findings(stage);
    assert!(!well, "{found:#?}");
    for family in Family::BOTH {
        let of = |node: &str| {
            let prefix = json!(stage.node(node).pod_cidrs()[family as usize]);
            found.iter().find(|one| one["prefix"] == prefix).unwrap_or_else(|| panic!("{node}: {found:#?}"))
        };
        assert_eq!(of("b")["cause"], json!(cause), "{:#?}", of("b"));
        let problem = of("b")["problem"].as_str().unwrap();
        eprintln!("{cause}, {}: {problem}", family.label());
        for word in words[family as usize] {
            assert!(problem.contains(word), "{word:?} is not in {problem:?}");
        }
        assert_eq!((&of("c")["cause"], &of("c")["arrives"]), (&Value::Null, &of("c")["mtu"]), "{:#?}", of("c"));
    }
    found
}

fn mac(stage: &Stage, node: &str, family: Family) -> String {
    run(stage.node(node), &format!("cat /sys/class/net/{}/address", DEVICES[family as usize])).trim().to_owned()
}

/// Makes `here` believe that the device of `there` has an Ethernet address that nobody has.
fn mislead(stage: &Stage, here: &str, there: &str) {
    for family in Family::BOTH {
        let (device, base) = (DEVICES[family as usize], &stage.node(there).pod_bases()[family as usize]);
        let end = stage.node(there).addr(family);
        let node = stage.node(here);
        run(node, &format!("bridge fdb del {} dev {device} dst {end}", mac(stage, there, family)));
        run(node, &format!("bridge fdb add {NOBODY} dev {device} dst {end}"));
        run(node, &format!("ip neigh replace {base} lladdr {NOBODY} dev {device} nud permanent"));
    }
}

#[test]
fn every_peer_answers_small_packets_and_those_of_the_whole_mtu() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "vxlan-lwt", "direct-routing"] {
        let stage = Stage::new();
        let _programs = stage.start(&NODES, backend);
        let (found, well) = findings(&stage);
        assert!(well && found.len() == 4, "{backend}: {found:#?}");
        for one in &found {
            let full = one["arrives"] == one["mtu"] && one["mtu"].as_u64() >= Some(1430);
            assert!(full && one["milliseconds"].as_f64() > Some(0.0) && one["node"].is_string(), "{one:#?}");
        }
        let output = program::run(stage.node("a"), &["overlay", "probe"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.starts_with("PREFIX  ") && text.lines().count() == 5, "{text}");
    }
}

#[test]
fn ac3_13_a_blocked_tunnel_port_is_told() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&NODES, "vxlan");
    let node = stage.node("b");
    run(node, "nft add table inet block");
    run(node, "nft add chain inet block input { type filter hook input priority -300 ; }");
    run(node, "nft add rule inet block input udp dport 8472 drop");
    let words: [&[&str]; 2] = [&["192.168.50.2 answers", "UDP port 8472"], &["fd00:50::2 answers", "UDP port 8472"]];
    only_b_is_wrong(&stage, "udp-blocked", &words);
    let output = program::run(stage.node("a"), &["overlay", "probe", "--timeout=200ms"]);
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("UDP port 8472 is blocked"), "{text}");
    assert_eq!((output.status.code(), said.contains("2 of 4 ways")), (Some(1), true), "{said}");
}

#[test]
fn a_way_that_is_narrower_than_the_interfaces_say_is_told_with_the_size_that_arrives() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&NODES, "vxlan");
    // The card drops what is larger without a word, as a switch does.
    run(stage.node("b"), "ip link set eth0 mtu 1400");
    let found =
        only_b_is_wrong(&stage, "mtu", &[&["packets up to 135", "of 1450 none"], &["packets up to 133", "of 1430"]]);
    // A virtual card lets 4 bytes more pass, for the tag of a VLAN.
    for (prefix, fits) in [("10.244.2.0/24", 1350..=1354), ("fd00:244:0:2::/64", 1330..=1334)] {
        let one = found.iter().find(|one| one["prefix"] == json!(prefix)).unwrap();
        assert!(fits.contains(&one["arrives"].as_u64().unwrap()), "{one:#?}");
    }
}

#[test]
fn a_wrong_ethernet_address_here_is_told_with_the_right_one() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut programs = stage.start(&NODES, "vxlan");
    programs.remove(0).kill();
    mislead(&stage, "a", "b");
    let (v4, v6) = (mac(&stage, "b", Family::V4), mac(&stage, "b", Family::V6));
    // Nodes given as files would tell it before any packet.
    let output = program::run(stage.node("a"), &["overlay", "probe", "--json"]);
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    for (prefix, mac) in [("10.244.2.0/24", &v4), ("fd00:244:0:2::/64", &v6)] {
        let one = found.iter().find(|one| one["prefix"] == json!(prefix)).unwrap();
        let problem = one["problem"].as_str().unwrap_or_default();
        assert_eq!(one["cause"], json!("wrong-mac"), "{one:#?}");
        assert!(problem.contains(&format!("has the Ethernet address {mac}")) && problem.contains(NOBODY), "{problem}");
    }
    only_b_is_wrong(&stage, "drift", &[&["its Node says", &v4], &["its Node says", &v6]]);
}

#[test]
fn a_wrong_ethernet_address_at_the_peer_is_told() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut programs = stage.start(&NODES, "vxlan");
    programs.remove(1).kill();
    mislead(&stage, "b", "a");
    let ours = Family::BOTH.map(|family| mac(&stage, "a", family));
    only_b_is_wrong(&stage, "wrong-mac", &[&[NOBODY, &ours[0]], &[NOBODY, &ours[1]]]);
}

#[test]
fn a_node_without_an_overlay_a_filter_for_echoes_and_a_node_that_is_down_are_told_apart() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut programs = stage.start(&NODES, "vxlan");
    let node = stage.node("b");
    run(node, "nft add table inet block");
    run(node, "nft add chain inet block input { type filter hook input priority -300 ; }");
    run(node, "nft add rule inet block input icmp type echo-request drop");
    run(node, "nft add rule inet block input icmpv6 type echo-request drop");
    only_b_is_wrong(&stage, "icmp-blocked", &[&["the tunnel works"]; 2]);
    run(node, "nft delete table inet block");
    programs.remove(1).kill();
    DEVICES.iter().for_each(|device| _ = run(node, &format!("ip link del {device}")));
    only_b_is_wrong(&stage, "nobody-listens", &[&["UDP port 8472"]; 2]);
    run(node, "ip link set eth0 down");
    only_b_is_wrong(&stage, "unreachable", &[&["192.168.50.2 itself"], &["fd00:50::2 itself"]]);
}

#[test]
fn without_tunnels_the_other_node_is_asked_and_another_route_before_ours_is_told() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut programs = stage.start(&NODES, "host-gw");
    let (found, well) = findings(&stage);
    assert!(well && found.iter().all(|one| one["arrives"] == json!(1500)), "{found:#?}");
    programs.remove(1).kill();
    let node = stage.node("b");
    run(node, "sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    only_b_is_wrong(&stage, "not-forwarded", &[&["ip_forward"]; 2]);
    run(node, "sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    // More specific than the prefix of the peer: nobody's business but the operator's.
    run(stage.node("a"), "ip route add 10.244.2.0/25 via 192.168.50.3");
    run(stage.node("a"), "ip -6 route add fd00:244:0:2::/80 via fd00:50::3");
    only_b_is_wrong(&stage, "route", &[&["10.244.2.0/25 through eth0"], &["fd00:244:0:2::/80 through eth0"]]);
}
