//! The rules around the overlay: whose address others see, from whom tunnelled packets are taken, and that both stay so.
#![expect(clippy::disallowed_methods, reason = "tests send packets of their own")]

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_lab::{Options, Outcome, PORTS, Place, probe_with};
use fairlead_plan::{Family, Protocol};

use super::stage::{Stage, can_run, output, run, say};
use crate::listing::{ip, of_table};
use crate::program::{self, eventually, nft};

const TABLE: &str = "fairlead-overlay";
/// No server of the lab has it.
const PORT: u16 = 9999;

/// Which source a server sees.
fn source(from: &Place, to: IpAddr) -> IpAddr {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let outcome = probe_with(from, protocol, SocketAddr::new(to, PORTS[0]), &Options::default());
        if let (Protocol::Udp, Outcome::Reached { source, .. }) = (protocol, &outcome) {
            return source.ip();
        }
        assert!(matches!(outcome, Outcome::Reached { .. }), "{} to {to}, {protocol}: {outcome:?}", from.name());
    }
    panic!("{} does not reach {to}", from.name())
}

#[test]
fn pods_keep_their_address_inside_the_cluster_and_have_the_nodes_outside() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b"], "vxlan");
    let (pod, own, other) = (stage.lab.place("a1"), stage.node("a"), stage.node("b"));
    for family in Family::BOTH {
        let shown = || nft(own, &format!("list table {} {TABLE}", ip(family)));
        eventually("the rules are there", || {
            program::nft_output(own, &format!("list table {} {TABLE}", ip(family))).status.success()
        });
        let from = pod.addr(family);
        for inside in ["a2", "b1"] {
            assert_eq!(source(pod, stage.lab.place(inside).addr(family)), from, "{inside}\n{}", shown());
        }
        assert_eq!(source(pod, own.addr(family)), from, "its own node\n{}", shown());
        assert_eq!(source(pod, other.addr(family)), own.addr(family), "another machine\n{}", shown());
    }
}

/// Makes a machine that is no node speak VXLAN to node `a` as if it had pods of node `b`; gives back the false sources.
fn impostor(stage: &Stage) -> [IpAddr; 2] {
    let (place, victim) = (stage.lab.place("outside"), stage.node("a"));
    let nets = [
        ("flannel.1", "10.244.1.0", "/24", "10.244.2.99/32"),
        ("flannel-v6.1", "fd00:244:0:1::", "/64", "fd00:244:0:2::99/128"),
    ];
    for (family, (device, base, length, false_source)) in Family::BOTH.into_iter().zip(nets) {
        let mac = run(victim, &format!("cat /sys/class/net/{device}/address"));
        let (mac, own, end) = (mac.trim(), place.addr(family), victim.addr(family));
        run(place, &format!("ip link add {device} type vxlan id 1 dev eth0 dstport 8472 local {own} nolearning"));
        run(place, &format!("ip link set {device} up"));
        let dad = if family == Family::V6 { " nodad" } else { "" };
        run(place, &format!("ip addr add {false_source} dev {device}{dad}"));
        run(place, &format!("ip neigh replace {base} lladdr {mac} dev {device} nud permanent"));
        run(place, &format!("bridge fdb append {mac} dev {device} dst {end}"));
        run(place, &format!("ip route replace {base}{length} via {base} dev {device} onlink"));
    }
    ["10.244.2.99", "fd00:244:0:2::99"].map(|text| text.parse().unwrap())
}

/// Whether a datagram from this source arrives at pod `a1`. It is sent again and again, until it does or patience ends.
fn arrives(stage: &Stage, from: IpAddr) -> bool {
    let (impostor, pod) = (stage.lab.place("outside"), stage.lab.place("a1"));
    let to = SocketAddr::new(pod.addr(Family::of(from)), PORT);
    let ear = pod.run(|| UdpSocket::bind(to)).unwrap();
    ear.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mouth = impostor.run(|| UdpSocket::bind((from, 0))).unwrap();
    (0..5).any(|_| {
        mouth.send_to(b"?", to).unwrap();
        ear.recv_from(&mut [0; 8]).is_ok_and(|(_, source)| source.ip() == from)
    })
}

#[test]
fn tunnelled_packets_of_a_machine_that_is_no_peer_do_not_arrive() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut programs = stage.start(&["a", "b"], "vxlan");
    let node = stage.node("a");
    let sources = impostor(&stage);
    for source in sources {
        let list = || nft(node, &format!("list chain {} {TABLE} input", ip(Family::of(source))));
        eventually("the rules are there", || list().contains("packets 0 "));
        assert!(!arrives(&stage, source), "{source} was let in\n{}", list());
        assert!(!list().contains("packets 0 "), "the rule has counted it\n{}", list());
    }
    // The same packets arrive where nobody looks at them.
    let _ = programs.remove(0).terminate();
    programs.push(stage.launch("a", &["--overlay-backend=vxlan", "--overlay-peer-filter=false"]));
    for source in sources {
        let chains = || nft(node, &format!("list table {} {TABLE}", ip(Family::of(source))));
        eventually("the filter is gone", || !chains().contains("chain input"));
        assert!(arrives(&stage, source), "{source} is not let in without the filter: the test shows nothing");
    }
}

#[test]
fn what_others_do_to_the_rules_is_put_right() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let programs = stage.start(&["a", "b"], "vxlan");
    let node = stage.node("a");
    let tables = || Family::BOTH.map(|family| of_table(node, &format!("{} {TABLE}", ip(family))));
    eventually("each set has its peer", || {
        let has = |family, peer: &str| nft(node, &format!("list set {} {TABLE} peers", ip(family))).contains(peer);
        has(Family::V4, "192.168.50.2") && has(Family::V6, "fd00:50::2")
    });
    let before = tables();
    for (family, peer, stranger) in [("ip", "192.168.50.2", "192.168.50.66"), ("ip6", "fd00:50::2", "fd00:50::66")] {
        let faults = [
            format!("delete table {family} {TABLE}"),
            format!("flush chain {family} {TABLE} postrouting"),
            format!("insert rule {family} {TABLE} input accept"),
            format!("delete element {family} {TABLE} peers {{ {peer} }}"),
            format!("add element {family} {TABLE} peers {{ {stranger} }}"),
            format!("flush set {family} {TABLE} cluster"),
            format!("add chain {family} {TABLE} foreign"),
        ];
        for fault in &faults {
            nft(node, fault);
            let start = Instant::now();
            eventually(&format!("{fault} is put right"), || tables() == before);
            say("rules", fault, start.elapsed());
        }
    }
    assert!(programs[0].metric("fairlead_overlay_repairs_total", "rules") >= 14.0);
    stage.until_connected(&["a", "b"]);
}

#[test]
fn peers_come_and_go_in_the_filter_and_cleanup_removes_the_tables() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut programs = stage.start(&["a", "b", "c"], "vxlan");
    let node = stage.node("a");
    let has = |peer: &str| {
        let family = if peer.contains(':') { "ip6" } else { "ip" };
        program::nft_output(node, &format!("list set {family} {TABLE} peers"))
            .stdout
            .windows(peer.len())
            .any(|text| text == peer.as_bytes())
    };
    let all = ["192.168.50.2", "192.168.50.3", "fd00:50::2", "fd00:50::3"];
    eventually("all peers are there", || all.iter().all(|peer| has(peer)));
    programs.remove(2).kill();
    stage.server.delete("Node", "", "c").unwrap();
    eventually("the deleted one is gone", || !has(all[1]) && !has(all[3]));
    assert!(has(all[0]) && has(all[2]));
    let _ = programs.remove(0).terminate();
    thread::sleep(Duration::from_millis(50));
    assert!(has(all[0]) && has(all[2]), "the kernel goes on alone");
    let cleaned = program::run(node, &["cleanup"]);
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    for family in ["ip", "ip6"] {
        assert!(!output(node, &format!("nft list table {family} {TABLE}")).status.success());
    }
}

#[test]
fn the_listing_of_the_rules_loads_back() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b"], "vxlan");
    let (node, elsewhere) = (stage.node("a"), stage.lab.place("outside"));
    for family in ["ip", "ip6"] {
        let table = format!("{family} {TABLE}");
        eventually("the rules are there", || output(node, &format!("nft list table {table}")).status.success());
        let text = nft(node, &format!("list table {table}"));
        let _ = writeln!(std::io::stderr(), "{text}");
        let file = stage.directory.write(&format!("{family}.nft"), &text);
        nft(elsewhere, &format!("-f {}", file.display()));
        assert_eq!(of_table(elsewhere, &table), of_table(node, &table), "{text}");
    }
}

#[test]
fn packets_to_pods_of_nobody_do_not_follow_the_default_route_if_so_wanted() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let flags = ["--overlay-backend=vxlan", "--overlay-blackhole"];
    let mut programs = Vec::from(["a", "b"].map(|node| stage.launch(node, &flags)));
    stage.until_connected(&["a", "b"]);
    let node = stage.node("a");
    let nobody = [("ip", "10.244.99.5", "10.244.0.0/16"), ("ip -6", "fd00:244:0:99::5", "fd00:244::/32")];
    let leads = |ip: &str, to: &str| output(node, &format!("{ip} route get {to}")).status.success();
    for (ip, to, network) in nobody {
        assert!(!leads(ip, to), "{}", run(node, &format!("{ip} route")));
        let since = Instant::now();
        run(node, &format!("{ip} route del blackhole {network} metric 4294967295"));
        eventually("it is repaired", || !leads(ip, to));
        say("D8", "the last route was deleted", since.elapsed());
    }
    assert!(program::run(node, &["overlay", "list"]).status.success(), "it is no drift");
    programs.remove(0).terminate();
    programs.push(stage.launch("a", &flags[..1]));
    for (ip, to, _) in nobody {
        eventually("without the flag it goes", || leads(ip, to));
    }
    stage.until_connected(&["a", "b"]);
}
