//! The nexthop objects of mode `vxlan-lwt`: what others do to them, restarts, and nodes whose routes pack by themselves.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fairlead_lab::{Hammer, PORTS};
use fairlead_plan::{Family, Protocol};
use serde_json::json;

use super::faults::{NODES, fault, working};
use super::stage::{PROTOCOL, Stage, can_run, listing, output, run, say, until_listed};
use crate::program::{self, Program, eventually};

const FLAGS: [&str; 1] = ["--overlay-backend=vxlan-lwt"];
/// The prefixes of node `b`, and where its tunnels end.
const B: [(&str, &str, &str); 2] =
    [("10.244.2.0/24", "10.244.2.0", "192.168.50.2"), ("fd00:244:0:2::/64", "fd00:244:0:2::", "fd00:50::2")];

/// The number of the object through which the route to a prefix of `b` leads on node `a`.
fn number(stage: &Stage, family: Family) -> u32 {
    let (prefix, ..) = B[family as usize];
    let line = run(stage.node("a"), &format!("ip {} route show {prefix} proto {PROTOCOL}", flag(family)));
    let (_, rest) = line.split_once(" nhid ").unwrap_or_else(|| panic!("{line}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

const fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// An object or route as it should be but for where the tunnel ends, in the words of `ip`.
fn packed(family: Family, end: &str) -> String {
    let (_, base, _) = B[family as usize];
    match family {
        Family::V4 => format!("via {base} dev flannel.1 onlink encap ip id 1 dst {end}"),
        Family::V6 => format!("via {base} dev flannel.1 onlink encap ip6 id 1 dst {end} csum"),
    }
}

/// UDP in both families from a pod of `a` to one of `b`.
fn hammer(stage: &Stage) -> Hammer {
    let to = stage.lab.place("b1");
    let targets = Family::BOTH.map(|family| (Protocol::Udp, SocketAddr::new(to.addr(family), PORTS[0])));
    Hammer::start(stage.lab.place("a1"), &targets).unwrap()
}

/// No packet was lost.
fn spared(hammer: Hammer) {
    let tally = hammer.stop();
    assert!(tally.failures.is_empty() && tally.successes > 0, "{:?}", tally.failures.first());
}

#[test]
fn f1_to_f4_nexthop_objects_and_their_routes_are_put_right() {
    if !can_run() {
        return;
    }
    let (stage, programs, before) = working("vxlan-lwt");
    let mut lines = vec![
        format!("ip nexthop flush proto {PROTOCOL}"),
        format!("ip nexthop add id 77 via 10.244.77.0 dev flannel.1 onlink proto {PROTOCOL}"),
        "ip neigh del 10.244.2.0 dev flannel.1".to_owned(),
        "ip neigh replace 10.244.2.0 lladdr 0a:00:00:00:00:99 dev flannel.1 nud permanent".to_owned(),
        "ip link set flannel.1 down".to_owned(),
        "ip link set flannel.1 down; ip link set flannel.1 up".to_owned(),
        "ip link del flannel.1".to_owned(),
    ];
    for (family, wrong, elsewhere) in
        [(Family::V4, "192.168.50.99", "192.168.50.9"), (Family::V6, "fd00:50::99", "fd00:50::9")]
    {
        let (id, ip, (net, ..)) = (number(&stage, family), flag(family), B[family as usize]);
        lines.extend([
            format!("ip nexthop del id {id}"),
            format!("ip nexthop del id {id}; ip {ip} route replace {net} via {elsewhere} dev eth0"),
            format!("ip nexthop replace id {id} {} proto {PROTOCOL}", packed(family, wrong)),
            format!("ip nexthop replace id {id} via {elsewhere} dev eth0 proto {PROTOCOL}"),
            format!("ip {ip} nexthop replace id {id} blackhole proto {PROTOCOL}"),
            format!("ip {ip} route del {net}"),
            format!("ip {ip} route replace {net} via {elsewhere} dev eth0"),
            format!("ip {ip} route replace blackhole {net}"),
            format!("ip {ip} route replace {net} {}", packed(family, wrong)),
        ]);
    }
    for line in &lines {
        fault(&stage, &before, "F1 to F4, vxlan-lwt", line);
    }
    assert!(programs[0].metric("fairlead_overlay_repairs_total", "nexthop") >= 8.0);
    programs[0].wait_for_line(&["overlay: repaired", "nexthops"]);
    stage.until_connected(&NODES);
}

#[test]
fn an_object_that_somebody_else_has_taken_is_left_to_him_and_another_is_made() {
    if !can_run() {
        return;
    }
    let (stage, programs, before) = working("vxlan-lwt");
    let node = stage.node("a");
    for (family, wrong) in [(Family::V4, "192.168.50.99"), (Family::V6, "fd00:50::99")] {
        let id = number(&stage, family);
        let start = Instant::now();
        run(node, &format!("ip nexthop replace id {id} {}", packed(family, wrong)));
        say("F2", "an object is somebody else's", until_listed(node, &before, start));
        programs[0].wait_for_line(&["nexthop object", &id.to_string(), "somebody else's"]);
        let foreign = run(node, &format!("ip nexthop show id {id}"));
        assert!(foreign.contains(wrong), "it is as he left it: {foreign}");
        assert_ne!(number(&stage, family), id);
    }
    stage.until_connected(&NODES);
}

#[test]
fn numbers_stay_over_a_restart_also_where_somebody_else_has_the_first_choice() {
    if !can_run() {
        return;
    }
    let (stage, mut programs, before) = working("vxlan-lwt");
    let node = stage.node("a");
    let first = Family::BOTH.map(|family| number(&stage, family));
    let restart = |programs: &mut Vec<Program>| {
        programs.remove(0).kill();
        programs.insert(0, stage.launch("a", &FLAGS));
        programs[0].wait_until_ready();
    };
    restart(&mut programs);
    assert_eq!(Family::BOTH.map(|family| number(&stage, family)), first);
    assert_eq!(programs[0].metric("fairlead_overlay_writes_total", ""), 0.0, "there was nothing to write");
    // Somebody is there before us.
    programs.remove(0).kill();
    for id in first {
        run(node, &format!("ip nexthop del id {id}"));
    }
    run(node, &format!("ip nexthop add id {} via 192.168.50.3 dev eth0 proto static", first[0]));
    run(node, &format!("ip nexthop add id {} blackhole", first[1]));
    let foreign = || first.map(|id| run(node, &format!("ip nexthop show id {id}")));
    let theirs = foreign();
    programs.insert(0, stage.launch("a", &FLAGS));
    programs[0].wait_until_ready();
    until_listed(node, &before, Instant::now());
    stage.until_connected(&NODES);
    let second = Family::BOTH.map(|family| number(&stage, family));
    assert!(first.iter().all(|id| !second.contains(id)), "{first:?} {second:?}");
    for id in first {
        run(node, &format!("ip nexthop del id {id}"));
    }
    let hammer = hammer(&stage);
    restart(&mut programs);
    spared(hammer);
    assert_eq!(Family::BOTH.map(|family| number(&stage, family)), second, "although the first choice is free again");
    assert_eq!(programs[0].metric("fairlead_overlay_writes_total", ""), 0.0, "there was nothing to write");
    assert!(theirs[0].contains("192.168.50.3") && theirs[1].contains("blackhole"), "{theirs:?}");
}

#[test]
fn a_node_whose_routes_pack_by_themselves_is_converted_without_losing_a_packet() {
    if !can_run() {
        return;
    }
    let (stage, mut programs, before) = working("vxlan-lwt");
    let node = stage.node("a");
    programs.remove(0).kill();
    let hammer = hammer(&stage);
    for number in [2, 3] {
        let (v4, v6) = (format!("10.244.{number}.0"), format!("fd00:244:0:{number}::"));
        for line in [
            format!("{v4}/24 via {v4} dev flannel.1 onlink encap ip id 1 dst 192.168.50.{number}"),
            format!("{v6}/64 via {v6} dev flannel.1 onlink encap ip6 id 1 dst fd00:50::{number} csum"),
        ] {
            run(node, &format!("ip route replace {line} proto {PROTOCOL}"));
        }
    }
    run(node, &format!("ip nexthop flush proto {PROTOCOL}"));
    let inline = listing(node);
    assert!(inline.iter().all(|line| !line.contains("object")), "{inline:#?}");
    hammer.wait_for(200);
    programs.insert(0, stage.launch("a", &FLAGS));
    programs[0].wait_until_ready();
    until_listed(node, &before, Instant::now());
    hammer.wait_for(200);
    spared(hammer);
}

#[test]
fn a_peer_gets_another_address_without_losing_a_packet() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    // Answers still come from the old address.
    let flags = [FLAGS[0], "--overlay-peer-filter=false"];
    let programs = stage.start_with(&["a", "b"], &flags);
    let node = stage.node("b");
    run(node, "ip addr add 192.168.50.72/24 dev eth0");
    run(node, "ip -6 addr add fd00:50::72/64 dev eth0 nodad");
    let hammer = hammer(&stage);
    let ids = Family::BOTH.map(|family| number(&stage, family));
    for round in 0..10 {
        let (v4, v6) = if round % 2 == 0 { ("192.168.50.72", "fd00:50::72") } else { ("192.168.50.2", "fd00:50::2") };
        let mut object = stage.node_object("b");
        for (name, value) in [("public-ip-overwrite", v4), ("public-ipv6-overwrite", v6)] {
            object["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{name}")] = json!(value);
        }
        stage.apply([object]);
        eventually("the peer follows", || {
            let lines = listing(stage.node("a"));
            [v4, v6].iter().all(|end| {
                lines.iter().any(|line| line.starts_with("object") && line.contains(&format!("destination: {end},")))
            })
        });
        hammer.wait_for(20);
    }
    spared(hammer);
    assert_eq!(Family::BOTH.map(|family| number(&stage, family)), ids, "each has kept its number");
    assert!(programs[0].metric("fairlead_overlay_change_seconds_count", "") > 0.0);
}

#[test]
fn commands_tell_what_is_behind_a_number_also_where_routes_say_the_number_alone() {
    if !can_run() {
        return;
    }
    let (stage, mut programs, _) = working("vxlan-lwt");
    let node = stage.node("a");
    for compatible in ["1", "0"] {
        run(node, &format!("sysctl -w net.ipv4.nexthop_compat_mode={compatible}"));
        for family in Family::BOTH {
            let (prefix, base, end) = B[family as usize];
            let output = program::run(node, &["overlay", "list", "--json"]);
            let ways: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
            let way = ways.iter().find(|way| way["prefix"] == prefix).unwrap_or_else(|| panic!("{ways:#?}"));
            assert_eq!((&way["mode"], &way["underlay"], &way["vni"]), (&json!("vxlan-lwt"), &json!(end), &json!(1)));
            assert!(output.status.success() && way["drift"] == json!([]), "{way:#?}");
            let pod = stage.lab.place("b1").addr(family).to_string();
            let trace = program::run(node, &["overlay", "trace", &pod]);
            let text = String::from_utf8(trace.stdout).unwrap();
            for words in [
                format!("{prefix} nhid {} via {base} dev flannel.1", number(&stage, family)),
                format!("encap id 1 dst {end}"),
            ] {
                assert!(trace.status.success() && text.contains(&words), "{words}: {text}");
            }
        }
    }
    // Else it would be right again before anybody looks.
    programs.remove(0).kill();
    let id = number(&stage, Family::V4);
    run(node, &format!("ip nexthop replace id {id} {}", packed(Family::V4, "192.168.50.99")));
    run(node, &format!("ip -6 route del {}", B[1].0));
    let output = program::run(node, &["overlay", "list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && text.contains(&format!("the nexthop object {id} is not fairlead's")), "{text}");
    assert!(text.contains("192.168.50.99") && text.contains("no route leads through the nexthop object"), "{text}");
}

#[test]
fn an_ipv6_route_of_others_that_covers_the_gateway_of_a_new_object_is_replaced() {
    if !can_run() {
        return;
    }
    let (stage, mut programs, before) = working("vxlan-lwt");
    let node = stage.node("a");
    programs.remove(0).kill();
    let (net, ..) = B[1];
    run(node, &format!("ip nexthop del id {}", number(&stage, Family::V6)));
    run(node, &format!("ip -6 route add {net} via fd00:50::2 dev eth0"));
    assert!(!output(node, &format!("ip nexthop add id 9 {}", packed(Family::V6, "fd00:50::2"))).status.success());
    programs.insert(0, stage.launch("a", &FLAGS));
    programs[0].wait_until_ready();
    say("F2", "a route covers the gateway", until_listed(node, &before, Instant::now()));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(programs[0].metric("fairlead_overlay_peers_failing", ""), 0.0);
    stage.until_connected(&NODES);
}

#[test]
fn an_interface_is_found_by_a_default_route_that_says_a_number_alone() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let node = stage.node("a");
    run(node, "sysctl -w net.ipv4.nexthop_compat_mode=0");
    for (ip, id, gateway) in [("ip", 1, "192.168.50.254"), ("ip -6", 2, "fd00:50::fe")] {
        run(node, &format!("{ip} nexthop add id {id} via {gateway} dev eth0"));
        run(node, &format!("{ip} route del default"));
        run(node, &format!("{ip} route add default nhid {id}"));
    }
    let _programs = stage.start(&["a", "b"], "vxlan-lwt");
    assert!(run(node, "ip nexthop show").contains("via 192.168.50.254 dev eth0"));
}
