//! What the plan says about a packet, with the reason in words. Pure: the running program answers with it, and whoever has a plan
//! may ask.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_plan::{Action, Family, Frontend, FrontendAddr, Origin, Packet, Plan, Service, ServiceKey, Verdict};
use serde::{Deserialize, Serialize};

/// What the plan says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Where the packet comes from, as far as policy is concerned.
    pub origin: Origin,
    /// The service port, as `namespace/name:port`.
    pub service: Option<String>,
    /// By which of its addresses it is reached.
    pub frontend: Option<String>,
    /// Whether clients stick to endpoints, so that the kernel may know of one where the plan has several.
    pub sticky: bool,
    /// What must happen.
    pub verdict: Verdict,
    /// Why nobody is reached, or why packets to an address of a Service are left alone.
    pub reason: Option<String>,
}

impl Decision {
    /// Of a plan.
    #[must_use]
    pub fn of(plan: &Plan, packet: &Packet) -> Self {
        let found = plan.frontend_of(packet);
        let verdict = plan.decide(packet);
        let reason = match found {
            Some((service, frontend)) => refusal(packet, service, frontend, &verdict),
            None => Some(nobody(plan, packet, &verdict)),
        };
        Self {
            origin: plan.node.origin(packet),
            service: found.map(|(service, _)| name(&service.key)),
            frontend: found.map(|(_, frontend)| kind(frontend).to_owned()),
            sticky: found.is_some_and(|(service, _)| service.affinity.is_some()),
            verdict,
            reason,
        }
    }
}

/// As people write it: `namespace/name:port`.
#[must_use]
pub fn name(key: &ServiceKey) -> String {
    let port = if key.port_name.is_empty() { String::new() } else { format!(":{}", key.port_name) };
    format!("{}/{}{port}", key.namespace, key.name)
}

/// What a way in is called in Services.
#[must_use]
pub const fn kind(frontend: &Frontend) -> &'static str {
    match frontend {
        Frontend::ClusterIp(_) => "ClusterIP",
        Frontend::ExternalIp(_) => "external IP",
        Frontend::LoadBalancer { .. } => "load balancer",
        Frontend::NodePort(_) => "node port",
    }
}

/// Why a service does not let a packet through; `None` if it does.
fn refusal(packet: &Packet, service: &Service, frontend: &Frontend, verdict: &Verdict) -> Option<String> {
    let name = name(&service.key);
    if let Frontend::LoadBalancer { allow, .. } = frontend
        && !allow.is_empty()
        && !allow.iter().any(|net| net.contains(&packet.source))
    {
        let ranges: Vec<String> = allow.iter().map(ToString::to_string).collect();
        let ranges = ranges.join(", ");
        return Some(format!("{} is in none of the source ranges that {name} allows: {ranges}", packet.source));
    }
    match verdict {
        Verdict::Forward { .. } | Verdict::Pass => None,
        Verdict::Reject => Some(format!("no endpoint of {name} is ready")),
        Verdict::Drop => {
            let field = match frontend {
                Frontend::ClusterIp(_) => "internalTrafficPolicy",
                _ => "externalTrafficPolicy",
            };
            let others = Origin::ALL
                .iter()
                .any(|origin| matches!(service.route(frontend).from(*origin), Action::Forward { .. }));
            let others = if others { ", though elsewhere some are" } else { "" };
            Some(format!("{field} of {name} is Local and no endpoint on this node is ready{others}"))
        }
    }
}

/// Why no service has this address and port.
fn nobody(plan: &Plan, packet: &Packet, verdict: &Verdict) -> String {
    let to = packet.destination;
    let ports = ports(plan, to.ip());
    let wanted = format!("{} port {}", packet.protocol.name().to_uppercase(), to.port());
    if !ports.is_empty() {
        return other_ports(to.ip(), &wanted, &ports);
    }
    if *verdict == Verdict::Drop {
        let net = plan.node.service_cidrs.iter().find(|net| net.contains(&to.ip()));
        let net = net.map(|net| format!(" {net}")).unwrap_or_default();
        return format!("{} is in the network of ClusterIPs{net} and belongs to no Service", to.ip());
    }
    if packet.destination_is_local {
        let is_node_port = plan.services.iter().any(|service| {
            service.key.protocol == packet.protocol
                && service.key.family == Family::of(to.ip())
                && service.frontends.contains(&Frontend::NodePort(to.port()))
        });
        if is_node_port {
            return format!("{wanted} is a node port, but node ports do not answer on {}", to.ip());
        }
        return format!("{} is an address of this node, and {wanted} is no node port", to.ip());
    }
    format!("{} is no address of a Service", to.ip())
}

fn other_ports(addr: IpAddr, wanted: &str, ports: &BTreeSet<String>) -> String {
    let all = ports.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("no Service has {wanted} at {addr}; what is there: {all}")
}

/// What services have at an address, in words.
fn ports(plan: &Plan, addr: IpAddr) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for service in plan.services.iter() {
        for frontend in &service.frontends {
            if let FrontendAddr::Addr(at) = frontend.addr()
                && at.ip() == addr
            {
                found.insert(format!("{}/{} of {}", at.port(), service.key.protocol, name(&service.key)));
            }
        }
    }
    found
}
