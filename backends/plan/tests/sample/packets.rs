//! Packets that tell one plan from another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fairlead_plan::{Endpoint, Family, FrontendAddr, Packet, Plan, Protocol};

use super::{addr, cluster_ip};

/// Addresses of the node: the one that node ports answer on in [`super::node`], another one, loopback.
pub fn node_addresses(family: Family) -> [IpAddr; 3] {
    [("192.168.50.1", "fd00:50::1"), ("172.16.0.1", "fd00:172::1"), ("127.0.0.1", "::1")]
        .map(|(v4, v6)| addr(family, v4, v6))
}

/// A packet that comes from outside.
pub fn packet(family: Family, destination: SocketAddr) -> Packet {
    Packet {
        protocol: Protocol::Tcp,
        source: addr(family, "192.0.2.1", "2001:db8::1"),
        destination,
        interface: Some("eth0".to_owned()),
        source_is_local: false,
        destination_is_local: node_addresses(family).contains(&destination.ip()),
    }
}

/// Sources: a pod that serves nothing, two clients outside, the node, and endpoints of every service.
fn sources(family: Family, plan: &Plan) -> BTreeSet<IpAddr> {
    let fixed = [("10.244.0.200", "fd00:244::200"), ("198.51.100.7", "2001:db8:7::7"), ("192.0.2.1", "2001:db8:99::1")];
    let mut sources: BTreeSet<IpAddr> = fixed.into_iter().map(|(v4, v6)| addr(family, v4, v6)).collect();
    sources.insert(node_addresses(family)[0]);
    for service in plan.services.iter().filter(|service| service.key.family == family) {
        let (local, remote): (Vec<&Endpoint>, Vec<&Endpoint>) =
            service.endpoints().partition(|endpoint| endpoint.local);
        sources.extend(local.iter().take(3).chain(remote.first()).map(|endpoint| endpoint.addr().ip()));
    }
    sources
}

/// Destinations: every frontend, an unused port of each of their addresses, and addresses that belong to nobody; each with
/// the protocols of its services and one that nobody serves.
fn destinations(family: Family, plan: &Plan) -> BTreeMap<SocketAddr, BTreeSet<Protocol>> {
    const UNUSED: u16 = 4_242;
    let nobody = addr(family, "192.0.2.77", "2001:db8:99::77");
    let mut all: BTreeMap<SocketAddr, BTreeSet<Protocol>> = BTreeMap::new();
    let mut add = |to: SocketAddr, protocol| all.entry(to).or_default().insert(protocol);
    add(cluster_ip(family, 250, 80), Protocol::Tcp);
    add(SocketAddr::new(nobody, 80), Protocol::Tcp);
    for service in plan.services.iter().filter(|service| service.key.family == family) {
        for frontend in &service.frontends {
            let at = match frontend.addr() {
                FrontendAddr::Addr(to) => vec![to, SocketAddr::new(to.ip(), UNUSED)],
                FrontendAddr::NodePort(port) => {
                    let of_node = node_addresses(family).into_iter().chain([nobody]);
                    of_node.map(|ip| SocketAddr::new(ip, port)).collect()
                }
            };
            for to in at {
                add(to, service.key.protocol);
            }
        }
    }
    for protocols in all.values_mut() {
        let other = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|one| !protocols.contains(one));
        protocols.extend(other);
    }
    all
}

/// Every source to every destination through every interface. An address of the node is local as source and as
/// destination; what could be one is so in some packets.
pub fn packets(plan: &Plan) -> Vec<Packet> {
    let ways = [
        (None, true),
        (None, false),
        (Some("eth0"), false),
        (Some("eth0"), true),
        (Some("cni0"), false),
        (Some("veth1"), true),
    ];
    let mut packets = Vec::new();
    for family in Family::BOTH {
        let of_node = node_addresses(family);
        let destinations = destinations(family, plan);
        for source in sources(family, plan) {
            for (destination, protocols) in &destinations {
                packets.extend(protocols.iter().flat_map(|protocol| ways.map(|way| (*protocol, way))).map(
                    |(protocol, (interface, local))| Packet {
                        protocol,
                        source,
                        destination: *destination,
                        interface: interface.map(str::to_owned),
                        source_is_local: local || of_node.contains(&source),
                        destination_is_local: local || of_node.contains(&destination.ip()),
                    },
                ));
            }
        }
    }
    packets
}
