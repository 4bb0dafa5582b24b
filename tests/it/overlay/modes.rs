//! The other backends, and changes from one to another on live nodes.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use fairlead_lab::{Hammer, PORTS};
use fairlead_plan::{Family, Protocol};

use super::reach::at_full_size;
use super::stage::{DEVICES, PROTOCOL, Stage, can_run, listing, output, run, say};
use crate::program::eventually;

const NODES: [&str; 3] = ["a", "b", "c"];
/// Connections of a hammer that are open at a time, two for each of two targets, once for each of two nodes that change.
const UNDER_WAY: usize = 8;

/// Puts a router between the switch and node `c`: the others reach it only through its link's other side.
fn move_to_another_link(stage: &Stage, node: &str) {
    let place = stage.node(node);
    for line in [
        "ip addr flush dev eth0 scope global",
        "ip addr add 192.168.60.3/32 dev eth0",
        "ip -6 addr add fd00:60::3/128 dev eth0 nodad",
    ] {
        run(place, line);
    }
    // The node `a` is its router: one link, two networks.
    let (a4, a6) = (stage.node("a").addr(Family::V4), stage.node("a").addr(Family::V6));
    for line in [
        format!("ip route add {a4}/32 dev eth0"),
        format!("ip -6 route add {a6}/128 dev eth0"),
        format!("ip route replace default via {a4}"),
        format!("ip -6 route replace default via {a6}"),
    ] {
        run(place, &line);
    }
    run(stage.node("a"), "ip route add 192.168.60.3/32 dev eth0");
    run(stage.node("a"), "ip -6 route add fd00:60::3/128 dev eth0");
    for other in ["b", "api"] {
        let other = stage.lab.place(other);
        run(other, &format!("ip route add 192.168.60.3/32 via {a4}"));
        run(other, &format!("ip -6 route add fd00:60::3/128 via {a6}"));
    }
}

fn routes(stage: &Stage, node: &str, words: &str) -> usize {
    listing(stage.node(node)).iter().filter(|line| line.contains(words)).count()
}

#[test]
fn ac1_2_in_mode_host_gw_pods_have_the_whole_mtu_and_there_is_no_device() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let node = stage.node("a");
    let forwarding = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
    for setting in forwarding {
        run(node, &format!("sysctl -w {setting}=0"));
    }
    let _programs = stage.start(&NODES, "host-gw");
    at_full_size(&stage, 1500);
    assert!(DEVICES.iter().all(|device| !output(node, &format!("ip link show {device}")).status.success()));
    let is_on = |setting: &str| run(node, &format!("sysctl -n {setting}")).trim() == "1";
    assert!(forwarding.iter().all(|setting| is_on(setting)));
    for setting in forwarding {
        run(node, &format!("sysctl -w {setting}=0"));
        let took = eventually("packets are forwarded again", || is_on(setting));
        say("sysctl", &format!("{setting} was 0"), took);
    }
    assert_eq!(stage.annotation("a", "backend-type"), "host-gw");
    assert_eq!(stage.annotation("a", "backend-data"), "null");
}

#[test]
fn ac2_5_in_mode_vxlan_lwt_a_neighbour_and_a_nexthop_object_reach_each_peer_at_the_full_mtu() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&NODES, "vxlan-lwt");
    at_full_size(&stage, 1430);
    let node = stage.node("a");
    assert!(run(node, "ip -d link show flannel.1").contains("vxlan external vnifilter"));
    assert_eq!(run(node, "bridge fdb show dev flannel.1"), "", "there are no forwarding entries");
    for family in ["-4", "-6"] {
        let routes = run(node, &format!("ip {family} route show proto {PROTOCOL}"));
        assert!(routes.lines().count() == 2 && routes.lines().all(|line| line.contains(" nhid ")), "{routes}");
    }
    let objects = run(node, &format!("ip nexthop show proto {PROTOCOL}"));
    assert!(objects.contains("encap ip id 1 src 0.0.0.0 dst 192.168.50.2"), "{objects}");
    assert!(objects.contains("encap ip6 id 1 src :: dst fd00:50::3") && objects.lines().count() == 4, "{objects}");
    assert!(!output(node, "ip link show flannel-v6.1").status.success());
}

#[test]
fn nodes_with_forwarding_entries_and_nodes_with_encapsulating_routes_form_one_overlay() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    // IPv6 of flannel's kind has a device of its own; an external one has the same Ethernet address for both.
    let _programs = [("a", "vxlan"), ("b", "vxlan-lwt"), ("c", "direct-routing")]
        .map(|(node, backend)| stage.launch(node, &[&format!("--overlay-backend={backend}")]));
    stage.until_connected(&NODES);
}

#[test]
fn in_mode_direct_routing_peers_on_the_link_are_routed_to_and_others_tunnelled_and_that_follows() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&NODES, "direct-routing");
    assert_eq!(routes(&stage, "b", "via 192.168.50.3 dev eth0"), 1);
    assert_eq!(routes(&stage, "b", "via fd00:50::3 dev eth0"), 1);
    move_to_another_link(&stage, "c");
    eventually("b tunnels to c, which is on another link now", || {
        routes(&stage, "b", "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink") == 1
            && routes(&stage, "b", "via fd00:244:0:3:: dev flannel-v6.1 onlink") == 1
    });
    assert_eq!(routes(&stage, "a", "via 192.168.60.3 dev eth0"), 1, "a has it on its link");
    stage.until_connected(&NODES);
    // Back again: neither neighbour nor forwarding entry is left behind.
    let place = stage.node("c");
    run(place, "ip addr flush dev eth0 scope global");
    place.address_eth0(place.addresses()).unwrap();
    eventually("b routes to c again", || routes(&stage, "b", "via 192.168.50.3 dev eth0") == 1);
    eventually("b routes to c again over IPv6", || routes(&stage, "b", "via fd00:50::3 dev eth0") == 1);
    eventually("nothing of the tunnel is left", || {
        routes(&stage, "b", "dst 192.168.60.3") + routes(&stage, "b", "10.244.3.0 lladdr") == 0
    });
    stage.until_connected(&NODES);
}

#[test]
fn a_change_of_mode_on_live_nodes_costs_at_most_the_packets_under_way() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut programs = stage.start(&["a", "b"], "vxlan");
    let to = stage.lab.place("b1");
    for backend in ["host-gw", "vxlan", "vxlan-lwt", "host-gw", "vxlan-lwt", "direct-routing", "vxlan"] {
        let targets = Family::BOTH.map(|family| (Protocol::Udp, SocketAddr::new(to.addr(family), PORTS[0])));
        let hammer = Hammer::start(stage.lab.place("a1"), &targets).unwrap();
        for (at, node) in ["a", "b"].into_iter().enumerate() {
            programs.remove(at).terminate();
            programs.insert(at, stage.launch(node, &[&format!("--overlay-backend={backend}")]));
            programs[at].wait_until_ready();
            thread::sleep(Duration::from_millis(200));
        }
        stage.until_connected(&["a", "b"]);
        let tally = hammer.stop();
        let begun = || tally.failures.iter().map(|failure| failure.began);
        // From the first packet without an answer to the last, both nodes' changes in between.
        let gap = begun().max().unwrap_or_default().saturating_sub(begun().min().unwrap_or_default());
        say("mode switch", &format!("to {backend} ({} of {} lost)", tally.failures.len(), tally.successes), gap);
        // A connection without an answer waits longer than any switch takes, so none fails twice for one.
        assert!(tally.successes > 0 && tally.failures.len() <= UNDER_WAY, "{:#?}", tally.failures);
    }
    let rest = listing(stage.node("a"));
    assert!(rest.iter().any(|line| line.contains("10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink")), "{rest:#?}");
}

#[test]
fn a_backend_that_is_not_there_is_refused_in_one_sentence_that_says_what_to_use() {
    for (backend, words) in [
        ("wireguard", "use vxlan"),
        ("ipsec", "use vxlan"),
        ("udp", "use vxlan"),
        ("ipip", "use vxlan"),
        ("geneve", "use vxlan"),
    ] {
        let output = crate::program::run_here(&[&format!("--overlay-backend={backend}"), "--hostname-override=a"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.lines().count() == 1 && said.contains(backend) && said.contains(words), "{said}");
    }
}

#[test]
fn flannels_configuration_file_says_network_number_port_and_mtu() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let conf = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:244::/32",
        "Backend": {"Type": "vxlan", "VNI": 42, "Port": 4789, "MTU": 1400}}"#;
    let path = stage.directory.write("net-conf.json", conf);
    let flag = format!("--net-config-path={}", path.display());
    let programs = ["a", "b"].map(|node| stage.launch(node, &[&flag]));
    programs.iter().for_each(|program| _ = program.wait_until_ready());
    stage.until_connected(&["a", "b"]);
    let link = run(stage.node("a"), "ip -d link show flannel.42");
    assert!(link.contains("mtu 1350") && link.contains("vxlan id 42") && link.contains("dstport 4789"), "{link}");
    assert!(run(stage.node("a"), "ip -d link show flannel-v6.42").contains("mtu 1330"));
}

#[test]
fn with_manifests_the_annotations_of_node_files_serve_the_same() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let manifests = crate::program::Directory::new();
    for (name, number) in [("a", 1), ("b", 2)] {
        let mut node = stage.node_object(name);
        for (key, value) in [
            ("kube-subnet-manager", "true".to_owned()),
            ("backend-type", "vxlan".to_owned()),
            ("public-ip", format!("192.168.50.{number}")),
            ("public-ipv6", format!("fd00:50::{number}")),
            ("backend-data", format!(r#"{{"VNI":1,"VtepMAC":"0a:00:00:00:00:0{number}"}}"#)),
            ("backend-v6-data", format!(r#"{{"VNI":1,"VtepMAC":"0a:00:00:00:06:0{number}"}}"#)),
        ] {
            node["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{key}")] = value.into();
        }
        manifests.write(&format!("{name}.json"), &node.to_string());
    }
    let flag = format!("--manifests={}", manifests.path().display());
    let launch = |node| {
        let flags = [flag.as_str(), "--overlay-backend=vxlan"];
        crate::program::Program::launch(stage.node(node), &stage.directory, &flags)
    };
    let _programs = ["a", "b"].map(launch);
    stage.until_connected(&["a", "b"]);
    assert_eq!(run(stage.node("a"), "cat /sys/class/net/flannel.1/address").trim(), "0a:00:00:00:00:01");
}

#[test]
fn cleanup_takes_the_overlay_out_and_leaves_a_device_of_flannels_alone() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan-lwt", "vxlan"] {
        cleanup_leaves_a_device_that_others_use(backend);
    }
}

fn cleanup_leaves_a_device_that_others_use(backend: &str) {
    let stage = Stage::new();
    let programs = stage.start(&["a", "b"], backend);
    programs.into_iter().for_each(|program| _ = program.terminate());
    let cleaned = crate::program::run(stage.node("a"), &["cleanup"]);
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    assert_eq!(listing(stage.node("a")), Vec::<String>::new());
    assert_eq!(run(stage.node("a"), "ip nexthop show"), "");
    let node = stage.node("b");
    run(node, "ip route add 10.244.77.0/24 via 10.244.77.0 dev flannel.1 onlink");
    assert!(crate::program::run(node, &["cleanup"]).status.success());
    let left = run(node, "ip route show dev flannel.1");
    assert_eq!(left.trim(), "10.244.77.0/24 via 10.244.77.0 onlink");
    assert_eq!(run(node, "ip nexthop show"), "");
    assert!(!output(node, "ip link show flannel-v6.1").status.success());
}
