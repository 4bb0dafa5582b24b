//! Random plans from small domains, so that services share addresses, endpoints and ports all the time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_plan::{
    Action, Affinity, Endpoint, Family, Frontend, FrontendAddr, LocalTraffic, Node, Plan, Pool, Pools, Protocol, Route,
    Service, ServiceKey,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::packets::node_addresses;
use super::{addr, cluster_ip, endpoint, net, service};

/// A plan with up to eight services.
pub fn plan() -> impl Strategy<Value = Plan> {
    (node_facts(), vec(any_service(), 0..8)).prop_map(|(node, services)| assemble(node, services))
}

/// Plans that share the node in half of the cases, each a step from the one before.
pub fn journey(steps: usize) -> impl Strategy<Value = Vec<Plan>> {
    let some = || vec(any::<u16>(), 0..3);
    let step = (proptest::option::of(node_facts()), vec(any_service(), 0..4), some(), some());
    (plan(), vec(step, steps)).prop_map(|(start, steps)| {
        let mut plans = vec![start];
        for (node, services, moved, gone) in steps {
            plans.push(next(&plans[plans.len() - 1], node, services, (&moved, &gone)));
        }
        plans
    })
}

fn next(was: &Plan, node: Option<Node>, services: Vec<Service>, (moved, gone): (&[u16], &[u16])) -> Plan {
    let mut left: Vec<Service> = was.services.sorted().into_iter().map(|service| (**service).clone()).collect();
    for moved in moved {
        let count = left.len().max(1);
        left.get_mut(usize::from(*moved) % count).into_iter().for_each(|service| stir(service, *moved));
    }
    for gone in gone {
        if !left.is_empty() {
            left.remove(usize::from(*gone) % left.len());
        }
    }
    // New ones first: they win what they claim.
    left.retain(|old| services.iter().all(|new| new.key != old.key));
    assemble(node.unwrap_or_else(|| (*was.node).clone()), services.into_iter().chain(left).collect())
}

/// Another order, one endpoint less or one more: what changes most, and everything else stays.
fn stir(service: &mut Service, how: u16) {
    let Pools { cluster, local } = &mut service.pools;
    let more = endpoint(service.key.family, 30 + how % 5, false);
    match how % 4 {
        0 => [cluster, local].into_iter().filter(|pool| !pool.is_empty()).for_each(|pool| pool.rotate_left(1)),
        1 if cluster.len() > 1 => _ = cluster.pop(),
        2 if cluster.len() > 1 => _ = cluster.swap_remove(0),
        _ if !cluster.is_empty() && !cluster.contains(&more) => cluster.push(more),
        _ => {}
    }
}

/// One owner for each service key and each address, as `resolve` promises.
fn assemble(node: Node, services: Vec<Service>) -> Plan {
    let mut plan = Plan { node: Arc::new(node), ..Plan::default() };
    let mut taken: BTreeSet<(Protocol, Family, FrontendAddr)> = BTreeSet::new();
    for mut service in services {
        if plan.services.get(&service.key).is_some() {
            continue;
        }
        let (protocol, family) = (service.key.protocol, service.key.family);
        service.frontends.retain(|frontend| taken.insert((protocol, family, frontend.addr())));
        plan.services.insert(Arc::new(service));
    }
    plan
}

fn node_facts() -> impl Strategy<Value = Node> {
    let sources =
        ["10.244.0.0/16", "10.244.64.0/24", "10.244.65.0/24", "fd00:244::/48", "fd00:244:0:64::/64", "0.0.0.0/0"];
    let local_traffic = prop_oneof![
        Just(LocalTraffic::Unknown),
        Just(LocalTraffic::Interface("cni0".into())),
        Just(LocalTraffic::InterfacePrefix("cni".into())),
        Just(LocalTraffic::InterfacePrefix("veth".into())),
        subsequence(sources.to_vec(), 0..=sources.len())
            .prop_map(|nets| LocalTraffic::Sources(nets.into_iter().map(net).collect())),
    ];
    let node_ports = ["0.0.0.0/0", "::/0", "192.168.50.0/24", "172.16.0.0/30", "fd00:50::/64", "fd00:172::1/128"];
    let clusters = ["10.96.0.0/12", "10.96.0.0/16", "10.112.0.0/12", "fd00:96::/112", "fd00:96::/64"];
    let some = |nets: &[&'static str]| {
        subsequence(nets.to_vec(), 0..=nets.len()).prop_map(|nets| nets.into_iter().map(net).collect::<Vec<_>>())
    };
    (local_traffic, some(&node_ports), some(&clusters), select(vec![1_u32 << 14, 1, 1 << 31])).prop_map(
        |(local_traffic, node_port_addresses, service_cidrs, masquerade_mark)| Node {
            local_traffic,
            node_port_addresses,
            service_cidrs,
            masquerade_mark,
        },
    )
}

fn any_service() -> impl Strategy<Value = Service> {
    let protocol = select(Protocol::ALL.to_vec());
    let named = (select(vec!["a", "b", "c"]), select(Family::BOTH.to_vec()), protocol);
    named.prop_flat_map(|(name, family, protocol)| {
        let routes = (any_route(), any_route());
        let affinity =
            proptest::option::weighted(0.3, (1_u32..3).prop_map(|timeout_seconds| Affinity { timeout_seconds }));
        (frontends(family), pools(family), routes, affinity).prop_map(move |(frontends, pools, routes, affinity)| {
            let plain = service(family, name, 1, protocol, Vec::new());
            let key = ServiceKey { port_name: "".into(), ..(*plain.key).clone() };
            let [internal, external] = [routes.0, routes.1].map(|route| possible(route, &pools));
            Service { key: Arc::new(key), frontends, internal, external, pools, affinity, ..plain }
        })
    })
}

/// Virtual addresses that all services claim: a ClusterIP may be somebody's external address on another port.
fn frontends(family: Family) -> impl Strategy<Value = Vec<Frontend>> {
    let outside = addr(family, "203.0.113.5", "2001:db8::5");
    let ips = [cluster_ip(family, 1, 0).ip(), cluster_ip(family, 2, 0).ip(), outside, node_addresses(family)[0]];
    let at = (select(ips.to_vec()), select(vec![80_u16, 30_001])).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    let ranges = match family {
        Family::V4 => ["10.244.0.0/16", "192.168.50.0/25", "198.51.100.7/32"],
        Family::V6 => ["fd00:244::/48", "fd00:50::/64", "2001:db8:7::7/128"],
    };
    let allow = subsequence(ranges.to_vec(), 0..=ranges.len());
    let one = prop_oneof![
        at.clone().prop_map(Frontend::ClusterIp),
        at.clone().prop_map(Frontend::ExternalIp),
        (at, allow)
            .prop_map(|(addr, allow)| Frontend::LoadBalancer { addr, allow: allow.into_iter().map(net).collect() }),
        select(vec![30_001_u16, 30_002]).prop_map(Frontend::NodePort),
    ];
    vec(one, 1..5).prop_map(|mut frontends| {
        frontends.sort();
        let mut taken = BTreeSet::new();
        frontends.retain(|frontend| taken.insert(frontend.addr()));
        frontends
    })
}

/// Where an endpoint is follows from its address. The node itself may be one, and two ports of one pod.
fn pools(family: Family) -> impl Strategy<Value = Pools> {
    let mut domain: Vec<Endpoint> = (1..=4).map(|number| endpoint(family, number, number < 3)).collect();
    domain.push(Endpoint::new(SocketAddr::new(domain[0].addr().ip(), 9_090), true));
    domain.push(Endpoint::new(SocketAddr::new(node_addresses(family)[0], 8_080), true));
    let local: Vec<Endpoint> = domain.iter().copied().filter(|endpoint| endpoint.local).collect();
    let many: Vec<Endpoint> = (5..25).map(|number| endpoint(family, number, false)).collect();
    let cluster = prop_oneof![
        4 => subsequence(domain.clone(), 0..=domain.len()).prop_shuffle(),
        1 => subsequence(many, 16..=18),
    ];
    (cluster, subsequence(local.clone(), 0..=local.len())).prop_map(|(cluster, local)| Pools { cluster, local })
}

fn any_route() -> impl Strategy<Value = Route> {
    let forward = |to| any::<bool>().prop_map(move |masquerade| Action::Forward { to, masquerade });
    let action = prop_oneof![4 => forward(Pool::Cluster), 2 => forward(Pool::Local), 1 => Just(Action::Reject), 1 => Just(Action::Drop)];
    (action.clone(), action.clone(), action).prop_map(|(from_pod, from_node, from_outside)| Route {
        from_pod,
        from_node,
        from_outside,
    })
}

/// Never forwards to an empty pool.
fn possible(route: Route, pools: &Pools) -> Route {
    let fix = |action| match action {
        Action::Forward { to, .. } if pools.get(to).is_empty() => Action::Reject,
        action => action,
    };
    Route { from_pod: fix(route.from_pod), from_node: fix(route.from_node), from_outside: fix(route.from_outside) }
}
