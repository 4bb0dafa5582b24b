//! The ways to pods of other nodes as the kernel holds them, and what is wrong with each. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fairlead_kernel::route::{
    Address, Forwarding, HopObject, Link, Mac, Neighbour, NextHop, PROTOCOL_BOOT, Route, TABLE_MAIN,
};
use fairlead_plan::Family;
use ipnet::IpNet;
use serde::Serialize;

use super::desired;
use super::diff::{self, PROTOCOL};
use super::facts::Facts;
use super::settings::Backend;

/// What was read from the kernel.
#[derive(Debug, Default)]
pub struct Held {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All addresses of this machine.
    pub addresses: Vec<Address>,
    /// Routes of the main table: of our protocol, and through our devices.
    pub routes: Vec<Route>,
    /// Neighbours on our devices.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding entries of our devices.
    pub forwarding: Vec<Forwarding>,
    /// Nexthop objects through our devices, and those that the routes name.
    pub hops: Vec<HopObject>,
}

/// The way to the pods of one node in one family, or a piece of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Way {
    /// The prefix of the pods; `None` for a piece that no route leads to.
    pub prefix: Option<IpNet>,
    /// The node; known only if its Node object was given.
    pub node: Option<String>,
    /// Where the tunnel ends, or the next router.
    pub underlay: Option<IpAddr>,
    /// The Ethernet address of the other device.
    #[serde(serialize_with = "as_text")]
    pub mac: Option<Mac>,
    /// The VXLAN network.
    pub vni: Option<u64>,
    /// How packets travel, as after `--overlay-backend`.
    pub mode: &'static str,
    /// The interface by which they leave.
    pub device: Option<String>,
    /// What is not as it should be; empty if all is well.
    pub drift: Vec<String>,
}

fn as_text<S: serde::Serializer>(mac: &Option<Mac>, to: S) -> Result<S::Ok, S::Error> {
    mac.map(|mac| mac.to_string()).serialize(to)
}

/// All ways, by prefix; `nodes` are those that the caller knows of.
#[must_use]
pub fn ways(held: &Held, nodes: &[Facts]) -> Vec<Way> {
    let (found, mut used) = (Pieces::of(held), Used::default());
    let mut ways: Vec<Way> = held.routes.iter().filter_map(|route| way(&found, route, &mut used)).collect();
    for way in &mut ways {
        name(way, nodes);
    }
    ways.extend(missing(held, &ways, nodes));
    ways.sort_by_key(|way| way.prefix);
    ways.extend(stray(held, &used));
    ways
}

/// What was read, to be found by what routes and neighbours say.
#[derive(Debug)]
pub struct Pieces<'a> {
    links: &'a [Link],
    /// By interface and address.
    neighbours: Vec<&'a Neighbour>,
    /// By interface and Ethernet address.
    forwarding: Vec<&'a Forwarding>,
    /// By number.
    hops: Vec<&'a HopObject>,
}

impl<'a> Pieces<'a> {
    /// Puts them in order.
    #[must_use]
    pub fn of(held: &'a Held) -> Self {
        let (mut neighbours, mut forwarding): (Vec<_>, Vec<_>) =
            (held.neighbours.iter().collect(), held.forwarding.iter().collect());
        neighbours.sort_by_key(|entry| (entry.index, entry.addr));
        forwarding.sort_by_key(|entry| (entry.index, entry.mac));
        let mut hops: Vec<_> = held.hops.iter().collect();
        hops.sort_by_key(|object| object.id);
        Self { links: &held.links, neighbours, forwarding, hops }
    }

    fn link(&self, index: u32) -> Option<&'a Link> {
        self.links.iter().find(|link| link.index == index)
    }

    fn neighbour(&self, index: u32, addr: IpAddr) -> Option<&'a Neighbour> {
        let at = self.neighbours.binary_search_by_key(&(index, addr), |entry| (entry.index, entry.addr)).ok()?;
        Some(self.neighbours[at])
    }

    fn hop(&self, id: u32) -> Option<&'a HopObject> {
        let at = self.hops.binary_search_by_key(&id, |object| object.id).ok()?;
        Some(self.hops[at])
    }

    /// The first of those that a device has for an address: it may be told several ends.
    fn forwarding(&self, index: u32, mac: Mac) -> Option<&'a Forwarding> {
        let at = self.forwarding.partition_point(|entry| (entry.index, entry.mac) < (index, mac));
        self.forwarding.get(at).copied().filter(|entry| (entry.index, entry.mac) == (index, mac))
    }

    /// The ways by these routes alone, as far as they can be told without the Nodes.
    #[must_use]
    pub fn ways(&self, routes: &[Route]) -> Vec<Way> {
        routes.iter().filter_map(|route| way(self, route, &mut Used::default())).collect()
    }
}

/// Nexthop objects, neighbours and forwarding entries to which a route leads.
#[derive(Debug, Default)]
struct Used {
    hops: BTreeSet<u32>,
    neighbours: BTreeSet<(u32, IpAddr)>,
    forwarding: BTreeSet<(u32, Mac)>,
}

fn way(found: &Pieces<'_>, route: &Route, used: &mut Used) -> Option<Way> {
    let mut way = Way { prefix: Some(route.destination), ..Way::default() };
    // The last of all routes, which keeps packets from the default gateway, leads to nobody on purpose.
    if route.hop == NextHop::Blackhole && route.metric == desired::LAST {
        return None;
    }
    let mut hop = route.hop;
    if let NextHop::Object(id) = hop {
        used.hops.insert(id);
        let object = found.hop(id);
        if object.is_some_and(|object| object.protocol != PROTOCOL) {
            way.drift.push(format!("the nexthop object {id} is not fairlead's"));
        }
        hop = object.map_or(NextHop::Other, |object| object.hop);
    }
    let NextHop::Unicast { index, gateway: Some(gateway), encap, .. } = hop else {
        way.drift.push("the route leads to no node".to_owned());
        return (route.protocol == PROTOCOL && route.table == TABLE_MAIN).then_some(way);
    };
    let link = found.link(index)?;
    let tunnel = diff::device_family(link).is_some();
    if route.table != TABLE_MAIN || !(route.protocol == PROTOCOL || (tunnel && route.protocol == PROTOCOL_BOOT)) {
        return None;
    }
    way.device = Some(link.name.clone());
    if !link.up {
        way.drift.push(format!("{} is down", link.name));
    }
    if !tunnel {
        (way.mode, way.underlay) = (Backend::HostGw.name(), Some(gateway));
        return Some(way);
    }
    let neighbour = found.neighbour(index, gateway);
    used.neighbours.insert((index, gateway));
    way.mac = neighbour.and_then(|entry| entry.mac);
    if !neighbour.is_some_and(|entry| entry.permanent) {
        way.drift.push(format!("{} has no permanent neighbour {gateway}", link.name));
    }
    if let Some(encap) = encap {
        way.mode = Backend::VxlanLwt.name();
        (way.underlay, way.vni) = (Some(encap.destination), Some(encap.id));
        return Some(way);
    }
    way.mode = Backend::Vxlan.name();
    way.vni = link.vxlan.as_ref().map(|vxlan| vxlan.vni.into());
    if let Some(mac) = way.mac {
        used.forwarding.insert((index, mac));
        let entry = found.forwarding(index, mac);
        way.underlay = entry.and_then(|entry| entry.destination);
        match entry {
            None => way.drift.push(format!("{} has no forwarding entry for {mac}", link.name)),
            Some(entry) if entry.special || !entry.permanent => {
                way.drift.push(format!("the forwarding entry for {mac} is not fairlead's"));
            }
            Some(_) => {}
        }
    }
    Some(way)
}

/// Whose way it is, and whether that node says the same.
fn name(way: &mut Way, nodes: &[Facts]) {
    let Some(prefix) = way.prefix else { return };
    let family = Family::of(prefix.addr());
    let mut claims: Vec<_> = nodes.iter().filter(|node| node.pods[family] == Some(prefix)).collect();
    claims.sort_by(|a, b| a.rank.cmp(&b.rank));
    let Some(node) = claims.first() else {
        if !nodes.is_empty() {
            way.drift.push("none of the given Nodes has this prefix".to_owned());
        }
        return;
    };
    way.node = Some(node.name.to_string());
    if let (Some(end), Some(underlay)) = (node.public[family], way.underlay)
        && end != underlay
    {
        way.drift.push(format!("its Node says {end}"));
    }
    let announced = node.vtep[family].filter(|_| way.mode != Backend::HostGw.name());
    if let (Some(vtep), Some(mac)) = (announced, way.mac)
        && vtep.mac != mac
    {
        way.drift.push(format!("its Node says {}", vtep.mac));
    }
}

/// Nodes to whose pods no route leads. This node's own pods are behind an address of this machine.
fn missing(held: &Held, ways: &[Way], nodes: &[Facts]) -> Vec<Way> {
    let present: BTreeSet<_> = ways.iter().filter_map(|way| way.prefix).collect();
    let is_here = |addr: Option<IpAddr>| held.addresses.iter().any(|address| Some(address.addr) == addr);
    let mut missing = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.managed && !Family::BOTH.iter().any(|of| is_here(node.public[*of]))) {
        let prefixes = Family::BOTH.into_iter().filter_map(|family| Some((node.pods[family]?, node.public[family]?)));
        for (prefix, end) in prefixes.filter(|(prefix, _)| !present.contains(prefix)) {
            missing.entry(prefix).or_insert(Way {
                prefix: Some(prefix),
                node: Some(node.name.to_string()),
                underlay: Some(end),
                drift: vec!["there is no route".to_owned()],
                ..Way::default()
            });
        }
    }
    missing.into_values().collect()
}

/// Permanent pieces on our devices to which no route leads.
fn stray(held: &Held, used: &Used) -> Vec<Way> {
    let device = |index: u32| held.links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let neighbours =
        held.neighbours.iter().filter(|entry| entry.permanent && !used.neighbours.contains(&(entry.index, entry.addr)));
    let neighbours = neighbours.map(|entry| Way {
        mac: entry.mac,
        device: device(entry.index),
        drift: vec![format!("no route leads to the neighbour {}", entry.addr)],
        ..Way::default()
    });
    let forwarding =
        held.forwarding.iter().filter(|entry| entry.permanent && !used.forwarding.contains(&(entry.index, entry.mac)));
    let forwarding = forwarding.map(|entry| Way {
        underlay: entry.destination,
        mac: Some(entry.mac),
        device: device(entry.index),
        drift: vec!["no neighbour has the address of this forwarding entry".to_owned()],
        ..Way::default()
    });
    let hops = held.hops.iter().filter(|object| object.protocol == PROTOCOL && !used.hops.contains(&object.id));
    let hops = hops.map(|object| Way {
        device: if let NextHop::Unicast { index, .. } = object.hop { device(index) } else { None },
        drift: vec![format!("no route leads through the nexthop object {}", object.id)],
        ..Way::default()
    });
    neighbours.chain(forwarding).chain(hops).collect()
}
