use std::net::IpAddr;

use super::{Mac, octets, read_ip, read_u32, uapi::*};
use crate::netlink::{ACK, Attributes, CREATE, EXCL, Message, REQUEST, Received, attributes, be_u16, text};

const IFF_UP: u32 = libc::IFF_UP as u32;
/// The carrier itself, which `IFF_RUNNING` follows up to a second later.
const IFF_LOWER_UP: u32 = libc::IFF_LOWER_UP as u32;
/// `IF_OPER_DOWN` and `IF_OPER_LOWERLAYERDOWN`: the cable is out.
const DOWN: [u8; 2] = [2, 3];

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number, never used again while the machine runs.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Whether it was switched on.
    pub up: bool,
    /// Whether it can carry packets as far as the driver knows; an interface that does not know says yes.
    pub running: bool,
    /// Whether it is on and has a carrier at this moment.
    pub carrier: bool,
    /// The largest packet, bytes.
    pub mtu: u32,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// `vxlan`, `veth`, `bridge`; empty for hardware.
    pub kind: String,
    /// Of a VXLAN device.
    pub vxlan: Option<Vxlan>,
}

/// How a VXLAN device sends and receives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vxlan {
    /// The network's number, 24 bits; 0 for an external device.
    pub vni: u32,
    /// Index of the interface below; 0 for none.
    pub lower: u32,
    /// Source of the outer packets.
    pub local: Option<IpAddr>,
    /// Destination port of the outer packets, and where it listens.
    pub port: u16,
    /// Whether entries are learned from what arrives.
    pub learning: bool,
    /// Whether the group policy extension is used.
    pub gbp: bool,
    /// `external`: routes say where each packet goes (`collect_md`).
    pub external: bool,
    /// Whether an external device takes only the VNIs it was given.
    pub vnifilter: bool,
    /// Whether it has a default destination, answers for neighbours or asks user space about unknown ones.
    pub special: bool,
}

/// A VXLAN device as it should be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanSpec {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// The rest.
    pub vxlan: Vxlan,
}

impl Link {
    pub(super) fn read(message: &Received<'_>) -> Option<Self> {
        let [_, _, _, _, a, b, c, d, e, f, g, h, ..] = *message.payload.first_chunk::<LINK_HEADER>()?;
        let flags = u32::from_ne_bytes([e, f, g, h]);
        let list = attributes(message.payload.get(LINK_HEADER..)?);
        let info = attributes(list.clone().get(IFLA_LINKINFO).unwrap_or_default());
        let kind = info.clone().get(IFLA_INFO_KIND).and_then(text).unwrap_or_default().to_owned();
        let vxlan = (kind == "vxlan").then(|| Vxlan::read(&attributes(info.get(IFLA_INFO_DATA).unwrap_or_default())));
        let operstate = list.clone().get(IFLA_OPERSTATE).and_then(|bytes| bytes.first().copied()).unwrap_or(0);
        Some(Self {
            index: u32::from_ne_bytes([a, b, c, d]),
            name: list.clone().get(IFLA_IFNAME).and_then(text)?.to_owned(),
            up: flags & IFF_UP != 0,
            carrier: flags & IFF_LOWER_UP != 0,
            running: !DOWN.contains(&operstate),
            mtu: list.clone().get(IFLA_MTU).and_then(read_u32).unwrap_or(0),
            mac: list.get(IFLA_ADDRESS).and_then(Mac::read),
            kind,
            vxlan,
        })
    }
}

impl Vxlan {
    fn read(data: &Attributes<'_>) -> Self {
        let get = |kind| data.clone().get(kind);
        let number = |kind| get(kind).and_then(read_u32).unwrap_or(0);
        let set = |kind| get(kind).is_some_and(|bytes| bytes.first().is_none_or(|byte| *byte != 0));
        let addr = |v4, v6| get(v4).or_else(|| get(v6)).and_then(read_ip).filter(|addr| !addr.is_unspecified());
        Self {
            vni: number(IFLA_VXLAN_ID),
            lower: number(IFLA_VXLAN_LINK),
            local: addr(IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6),
            port: get(IFLA_VXLAN_PORT).and_then(be_u16).unwrap_or(0),
            learning: set(IFLA_VXLAN_LEARNING),
            gbp: get(IFLA_VXLAN_GBP).is_some(),
            external: set(IFLA_VXLAN_COLLECT_METADATA),
            vnifilter: set(IFLA_VXLAN_VNIFILTER),
            special: addr(IFLA_VXLAN_GROUP, IFLA_VXLAN_GROUP6).is_some()
                || [IFLA_VXLAN_PROXY, IFLA_VXLAN_L2MISS, IFLA_VXLAN_L3MISS].into_iter().any(set),
        }
    }
}

pub(super) fn header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// The device comes up with the same request, so that one that cannot (its port is taken) is not left behind.
pub(super) fn create(spec: &VxlanSpec, seq: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, REQUEST | ACK | CREATE | EXCL, seq, &header(0, IFF_UP, IFF_UP));
    message.put_text(IFLA_IFNAME, &spec.name).put(IFLA_MTU, &spec.mtu.to_ne_bytes()).put(IFLA_ADDRESS, &spec.mac.0);
    put_vxlan(&mut message, &spec.vxlan, true);
    message
}

/// Only what the kernel can change while the device lives: the source, the interface below, and learning.
pub(super) fn alter(index: u32, vxlan: &Vxlan, seq: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, REQUEST | ACK, seq, &header(index, 0, 0));
    put_vxlan(&mut message, vxlan, false);
    message
}

fn put_vxlan(message: &mut Message, vxlan: &Vxlan, whole: bool) {
    message.nest(IFLA_LINKINFO, |message| {
        message.put_text(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |message| {
            if vxlan.lower != 0 {
                message.put(IFLA_VXLAN_LINK, &vxlan.lower.to_ne_bytes());
            }
            if let Some(local) = vxlan.local {
                let kind = if local.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 };
                message.put(kind, &octets(local));
            }
            message.put(IFLA_VXLAN_LEARNING, &[u8::from(vxlan.learning)]);
            if whole {
                put_lasting(message, vxlan);
            }
        });
    });
}

fn put_lasting(message: &mut Message, vxlan: &Vxlan) {
    message.put(IFLA_VXLAN_PORT, &vxlan.port.to_be_bytes());
    if vxlan.external {
        message.put(IFLA_VXLAN_COLLECT_METADATA, &[1]);
    } else {
        message.put(IFLA_VXLAN_ID, &vxlan.vni.to_ne_bytes());
    }
    if vxlan.vnifilter {
        message.put(IFLA_VXLAN_VNIFILTER, &[1]);
    }
    if vxlan.gbp {
        message.put(IFLA_VXLAN_GBP, &[]);
    }
}

pub(super) fn delete(index: u32, seq: u32) -> Message {
    Message::new(RTM_DELLINK, REQUEST | ACK, seq, &header(index, 0, 0))
}

pub(super) fn up(index: u32, seq: u32) -> Message {
    Message::new(RTM_NEWLINK, REQUEST | ACK, seq, &header(index, IFF_UP, IFF_UP))
}

pub(super) fn set_mtu(index: u32, mtu: u32, seq: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, REQUEST | ACK, seq, &header(index, 0, 0));
    message.put(IFLA_MTU, &mtu.to_ne_bytes());
    message
}

pub(super) fn set_mac(index: u32, mac: Mac, seq: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, REQUEST | ACK, seq, &header(index, 0, 0));
    message.put(IFLA_ADDRESS, &mac.0);
    message
}

pub(super) fn tunnel_header(index: u32) -> [u8; TUNNEL_HEADER] {
    let mut header = [0; TUNNEL_HEADER];
    header[0] = AF_BRIDGE;
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

pub(super) fn vni(add: bool, index: u32, vni: u32, seq: u32) -> Message {
    let kind = if add { RTM_NEWTUNNEL } else { RTM_DELTUNNEL };
    let mut message = Message::new(kind, REQUEST | ACK, seq, &tunnel_header(index));
    message.nest(VXLAN_VNIFILTER_ENTRY, |message| {
        message.put(VXLAN_VNIFILTER_ENTRY_START, &vni.to_ne_bytes());
    });
    message
}

/// The VNIs of one message, first to last of each range.
pub(super) fn read_vnis(message: &Received<'_>) -> Vec<(u32, u32)> {
    let list = attributes(message.payload.get(TUNNEL_HEADER..).unwrap_or_default());
    let entries = list.filter(|entry| entry.kind == VXLAN_VNIFILTER_ENTRY);
    let range = |entry: crate::netlink::Attribute<'_>| {
        let first = entry.nested().get(VXLAN_VNIFILTER_ENTRY_START).and_then(read_u32)?;
        Some((first, entry.nested().get(VXLAN_VNIFILTER_ENTRY_END).and_then(read_u32).unwrap_or(first)))
    };
    entries.filter_map(range).collect()
}
