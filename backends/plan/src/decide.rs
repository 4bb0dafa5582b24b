use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{Action, Family, Frontend, FrontendAddr, Plan, Pool, Protocol, Service};

/// The first packet of a connection, as this node sees it before any translation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source address.
    pub source: IpAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// The interface it came in through; `None` if this node itself sends it.
    pub interface: Option<String>,
    /// Whether the source is an address of this node.
    pub source_is_local: bool,
    /// Whether the destination is an address of this node.
    pub destination_is_local: bool,
}

/// What a plan says about a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It goes to one of these.
    Forward {
        /// The endpoints that may be chosen.
        endpoints: BTreeSet<SocketAddr>,
        /// The endpoints that will see an address of this node as the source.
        masqueraded: BTreeSet<SocketAddr>,
    },
    /// The sender is told that nobody is there.
    Reject,
    /// Nobody answers.
    Drop,
    /// The plan has nothing to say; the packet goes on as it is.
    Pass,
}

impl Plan {
    /// What must happen to this packet. The executable specification of every backend.
    #[must_use]
    pub fn decide(&self, packet: &Packet) -> Verdict {
        if let Some((service, frontend)) = self.frontend_of(packet) {
            return self.route(packet, service, frontend);
        }
        let to = packet.destination.ip();
        if self.services.iter().flat_map(|service| service.cluster_ips()).any(|ip| ip == to) {
            return Verdict::Reject;
        }
        if self.node.service_cidrs.iter().any(|net| net.contains(&to)) {
            return Verdict::Drop;
        }
        Verdict::Pass
    }

    /// The frontend that a packet is addressed to. An address that a service claims as such is stronger than a node
    /// port on the same address.
    #[must_use]
    pub fn frontend_of(&self, packet: &Packet) -> Option<(&Service, &Frontend)> {
        let to = packet.destination;
        let exact = FrontendAddr::Addr(to);
        let node_port = (packet.destination_is_local && self.node.has_node_ports(to.ip()))
            .then_some(FrontendAddr::NodePort(to.port()));
        let find = |wanted: FrontendAddr| {
            let family = Family::of(to.ip());
            let mut services = self
                .services
                .iter()
                .filter(|service| service.key.protocol == packet.protocol && service.key.family == family);
            services.find_map(|service| {
                let frontend = service.frontends.iter().find(|frontend| frontend.addr() == wanted)?;
                Some((&**service, frontend))
            })
        };
        find(exact).or_else(|| find(node_port?))
    }

    fn route(&self, packet: &Packet, service: &Service, frontend: &Frontend) -> Verdict {
        if let Frontend::LoadBalancer { allow, .. } = frontend
            && !allow.is_empty()
            && !allow.iter().any(|net| net.contains(&packet.source))
        {
            return Verdict::Drop;
        }
        match service.route(frontend).from(self.node.origin(packet)) {
            Action::Forward { to, masquerade } => forward(packet, service, to, masquerade),
            Action::Reject => Verdict::Reject,
            Action::Drop => Verdict::Drop,
        }
    }
}

/// A local endpoint that reaches itself must see another source than its own, or it would answer itself directly.
fn forward(packet: &Packet, service: &Service, to: Pool, masquerade: bool) -> Verdict {
    let pool = service.pools.get(to);
    let hairpin = |local: bool, addr: SocketAddr| local && addr.ip() == packet.source;
    let masqueraded = pool.iter().filter(|endpoint| masquerade || hairpin(endpoint.local, endpoint.addr()));
    Verdict::Forward {
        endpoints: pool.iter().map(|endpoint| endpoint.addr()).collect(),
        masqueraded: masqueraded.map(|endpoint| endpoint.addr()).collect(),
    }
}
