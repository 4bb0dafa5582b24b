//! Services whose endpoints are on another node, over each backend. Node `a` runs the rules; packets to the endpoint travel
//! through the overlay, and so do the answers.

use std::net::{IpAddr, SocketAddr};

use fairlead_iptables::chains_of;
use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_lab::{Options, Place, Seen, cluster_ip, external_ip, needs, probe_set};
use fairlead_plan::{Family, Protocol, ServiceKey};

use super::stage::{Stage, can_run, run};
use crate::faults::iptables::flags;
use crate::packets::programs::{Mode, in_every_mode};
use crate::program::{Program, eventually};

const PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// A Service with a ClusterIP, a node port and an external address, and its only endpoint, `b1`, on node `b`.
fn serving(backend: &str, flags: &[&str]) -> (Stage, Vec<Program>) {
    let stage = Stage::new();
    let programs = stage.start_with(&["a", "b"], &[&[&*format!("--overlay-backend={backend}")], flags].concat());
    let service = Service::new("web")
        .cluster_ip(1)
        .external_ip(1)
        .port(Port::tcp(PORT).named("t").node_port(NODE_PORT))
        .port(Port::udp(PORT).named("u").node_port(NODE_PORT));
    stage.apply([service.manifest(&stage.lab, &Family::BOTH)]);
    stage.apply(Slice::of("web").tcp("t", 8080).udp("u", 8080).ready(&["b1"]).manifests(&stage.lab, &Family::BOTH));
    for node in ["a", "b"] {
        for family in Family::BOTH {
            let to = SocketAddr::new(cluster_ip(1).of(family), PORT);
            eventually("the Service is there", || seen(stage.node(node), Protocol::Tcp, to).reached.contains_key("b1"));
        }
    }
    (stage, programs)
}

fn seen(from: &Place, protocol: Protocol, to: SocketAddr) -> Seen {
    let seen = probe_set(from, protocol, to, &Options { connections: 8, ..Options::default() });
    assert_eq!(seen.failed, Vec::<String>::new());
    seen
}

/// Every connection is answered by `b1`, which sees this source.
fn answered(from: &Place, to: impl Fn(Family) -> SocketAddr, source: impl Fn(Family) -> Vec<IpAddr>) {
    for family in Family::BOTH {
        for protocol in PROTOCOLS {
            let (to, seen) = (to(family), seen(from, protocol, to(family)));
            assert_eq!(seen.endpoints().into_iter().collect::<Vec<_>>(), ["b1"], "{} {protocol} {to}", from.name());
            assert_eq!((seen.refused, seen.silence), (0, 0));
            let wanted = source(family);
            let all = seen.sources().iter().all(|source| wanted.contains(source));
            assert!(all, "{} {protocol} {to}: {:?} seen, {wanted:?} expected", from.name(), seen.sources());
        }
    }
}

/// The addresses that node `a` has towards `b`: of the tunnel, or its own where there is none.
fn of_node(stage: &Stage) -> impl Fn(Family) -> Vec<IpAddr> {
    let (node, base) = (*stage.node("a").addresses(), stage.node("a").pod_bases());
    move |family| {
        let base = base.iter().map(|text| text.parse().unwrap()).find(|base: &IpAddr| Family::of(*base) == family);
        [node.of(family)].into_iter().chain(base).collect()
    }
}

fn scenarios(backend: &str) {
    if can_run() {
        let (stage, _programs) = serving(backend, &[]);
        all_scenarios(&stage);
    }
}

fn all_scenarios(stage: &Stage) {
    let vip = |family: Family| SocketAddr::new(cluster_ip(1).of(family), PORT);
    let node_ports = |name: &'static str| {
        let addresses = *stage.node(name).addresses();
        move |family: Family| SocketAddr::new(addresses.of(family), NODE_PORT)
    };
    let pod = stage.lab.place("a1");
    // A pod to a ClusterIP: its own address arrives.
    answered(pod, vip, |family| vec![pod.addr(family)]);
    // A node to a ClusterIP: an address of the node.
    answered(stage.node("a"), vip, of_node(stage));
    // From outside to ClusterIP, node port and external address: masqueraded, or the answer would go another way.
    let outside = stage.lab.place("outside");
    answered(outside, vip, of_node(stage));
    answered(outside, node_ports("a"), of_node(stage));
    answered(outside, |family| SocketAddr::new(external_ip(1).of(family), PORT), of_node(stage));
    // A pod to the node port of its node, and of the other.
    answered(pod, node_ports("a"), of_node(stage));
    // The endpoint to itself through the Service sees not itself.
    let own = stage.lab.place("b1");
    for family in Family::BOTH {
        let sources = seen(own, Protocol::Tcp, vip(family)).sources();
        assert!(!sources.is_empty() && !sources.contains(&own.addr(family)), "{sources:?}");
    }
}

in_every_mode! { ac3_3_to_3_5_services_lead_to_endpoints_behind_flannels_tunnels }

fn ac3_3_to_3_5_services_lead_to_endpoints_behind_flannels_tunnels(mode: Mode) {
    if !can_run() || !needs(mode.needed()) {
        return;
    }
    let (stage, _programs) = serving("vxlan", flags(mode));
    all_scenarios(&stage);
    // The chains that people look at have counted it.
    if matches!(mode, Mode::IptablesLegacy | Mode::IptablesNft) {
        for family in Family::BOTH {
            let (namespace, name, port_name) = ("default".into(), "web".into(), "t".into());
            let key = ServiceKey { namespace, name, port_name, protocol: Protocol::Tcp, family };
            let endpoint = SocketAddr::new(stage.lab.place("b1").addr(family), 8080);
            let [service, _] = chains_of(&key, endpoint);
            let external = service.replace("KUBE-SVC-", "KUBE-EXT-");
            for chain in [service.as_str(), external.as_str(), "KUBE-MARK-MASQ", "KUBE-POSTROUTING"] {
                let list = run(stage.node("a"), &format!("{} -t nat -L {chain} -v -n -x", mode.tool(family).unwrap()));
                let counts =
                    list.lines().skip(2).filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
                assert!(counts.sum::<u64>() > 0, "{list}");
            }
        }
    }
}

#[test]
fn ac3_3_to_3_5_services_lead_to_endpoints_behind_encapsulating_routes() {
    scenarios("vxlan-lwt");
}

#[test]
fn ac3_3_to_3_5_services_lead_to_endpoints_behind_plain_routes() {
    scenarios("host-gw");
}

#[test]
fn ac3_6_connections_divide_evenly_between_an_endpoint_here_and_one_behind_the_tunnel() {
    if !can_run() {
        return;
    }
    let (stage, _programs) = serving("vxlan", &[]);
    stage.apply(
        Slice::of("web").tcp("t", 8080).udp("u", 8080).ready(&["a2", "b1"]).manifests(&stage.lab, &Family::BOTH),
    );
    let pod = stage.lab.place("a1");
    for family in Family::BOTH {
        let to = SocketAddr::new(cluster_ip(1).of(family), PORT);
        eventually("both answer", || seen(pod, Protocol::Tcp, to).endpoints().len() == 2);
        let hammer = fairlead_lab::Hammer::start(pod, &[(Protocol::Tcp, to)]).unwrap();
        eventually("2,000 connections were made", || hammer.successes() >= 2_000);
        let tally = hammer.stop();
        assert!(tally.failures.is_empty(), "{:?}", tally.failures.first());
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = tally.endpoints["b1"] as f64 / tally.successes as f64;
        assert!((0.45..=0.55).contains(&share), "{share} of {} went to the other node", tally.successes);
    }
}

#[test]
fn ac3_8_the_number_of_rules_does_not_grow_with_services() {
    if !can_run() {
        return;
    }
    let (stage, programs) = serving("vxlan", &[]);
    let rules =
        || run(stage.node("a"), "nft list table ip fairlead").lines().filter(|line| !line.contains("elements")).count();
    let held = || programs[0].metric("fairlead_rules", "IPv4");
    let (lines, before) = (rules(), held());
    assert!(lines > 0);
    for number in 2..42 {
        let name = format!("more-{number}");
        stage.apply([Service::new(&name)
            .cluster_ip(number)
            .port(Port::tcp(PORT).named("t"))
            .manifest(&stage.lab, &Family::BOTH)]);
        stage.apply(Slice::of(&name).tcp("t", 8080).ready(&["b1"]).manifests(&stage.lab, &Family::BOTH));
    }
    eventually("all are programmed", || programs[0].metric("fairlead_service_ports", "IPv4") == 42.0);
    assert_eq!(held(), before);
}
