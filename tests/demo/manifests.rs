//! The Services of the demo and where they lead.

use std::net::SocketAddr;

use fairlead_lab::objects::{Port, Range, Service, Slice};
use fairlead_lab::{Lab, cluster_ip, external_ip};
use fairlead_plan::{Family, Protocol};
use serde_json::Value;

/// The port of most Services.
pub(crate) const PORT: u16 = 80;
/// The port of the Services over UDP.
pub(crate) const UDP_PORT: u16 = 53;
/// A port that no Service has.
pub(crate) const UNUSED_PORT: u16 = 81;
/// Where every pod answers.
const POD_PORT: u16 = 8080;

/// The node port of `web`.
pub(crate) const WEB_NODE_PORT: u16 = 30080;
/// The node port of `edge`.
pub(crate) const EDGE_NODE_PORT: u16 = 30081;

/// The pods behind `web` and `login`.
pub(crate) const THREE: [&str; 3] = ["a1", "b1", "b2"];
/// The pods behind `dns` and `shop`.
pub(crate) const TWO: [&str; 2] = ["a1", "b1"];
/// Where `moving` and `stream` lead at first, and where then.
pub(crate) const BEFORE: &str = "a1";
/// See [`BEFORE`].
pub(crate) const AFTER: &str = "b1";

// Host numbers of ClusterIPs.
pub(crate) const WEB: u8 = 10;
pub(crate) const DNS: u8 = 11;
pub(crate) const SHOP: u8 = 12;
pub(crate) const SOLO: u8 = 13;
pub(crate) const LOGIN: u8 = 14;
pub(crate) const EDGE: u8 = 15;
pub(crate) const EMPTY: u8 = 16;
pub(crate) const MOVING: u8 = 17;
pub(crate) const STREAM: u8 = 18;
/// Not allocated, but of the prefix that ClusterIPs come from.
pub(crate) const NOBODY: u8 = 200;

/// Host number of the load balancer's address of `shop`.
const SHOP_ADDRESS: u8 = 1;

/// How long `login` sticks: `service.spec.sessionAffinityConfig`, default of Kubernetes.
const STICKY_SECONDS: u32 = 10_800;

/// A ClusterIP and its port.
pub(crate) fn cluster(host: u8, port: u16, family: Family) -> SocketAddr {
    SocketAddr::new(cluster_ip(host).of(family), port)
}

/// The load balancer's address of `shop`.
pub(crate) fn shop(family: Family) -> SocketAddr {
    SocketAddr::new(external_ip(SHOP_ADDRESS).of(family), PORT)
}

/// All Services and EndpointSlices, dual stack.
pub(crate) fn all(lab: &Lab) -> Vec<Value> {
    let tcp = |name: &str, host: u8| Service::new(name).cluster_ip(host).port(Port::tcp(PORT));
    let udp = |name: &str, host: u8| Service::new(name).cluster_ip(host).port(Port::udp(UDP_PORT));
    let with_node_port = |name: &str, host: u8, node_port: u16| {
        Service::new(name).cluster_ip(host).port(Port::tcp(PORT).node_port(node_port))
    };
    let services = [
        (with_node_port("web", WEB, WEB_NODE_PORT), Protocol::Tcp, &THREE[..]),
        (udp("dns", DNS), Protocol::Udp, &TWO),
        (tcp("shop", SHOP).load_balancer(SHOP_ADDRESS).allow(Range::of("outside")), Protocol::Tcp, &TWO),
        (tcp("solo", SOLO), Protocol::Tcp, &[BEFORE]),
        (tcp("login", LOGIN).sticky(STICKY_SECONDS), Protocol::Tcp, &THREE),
        (with_node_port("edge", EDGE, EDGE_NODE_PORT).external_local(), Protocol::Tcp, &[BEFORE]),
        (tcp("empty", EMPTY), Protocol::Tcp, &[]),
        (udp("stream", STREAM), Protocol::Udp, &[BEFORE]),
        (tcp("moving", MOVING), Protocol::Tcp, &[BEFORE]),
    ];
    let mut manifests = Vec::new();
    for (service, protocol, pods) in services {
        manifests.push(service.manifest(lab, &Family::BOTH));
        manifests.extend(slices(lab, service.name(), protocol, pods, &Family::BOTH));
    }
    manifests
}

/// The EndpointSlices of a Service that leads to these pods.
pub(crate) fn slices(lab: &Lab, service: &str, protocol: Protocol, pods: &[&str], families: &[Family]) -> Vec<Value> {
    Slice::of(service).port("", protocol, POD_PORT).ready(pods).manifests(lab, families)
}
