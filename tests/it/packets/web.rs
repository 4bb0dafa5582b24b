//! The Service that nearly all scenarios are about.

use fairlead_lab::objects::{Endpoint, Port, Service, Slice};

use super::scenario::Objects;

/// Its ClusterIP is the first one, its port number this, its node port that.
pub const PORT: u16 = 80;
pub const NODE_PORT: u16 = 30_080;

/// `web`, with a TCP and a UDP port of the same number.
pub fn web() -> Service {
    Service::new("web").cluster_ip(1).port(Port::tcp(PORT).named("http")).port(Port::udp(PORT).named("quic"))
}

/// The same with node ports.
pub fn web_on_nodes() -> Service {
    let [http, quic] = [Port::tcp(PORT).named("http"), Port::udp(PORT).named("quic")];
    web().without_ports().port(http.node_port(NODE_PORT)).port(quic.node_port(NODE_PORT))
}

/// The same with node ports and the first external address as that of its load balancer.
pub fn web_behind_balancer() -> Service {
    web_on_nodes().load_balancer(1)
}

/// A slice of `web` without endpoints.
pub fn slice() -> Slice {
    Slice::of("web").tcp("http", 8080).udp("quic", 8080)
}

/// A Service and one slice of ready endpoints.
pub fn with_ready(service: Service, endpoints: &[&str]) -> Objects {
    Objects::new().service(service).slice(slice().ready(endpoints))
}

/// A Service and one slice of any endpoints.
pub fn with<const N: usize>(service: Service, endpoints: [Endpoint; N]) -> Objects {
    let slice = endpoints.into_iter().fold(slice(), Slice::endpoint);
    Objects::new().service(service).slice(slice)
}
