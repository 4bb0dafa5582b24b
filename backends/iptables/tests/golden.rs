//! What the kernel holds for small plans, whole, as `iptables-save` and `ip6tables-save` show it, so that a person who knows
//! kube-proxy's chains can read it; the same in both variants.

mod namespace;
#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_iptables::{IptablesBackend, Variant};
use fairlead_plan::{
    Action, Affinity, Backend, Endpoint, Family, Frontend, LocalTraffic, Node, Plan, Pool, Protocol, Route, Service,
};

use namespace::{alone, save};
use sample::{addr, endpoint, net, node, service};

fn three(family: Family) -> Vec<Endpoint> {
    vec![endpoint(family, 1, true), endpoint(family, 2, false), endpoint(family, 3, false)]
}

fn web(family: Family) -> Service {
    service(family, "web", 1, Protocol::Tcp, three(family))
}

fn vip(family: Family) -> SocketAddr {
    SocketAddr::new(addr(family, "203.0.113.5", "2001:db8::5"), 80)
}

fn with(mut service: Service, frontends: impl IntoIterator<Item = Frontend>) -> Service {
    service.frontends.extend(frontends);
    service
}

/// External traffic goes to endpoints on this node and keeps its source.
fn local(family: Family) -> Service {
    let mut web = with(web(family), [Frontend::NodePort(30_001)]);
    web.pools.local = vec![endpoint(family, 1, true)];
    web.external.from_outside = Action::Forward { to: Pool::Local, masquerade: false };
    web
}

fn restricted(family: Family) -> Service {
    let allow = match family {
        Family::V4 => vec![net("192.168.50.0/25"), net("198.51.100.7/32")],
        Family::V6 => vec![net("fd00:50::/64"), net("2001:db8:7::7/128")],
    };
    let other = SocketAddr::new(addr(family, "198.51.100.9", "2001:db8::9"), 80);
    let balancer = Frontend::LoadBalancer { addr: vip(family), allow };
    with(web(family), [balancer, Frontend::ExternalIp(other), Frontend::NodePort(30_001)])
}

/// One without endpoints, one whose policy Local finds none here.
fn refused(family: Family) -> [Service; 2] {
    let nobody = service(family, "empty", 2, Protocol::Tcp, Vec::new());
    let mut elsewhere = service(family, "elsewhere", 3, Protocol::Udp, vec![endpoint(family, 2, false)]);
    elsewhere.internal = Route::all(Action::Drop);
    elsewhere.external.from_outside = Action::Drop;
    [with(nobody, [Frontend::NodePort(30_002)]), with(elsewhere, [Frontend::NodePort(30_003)])]
}

fn sticky(family: Family) -> Service {
    Service { affinity: Some(Affinity { timeout_seconds: 10_800 }), ..web(family) }
}

fn many(family: Family) -> impl Iterator<Item = Service> {
    (1..=20).map(move |number| {
        let one = vec![endpoint(family, number, false)];
        let name = format!("web-{number}");
        with(service(family, &name, number, Protocol::Tcp, one), [Frontend::NodePort(30_000 + number)])
    })
}

fn in_both<I: IntoIterator<Item = Service>>(services: impl Fn(Family) -> I) -> Plan {
    Plan { node: Arc::new(node()), services: Family::BOTH.into_iter().flat_map(services).collect() }
}

/// Sentence and plan.
fn plans() -> Vec<(&'static str, Plan)> {
    let unknown = Node { local_traffic: LocalTraffic::Unknown, node_port_addresses: Vec::new(), ..node() };
    let bridge = Node { local_traffic: LocalTraffic::Interface("cni0".into()), ..node() };
    let udp = |family| service(family, "web", 1, Protocol::Udp, three(family));
    vec![
        ("no_service_leaves_the_constant_structure", in_both(|_| [])),
        ("a_cluster_ip_of_tcp_and_udp", in_both(|family| [web(family), udp(family)])),
        ("services_that_nobody_serves_here_are_refused_or_dropped", in_both(refused)),
        ("a_node_port_of_policy_local_keeps_the_source", in_both(|family| [local(family)])),
        ("a_load_balancer_takes_only_its_source_ranges", in_both(|family| [restricted(family)])),
        ("a_sticky_service_remembers_in_the_chains_of_its_endpoints", in_both(|family| [sticky(family)])),
        ("twenty_services_are_shared_out_by_address_and_port", in_both(many)),
        (
            "pods_are_what_comes_through_a_bridge",
            Plan { node: Arc::new(bridge), ..in_both(|family| [web(family), local(family)]) },
        ),
        (
            "a_node_that_knows_no_pods_and_has_no_node_ports",
            Plan { node: Arc::new(unknown), ..in_both(|family| [local(family)]) },
        ),
    ]
}

/// Chains by name, rules in their order: the variants print chains in different orders.
fn arranged(saved: &str) -> String {
    let mut chains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut out = String::new();
    for line in saved.lines() {
        match line.split_at(1) {
            ("*", _) => out = format!("{line}\n"),
            (":", chain) => drop(chains.entry(chain.split(' ').next().unwrap_or_default()).or_default()),
            ("-", rule) => chains.entry(rule.split(' ').nth(1).unwrap_or_default()).or_default().push(line),
            _ => {}
        }
    }
    for (chain, rules) in chains {
        // Writing to a String cannot fail.
        let _ = writeln!(out, ":{chain}");
        for rule in rules {
            let _ = writeln!(out, "{rule}");
        }
    }
    out
}

/// Everything that the kernel holds after a sync.
fn held(variant: Variant, plan: &Plan) -> String {
    alone(|| {
        IptablesBackend::new(Some(variant)).sync(None, plan).expect("the kernel takes it");
        let of = |family| {
            let program = if family == Family::V4 { "iptables-save" } else { "ip6tables-save" };
            let tables = ["nat", "filter"].map(|table| arranged(&save(variant, family, table)));
            format!("# {program}\n{}", tables.concat())
        };
        Family::BOTH.map(of).join("\n")
    })
}

#[test]
fn the_rules_of_every_small_plan_are_as_recorded_in_both_variants() {
    for (sentence, plan) in plans() {
        let legacy = held(Variant::Legacy, &plan);
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(sentence, legacy);
        });
        assert_eq!(held(Variant::Nft, &plan), legacy, "{sentence}");
    }
}
