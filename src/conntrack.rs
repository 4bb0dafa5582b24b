//! Which flows in connection tracking no longer match the plan. Pure: the kernel is listed and changed elsewhere.
//!
//! Once a UDP flow is translated the kernel goes on translating it the same way, whatever the rules say, as long as
//! packets come. So a flow to an endpoint that is gone never heals by itself: it must be deleted, and its next packet
//! makes a new one. TCP and SCTP end by themselves and are left alone: an endpoint that is being withdrawn shall finish
//! its connections.
//!
//! For a UDP flow to a frontend of a service:
//!
//! | the service has | the flow is translated to | it is |
//! |---|---|---|
//! | endpoints that serve | one of those | right |
//! | endpoints that serve | anything else, or nothing | stale |
//! | none | anything | stale |
//! | none | nothing | left alone: there is nowhere better to go |
//!
//! A flow that is stale but has not been answered yet waits a moment for its answer ([`Unanswered`]).
//!
//! A flow to an address that was a frontend and is none any more, or to one from which only ClusterIPs are allocated, is
//! stale if it is translated. Every other flow is none of our business.

mod unanswered;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use fairlead_kernel::conntrack::{ANSWERED, Flow, TRANSLATED};
use fairlead_plan::{Action, Change, Family, Frontend, FrontendAddr, Node, Origin, Plan, Protocol, Service};

pub use unanswered::Unanswered;

/// Whether a pass over connection tracking can find anything new after this change of plans: some UDP service is new or
/// gone or has other frontends or other serving endpoints, or node ports answer elsewhere.
#[must_use]
pub fn needed(was: &Plan, now: &Plan) -> bool {
    let changed = |change: Change<'_>| match (change.was, change.now) {
        (Some(was), Some(now)) => {
            let addrs = |service: &Service| service.frontends.iter().map(Frontend::addr).collect::<Vec<_>>();
            is_udp(now) && (was.serving != now.serving || addrs(was) != addrs(now))
        }
        (was, now) => was.or(now).is_some_and(|service| is_udp(service)),
    };
    was.services.changes(&now.services).any(changed) || was.node.node_port_addresses != now.node.node_port_addresses
}

/// What the plans say about UDP flows. Borrows both.
#[derive(Debug)]
pub struct Claims<'a> {
    now: Side<'a>,
    /// Frontends that the plan of the last pass had; those that `now` has too decide nothing.
    was: Option<Side<'a>>,
    /// The addresses of this node.
    local: &'a BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Side<'a> {
    node: &'a Node,
    frontends: HashMap<SocketAddr, &'a [SocketAddr]>,
    node_ports: HashMap<(Family, u16), &'a [SocketAddr]>,
}

fn is_udp(service: &Service) -> bool {
    service.key.protocol == Protocol::Udp
}

impl<'a> Side<'a> {
    fn new(node: &'a Node, services: impl Iterator<Item = &'a Service>) -> Self {
        let mut side = Self { node, frontends: HashMap::new(), node_ports: HashMap::new() };
        for service in services.filter(|service| is_udp(service)) {
            for frontend in &service.frontends {
                match frontend.addr() {
                    FrontendAddr::Addr(addr) => side.frontends.insert(addr, &service.serving),
                    FrontendAddr::NodePort(port) => {
                        side.node_ports.insert((service.key.family, port), &service.serving)
                    }
                };
            }
        }
        side
    }

    /// The serving endpoints of the service that packets to this address belong to. An address that a service claims as
    /// such is stronger than a node port on the same address.
    fn serving(&self, to: SocketAddr, local: &BTreeSet<IpAddr>) -> Option<&'a [SocketAddr]> {
        let node_port = || {
            let answers = local.contains(&to.ip()) && self.node.has_node_ports(to.ip());
            if answers { self.node_ports.get(&(Family::of(to.ip()), to.port())) } else { None }
        };
        self.frontends.get(&to).or_else(node_port).copied()
    }
}

impl<'a> Claims<'a> {
    /// `was` is the plan of the last pass that succeeded, `now` the one that the kernel carries out; without `was` what
    /// is gone is not known, and only flows to `now`'s frontends and to unused ClusterIPs can be stale. `local` are the
    /// addresses of this node: a flow to the same port of another host is not ours.
    #[must_use]
    pub fn new(was: Option<&'a Plan>, now: &'a Plan, local: &'a BTreeSet<IpAddr>) -> Self {
        let was = was.map(|was| {
            if was.node == now.node {
                let changed = was.services.changes(&now.services).filter_map(|change| change.was);
                Side::new(&was.node, changed.map(|service| &**service))
            } else {
                // Node ports may have answered where they do not now, also those of services that stay.
                Side::new(&was.node, was.services.iter().map(|service| &**service))
            }
        });
        Self { now: Side::new(&now.node, now.services.iter().map(|service| &**service)), was, local }
    }

    /// Whether this flow must be deleted. Only UDP flows in the default zone can be: in other zones somebody else
    /// translates.
    #[must_use]
    pub fn is_stale(&self, flow: &Flow) -> bool {
        let to = SocketAddr::new(flow.original.dst, flow.original.dport);
        let from = SocketAddr::new(flow.reply.src, flow.reply.sport);
        flow.protocol == Protocol::Udp.number() && flow.zone == 0 && self.leads_astray(to, from)
    }

    /// Whether a UDP flow to the address `to` whose answers come from `from` must be deleted.
    fn leads_astray(&self, to: SocketAddr, from: SocketAddr) -> bool {
        let translated = from != to;
        match self.now.serving(to, self.local) {
            Some([]) => translated,
            Some(serving) => serving.binary_search(&from).is_err(),
            None => translated && (self.was_claimed(to) || self.is_cluster_ip(to)),
        }
    }

    fn was_claimed(&self, to: SocketAddr) -> bool {
        self.was.as_ref().is_some_and(|was| was.serving(to, self.local).is_some())
    }

    /// Nobody else translates what goes to these prefixes, so this also finds what an earlier process left behind.
    fn is_cluster_ip(&self, to: SocketAddr) -> bool {
        self.now.node.service_cidrs.iter().any(|net| net.contains(&to.ip()))
    }
}

/// The frontends that lead somewhere, for connections that began while the rules were missing.
///
/// A packet that passes in such a gap makes an entry without translation, and the kernel never translates a connection that
/// it knows: the client's retries stay silent after the repair, for as long as the entry lives. An entry that nobody has
/// answered is worth nothing, so it is deleted and the next retry is translated.
#[derive(Debug)]
pub struct Missed<'a> {
    frontends: HashSet<(u8, SocketAddr)>,
    node_ports: HashSet<(u8, Family, u16)>,
    node: &'a Node,
    local: &'a BTreeSet<IpAddr>,
}

impl<'a> Missed<'a> {
    /// For the plan that the kernel carries out. `local` are the addresses of this node.
    #[must_use]
    pub fn new(plan: &'a Plan, local: &'a BTreeSet<IpAddr>) -> Self {
        let mut missed = Self { frontends: HashSet::new(), node_ports: HashSet::new(), node: &plan.node, local };
        for service in plan.services.iter().filter(|service| !is_udp(service)) {
            let protocol = service.key.protocol.number();
            for frontend in &service.frontends {
                let route = service.route(frontend);
                let leads = Origin::ALL.iter().any(|from| matches!(route.from(*from), Action::Forward { .. }));
                match frontend.addr() {
                    _ if !leads => {}
                    FrontendAddr::Addr(addr) => drop(missed.frontends.insert((protocol, addr))),
                    FrontendAddr::NodePort(port) => {
                        missed.node_ports.insert((protocol, service.key.family, port));
                    }
                }
            }
        }
        missed
    }

    /// Whether this flow goes to a frontend, was not translated, and has never been answered.
    #[must_use]
    pub fn is_missed(&self, flow: &Flow) -> bool {
        let to = SocketAddr::new(flow.original.dst, flow.original.dport);
        let node_port = || {
            self.node_ports.contains(&(flow.protocol, Family::of(to.ip()), to.port()))
                && self.local.contains(&to.ip())
                && self.node.has_node_ports(to.ip())
        };
        flow.zone == 0
            && flow.status & (ANSWERED | TRANSLATED) == 0
            && (self.frontends.contains(&(flow.protocol, to)) || node_port())
    }
}

#[cfg(test)]
mod tests;
