//! Every packet that could tell two plans of the small domain apart.

use std::net::{IpAddr, SocketAddr};

use fairlead_plan::{Family, Packet, Protocol};

/// Host numbers within each kind of address.
pub const SERVICES: [u8; 3] = [1, 2, 3];
pub const PODS: [u8; 5] = [1, 2, 3, 4, 5];
pub const EXTERNAL: [u8; 2] = [1, 2];
pub const NODE_PORTS: [u16; 2] = [30080, 30081];
/// TCP, UDP and a port that no Service has.
pub const PORTS: [u16; 3] = [80, 53, 99];

pub fn pod(family: Family, host: u8) -> IpAddr {
    address(family, "10.0.0.", "fd00:10::", host)
}

pub fn cluster_ip(family: Family, host: u8) -> IpAddr {
    address(family, "10.96.0.", "fd00:96::", host)
}

pub fn external(family: Family, host: u8) -> IpAddr {
    address(family, "192.0.2.", "2001:db8:2::", host)
}

/// 1 is the node's first address, 2 another one.
pub fn node(family: Family, host: u8) -> IpAddr {
    address(family, "172.16.0.", "fd00:ac::", host)
}

/// 1 is in the source ranges that Services use, 2 is not.
pub fn client(family: Family, host: u8) -> IpAddr {
    let (v4, v6) = if host == 1 { ("203.0.113.", "2001:db8:c::") } else { ("198.51.100.", "2001:db8:d::") };
    address(family, v4, v6, host)
}

fn address(family: Family, v4: &str, v6: &str, host: u8) -> IpAddr {
    let net = if family == Family::V4 { v4 } else { v6 };
    format!("{net}{host}").parse().unwrap()
}

pub fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for family in Family::BOTH {
        let mut sources = vec![(pod(family, 77), false), (node(family, 1), true), (external(family, 1), false)];
        sources.extend(PODS.map(|host| (pod(family, host), false)));
        sources.extend([1, 2].map(|host| (client(family, host), false)));
        for destination in destinations(family) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                packets.extend(sources.iter().map(|(source, source_is_local)| Packet {
                    protocol,
                    source: *source,
                    destination,
                    interface: None,
                    source_is_local: *source_is_local,
                    destination_is_local: [1, 2].map(|host| node(family, host)).contains(&destination.ip()),
                }));
            }
        }
    }
    packets
}

fn destinations(family: Family) -> Vec<SocketAddr> {
    let unused = [cluster_ip(family, 200), pod(family, 1)];
    let addresses = SERVICES.map(|host| cluster_ip(family, host)).into_iter();
    let addresses = addresses.chain(EXTERNAL.map(|host| external(family, host))).chain(unused);
    let ports = addresses.flat_map(|ip| PORTS.map(|port| SocketAddr::new(ip, port)));
    let node_ports = [1, 2].into_iter().flat_map(|host| {
        let on_node = NODE_PORTS.map(|port| SocketAddr::new(node(family, host), port));
        on_node.into_iter().chain([SocketAddr::new(node(family, host), 80)])
    });
    ports.chain(node_ports).collect()
}
