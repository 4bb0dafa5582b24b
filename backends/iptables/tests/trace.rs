//! The rules, interpreted, must say what the plan says.

#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_iptables::{Tracer, trace};
use fairlead_plan::{
    Action, Family, Frontend, LocalTraffic, Node, Packet, Plan, Pool, Protocol, Route, Service, Verdict,
};
use proptest::prelude::*;

use sample::packets::packets;
use sample::{addr, cluster_ip, endpoint, everything, net, node, service};

/// Every packet that could tell the two apart.
fn agrees(plan: &Plan) {
    let tracer = Tracer::new(plan);
    for packet in packets(plan) {
        assert_eq!(tracer.verdict(&packet), Ok(plan.decide(&packet)), "{packet:?}\n{}", fairlead_iptables::text(plan));
    }
}

fn plan_of(services: impl IntoIterator<Item = Service>) -> Plan {
    Plan { node: Arc::new(node()), services: services.into_iter().collect() }
}

fn few(family: Family) -> Vec<fairlead_plan::Endpoint> {
    vec![endpoint(family, 1, true), endpoint(family, 2, false), endpoint(family, 3, false)]
}

fn packet(family: Family, source: std::net::IpAddr, destination: SocketAddr) -> Packet {
    let of_node = sample::packets::node_addresses(family);
    Packet {
        protocol: Protocol::Tcp,
        source,
        destination,
        interface: Some("eth0".to_owned()),
        source_is_local: of_node.contains(&source),
        destination_is_local: of_node.contains(&destination.ip()),
    }
}

#[test]
fn one_of_everything_is_carried_out_as_planned() {
    agrees(&everything());
}

#[test]
fn an_empty_plan_lets_everything_pass() {
    agrees(&Plan::default());
    let packet = packet(Family::V6, addr(Family::V6, "", "2001:db8::1"), cluster_ip(Family::V6, 1, 80));
    assert_eq!(trace(&Plan::default(), &packet), Ok(Verdict::Pass));
}

#[test]
fn pods_are_recognised_in_every_way_that_a_node_can_know_them() {
    for local_traffic in [
        LocalTraffic::Unknown,
        LocalTraffic::Interface("cni0".into()),
        LocalTraffic::InterfacePrefix("cni".into()),
        LocalTraffic::Sources(Vec::new()),
        LocalTraffic::Sources(vec![net("10.244.64.0/24")]),
        LocalTraffic::Sources(vec![net("fd00:244:0:64::/64")]),
        LocalTraffic::Sources(vec![net("10.244.0.0/17"), net("10.244.128.0/17"), net("10.244.3.0/24"), net("::/0")]),
        LocalTraffic::Sources(vec![net("0.0.0.0/0"), net("fd00:244::/48")]),
    ] {
        let mut plan = everything();
        plan.node = Arc::new(Node { local_traffic, ..node() });
        agrees(&plan);
    }
}

#[test]
fn node_ports_answer_only_where_the_node_says() {
    for nets in
        [vec![], vec!["0.0.0.0/0"], vec!["::/0"], vec!["127.0.0.0/8", "::1/128", "172.16.0.0/16", "fd00:172::/64"]]
    {
        let mut plan = everything();
        plan.node = Arc::new(Node { node_port_addresses: nets.into_iter().map(net).collect(), ..node() });
        agrees(&plan);
    }
}

#[test]
fn every_action_holds_for_every_origin_through_every_frontend() {
    let forward = |to, masquerade| Action::Forward { to, masquerade };
    let actions = [
        Action::Reject,
        Action::Drop,
        forward(Pool::Cluster, false),
        forward(Pool::Cluster, true),
        forward(Pool::Local, false),
        forward(Pool::Local, true),
    ];
    for (number, action) in actions.into_iter().enumerate() {
        let next = |step: usize| actions[(number + step) % actions.len()];
        let services = Family::BOTH.into_iter().flat_map(|family| {
            [None, Some(fairlead_plan::Affinity { timeout_seconds: 60 })].map(|affinity| {
                let (name, ip) = if affinity.is_some() { ("sticky", 2) } else { ("plain", 1) };
                let mut service = service(family, name, ip, Protocol::Tcp, few(family));
                let vip = |v4, v6, port| SocketAddr::new(addr(family, v4, v6), port);
                service.frontends.extend([
                    Frontend::ExternalIp(vip("203.0.113.9", "2001:db8::9", 80 + ip)),
                    Frontend::LoadBalancer { addr: vip("203.0.113.5", "2001:db8::5", 80 + ip), allow: Vec::new() },
                    Frontend::LoadBalancer {
                        addr: vip("203.0.113.6", "2001:db8::6", 80 + ip),
                        allow: match family {
                            Family::V4 => vec![net("198.51.100.0/24"), net("10.244.0.0/17")],
                            Family::V6 => vec![net("2001:db8:7::/48"), net("fd00:244::/64")],
                        },
                    },
                    Frontend::NodePort(30_000 + ip),
                ]);
                service.pools.local = vec![endpoint(family, 1, true)];
                service.internal = Route { from_pod: action, from_node: next(1), from_outside: next(2) };
                service.external = Route { from_pod: next(3), from_node: next(4), from_outside: next(5) };
                service.affinity = affinity;
                service
            })
        });
        agrees(&plan_of(services.collect::<Vec<_>>()));
    }
}

#[test]
fn every_pool_size_reaches_each_of_its_endpoints() {
    for count in [1, 2, 15, 16, 17, 300] {
        let plan = plan_of(Family::BOTH.map(|family| {
            let all = (1..=count).map(|number| endpoint(family, number, false)).collect();
            let mut service = service(family, "web", 1, Protocol::Udp, all);
            service.frontends.push(Frontend::NodePort(30_001));
            service
        }));
        let tracer = Tracer::new(&plan);
        for family in Family::BOTH {
            let (outside, node) =
                (addr(family, "192.0.2.1", "2001:db8::1"), sample::packets::node_addresses(family)[0]);
            for destination in [cluster_ip(family, 1, 80), SocketAddr::new(node, 30_001)] {
                let packet = Packet { protocol: Protocol::Udp, ..packet(family, outside, destination) };
                let verdict = tracer.verdict(&packet);
                assert_eq!(verdict, Ok(plan.decide(&packet)), "{packet:?}");
                let Ok(Verdict::Forward { endpoints, .. }) = verdict else { panic!("{verdict:?}") };
                assert_eq!(endpoints.len(), usize::from(count));
            }
        }
    }
}

#[test]
fn among_many_services_each_is_found_and_refused_as_planned() {
    let mut plan = everything();
    for family in Family::BOTH {
        for number in 100..400 {
            let endpoints = if number % 3 == 0 { Vec::new() } else { few(family) };
            let mut service = service(family, &format!("many-{number}"), number, Protocol::Tcp, endpoints);
            service.frontends.push(Frontend::NodePort(31_000 + number));
            let vip = addr(family, &format!("203.0.113.{}", number % 50), &format!("2001:db8::{}", number % 50));
            service.frontends.push(Frontend::ExternalIp(SocketAddr::new(vip, number)));
            plan.services.insert(Arc::new(service));
        }
    }
    let tracer = Tracer::new(&plan);
    for packet in packets(&plan).into_iter().step_by(97) {
        assert_eq!(tracer.verdict(&packet), Ok(plan.decide(&packet)), "{packet:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn random_plans_are_carried_out_as_planned(plan in sample::random::plan()) {
        let tracer = Tracer::new(&plan);
        for packet in packets(&plan) {
            prop_assert_eq!(tracer.verdict(&packet), Ok(plan.decide(&packet)), "{:?}\n{}", packet, fairlead_iptables::text(&plan));
        }
    }
}
