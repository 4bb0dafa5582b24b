//! What the kernel should hold: devices for this node, and for each peer and family a neighbour, a forwarding entry or nexthop
//! object, and a route. Pure.

use std::net::IpAddr;

use fairlead_kernel::route::{Mac, NextHop, Route, TABLE_MAIN, Vxlan, VxlanSpec};
use fairlead_plan::Family;
use ipnet::IpNet;

use super::diff::PROTOCOL;
use super::facts::Facts;
use super::reach::{By, Reach};
use super::settings::{Backend, ExternalVtep, Settings};
use super::underlay::{OnLink, Underlay, is_on_link};
use crate::resolve::{Note, PerFamily};

/// Bytes that VXLAN adds to a packet: outer IP header, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348, section 5).
const OVERHEAD: PerFamily<u32> = PerFamily { v4: 50, v6: 70 };

/// The metric of the last of all routes for one destination.
pub(super) const LAST: u32 = u32::MAX;

/// This node in one family.
#[derive(Debug, Clone, PartialEq)]
pub struct Half {
    /// The prefix of its pods.
    pub pods: IpNet,
    /// The way to other nodes.
    pub underlay: Underlay,
    /// The Ethernet address of its device.
    pub mac: Mac,
    /// What is reached over the underlay's link itself; empty where the backend does not ask.
    pub on_link: Vec<OnLink>,
}

/// This node. A family without a half is left alone: nothing is written and nothing is deleted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Local {
    /// IPv4 and IPv6.
    pub halves: PerFamily<Option<Half>>,
}

/// One of our VXLAN devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// The one to other nodes over this family of outer packets.
    Main(Family),
    /// The one to external tunnel ends that use another network.
    Vni(Family, u32),
}

/// A device as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Which.
    pub tunnel: Tunnel,
    /// What the kernel is told.
    pub spec: VxlanSpec,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// The networks that an external device takes.
    pub vnis: Vec<u32>,
    /// Whether it answers for the addresses of pods: the other end takes them for its neighbours.
    pub answers_for_pods: bool,
}

/// What there is only once in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A neighbour on a device.
    Neighbour(Tunnel, IpAddr),
    /// A forwarding entry of a device.
    Forwarding(Tunnel, Mac),
    /// A nexthop object, by its number.
    Hop(u32),
    /// A route of the main table, with the family's default metric.
    Route(IpNet),
}

/// What it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Of a neighbour: its Ethernet address.
    Mac(Mac),
    /// Of a forwarding entry: where the tunnel ends.
    End(IpAddr),
    /// Of a route: through a device, by the base address of its own prefix as gateway.
    Through(Tunnel),
    /// Of a nexthop object: through a device, by this gateway, packed into a tunnel of this network that ends there.
    Packed {
        /// The device.
        tunnel: Tunnel,
        /// The base address of the peer's prefix.
        gateway: IpAddr,
        /// The network.
        vni: u32,
        /// Where the tunnel ends.
        end: IpAddr,
    },
    /// Of a route: by the nexthop object of this number.
    By(u32),
    /// Of a route: by this gateway on the interface of this index.
    Direct(u32, IpAddr),
}

/// One thing that the kernel should hold.
pub type Object = (Key, Value);

/// Why a node is not a peer in a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Apart {
    /// There is nothing to say: it does not take part, or this node does not.
    Silent,
    /// The operator should know; the reason of an Event, and a sentence.
    Trouble(&'static str, String),
}

/// What is the name of a device for this network and family of outer packets; flannel's.
#[must_use]
pub fn device_name(family: Family, vni: u32) -> String {
    match family {
        Family::V4 => format!("flannel.{vni}"),
        Family::V6 => format!("flannel-v6.{vni}"),
    }
}

impl Local {
    /// The families in which this node takes part.
    pub fn families(&self) -> impl Iterator<Item = (Family, &Half)> {
        Family::BOTH.into_iter().filter_map(|family| Some((family, self.halves[family].as_ref()?)))
    }

    /// The MTU of pods, bytes: what fits the tunnel of each family in use. `None` before there is any.
    #[must_use]
    pub fn pod_mtu(&self, settings: &Settings) -> Option<u32> {
        self.families().map(|(family, half)| half.mtu(settings, family)).min()
    }
}

impl Half {
    /// The MTU inside, bytes.
    #[must_use]
    pub fn mtu(&self, settings: &Settings, family: Family) -> u32 {
        // A larger one the kernel would refuse.
        let outer = settings.mtu.unwrap_or(self.underlay.mtu).min(self.underlay.mtu);
        outer.saturating_sub(if settings.backend.tunnels() { OVERHEAD[family] } else { 0 })
    }
}

/// Our device in this mode for outer packets of a family.
const fn main(backend: Backend, family: Family) -> Tunnel {
    // An external device carries both.
    Tunnel::Main(if matches!(backend, Backend::VxlanLwt) { Family::V4 } else { family })
}

/// The devices that this node should have, in a fixed order.
#[must_use]
pub fn devices(settings: &Settings, local: &Local) -> Vec<Device> {
    if !settings.backend.tunnels() {
        return Vec::new();
    }
    if settings.backend == Backend::VxlanLwt {
        return external_device(settings, local).into_iter().collect();
    }
    let mut devices = Vec::new();
    for (family, half) in local.families() {
        let mut vnis: Vec<_> = external_vteps(settings, family).map(|vtep| vtep.vni).collect();
        vnis.sort_unstable();
        vnis.dedup();
        let answers_for_pods = vnis.contains(&settings.vni);
        devices.push(Device { answers_for_pods, ..device(settings, family, half, settings.vni) });
        let others = vnis.into_iter().filter(|vni| *vni != settings.vni);
        devices.extend(others.map(|vni| device(settings, family, half, vni)));
    }
    devices
}

fn external_vteps(settings: &Settings, family: Family) -> impl Iterator<Item = &ExternalVtep> {
    settings.external.iter().filter(move |vtep| Family::of(vtep.endpoint) == family)
}

fn device(settings: &Settings, family: Family, half: &Half, vni: u32) -> Device {
    let is_main = vni == settings.vni;
    let vxlan = Vxlan {
        vni,
        lower: half.underlay.index,
        local: Some(half.underlay.local),
        port: settings.port,
        learning: settings.learning,
        gbp: settings.gbp,
        ..Vxlan::default()
    };
    let name = device_name(family, vni);
    let mac = if is_main { half.mac } else { derived_mac(&settings.node_name, &name) };
    Device {
        tunnel: if is_main { Tunnel::Main(family) } else { Tunnel::Vni(family, vni) },
        spec: VxlanSpec { name, mac, mtu: half.mtu(settings, family), vxlan },
        addresses: if is_main { vec![IpNet::from(half.pods.network())] } else { Vec::new() },
        vnis: Vec::new(),
        answers_for_pods: !is_main,
    }
}

/// The one device of [`Backend::VxlanLwt`]; no interface below, so that the routes decide alone.
fn external_device(settings: &Settings, local: &Local) -> Option<Device> {
    let (_, first) = local.families().next()?;
    let mut vnis: Vec<_> = settings.external.iter().map(|vtep| vtep.vni).chain([settings.vni]).collect();
    vnis.sort_unstable();
    vnis.dedup();
    let vxlan = Vxlan { port: settings.port, external: true, vnifilter: true, gbp: settings.gbp, ..Vxlan::default() };
    Some(Device {
        tunnel: main(settings.backend, Family::V4),
        spec: VxlanSpec {
            name: device_name(Family::V4, settings.vni),
            mac: first.mac,
            mtu: local.pod_mtu(settings)?,
            vxlan,
        },
        addresses: local.families().map(|(_, half)| IpNet::from(half.pods.network())).collect(),
        vnis,
        answers_for_pods: !settings.external.is_empty(),
    })
}

/// How packets reach the pods of a node in a family.
///
/// # Errors
/// Why the node is no peer.
pub fn reach(settings: &Settings, local: &Local, peer: &Facts, family: Family) -> Result<Reach, Apart> {
    let half = local.halves[family].as_ref().filter(|_| peer.managed).ok_or(Apart::Silent)?;
    let (Some(pods), Some(end)) = (peer.pods[family], peer.public[family]) else { return Err(Apart::Silent) };
    let trouble = |reason, what: String| Apart::Trouble(reason, format!("{what}; its pods are not reached from here"));
    if overlaps(pods, half.pods) {
        let what = format!("its prefix {pods} is also this node's ({})", half.pods);
        return Err(trouble(Note::OVERLAY_CONFLICT, what));
    }
    if end == half.underlay.local || end == half.underlay.public {
        return Err(trouble(Note::OVERLAY_CONFLICT, format!("its address {end} is also this node's")));
    }
    let on_link = || is_on_link(end, &half.on_link);
    let direct = match settings.backend {
        Backend::None => return Err(Apart::Silent),
        Backend::HostGw if !on_link() => {
            let link = &half.underlay.name;
            let what = format!("{end} is not on the link of {link}, as host-gw needs; use direct-routing or vxlan");
            return Err(trouble(Note::OVERLAY_MISMATCH, what));
        }
        Backend::HostGw => true,
        Backend::DirectRouting => on_link(),
        // A node that was converted to host-gw takes no tunnelled packets any more.
        Backend::Vxlan | Backend::VxlanLwt => *peer.backend == *Backend::HostGw.annotation() && on_link(),
    };
    if direct {
        return Ok(Reach { pods, by: By::Gateway(half.underlay.index, end) });
    }
    let Some(vtep) = peer.vtep[family] else {
        let what = format!("it has backend {:?} and no VXLAN device in its annotations", peer.backend);
        return Err(trouble(Note::OVERLAY_MISMATCH, what));
    };
    if let Some(vni) = vtep.vni.filter(|vni| *vni != settings.vni) {
        let what = format!("it uses VXLAN network {vni} and this node {}", settings.vni);
        return Err(trouble(Note::OVERLAY_MISMATCH, what));
    }
    if vtep.mac == half.mac {
        let what = format!("its device has the same Ethernet address {} as this node's", vtep.mac);
        return Err(trouble(Note::OVERLAY_CONFLICT, what));
    }
    Ok(tunnelled(settings, family, &ExternalVtep { cidr: pods, endpoint: end, mac: vtep.mac, vni: settings.vni }))
}

/// How packets reach what is behind an external tunnel end; `None` if this node takes no part in its family.
#[must_use]
pub fn external_reach(settings: &Settings, local: &Local, vtep: &ExternalVtep) -> Option<Reach> {
    let family = Family::of(vtep.endpoint);
    let takes_part = settings.backend.tunnels() && local.halves[family].is_some();
    takes_part.then(|| tunnelled(settings, family, vtep))
}

fn tunnelled(settings: &Settings, outer: Family, to: &ExternalVtep) -> Reach {
    let main = main(settings.backend, outer);
    let by = if settings.backend == Backend::VxlanLwt {
        // Who knows all peers gives the number.
        By::Packed { tunnel: main, mac: to.mac, vni: to.vni, end: to.endpoint, hop: 0 }
    } else {
        let tunnel = if to.vni == settings.vni { main } else { Tunnel::Vni(outer, to.vni) };
        By::Tunnel(tunnel, to.mac, to.endpoint)
    };
    Reach { pods: to.cidr, by }
}

/// Routes behind all others that keep packets to pods of nobody from the default gateway.
#[must_use]
pub fn fallbacks(settings: &Settings, local: &Local) -> Vec<Route> {
    let networks = local.families().filter_map(|(family, _)| settings.networks[family]);
    let fallback = |net: IpNet| Route {
        destination: net.trunc(),
        metric: LAST,
        table: TABLE_MAIN,
        protocol: PROTOCOL,
        hop: NextHop::Blackhole,
    };
    networks.filter(|_| settings.blackhole).map(fallback).collect()
}

fn overlaps(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// An Ethernet address that a node gives a device when nothing else says which: the same after every start, different on
/// every node.
#[must_use]
pub fn derived_mac(node: &str, device: &str) -> Mac {
    // FNV-1a, which no library can change under us.
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let text = node.bytes().chain([0]).chain(device.bytes());
    let hash = text.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let [.., a, b, c, d, e, f] = hash.to_be_bytes();
    // Locally administered, and of one device.
    Mac([(a & 0xfe) | 2, b, c, d, e, f])
}
