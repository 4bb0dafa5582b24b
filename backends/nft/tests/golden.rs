//! What the kernel will hold for small plans, whole, so that a person can read it; and that `nft` takes and lists it.

mod namespace;
#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_kernel::nft::{Nfproto, Nft};
use fairlead_nft::{TABLE, text};
use fairlead_plan::{
    Action, Affinity, Endpoint, Family, Frontend, LocalTraffic, Node, Plan, Pool, Protocol, Route, Service,
};

use namespace::{alone, load, nft};
use sample::{addr, endpoint, net, node, service};

/// Rules of one family that are there whatever services there are: one for each usual size of each pool by address and by
/// node port, 60, and what leads there.
const CONSTANT_RULES: usize = 60 + 50;

fn plan(services: impl IntoIterator<Item = Service>) -> Plan {
    Plan { node: Arc::new(node()), services: services.into_iter().collect() }
}

fn three(family: Family) -> Vec<Endpoint> {
    vec![endpoint(family, 1, true), endpoint(family, 2, false), endpoint(family, 3, false)]
}

fn web(family: Family) -> Service {
    service(family, "web", 1, Protocol::Tcp, three(family))
}

fn vip(family: Family) -> SocketAddr {
    SocketAddr::new(addr(family, "203.0.113.5", "2001:db8::5"), 80)
}

/// External traffic goes to endpoints on this node and keeps its source.
fn local(family: Family) -> Service {
    let mut web = web(family);
    web.pools.local = vec![endpoint(family, 1, true)];
    web.external.from_outside = Action::Forward { to: Pool::Local, masquerade: false };
    web
}

fn restricted(family: Family) -> Service {
    let allow = match family {
        Family::V4 => vec![net("192.168.50.0/25"), net("198.51.100.7/32")],
        Family::V6 => vec![net("fd00:50::/64"), net("2001:db8:7::7/128")],
    };
    let mut web = web(family);
    web.frontends.push(Frontend::LoadBalancer { addr: vip(family), allow });
    web
}

fn sticky(family: Family) -> Service {
    Service { affinity: Some(Affinity { timeout_seconds: 10_800 }), ..web(family) }
}

fn with(mut service: Service, frontend: Frontend) -> Service {
    service.frontends.push(frontend);
    service
}

fn only_local_endpoints(family: Family) -> Service {
    let mut web = web(family);
    web.pools.cluster.clear();
    web.internal = Route::all(Action::Drop);
    web
}

/// Sentence and plan.
fn plans() -> Vec<(&'static str, Plan)> {
    let v4 = Family::V4;
    let of_many = service(v4, "many", 1, Protocol::Udp, (1..=17).map(|number| endpoint(v4, number, false)).collect());
    let unknown = Node { local_traffic: LocalTraffic::Unknown, node_port_addresses: Vec::new(), ..node() };
    let bridge = Node { local_traffic: LocalTraffic::Interface("cni0".into()), ..node() };
    let veth = Node { local_traffic: LocalTraffic::InterfacePrefix("veth".into()), ..node() };
    vec![
        ("no_service_leaves_the_constant_structure", plan([])),
        ("a_cluster_ip_is_one_frontend_and_one_element_for_each_endpoint", plan([web(v4)])),
        ("the_same_service_in_both_families", plan(Family::BOTH.map(web))),
        ("a_service_without_endpoints_is_refused", plan([service(v4, "empty", 2, Protocol::Tcp, vec![])])),
        ("internal_policy_local_without_local_endpoints_drops", plan([only_local_endpoints(v4)])),
        ("a_node_port_of_policy_local_keeps_the_source", plan([with(local(v4), Frontend::NodePort(30_001))])),
        ("a_load_balancer_takes_only_its_source_ranges", plan(Family::BOTH.map(restricted))),
        ("an_external_ip_is_masqueraded", plan([with(web(Family::V6), Frontend::ExternalIp(vip(Family::V6)))])),
        ("a_sticky_service_has_a_memory_of_its_own", plan(Family::BOTH.map(sticky))),
        ("a_pool_of_seventeen_has_a_chain_of_its_own", plan([of_many])),
        ("tcp_and_udp_share_a_cluster_ip", plan([web(v4), service(v4, "web", 1, Protocol::Udp, three(v4))])),
        ("a_node_that_knows_no_pods_and_has_no_node_ports", Plan { node: Arc::new(unknown), ..plan([web(v4)]) }),
        ("pods_are_what_comes_through_a_bridge", Plan { node: Arc::new(bridge), ..plan([]) }),
        ("pods_are_what_comes_through_interfaces_of_a_prefix", Plan { node: Arc::new(veth), ..plan([]) }),
    ]
}

#[test]
fn the_ruleset_of_every_small_plan_is_as_recorded_and_nft_takes_it() {
    for (sentence, plan) in plans() {
        let text = text(&plan);
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(sentence, text);
        });
        alone(|| {
            load(&text);
            let listing = nft(&["list", "ruleset"]);
            for family in ["ip", "ip6"] {
                assert!(listing.contains(&format!("table {family} {TABLE} {{")), "{sentence}: {listing}");
            }
            // Once more over itself: the same.
            load(&text);
            assert_eq!(nft(&["list", "ruleset"]), listing, "{sentence}");
        });
    }
}

/// Rules of both families after `nft` loaded the text of a plan.
fn rules(plan: &Plan) -> [usize; 2] {
    alone(|| {
        load(&text(plan));
        let mut nft = Nft::open().expect("the kernel has nf_tables");
        [Nfproto::Ipv4, Nfproto::Ipv6].map(|family| nft.rules(family, TABLE).expect("the table is there").len())
    })
}

#[test]
fn a_plain_service_has_no_rule_of_its_own() {
    assert_eq!(rules(&plan([])), [CONSTANT_RULES; 2]);
    let many = (1..=50).flat_map(|number| {
        Family::BOTH.map(|family| {
            let plain = service(family, &format!("web-{number}"), number, Protocol::Tcp, three(family));
            with(plain, Frontend::NodePort(30_000 + number))
        })
    });
    assert_eq!(rules(&plan(many)), [CONSTANT_RULES; 2]);
}

#[test]
fn a_rare_pool_size_has_one_rule_and_a_sticky_service_five() {
    let many = |family, name: &str, number| {
        service(family, name, number, Protocol::Tcp, (1..=40).map(|n| endpoint(family, n, false)).collect())
    };
    let of_forty = Family::BOTH.into_iter().flat_map(|family| [many(family, "one", 1), many(family, "two", 2)]);
    assert_eq!(rules(&plan(of_forty)), [CONSTANT_RULES + 1; 2]);
    assert_eq!(rules(&plan(Family::BOTH.map(sticky))), [CONSTANT_RULES + 5; 2]);
}

#[test]
fn a_node_without_a_pod_detector_has_one_rule_less() {
    let unknown = Node { local_traffic: LocalTraffic::Unknown, ..node() };
    assert_eq!(rules(&Plan { node: Arc::new(unknown), ..plan([]) }), [CONSTANT_RULES - 1; 2]);
}
