use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::neighbour::REPLACE;
use super::{family_of, octets, read_ip, read_u32, uapi::*};
use crate::netlink::{ACK, Attributes, CREATE, Message, REQUEST, Received, attributes};

/// A route of one destination, without those that packets leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where packets go that take it.
    pub destination: IpNet,
    /// Which of several for the same destination counts: the lowest. IPv6 has 1024 where nothing is said.
    pub metric: u32,
    /// The routing table.
    pub table: u32,
    /// Who made it, `RTPROT_*`.
    pub protocol: u8,
    /// What becomes of a packet.
    pub hop: NextHop,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// Packets leave through an interface.
    Unicast {
        /// Its index. In a request 0 lets the kernel find it by the gateway.
        index: u32,
        /// The next router; `None` if the destination is on the link.
        gateway: Option<IpAddr>,
        /// Whether the gateway counts as on the link whatever other routes say.
        onlink: bool,
        /// Into what the packet is packed on its way out.
        encap: Option<Encap>,
    },
    /// What the nexthop object of this number says.
    Object(u32),
    /// Packets vanish.
    Blackhole,
    /// Something that fairlead never writes: several next hops, another kind of route.
    Other,
}

/// The header that a route puts around a packet; the device adds its own kind of tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encap {
    /// The tunnel's number: the VNI.
    pub id: u64,
    /// Where the tunnel ends.
    pub destination: IpAddr,
    /// Whether the outer UDP header has a checksum. Over IPv6 packets without one are dropped by default.
    pub checksum: bool,
}

/// Which routes are listed.
#[derive(Debug, Clone, Copy)]
pub struct RouteFilter {
    /// IPv6 rather than IPv4.
    pub ipv6: bool,
    /// The table.
    pub table: u32,
    /// Only those of this protocol.
    pub protocol: Option<u8>,
    /// Only those through this interface.
    pub index: Option<u32>,
}

impl RouteFilter {
    pub(super) fn request(&self) -> (Vec<u8>, Vec<(u16, u32)>) {
        let mut header = [0; ROUTE_HEADER];
        header[0] = if self.ipv6 { AF_INET6 } else { AF_INET };
        header[5] = self.protocol.unwrap_or(0);
        let index = self.index.map(|index| (RTA_OIF, index));
        (header.to_vec(), [(RTA_TABLE, self.table)].into_iter().chain(index).collect())
    }

    /// Kernels before 4.20 list everything.
    pub(super) fn wants(&self, route: &Route) -> bool {
        let through = match route.hop {
            NextHop::Unicast { index, .. } => Some(index),
            NextHop::Object(_) | NextHop::Blackhole | NextHop::Other => None,
        };
        route.table == self.table
            && self.protocol.is_none_or(|protocol| protocol == route.protocol)
            && self.index.is_none_or(|index| through.is_none_or(|through| through == index))
    }
}

/// The interface that the answer to a look-up names, if packets leave by it. In IPv6 it says a source too where the kernel has
/// subtrees, and so is no plain route; and a link whose carrier is not heard of yet carries packets all the same.
pub(super) fn interface(message: &Received<'_>) -> Option<u32> {
    let header: &[u8; ROUTE_HEADER] = message.payload.first_chunk()?;
    let index = attributes(message.payload.get(ROUTE_HEADER..)?).get(RTA_OIF).and_then(read_u32);
    index.filter(|_| header[7] == RTN_UNICAST)
}

/// The source that the answer to a look-up suggests.
pub(super) fn source(message: &Received<'_>) -> Option<IpAddr> {
    attributes(message.payload.get(ROUTE_HEADER..)?).get(RTA_PREFSRC).and_then(read_ip)
}

impl Route {
    /// An entry of a table as it was written. One whose device has no carrier leads nowhere, as far as a listing can tell.
    pub(super) fn read(message: &Received<'_>) -> Option<Self> {
        Self::read_unless(message, RTNH_F_DEAD | RTNH_F_LINKDOWN)
    }

    /// The entry that answers a look-up. The kernel has chosen it, and hears of a carrier up to a second late: what the entry says of
    /// its device decides nothing.
    pub(super) fn met(message: &Received<'_>) -> Option<Self> {
        Self::read_unless(message, RTNH_F_DEAD)
    }

    fn read_unless(message: &Received<'_>, unusable: u32) -> Option<Self> {
        let header: &[u8; ROUTE_HEADER] = message.payload.first_chunk()?;
        let [family, length, source_length, tos, table, protocol, _, kind, flags @ ..] = *header;
        let list = attributes(message.payload.get(ROUTE_HEADER..)?);
        let any: IpAddr = match family {
            AF_INET => Ipv4Addr::UNSPECIFIED.into(),
            AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let destination = list.clone().get(RTA_DST).and_then(read_ip).unwrap_or(any);
        let number = |kind| list.clone().get(kind).and_then(read_u32);
        let plain = source_length == 0 && tos == 0;
        let flags = u32::from_ne_bytes(flags);
        let hop = match kind {
            RTN_UNICAST if plain && flags & unusable == 0 => unicast(&list, flags),
            RTN_BLACKHOLE if plain => NextHop::Blackhole,
            _ => NextHop::Other,
        };
        Some(Self {
            destination: IpNet::new(destination, length).ok()?,
            metric: number(RTA_PRIORITY).unwrap_or(0),
            table: number(RTA_TABLE).unwrap_or(u32::from(table)),
            protocol,
            hop,
        })
    }
}

fn unicast(list: &Attributes<'_>, flags: u32) -> NextHop {
    let has = |kind| list.clone().get(kind).is_some();
    // What the object says beside its number depends on a setting (`net.ipv4.nexthop_compat_mode`).
    if let Some(id) = list.clone().get(RTA_NH_ID).and_then(read_u32) {
        return NextHop::Object(id);
    }
    if has(RTA_MULTIPATH) || has(RTA_VIA) {
        return NextHop::Other;
    }
    let Ok(encap) = list.clone().get(RTA_ENCAP).map(|content| encap(content).ok_or(())).transpose() else {
        return NextHop::Other;
    };
    NextHop::Unicast {
        index: list.clone().get(RTA_OIF).and_then(read_u32).unwrap_or(0),
        gateway: list.clone().get(RTA_GATEWAY).and_then(read_ip),
        onlink: flags & RTNH_F_ONLINK != 0,
        encap,
    }
}

/// The attributes of `encap ip` and `encap ip6` have the same numbers, as far as they count here.
pub(super) fn encap(content: &[u8]) -> Option<Encap> {
    let list = attributes(content);
    let id = list.clone().get(LWTUNNEL_IP_ID)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))?;
    let destination = list.clone().get(LWTUNNEL_IP_DST).and_then(read_ip)?;
    if list.clone().get(LWTUNNEL_IP_SRC).and_then(read_ip).is_some_and(|source| !source.is_unspecified()) {
        return None;
    }
    let flags = list.get(LWTUNNEL_IP_FLAGS).and_then(|bytes| bytes.first_chunk().map(|b| u16::from_be_bytes(*b)));
    Some(Encap { id, destination, checksum: flags.unwrap_or(0) & TUNNEL_CSUM != 0 })
}

/// Asks which route a packet to this address takes: the entry of the table itself, or what it comes to for this packet.
pub(super) fn lookup(addr: IpAddr, entry: bool, seq: u32) -> Message {
    let mut header = [0; ROUTE_HEADER];
    let flags = if entry { RTM_F_FIB_MATCH } else { 0 };
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    header[0] = family_of(addr);
    header[1] = if addr.is_ipv4() { 32 } else { 128 };
    let mut message = Message::new(RTM_GETROUTE, REQUEST | ACK, seq, &header);
    message.put(RTA_DST, &octets(addr));
    message
}

pub(super) fn set(route: &Route, seq: u32) -> Message {
    let scope = match route.hop {
        NextHop::Unicast { gateway: None, .. } if route.destination.addr().is_ipv4() => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let kind = if route.hop == NextHop::Blackhole { RTN_BLACKHOLE } else { RTN_UNICAST };
    let onlink = matches!(route.hop, NextHop::Unicast { onlink: true, .. });
    let flags = if onlink { RTNH_F_ONLINK } else { 0 };
    let mut message = message(RTM_NEWROUTE, REQUEST | ACK | CREATE | REPLACE, route, [scope, kind], flags, seq);
    match route.hop {
        NextHop::Unicast { index, gateway, encap, .. } => {
            if index != 0 {
                message.put(RTA_OIF, &index.to_ne_bytes());
            }
            if let Some(gateway) = gateway {
                message.put(RTA_GATEWAY, &octets(gateway));
            }
            if let Some(encap) = encap {
                put_encap(&mut message, [RTA_ENCAP_TYPE, RTA_ENCAP], &encap);
            }
        }
        NextHop::Object(id) => _ = message.put(RTA_NH_ID, &id.to_ne_bytes()),
        NextHop::Blackhole | NextHop::Other => {}
    }
    message
}

/// Names the route by destination, table, metric and protocol, so that nobody else's goes.
pub(super) fn delete(route: &Route, seq: u32) -> Message {
    let kind = if route.hop == NextHop::Blackhole { RTN_BLACKHOLE } else { 0 };
    let mut message = message(RTM_DELROUTE, REQUEST | ACK, route, [RT_SCOPE_NOWHERE, kind], 0, seq);
    if let NextHop::Unicast { index, .. } = route.hop
        && index != 0
    {
        message.put(RTA_OIF, &index.to_ne_bytes());
    }
    message
}

/// Names the route by destination, table and metric alone.
pub(super) fn clear(route: &Route, seq: u32) -> Message {
    let anybodys = Route { protocol: 0, ..*route };
    message(RTM_DELROUTE, REQUEST | ACK, &anybodys, [RT_SCOPE_NOWHERE, 0], 0, seq)
}

fn message(kind: u16, flags: u16, route: &Route, [scope, type_]: [u8; 2], hop: u32, seq: u32) -> Message {
    let net = route.destination.trunc();
    let mut header = [0; ROUTE_HEADER];
    header[0] = family_of(net.addr());
    header[1] = net.prefix_len();
    header[4] = u8::try_from(route.table).unwrap_or(0);
    header[5] = route.protocol;
    header[6] = scope;
    header[7] = type_;
    header[8..].copy_from_slice(&hop.to_ne_bytes());
    let mut message = Message::new(kind, flags, seq, &header);
    message.put(RTA_DST, &octets(net.addr())).put(RTA_TABLE, &route.table.to_ne_bytes());
    if route.metric != 0 {
        message.put(RTA_PRIORITY, &route.metric.to_ne_bytes());
    }
    message
}

/// Routes and nexthop objects have the same content under other numbers.
pub(super) fn put_encap(message: &mut Message, [type_, content]: [u16; 2], encap: &Encap) {
    let kind = if encap.destination.is_ipv4() { LWTUNNEL_ENCAP_IP } else { LWTUNNEL_ENCAP_IP6 };
    message.put(type_, &kind.to_ne_bytes()).nest(content, |message| {
        message.put(LWTUNNEL_IP_ID, &encap.id.to_be_bytes()).put(LWTUNNEL_IP_DST, &octets(encap.destination));
        if encap.checksum {
            message.put(LWTUNNEL_IP_FLAGS, &TUNNEL_CSUM.to_be_bytes());
        }
    });
}
