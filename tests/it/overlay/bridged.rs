//! Packets between pods of one node, which pass a bridge and no rules unless the kernel is told otherwise.

use std::net::SocketAddr;

use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_lab::{Options, cluster_ip, needs, probe_set};
use fairlead_plan::{Family, Protocol};

use super::stage::{Stage, can_run, output, run, say};
use crate::faults::iptables::flags;
use crate::packets::programs::{Mode, in_every_mode};
use crate::program::eventually;

const SETTINGS: [&str; 2] = ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"];

in_every_mode! { a_pod_reaches_its_neighbour_on_the_bridge_through_a_service_whatever_the_setting_was }

fn a_pod_reaches_its_neighbour_on_the_bridge_through_a_service_whatever_the_setting_was(mode: Mode) {
    if !can_run() || !needs(mode.needed()) {
        return;
    }
    let stage = Stage::new();
    let node = stage.node("a");
    let off = || run(node, &format!("sysctl -q -w {}=0 {}=0", SETTINGS[0], SETTINGS[1]));
    // Nothing loads it on demand where it is a module.
    let _ = output(node, "modprobe -q br_netfilter");
    off();
    for pod in ["a1", "a2"] {
        // As the plugin `bridge` connects them.
        run(stage.lab.place(pod), "ip route add 10.244.1.0/24 dev eth0");
        run(stage.lab.place(pod), "ip -6 route add fd00:244:0:1::/64 dev eth0");
    }
    let service = Service::new("web").cluster_ip(1).port(Port::tcp(80).named("t")).port(Port::udp(80).named("u"));
    stage.apply([service.manifest(&stage.lab, &Family::BOTH)]);
    stage.apply(Slice::of("web").tcp("t", 8080).udp("u", 8080).ready(&["a2"]).manifests(&stage.lab, &Family::BOTH));
    let answered = |from: &str, family| {
        let vip = SocketAddr::new(cluster_ip(1).of(family), 80);
        probe_set(stage.lab.place(from), Protocol::Tcp, vip, &Options::default()).reached.contains_key("a2")
    };
    let without = stage.launch("a", flags(mode));
    for family in Family::BOTH {
        eventually("the Service is there", || answered("outside", family));
        if mode != Mode::Ipvs {
            assert!(!answered("a1", family), "the test shows nothing: the answer passes rules as it is");
        }
    }
    without.terminate();
    let _with = stage.launch("a", &[&["--overlay-backend=vxlan"], flags(mode)].concat());
    for round in ["at the start", "later"] {
        for (family, setting) in Family::BOTH.into_iter().zip(SETTINGS) {
            let took = eventually("the setting is right", || run(node, &format!("sysctl -n {setting}")).trim() == "1");
            say("sysctl", &format!("{setting} was 0 {round}"), took);
            eventually("the neighbour answers", || answered("a1", family));
        }
        let long = Options { payload: 30_000, connections: 4, at_once: 1, ..Options::default() };
        for family in Family::BOTH {
            let vip = SocketAddr::new(cluster_ip(1).of(family), 80);
            let seen = probe_set(stage.lab.place("a1"), Protocol::Udp, vip, &long);
            let comes_through = family == Family::V4 || mode.carries_fragments_from_bridges();
            assert_eq!(seen.reached.contains_key("a2"), comes_through, "{family:?}: {seen:?}");
            assert_eq!(seen.failed.is_empty(), comes_through, "the sender is told that they are too long: {seen:?}");
        }
        off();
    }
}
