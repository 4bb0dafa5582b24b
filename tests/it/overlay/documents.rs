//! Documents that describe flannel, VXLAN and lightweight tunnels, line by line: a node must show what they show. Each test
//! is named after its acceptance check.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::stage::{PROTOCOL, Stage, can_run, output, run};
use crate::program::{Directory, Program, eventually};

/// A node of a document: name, address, pods, Ethernet address of the device.
type Node = (&'static str, &'static str, &'static str, &'static str);

/// Runs the program on node `a` of a lab as if it were the first of these nodes, with their Node objects as files. Its
/// network card has this name and MTU.
fn as_in_document(stage: &Stage, card: &str, mtu: u32, nodes: &[Node], flags: &[&str]) -> (Program, Directory) {
    let place = stage.node("a");
    let (_, own, ..) = nodes[0];
    let gateway = own.rsplit_once('.').unwrap().0;
    for line in [
        "ip link set eth0 down".to_owned(),
        format!("ip link set eth0 name {card} mtu {mtu}"),
        format!("ip addr flush dev {card}"),
        format!("ip link set {card} up"),
        format!("ip addr add {own}/24 dev {card}"),
        format!("ip route replace default via {gateway}.254 dev {card}"),
    ] {
        run(place, &line);
    }
    let directory = Directory::new();
    for (name, address, pods, mac) in nodes {
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name, "annotations": {
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/public-ip": address,
                "flannel.alpha.coreos.com/backend-data": format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#),
            } },
            "spec": { "podCIDR": pods, "podCIDRs": [pods] },
        });
        directory.write(&format!("{name}.json"), &node.to_string());
    }
    let manifests = format!("--manifests={}", directory.path().display());
    let flags: Vec<&str> = [manifests.as_str()].into_iter().chain(flags.iter().copied()).collect();
    let program = Program::launch_as(place, &stage.directory, nodes[0].0, &flags);
    (program, directory)
}

/// The three nodes of the third document.
const THREE: [Node; 3] = [
    ("node0", "192.168.205.4", "10.42.0.0/24", "3e:7d:76:2a:39:82"),
    ("node1", "192.168.205.3", "10.42.1.0/24", "62:c8:a9:ce:ca:4e"),
    ("node2", "192.168.205.5", "10.42.2.0/24", "ca:cb:1f:99:10:97"),
];
/// The three nodes of the fourth.
const FOURTH: [Node; 3] = [
    ("two", "172.16.1.14", "10.244.1.0/24", "0e:4c:d1:66:bc:0a"),
    ("one", "172.16.1.8", "10.244.0.0/24", "0e:4c:d1:66:bc:0b"),
    ("three", "172.16.1.13", "10.244.2.0/24", "52:17:43:ba:2e:56"),
];

fn set(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// Waits until a command prints exactly these lines, in any order.
fn prints(stage: &Stage, line: &str, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|line| (*line).to_owned()).collect();
    let mut last = BTreeSet::new();
    let what = format!("{line:?} prints {wanted:#?}");
    eventually(&what, || {
        last = set(&String::from_utf8_lossy(&output(stage.node("a"), line).stdout));
        last == wanted
    });
}

#[test]
fn ac3_10_and_0_3_routes_neighbours_and_entries_are_the_documents_lines() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _program = as_in_document(&stage, "enp0s1", 1500, &THREE, &["--overlay-backend=vxlan"]);
    // `ip` prints the protocol unless it is asked for one; else these are flannel's lines to the byte.
    prints(
        &stage,
        &format!("ip route show proto {PROTOCOL}"),
        &["10.42.1.0/24 via 10.42.1.0 dev flannel.1 onlink", "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink"],
    );
    prints(
        &stage,
        "ip neigh show dev flannel.1",
        &["10.42.1.0 lladdr 62:c8:a9:ce:ca:4e PERMANENT", "10.42.2.0 lladdr ca:cb:1f:99:10:97 PERMANENT"],
    );
    prints(
        &stage,
        "bridge fdb show dev flannel.1",
        &["62:c8:a9:ce:ca:4e dst 192.168.205.3 self permanent", "ca:cb:1f:99:10:97 dst 192.168.205.5 self permanent"],
    );
}

#[test]
fn ac3_11_every_neighbour_has_exactly_one_entry_and_the_documents_stale_dump_is_put_right() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let (program, _files) = as_in_document(&stage, "enp0s1", 1500, &THREE, &["--overlay-backend=vxlan"]);
    program.wait_until_ready();
    let node = stage.node("a");
    // As the document shows it: a neighbour without an entry, an entry without a neighbour.
    run(node, "bridge fdb del ca:cb:1f:99:10:97 dev flannel.1");
    run(node, "bridge fdb add ee:87:b2:4a:fd:62 dev flannel.1 dst 192.168.205.5");
    let macs = |text: &str, at: usize| -> BTreeSet<String> {
        text.lines().filter_map(|line| line.split(' ').nth(at).map(str::to_owned)).collect()
    };
    eventually("neighbours and entries name the same devices", || {
        let (neighbours, entries) =
            (run(node, "ip neigh show dev flannel.1"), run(node, "bridge fdb show dev flannel.1"));
        let (neighbours, entries) = (macs(&neighbours, 2), macs(&entries, 0));
        neighbours == entries && neighbours.len() == 2 && !entries.contains("ee:87:b2:4a:fd:62")
    });
}

#[test]
fn ac3_9_host_gw_routes_are_the_documents_lines() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _program = as_in_document(&stage, "enp0s1", 1500, &THREE, &["--overlay-backend=host-gw"]);
    prints(
        &stage,
        &format!("ip route show proto {PROTOCOL}"),
        &["10.42.1.0/24 via 192.168.205.3 dev enp0s1", "10.42.2.0/24 via 192.168.205.5 dev enp0s1"],
    );
}

#[test]
fn ac3_9_and_1_1_a_peer_on_another_network_is_refused_by_host_gw_and_tunnelled_by_direct_routing() {
    if !can_run() {
        return;
    }
    let mut nodes = THREE;
    nodes[2].1 = "192.168.99.5";
    let stage = Stage::new();
    let (program, _files) = as_in_document(&stage, "enp0s1", 1500, &nodes, &["--overlay-backend=host-gw"]);
    program.wait_for_line(&["Node node2", "192.168.99.5 is not on the link of enp0s1", "use direct-routing"]);
    let ours = format!("ip route show proto {PROTOCOL}");
    prints(&stage, &ours, &["10.42.1.0/24 via 192.168.205.3 dev enp0s1"]);
    program.terminate();
    let stage = Stage::new();
    let _program = as_in_document(&stage, "enp0s1", 1500, &nodes, &["--overlay-backend=direct-routing"]);
    prints(
        &stage,
        &ours,
        &["10.42.1.0/24 via 192.168.205.3 dev enp0s1", "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink"],
    );
}

#[test]
fn ac4_2_to_4_5_the_device_its_address_and_the_way_to_a_pod_are_the_documents() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let (program, _files) = as_in_document(&stage, "ens3", 1450, &FOURTH, &["--overlay-backend=vxlan"]);
    program.wait_until_ready();
    let node = stage.node("a");
    let link = run(node, "ip -d link show flannel.1");
    assert!(link.contains("mtu 1400"), "AC4.3: {link}");
    let attributes = "vxlan id 1 local 172.16.1.14 dev ens3 srcport 0 0 dstport 8472 nolearning";
    assert!(link.contains(attributes) && link.contains("ageing 300"), "AC4.4: {link}");
    assert!(run(node, "ip addr show flannel.1").contains("inet 10.244.1.0/32 scope global flannel.1"), "AC4.2");
    prints(
        &stage,
        "ip neigh show dev flannel.1",
        &["10.244.2.0 lladdr 52:17:43:ba:2e:56 PERMANENT", "10.244.0.0 lladdr 0e:4c:d1:66:bc:0b PERMANENT"],
    );
    let way = run(node, "ip route get 10.244.2.66");
    assert!(way.contains("via 10.244.2.0 dev flannel.1 src 10.244.1.0"), "AC4.5: {way}");
}

#[test]
fn ac0_1_the_device_looks_as_the_document_shows_it() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b"], "vxlan");
    let link = run(stage.node("a"), "ip link show flannel.1");
    for words in ["mtu 1450", "qdisc noqueue", "state UNKNOWN"] {
        assert!(link.contains(words), "{words}: {link}");
    }
    let address = run(stage.node("a"), "cat /sys/class/net/flannel.1/address");
    let first = u8::from_str_radix(&address[..2], 16).unwrap();
    assert_eq!(first & 3, 2, "locally administered, of one device: {address}");
    let assigned = run(stage.node("a"), "cat /sys/class/net/flannel.1/addr_assign_type");
    assert_eq!(assigned.trim(), "3", "set, so that udev leaves it alone");
    assert_eq!(run(stage.node("a"), "cat /proc/sys/net/ipv6/conf/flannel.1/accept_ra").trim(), "0");
}

#[test]
fn ac0_2_of_two_cards_the_default_routes_is_taken_unless_a_flag_or_annotation_says_otherwise() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let node = stage.node("a");
    for line in [
        "ip link add eth9 type veth peer name far9",
        "ip link set far9 up",
        "ip link set eth9 up",
        "ip addr add 192.168.122.215/24 dev eth9",
        "ip route add default via 192.168.122.1 dev eth9 metric 1024",
        "ip route add 198.51.100.0/24 via 192.168.122.1 dev eth9",
    ] {
        run(node, line);
    }
    let chosen = |flags: &[&str], wanted: &str| {
        let flags: Vec<_> = flags.iter().copied().chain(["--overlay-backend=vxlan"]).collect();
        let program = stage.launch("a", &flags);
        let wanted = format!("local {wanted} ");
        eventually(&format!("{flags:?} leads to {wanted}"), || {
            String::from_utf8_lossy(&output(node, "ip -d link show flannel.1").stdout).contains(&wanted)
        });
        program.terminate();
    };
    chosen(&[], "192.168.50.1 dev eth0");
    chosen(&["--iface=eth9"], "192.168.122.215 dev eth9");
    chosen(&["--iface=192.168.122.215"], "192.168.122.215 dev eth9");
    chosen(&["--iface=gone", "--iface-regex=^eth9$"], "192.168.122.215 dev eth9");
    chosen(&["--iface-can-reach=198.51.100.7"], "192.168.122.215 dev eth9");
    chosen(&["--public-ip=192.168.122.215"], "192.168.122.215 dev eth9");
    let mut object = stage.node_object("a");
    object["metadata"]["annotations"]["flannel.alpha.coreos.com/node-public-ip"] = json!("192.168.122.215");
    stage.apply([object]);
    chosen(&[], "192.168.122.215 dev eth9");
    let lost = stage.launch("a", &["--overlay-backend=vxlan", "--iface=wlan7"]);
    lost.wait_for_line(&["--iface=wlan7", "no interface"]);
    let bad = crate::program::run_here(&["--overlay-backend=vxlan", "--hostname-override=a", "--iface-regex=["]);
    assert_eq!(bad.status.code(), Some(2), "{}", String::from_utf8_lossy(&bad.stderr));
}

/// A running `tcpdump`; what it says is read when it has seen enough.
fn capture(stage: &Stage, place: &str, count: u32, filter: &str) -> Child {
    let mut command = stage.lab.place(place).command("tcpdump");
    let count = count.to_string();
    command.args(["-n", "-v", "-e", "-l", "-i", "eth0", "-c", &count]).args(filter.split(' '));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It says so when it listens.
    let mut said = String::new();
    let mut error = std::io::BufReader::new(child.stderr.take().unwrap());
    while !said.contains("listening on") {
        assert!(std::io::BufRead::read_line(&mut error, &mut said).unwrap() > 0, "tcpdump: {said}");
    }
    child.stderr = Some(error.into_inner());
    child
}

fn captured(child: Child) -> String {
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

#[test]
fn ac0_4_2_6_and_4_7_a_pods_ping_travels_in_vxlan_with_flannels_addresses_and_lengths() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b"], "vxlan");
    let dump = capture(&stage, "a", 2, "udp port 8472 and src host 192.168.50.1");
    run(stage.lab.place("a1"), "ping -c 2 -s 56 10.244.2.11");
    let text = captured(dump);
    let mac = |node: &str| run(stage.node(node), "cat /sys/class/net/flannel.1/address").trim().to_owned();
    for words in [
        "192.168.50.1.",
        "> 192.168.50.2.8472: ",
        "flags [I] (0x08), overlay 0, instance 1",
        "10.244.1.11 > 10.244.2.11: ICMP echo request",
        // 84 bytes of ICMP in a frame of 98, and 50 around it: 148 in all.
        "length 148: (tos",
        "proto UDP (17), length 134)",
        "ttl 63",
        "length 84)",
        &mac("a"),
        &mac("b"),
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let outer = text.lines().next().unwrap();
    assert!(outer.contains("ttl 64") && outer.contains("flags [none]"), "{outer}");
}

#[test]
fn ac2_7_and_3_12_two_routers_lie_between_pods_and_the_second_is_the_peers_device() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b"], "vxlan");
    let pod = stage.lab.place("a1");
    for (ping, target, end) in [("ping -4", "10.244.2.11", "ttl=62"), ("ping -6", "fd00:244:0:2::b", "ttl=62")] {
        let said = run(pod, &format!("{ping} -c 1 {target}"));
        assert!(said.contains(end), "{said}");
    }
    let hops = run(pod, "traceroute -n -q 1 10.244.2.11");
    let hops: Vec<&str> = hops.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops, ["10.244.1.1", "10.244.2.0", "10.244.2.11"]);
    let hops = run(pod, "traceroute -6 -n -q 1 fd00:244:0:2::b");
    let hops: Vec<&str> = hops.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops, ["fd00:244:0:1::1", "fd00:244:0:2::", "fd00:244:0:2::b"]);
}

#[test]
fn ac1_3_a_foreign_network_number_is_not_taken() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "vxlan-lwt"] {
        let stage = Stage::new();
        let mut programs = stage.start(&["a", "b"], backend);
        programs.remove(1).kill();
        // Node `b` sends with number 5, as somebody who guesses would.
        let node = stage.node("b");
        let mac = run(stage.node("a"), "cat /sys/class/net/flannel.1/address");
        for line in [
            "ip link del flannel.1".to_owned(),
            "ip link add flannel.1 type vxlan id 5 dstport 8472 local 192.168.50.2 dev eth0 nolearning".to_owned(),
            "ip addr add 10.244.2.0/32 dev flannel.1".to_owned(),
            "ip link set flannel.1 up".to_owned(),
            format!("ip neigh add 10.244.1.0 lladdr {} dev flannel.1", mac.trim()),
            format!("bridge fdb add {} dev flannel.1 dst 192.168.50.1", mac.trim()),
            "ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink".to_owned(),
        ] {
            run(node, &line);
        }
        let dump = capture(&stage, "a", 3, "udp port 8472 and src host 192.168.50.2");
        let ping = output(stage.lab.place("b1"), "ping -c 3 -i 0.2 -W 1 10.244.1.11");
        assert!(captured(dump).contains("instance 5"), "they arrive at the node");
        assert!(!ping.status.success(), "{backend}: {}", String::from_utf8_lossy(&ping.stdout));
    }
}

#[test]
fn ac1_4_a_machine_that_is_no_node_exchanges_packets_with_pods_through_a_network_of_its_own() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "vxlan-lwt"] {
        let stage = Stage::new();
        // The document's virtual machine, with the addresses of the lab.
        let machine = stage.lab.place("outside");
        for line in [
            "ip link add vxlan2 type vxlan id 2 dstport 8472 local 192.168.50.201 dev eth0",
            "ip link set vxlan2 address 82:36:4c:98:2e:56 up",
            "ip addr add 10.1.1.236/24 dev vxlan2",
            "ip route add 10.244.0.0/16 dev vxlan2 proto kernel src 10.1.1.236",
            "bridge fdb append 00:00:00:00:00:00 dev vxlan2 dst 192.168.50.1",
        ] {
            run(machine, line);
        }
        let flags = [
            &format!("--overlay-backend={backend}"),
            "--overlay-external-vtep=cidr=10.1.1.0/24,endpoint=192.168.50.201,mac=82:36:4c:98:2e:56,vni=2",
        ];
        let program = stage.launch("a", &flags);
        program.wait_until_ready();
        eventually("the machine reaches a pod", || output(machine, "ping -c 1 -W 1 10.244.1.11").status.success());
        run(stage.lab.place("a1"), "ping -c 2 -W 2 10.1.1.236");
    }
}

#[test]
fn ac2_2_an_external_device_has_no_number_and_an_mtu_of_its_own() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b"], "vxlan-lwt");
    let link = run(stage.node("a"), "ip -d link show flannel.1");
    assert!(link.contains("vxlan external") && link.contains("mtu 1430") && !link.contains(" id 1"), "{link}");
    assert!(run(stage.node("a"), "bridge vni show dev flannel.1").contains('1'));
}

#[test]
fn ac4_9_the_udp_backend_of_a_configuration_file_is_refused() {
    let directory = Directory::new();
    let conf = directory.write("net-conf.json", r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}"#);
    let flag = format!("--net-config-path={}", conf.display());
    let refused = crate::program::run_here(&[&flag, "--hostname-override=a"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("use vxlan") && said.lines().count() == 1, "{said}");
}

#[test]
fn the_condition_network_unavailable_is_cleared_once_the_overlay_is_up_and_others_stay() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut node = stage.node_object("a");
    node["status"]["conditions"] = json!([
        { "type": "Ready", "status": "True" },
        { "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated" },
    ]);
    stage.apply([node]);
    let _program = stage.launch("a", &["--overlay-backend=vxlan"]);
    let condition = |name: &str| -> Value {
        let node = stage.node_object("a");
        let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|condition| condition["type"] == name).unwrap_or_default()
    };
    eventually("the condition says False", || condition("NetworkUnavailable")["status"] == "False");
    assert_eq!(condition("NetworkUnavailable")["reason"], "FairleadIsUp");
    assert_eq!(condition("Ready")["status"], "True");
}
