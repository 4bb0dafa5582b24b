//! Rules, sets and virtual services, interpreted, must say what the plan says.

#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use std::sync::Arc;

use fairlead_ipvs::{Settings, Tracer};
use fairlead_plan::{Action, Affinity, Family, Frontend, LocalTraffic, Node, Plan, Pool, Protocol, Route, Service};
use proptest::prelude::*;

use sample::packets::packets;
use sample::{addr, endpoint, everything, net, node, service};

/// Every packet that could tell the two apart.
fn agrees(plan: &Plan) {
    let tracer = Tracer::new(plan, &Settings::default());
    for packet in packets(plan) {
        assert_eq!(tracer.trace(&packet), Ok(plan.decide(&packet)), "{packet:?}");
    }
}

#[test]
fn one_of_everything_is_carried_out_as_planned() {
    agrees(&everything());
}

#[test]
fn an_empty_plan_lets_everything_pass() {
    agrees(&Plan::default());
}

#[test]
fn pods_are_recognised_in_every_way_that_a_node_can_know_them() {
    for local_traffic in [
        LocalTraffic::Unknown,
        LocalTraffic::Interface("cni0".into()),
        LocalTraffic::InterfacePrefix("cni".into()),
        LocalTraffic::Sources(Vec::new()),
        LocalTraffic::Sources(vec![net("10.244.64.0/24"), net("::/0")]),
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

/// All that a service may have, with a route in which origins differ.
fn mixed(
    family: Family,
    protocol: Protocol,
    number: u16,
    affinity: Option<Affinity>,
    action: impl Fn(usize) -> Action,
) -> Service {
    let few = vec![endpoint(family, 1, true), endpoint(family, 2, false), endpoint(family, 3, false)];
    let mut service = service(family, &format!("mixed-{number}"), number, protocol, few);
    let vip = |v4, v6, port| std::net::SocketAddr::new(addr(family, v4, v6), port);
    service.frontends.extend([
        Frontend::ExternalIp(vip("203.0.113.9", "2001:db8::9", 80 + number)),
        Frontend::LoadBalancer {
            addr: vip("203.0.113.6", "2001:db8::6", 80 + number),
            allow: match family {
                Family::V4 => vec![net("198.51.100.0/24"), net("10.244.0.0/17")],
                Family::V6 => vec![net("::/0")],
            },
        },
        Frontend::NodePort(30_000 + number),
    ]);
    service.pools.local = vec![endpoint(family, 1, true)];
    service.internal = Route { from_pod: action(0), from_node: action(1), from_outside: action(2) };
    service.external = Route { from_pod: action(3), from_node: action(4), from_outside: action(5) };
    service.affinity = affinity;
    service
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
    for first in 0..actions.len() {
        let action = |step: usize| actions[(first + step) % actions.len()];
        let services = Family::BOTH.into_iter().flat_map(|family| {
            let affinities = [(1, None), (2, Some(Affinity { timeout_seconds: 60 }))];
            affinities.into_iter().flat_map(move |(number, affinity)| {
                Protocol::ALL.map(|protocol| mixed(family, protocol, number, affinity, action))
            })
        });
        agrees(&Plan { node: Arc::new(node()), services: services.collect() });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn random_plans_are_carried_out_as_planned(plan in sample::random::plan()) {
        let tracer = Tracer::new(&plan, &Settings::default());
        for packet in packets(&plan) {
            prop_assert_eq!(tracer.trace(&packet), Ok(plan.decide(&packet)), "{:?}", packet);
        }
    }
}
