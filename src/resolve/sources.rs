use std::net::IpAddr;

use fairlead_plan::{Family, Frontend};
use ipnet::IpNet;

use super::model::ServiceModel;
use super::node::NodeFacts;
use super::note::{Note, Notes};
use super::{Settings, address};

/// What `loadBalancerSourceRanges` comes to.
#[derive(Debug)]
pub(super) enum Sources {
    /// The listed prefixes; a family without entry is unrestricted.
    Ranges(Box<[IpNet]>),
    /// Ranges were given and none can be read: who was meant to have access is unknown, so nobody has.
    Closed,
}

/// Reads `loadBalancerSourceRanges`.
pub(super) fn parse(ranges: &[String], settings: &Settings, notes: &mut Notes) -> Sources {
    let mut nets = Vec::new();
    let mut given = false;
    for text in ranges.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        given = true;
        match address::cidr(text) {
            Some(net) => nets.push(net),
            None => notes.add(
                Note::INVALID_SOURCE_RANGE,
                format!("spec.loadBalancerSourceRanges: {text:?} is not a prefix like 192.0.2.0/24; it is left out"),
            ),
        }
    }
    if given && nets.is_empty() {
        let message = "spec.loadBalancerSourceRanges has no readable entry; the load-balancer addresses are closed";
        notes.add(Note::INVALID_SOURCE_RANGE, message.to_owned());
        return Sources::Closed;
    }
    nets.retain(|net| settings.families.contains(&address::family(net)));
    let mut nets = IpNet::aggregate(&nets);
    let open =
        Family::BOTH.map(|family| nets.iter().any(|net| address::family(net) == family && net.prefix_len() == 0));
    nets.retain(|net| !Family::BOTH.iter().zip(open).any(|(family, open)| open && address::family(net) == *family));
    Sources::Ranges(nets.into())
}

/// Says so if a family with load-balancer addresses is open to everybody only because all ranges are of the other one.
pub(super) fn warn_of_open_family(given: &[String], vips: &[IpAddr], notes: &mut Notes) {
    let has =
        |family| given.iter().filter_map(|text| address::cidr(text.trim())).any(|net| address::family(&net) == family);
    for family in Family::BOTH {
        let other = Family::BOTH.into_iter().any(|other| other != family && has(other));
        if other && !has(family) && vips.iter().any(|vip| Family::of(*vip) == family) {
            let family = family.label();
            let message = format!(
                "spec.loadBalancerSourceRanges has no {family} prefix, so the {family} load-balancer address is open to \
                 everybody; add one"
            );
            notes.add(Note::UNRESTRICTED_FAMILY, message);
        }
    }
}

/// Gives a load-balancer frontend its sources.
///
/// If this node's own address may use the load balancer, so may the load balancer's addresses: a packet that the node
/// sends to one of them can carry it as its source.
pub(super) fn complete(frontend: &Frontend, model: &ServiceModel, node: &NodeFacts) -> Frontend {
    let Frontend::LoadBalancer { addr, .. } = frontend else { return frontend.clone() };
    let family = Family::of(addr.ip());
    let mut allow: Vec<_> = model.ranges.iter().filter(|net| address::family(net) == family).copied().collect();
    let node_is_allowed = node.addresses[family].is_some_and(|ip| allow.iter().any(|net| net.contains(&ip)));
    if node_is_allowed {
        allow.extend(model.vips.iter().filter(|vip| Family::of(**vip) == family).map(|vip| IpNet::from(*vip)));
        allow = IpNet::aggregate(&allow);
    }
    Frontend::LoadBalancer { addr: *addr, allow }
}
