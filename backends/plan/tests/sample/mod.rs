//! Plans for the tests of the backends: small, and with one of everything.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod packets;
pub mod random;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fairlead_plan::{
    Action, Affinity, Endpoint, Family, Frontend, LocalTraffic, Node, Plan, Pool, Pools, Priority, Protocol, Route,
    Service, ServiceKey,
};

pub fn addr(family: Family, v4: &str, v6: &str) -> IpAddr {
    match family {
        Family::V4 => v4.parse().expect("an IPv4 address"),
        Family::V6 => v6.parse().expect("an IPv6 address"),
    }
}

pub fn node() -> Node {
    Node {
        local_traffic: LocalTraffic::Sources(vec![net("10.244.0.0/16"), net("fd00:244::/48")]),
        node_port_addresses: vec![net("192.168.50.1/32"), net("fd00:50::1/128")],
        service_cidrs: vec![net("10.96.0.0/12"), net("fd00:96::/112")],
        ..Node::default()
    }
}

pub fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a prefix")
}

pub fn endpoint(family: Family, number: u16, local: bool) -> Endpoint {
    let (hi, lo) = (number >> 8, number & 0xff);
    let node = if local { 0 } else { 64 };
    let ip = addr(family, &format!("10.244.{}.{lo}", node + hi), &format!("fd00:244:0:{node}::{number:x}"));
    Endpoint::new(SocketAddr::new(ip, 8080), local)
}

pub fn cluster_ip(family: Family, number: u16, port: u16) -> SocketAddr {
    let (hi, lo) = (number >> 8, number & 0xff);
    SocketAddr::new(addr(family, &format!("10.96.{hi}.{lo}"), &format!("fd00:96::{number:x}")), port)
}

pub fn service(family: Family, name: &str, number: u16, protocol: Protocol, cluster: Vec<Endpoint>) -> Service {
    let to = |masquerade| match cluster.is_empty() {
        true => Action::Reject,
        false => Action::Forward { to: Pool::Cluster, masquerade },
    };
    Service {
        key: Arc::new(ServiceKey {
            namespace: "default".into(),
            name: name.into(),
            port_name: "http".into(),
            protocol,
            family,
        }),
        frontends: vec![Frontend::ClusterIp(cluster_ip(family, number, 80))],
        internal: Route { from_pod: to(false), from_node: to(true), from_outside: to(true) },
        external: Route::all(to(true)),
        pools: Pools { cluster, local: Vec::new() },
        affinity: None,
        serving: Vec::new(),
        scheduler: None,
        priority: Priority::Other,
    }
}

/// One of everything, in both families.
pub fn everything() -> Plan {
    let mut services = Vec::new();
    for family in Family::BOTH {
        let few = || vec![endpoint(family, 1, true), endpoint(family, 2, false), endpoint(family, 3, false)];
        services.push(service(family, "plain", 1, Protocol::Tcp, few()));
        services.push(service(family, "plain", 1, Protocol::Udp, few()));
        services.push(service(family, "empty", 2, Protocol::Tcp, vec![]));
        services.push(service(
            family,
            "many",
            3,
            Protocol::Tcp,
            (1..=40).map(|n| endpoint(family, n, false)).collect(),
        ));
        let mut local = service(family, "local", 4, Protocol::Tcp, few());
        local.frontends.push(Frontend::NodePort(30_004));
        local.frontends.push(Frontend::LoadBalancer {
            addr: SocketAddr::new(addr(family, "203.0.113.5", "2001:db8::5"), 80),
            allow: match family {
                Family::V4 => vec![net("192.168.50.0/25"), net("198.51.100.7/32")],
                Family::V6 => vec![net("fd00:50::/64"), net("2001:db8:7::7/128")],
            },
        });
        local.pools.local = vec![endpoint(family, 1, true)];
        local.external.from_outside = Action::Forward { to: Pool::Local, masquerade: false };
        services.push(local);
        let mut sticky = service(family, "sticky", 5, Protocol::Tcp, few());
        sticky.affinity = Some(Affinity { timeout_seconds: 10_800 });
        sticky.frontends.push(Frontend::NodePort(30_005));
        services.push(sticky);
        let mut external = service(family, "external", 6, Protocol::Sctp, few());
        external.frontends.push(Frontend::ExternalIp(SocketAddr::new(addr(family, "198.51.100.9", "2001:db8::9"), 99)));
        external.frontends.push(Frontend::NodePort(30_006));
        services.push(external);
    }
    Plan { node: Arc::new(node()), services: services.into_iter().collect() }
}

/// [`everything`], with every way of knowing pods, so that every rule that there can be is read.
pub fn plans() -> Vec<Plan> {
    let ways = [
        LocalTraffic::Unknown,
        LocalTraffic::Interface("cni0".into()),
        LocalTraffic::InterfacePrefix("veth".into()),
        LocalTraffic::Sources(vec![net("10.244.0.0/17"), net("10.244.128.0/17"), net("fd00:244::/48")]),
    ];
    let plan = |local_traffic| Plan { node: Node { local_traffic, ..node() }.into(), ..everything() };
    ways.into_iter().map(plan).collect()
}
