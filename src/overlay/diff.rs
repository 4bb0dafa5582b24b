//! What must be written so that the kernel holds what it should: the wanted minus the observed, in order. Pure.

use std::collections::BTreeMap;

use fairlead_kernel::route::{
    Encap, Forwarding, HopObject, Link, Neighbour, NextHop, PROTOCOL_BOOT, PROTOCOL_OURS, Route, TABLE_MAIN, Write,
};
use fairlead_plan::Family;

use super::desired::{Device, Key, Tunnel, Value};
use super::holdings::Place;
use super::peers::Peers;

/// The protocol number of our routes and nexthop objects, by which everybody can tell them: `ip route show proto 76`.
pub const PROTOCOL: u8 = PROTOCOL_OURS;
/// The metric that the kernel gives an IPv6 route that names none (`IP6_RT_PRIO_USER`).
const METRIC_V6: u32 = 1024;

/// The index of each of our devices that is there.
pub type Indices = BTreeMap<Tunnel, u32>;

/// What must be done about one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceStep {
    /// Nothing.
    Fine,
    /// It is not there.
    Create,
    /// It is something that the kernel cannot change into what it should be.
    Recreate(u32),
    /// These changes.
    Alter(Vec<Write>),
}

/// What must be done about a device, seeing all interfaces.
#[must_use]
pub fn device_step(wanted: &Device, links: &[Link]) -> DeviceStep {
    let spec = &wanted.spec;
    let Some(link) = links.iter().find(|link| link.name == spec.name) else { return DeviceStep::Create };
    let Some(vxlan) = &link.vxlan else { return DeviceStep::Recreate(link.index) };
    let other_family = matches!((vxlan.local, spec.vxlan.local), (Some(a), Some(b)) if Family::of(a) != Family::of(b));
    // An interface below can be exchanged but not taken away, and a source likewise.
    let loses = (spec.vxlan.lower == 0 && vxlan.lower != 0) || (spec.vxlan.local.is_none() && vxlan.local.is_some());
    let lasting = (vxlan.vni, vxlan.port, vxlan.gbp, vxlan.external, vxlan.vnifilter, vxlan.special)
        == (spec.vxlan.vni, spec.vxlan.port, spec.vxlan.gbp, spec.vxlan.external, spec.vxlan.vnifilter, false);
    if !lasting || other_family || loses {
        return DeviceStep::Recreate(link.index);
    }
    let mut writes = Vec::new();
    if *vxlan != spec.vxlan {
        writes.push(Write::AlterVxlan(link.index, spec.vxlan.clone()));
    }
    if link.mac != Some(spec.mac) {
        writes.push(Write::SetMac(link.index, spec.mac));
    }
    if link.mtu != spec.mtu {
        writes.push(Write::SetMtu(link.index, spec.mtu));
    }
    if !link.up {
        writes.push(Write::Up(link.index));
    }
    if writes.is_empty() { DeviceStep::Fine } else { DeviceStep::Alter(writes) }
}

/// Whether an interface has a name as our devices have, and of which family.
#[must_use]
pub fn device_family(link: &Link) -> Option<Family> {
    link.vxlan.as_ref()?;
    let is_vni = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if link.name.strip_prefix("flannel.").is_some_and(is_vni) {
        return Some(Family::V4);
    }
    link.name.strip_prefix("flannel-v6.").is_some_and(is_vni).then_some(Family::V6)
}

/// What differs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Wanted and not there, or other than wanted; in the order of writing.
    pub missing: Vec<Key>,
    /// Ours and not wanted; in the order of writing.
    pub extra: Vec<Write>,
    /// Routes behind all others that are missing.
    pub fallbacks: Vec<Write>,
}

/// A comparison that is told of one thing of the kernel after another, so that never all of them are in memory.
#[derive(Debug)]
pub struct Comparison<'a> {
    peers: &'a Peers,
    fallbacks: &'a [Route],
    indices: &'a Indices,
    tunnels: BTreeMap<u32, Tunnel>,
    /// Whether devices learn, so that entries come by themselves.
    learning: bool,
    /// What is as wanted, by its place.
    right: Vec<bool>,
    /// The fallbacks that are there.
    present: Vec<Route>,
    extra: Vec<Write>,
}

impl<'a> Comparison<'a> {
    /// Nothing is there yet. `fallbacks` are wanted routes that belong to no peer.
    #[must_use]
    pub fn new(peers: &'a Peers, fallbacks: &'a [Route], indices: &'a Indices, learning: bool) -> Self {
        let tunnels = indices.iter().map(|(tunnel, index)| (*index, *tunnel)).collect();
        Self { peers, fallbacks, indices, tunnels, learning, right: Vec::new(), present: Vec::new(), extra: Vec::new() }
    }

    fn is_right(&mut self, key: &Key) {
        let Some(place) = self.peers.place(key).map(Place::index) else { return };
        if self.right.len() <= place {
            self.right.resize(place + 1, false);
        }
        self.right[place] = true;
    }

    /// A route of our protocol, or one through our devices.
    pub fn route(&mut self, route: &Route) {
        if self.fallbacks.contains(route) {
            self.present.push(*route);
            return;
        }
        let key = Key::Route(route.destination);
        let wanted = self.peers.get(&key).and_then(|(value, _)| rendered(key, value, self.indices));
        if wanted == Some(Write::SetRoute(*route)) {
            self.is_right(&key);
        } else if is_ours(route, &self.tunnels) && !(wanted.is_some() && route.metric == metric(key)) {
            self.extra.push(Write::DeleteRoute(*route));
        }
    }

    /// A nexthop object through our devices, whoever made it.
    pub fn hop(&mut self, hop: &HopObject) {
        let key = Key::Hop(hop.id);
        let wanted = self.peers.get(&key).and_then(|(value, _)| rendered(key, value, self.indices));
        if wanted == Some(Write::AddHop(*hop)) {
            self.is_right(&key);
        } else if wanted.is_none() && hop.protocol == PROTOCOL {
            self.extra.push(Write::DeleteHop(hop.id));
        }
    }

    /// A forwarding entry of a device.
    pub fn forwarding(&mut self, entry: &Forwarding) {
        let Some(tunnel) = self.tunnels.get(&entry.index) else { return };
        let key = Key::Forwarding(*tunnel, entry.mac);
        match self.peers.get(&key) {
            Some((Value::End(end), _)) if agrees(entry, end) => self.is_right(&key),
            Some(_) => {}
            None if self.learning && !entry.permanent => {}
            None => self.extra.push(Write::DeleteForwarding(entry.index, entry.mac)),
        }
    }

    /// A neighbour on a device.
    pub fn neighbour(&mut self, entry: &Neighbour) {
        let Some(tunnel) = self.tunnels.get(&entry.index) else { return };
        let key = Key::Neighbour(*tunnel, entry.addr);
        match self.peers.get(&key) {
            Some((Value::Mac(mac), _)) if entry.permanent && entry.mac == Some(mac) => self.is_right(&key),
            None if entry.permanent => self.extra.push(Write::DeleteNeighbour(entry.index, entry.addr)),
            _ => {}
        }
    }

    /// What differs, now that everything was told.
    #[must_use]
    pub fn drift(mut self) -> Drift {
        let is_right = |place: Place| self.right.get(place.index()).is_some_and(|right| *right);
        let absent = || self.peers.wanted().filter(|(place, ..)| !is_right(*place));
        // It may be everything of thousands of peers, for which a list that grows takes half as much again.
        let mut missing = Vec::with_capacity(absent().count());
        missing.extend(absent().map(|(_, (key, _), _)| key));
        missing.sort_unstable();
        let absent = self.fallbacks.iter().filter(|route| !self.present.contains(route));
        let fallbacks = absent.map(|route| Write::SetRoute(*route)).collect();
        // Routes before nexthop objects before forwarding entries before neighbours.
        self.extra.sort_by_key(|write| match write {
            Write::DeleteRoute(_) => 0,
            Write::DeleteHop(_) => 1,
            Write::DeleteForwarding(..) => 2,
            _ => 3,
        });
        Drift { missing, extra: self.extra, fallbacks }
    }
}

/// Whether an entry does what is wanted.
#[must_use]
pub fn agrees(entry: &Forwarding, end: std::net::IpAddr) -> bool {
    entry.destination == Some(end) && entry.permanent && !entry.special
}

/// Ours are the routes of our protocol, and those that flannel has made on a device of ours.
fn is_ours(route: &Route, tunnels: &BTreeMap<u32, Tunnel>) -> bool {
    let through = matches!(route.hop, NextHop::Unicast { index, gateway: Some(_), .. } if tunnels.contains_key(&index));
    route.protocol == PROTOCOL || (route.protocol == PROTOCOL_BOOT && through)
}

/// The change that makes the kernel hold this; `None` if its device is not there.
#[must_use]
pub fn rendered(key: Key, value: Value, indices: &Indices) -> Option<Write> {
    let index = |tunnel: Tunnel| indices.get(&tunnel).copied();
    Some(match (key, value) {
        (Key::Neighbour(tunnel, addr), Value::Mac(mac)) => Write::SetNeighbour(index(tunnel)?, addr, mac),
        (Key::Forwarding(tunnel, mac), Value::End(end)) => Write::SetForwarding(index(tunnel)?, mac, end),
        (Key::Hop(id), Value::Packed { tunnel, gateway, vni, end }) => {
            // Over IPv6 a UDP packet without checksum is dropped by default.
            let encap = Some(Encap { id: vni.into(), destination: end, checksum: end.is_ipv6() });
            let hop = NextHop::Unicast { index: index(tunnel)?, gateway: Some(gateway), onlink: true, encap };
            Write::AddHop(HopObject { id, protocol: PROTOCOL, hop })
        }
        (Key::Route(_), value) => Write::SetRoute(route(key, value, indices)?),
        (Key::Neighbour(..) | Key::Forwarding(..) | Key::Hop(_), _) => return None,
    })
}

/// The change that removes it; `None` if its device is not there, and it with it.
#[must_use]
pub fn removal(key: Key, value: Value, indices: &Indices) -> Option<Write> {
    let index = |tunnel: Tunnel| indices.get(&tunnel).copied();
    Some(match key {
        Key::Neighbour(tunnel, addr) => Write::DeleteNeighbour(index(tunnel)?, addr),
        Key::Forwarding(tunnel, mac) => Write::DeleteForwarding(index(tunnel)?, mac),
        Key::Hop(id) => Write::DeleteHop(id),
        Key::Route(_) => Write::DeleteRoute(route(key, value, indices)?),
    })
}

fn route(key: Key, value: Value, indices: &Indices) -> Option<Route> {
    let Key::Route(destination) = key else { return None };
    let hop = match value {
        Value::Through(tunnel) => {
            let index = indices.get(&tunnel).copied()?;
            NextHop::Unicast { index, gateway: Some(destination.network()), onlink: true, encap: None }
        }
        Value::By(hop) => NextHop::Object(hop),
        Value::Direct(index, gateway) => NextHop::Unicast { index, gateway: Some(gateway), onlink: false, encap: None },
        Value::Mac(_) | Value::End(_) | Value::Packed { .. } => return None,
    };
    Some(Route { destination, metric: metric(key), table: TABLE_MAIN, protocol: PROTOCOL, hop })
}

fn metric(key: Key) -> u32 {
    match key {
        Key::Route(net) if net.addr().is_ipv6() => METRIC_V6,
        _ => 0,
    }
}
