//! The rules around the overlay: whose address others see, from whom tunnelled packets are taken, and that both stay so.
#![expect(clippy::disallowed_methods, reason = "tests send packets of their own")]

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_lab::{Feature, Options, Outcome, PORTS, Place, needs, probe_with};
use fairlead_plan::{Family, Protocol};

use super::held;
use super::stage::{Stage, can_run, output, run, say};
use crate::faults::iptables::flags;
use crate::laws::holdings::shell;
use crate::packets::programs::{Mode, in_every_mode};
use crate::program::{self, Program, eventually};

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

/// Whether the machine has what the overlay and the mode need.
fn can_run_in(mode: Mode) -> bool {
    can_run() && needs(mode.needed()) && (mode == Mode::Nft || needs(&[Feature::Ipset]))
}

/// Starts these nodes in a mode, with VXLAN.
fn start(stage: &Stage, nodes: &[&str], mode: Mode) -> Vec<Program> {
    stage.start_with(nodes, &[&["--overlay-backend=vxlan"], flags(mode)].concat())
}

in_every_mode! {
    pods_keep_their_address_inside_the_cluster_and_have_the_nodes_outside
    tunnelled_packets_of_a_machine_that_is_no_peer_do_not_arrive
    what_others_do_to_the_rules_is_put_right
    peers_come_and_go_in_the_filter_and_cleanup_removes_all
    the_listing_of_the_rules_loads_back
}

fn pods_keep_their_address_inside_the_cluster_and_have_the_nodes_outside(mode: Mode) {
    if !can_run_in(mode) {
        return;
    }
    let stage = Stage::new();
    let _programs = start(&stage, &["a", "b"], mode);
    let (pod, own, other) = (stage.lab.place("a1"), stage.node("a"), stage.node("b"));
    for family in Family::BOTH {
        let shown = || held::shown(own, mode, family);
        eventually("the rules are there", || !shown().is_empty());
        if let Some(tool) = mode.tool(family) {
            // As Docker leaves it: what nobody accepts is not forwarded.
            for node in [own, other] {
                eventually("the rules are there", || held::shown(node, mode, family).contains("fairlead forward"));
                run(node, &format!("{tool} -P FORWARD DROP"));
            }
        }
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

fn tunnelled_packets_of_a_machine_that_is_no_peer_do_not_arrive(mode: Mode) {
    if !can_run_in(mode) {
        return;
    }
    let stage = Stage::new();
    let mut programs = start(&stage, &["a", "b"], mode);
    let node = stage.node("a");
    let sources = impostor(&stage);
    for source in sources {
        let family = Family::of(source);
        let dropped = || held::dropped(node, mode, family);
        eventually("the rules are there", || dropped() == Some(0));
        assert!(!arrives(&stage, source), "{source} was let in\n{}", held::shown(node, mode, family));
        assert!(dropped() > Some(0), "the rule has counted it\n{}", held::shown(node, mode, family));
    }
    // The same packets arrive where nobody looks at them.
    let _ = programs.remove(0).terminate();
    let open = [&["--overlay-backend=vxlan", "--overlay-peer-filter=false"], flags(mode)].concat();
    programs.push(stage.launch("a", &open));
    for source in sources {
        eventually("the filter is gone", || held::dropped(node, mode, Family::of(source)).is_none());
        assert!(arrives(&stage, source), "{source} is not let in without the filter: the test shows nothing");
    }
}

fn what_others_do_to_the_rules_is_put_right(mode: Mode) {
    if !can_run_in(mode) {
        return;
    }
    let stage = Stage::new();
    let programs = start(&stage, &["a", "b"], mode);
    let node = stage.node("a");
    for (family, peer) in [(Family::V4, "192.168.50.2"), (Family::V6, "fd00:50::2")] {
        eventually("each set has its peer", || held::peers(node, mode, family).contains(peer));
    }
    let shown = || Family::BOTH.map(|family| held::shown(node, mode, family));
    let before = shown();
    let mut count = 0.0;
    for family in Family::BOTH {
        for fault in held::faults(mode, family) {
            shell(node, &fault);
            let start = Instant::now();
            eventually(&format!("{fault} is put right"), || shown() == before);
            say("rules", &format!("{mode:?}: {fault}"), start.elapsed());
            count += 1.0;
        }
    }
    assert!(programs[0].metric("fairlead_overlay_repairs_total", "rules") >= count);
    stage.until_connected(&["a", "b"]);
}

fn peers_come_and_go_in_the_filter_and_cleanup_removes_all(mode: Mode) {
    if !can_run_in(mode) {
        return;
    }
    let stage = Stage::new();
    let mut programs = start(&stage, &["a", "b", "c"], mode);
    let node = stage.node("a");
    let has = |peer: &str| held::peers(node, mode, Family::of(peer.parse().unwrap())).contains(peer);
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
    assert!(mode == Mode::Nft || !shell(node, "ipset list -n").contains("FAIRLEAD"));
    for mode in [Mode::Nft, Mode::IptablesLegacy, Mode::IptablesNft] {
        for family in Family::BOTH {
            assert_eq!(held::shown(node, mode, family), "", "{mode:?}");
        }
    }
}

fn the_listing_of_the_rules_loads_back(mode: Mode) {
    if !can_run_in(mode) {
        return;
    }
    let stage = Stage::new();
    let _programs = start(&stage, &["a", "b"], mode);
    let (node, elsewhere) = (stage.node("a"), stage.lab.place("outside"));
    for family in Family::BOTH {
        eventually("the rules are there", || !held::shown(node, mode, family).is_empty());
        let text = held::saved(node, mode, family);
        let _ = writeln!(std::io::stderr(), "{text}");
        let file = stage.directory.write("saved", &text);
        shell(elsewhere, &held::load(mode, family, &file));
        assert_eq!(held::shown(elsewhere, mode, family), held::shown(node, mode, family), "{text}");
    }
}

#[test]
fn another_mode_puts_the_rules_where_it_has_its_own_and_nothing_stays_behind() {
    let order = [Mode::IptablesLegacy, Mode::IptablesNft, Mode::Nft];
    if !order.into_iter().all(can_run_in) {
        return;
    }
    let stage = Stage::new();
    let mut programs = start(&stage, &["a", "b"], Mode::Nft);
    let (pod, own, other) = (stage.lab.place("a1"), stage.node("a"), stage.node("b"));
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let end = end;
        let stage = &stage;
        let watch = scope.spawn(move || {
            let mut seen = 0;
            // It ends with this test, however that ends.
            while matches!(ended.try_recv(), Err(TryRecvError::Empty)) {
                for family in Family::BOTH {
                    assert_eq!(source(pod, other.addr(family)), own.addr(family), "another machine");
                    assert_eq!(source(pod, stage.lab.place("b1").addr(family)), pod.addr(family), "another pod");
                    seen += 1;
                }
            }
            seen
        });
        let mut was = Mode::Nft;
        for mode in order {
            assert!(programs.remove(0).terminate().success());
            programs.insert(0, stage.launch("a", &[&["--overlay-backend=vxlan"], flags(mode)].concat()));
            for family in Family::BOTH {
                eventually("the rules are there", || !held::shown(own, mode, family).is_empty());
                eventually("the others are gone", || held::shown(own, was, family).is_empty());
            }
            was = mode;
        }
        drop(end);
        assert!(watch.join().unwrap() > 0);
    });
    // After the rules that name them.
    eventually("the sets are gone too", || !shell(own, "ipset list -n").contains("FAIRLEAD"));
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
