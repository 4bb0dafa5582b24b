//! The rules and elements, interpreted, must say what the plan says.

#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_nft::{End, Tracer, trace};
use fairlead_plan::{
    Action, Family, Frontend, LocalTraffic, Node, Packet, Plan, Pool, Protocol, Route, Service, Verdict,
};
use proptest::prelude::*;

use sample::packets::packets;
use sample::{addr, cluster_ip, endpoint, everything, net, node, service};

/// Every packet that could tell the two apart.
fn agrees(plan: &Plan) {
    let tracer = Tracer::new(plan).expect("the kernel would take it");
    for packet in packets(plan) {
        assert_eq!(tracer.verdict(&packet), Ok(plan.decide(&packet)), "{packet:?}\n{}", walked(&tracer, &packet));
    }
}

fn walked(tracer: &Tracer, packet: &Packet) -> String {
    tracer.steps(packet).map_or_else(|fault| fault.to_string(), |paths| format!("{paths:#?}"))
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
    let pools = [Pool::Cluster, Pool::Local];
    let sizes = [1, 2, 14, 15, 16, 17, 31, 32, 300].into_iter();
    for (count, pool) in sizes.flat_map(|count| pools.map(|pool| (count, pool))) {
        let plan = plan_of(Family::BOTH.map(|family| {
            let all: Vec<_> = (1..=count).map(|number| endpoint(family, number, false)).collect();
            let mut service = service(family, "web", 1, Protocol::Udp, all.clone());
            let to = Action::Forward { to: pool, masquerade: false };
            (service.internal, service.external) = (Route::all(to), Route::all(to));
            service.pools.local = all;
            service.frontends.push(Frontend::NodePort(30_001));
            service
        }));
        let tracer = Tracer::new(&plan).expect("the kernel would take it");
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
fn a_remembered_client_meets_its_endpoint_and_one_whose_endpoint_is_gone_meets_any() {
    let plan = everything();
    for family in Family::BOTH {
        let mut tracer = Tracer::new(&plan).expect("the kernel would take it");
        let sticky = plan.services.iter().find(|s| s.affinity.is_some() && s.key.family == family).expect("one is");
        let [first, second] =
            [("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2")].map(|(a, b)| addr(family, a, b));
        let remembered = endpoint(family, 2, false).addr();
        tracer.remember(&sticky.key, first, remembered).expect("it is sticky");
        tracer.remember(&sticky.key, second, endpoint(family, 9, false).addr()).expect("it is sticky");
        let node = sample::packets::node_addresses(family)[0];
        for destination in [cluster_ip(family, 5, 80), SocketAddr::new(node, 30_005)] {
            let known = tracer.verdict(&packet(family, first, destination));
            let only = BTreeSet::from([remembered]);
            assert_eq!(known, Ok(Verdict::Forward { endpoints: only.clone(), masqueraded: only }));
            let other = packet(family, second, destination);
            assert_eq!(tracer.verdict(&other), Ok(plan.decide(&other)));
        }
        let plain = plan.services.iter().find(|service| service.affinity.is_none()).expect("one is not");
        assert!(tracer.remember(&plain.key, first, remembered).is_err());
    }
}

#[test]
fn no_scratch_value_and_no_mark_leaves_with_a_packet() {
    let plan = everything();
    let tracer = Tracer::new(&plan).expect("the kernel would take it");
    for packet in packets(&plan) {
        for path in tracer.steps(&packet).expect("it can be followed") {
            if matches!(path.end, End::Forward { .. } | End::Pass) {
                assert_eq!((path.mark, path.priority), (0, 0), "{packet:?}: {path:#?}");
            }
        }
    }
}

#[test]
fn steps_name_the_rules_and_the_elements_that_applied() {
    let family = Family::V6;
    let plan = plan_of([service(family, "web", 1, Protocol::Tcp, vec![endpoint(family, 1, true)])]);
    let packet = packet(family, addr(family, "", "2001:db8::1"), cluster_ip(family, 1, 80));
    let paths = Tracer::new(&plan).and_then(|tracer| tracer.steps(&packet)).expect("it can be followed");
    let steps: Vec<&str> = paths[0].steps.iter().map(String::as_str).collect();
    assert_eq!(
        steps,
        [
            "nat-prerouting 1: jump services",
            "services 2: jump frontends",
            "frontends 3: goto from-outside",
            "from-outside 1: meta priority set meta l4proto . ip6 daddr . th dport map @frontends goto act",
            "  frontends: tcp . fd00:96::1 . 80 : 2400:1",
            "act 1: meta priority & 2000:0 == 2000:0 meta mark set meta mark | 0x00004000",
            "act 2: meta priority & cfff:fff0 == 400:0 goto cluster",
            "cluster 1: meta priority & cfff:ffff == 400:1 meta priority set 0:0 dnat ip6 to meta l4proto . ip6 daddr . th dport . numgen random mod 1 map \
             @endpoints",
            "  endpoints: tcp . fd00:96::1 . 80 . 0 : fd00:244::1 . 8080",
            "nat-postrouting 2: meta mark & 0x00004000 == 0x00004000 meta mark set meta mark ^ 0x00004000 masquerade \
             fully-random",
        ]
    );
    assert_eq!(paths.len(), 1);
}

#[test]
fn what_the_kernel_would_refuse_is_a_fault() {
    let family = Family::V4;
    let web = |name: &str, count| {
        let all = (1..=count).map(|number| endpoint(family, number, false)).collect();
        service(family, name, 1, Protocol::Tcp, all)
    };
    let sentence = |plan: &Plan| Tracer::new(plan).expect_err("the kernel would refuse it").to_string();
    let two = sentence(&plan_of([web("one", 1), web("two", 2)]));
    assert!(two.starts_with("table ip fairlead: tcp . 10.96.0.1 . 80 in frontends"), "{two}");
    let mut unnamed = plan_of([]);
    unnamed.node = Arc::new(Node { local_traffic: LocalTraffic::Interface(String::new()), ..node() });
    let unnamed = sentence(&unnamed);
    assert_eq!(unnamed, "table ip fairlead: no interface can be called \"\" (chain frontends, rule 1)");
    let mut twice = web("twice", 1);
    twice.frontends.push(Frontend::LoadBalancer {
        addr: SocketAddr::new(addr(family, "203.0.113.5", ""), 80),
        allow: vec![net("10.0.0.0/8"), net("10.1.0.0/16")],
    });
    let twice = sentence(&plan_of([twice]));
    assert!(
        twice.starts_with("table ip fairlead: allowed has two ranges over tcp . 203.0.113.5 . 80 . 10.1.0.0"),
        "{twice}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn random_plans_are_carried_out_as_planned(plan in sample::random::plan()) {
        let tracer = Tracer::new(&plan).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        for packet in packets(&plan) {
            prop_assert_eq!(tracer.verdict(&packet), Ok(plan.decide(&packet)), "{:?}\n{}", packet, walked(&tracer, &packet));
        }
    }
}
