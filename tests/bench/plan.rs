//! A cluster as a plan, for what is measured without an API server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use fairlead_plan::{
    Action, Endpoint, Family, Frontend, LocalTraffic, Node, Plan, Pool, Pools, Priority, Protocol, Route, Service,
    ServiceKey,
};

use crate::cluster::{Change, ENDPOINTS};

/// Where the addresses of pods begin, and how long their prefix is.
pub const CLIENTS: &str = "10.244.0.0/16";
const CLIENTS_V6: &str = "fd00:244::/48";
/// Another address in the place of an endpoint is so much higher.
const MOVED: usize = 400_000;
/// No service has more endpoints.
const PLACES: usize = 12;

/// Services of ten endpoints each, every second one of IPv6.
pub fn both_families(size: usize) -> Plan {
    let prefix = |text: &str| text.parse().expect("a prefix");
    let local_traffic = LocalTraffic::Sources(vec![prefix(CLIENTS), prefix(CLIENTS_V6)]);
    let services = (0..size).map(|number| service(family(number), number, 0, ENDPOINTS));
    Plan { node: Arc::new(Node { local_traffic, ..Node::default() }), services: services.collect() }
}

/// Makes a change of this sort.
pub fn change(plan: &mut Plan, change: Change, size: usize, number: usize) {
    let (at, variant, new) = (at(number, size), 1 + number % 2, size + number);
    let mut put = |number, variant, endpoints| {
        plan.services.insert(Arc::new(service(family(number), number, variant, endpoints)));
    };
    match change {
        Change::Replace => put(at, variant, ENDPOINTS),
        Change::Add => put(at, variant, ENDPOINTS + 1),
        Change::Remove => put(at, variant, ENDPOINTS),
        Change::NewService => put(new, 0, ENDPOINTS),
        Change::DeleteService => drop(plan.services.remove(&service(family(new), new, 0, ENDPOINTS).key)),
    }
}

/// Which Service the next change is about; never the first or the last.
pub const fn at(number: usize, size: usize) -> usize {
    1 + (number * 37) % (size - 2)
}

const fn family(number: usize) -> Family {
    if number.is_multiple_of(2) { Family::V4 } else { Family::V6 }
}

/// The virtual address of a Service.
pub fn cluster_ip(family: Family, number: usize) -> SocketAddr {
    SocketAddr::new(address(family, Ipv4Addr::new(10, 96, 0, 0), 0x96, number), 80)
}

/// A Service whose fifth endpoint depends on the variant.
pub fn service(family: Family, number: usize, variant: usize, endpoints: usize) -> Service {
    let endpoint = |index: usize| {
        let moved = if index == 4 { variant * MOVED } else { 0 };
        let ip = address(family, Ipv4Addr::new(10, 128, 0, 0), 0x128, moved + number * PLACES + index);
        Endpoint::new(SocketAddr::new(ip, 8080), false)
    };
    let to = |masquerade| Action::Forward { to: Pool::Cluster, masquerade };
    let key = ServiceKey {
        namespace: "bench".into(),
        name: format!("service-{number:06}").into(),
        port_name: "http".into(),
        protocol: Protocol::Tcp,
        family,
    };
    Service {
        key: Arc::new(key),
        frontends: vec![Frontend::ClusterIp(cluster_ip(family, number))],
        internal: Route { from_pod: to(false), from_node: to(true), from_outside: to(true) },
        external: Route::all(to(true)),
        pools: Pools { cluster: (0..endpoints).map(endpoint).collect(), local: Vec::new() },
        affinity: None,
        serving: Vec::new(),
        scheduler: None,
        priority: Priority::Other,
    }
}

/// The address of this number in 10.x.0.0 or `fd00:x::`.
fn address(family: Family, v4: Ipv4Addr, v6: u16, number: usize) -> IpAddr {
    let host = u32::try_from(number).unwrap_or(u32::MAX);
    match family {
        Family::V4 => Ipv4Addr::from(u32::from(v4) + host).into(),
        Family::V6 => {
            let [high, low] = [(host >> 16) as u16, host as u16];
            Ipv6Addr::new(0xfd00, v6, 0, 0, 0, 0, high, low).into()
        }
    }
}
