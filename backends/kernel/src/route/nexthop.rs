use super::neighbour::REPLACE;
use super::{NextHop, Rtnl, RtnlError, family_of, fib, octets, read_ip, read_u32, uapi::*};
use crate::netlink::{ACK, CREATE, EXCL, Message, REQUEST, Received, attributes};

/// A nexthop object: what becomes of a packet, apart from any route, so that routes can name it by its number (Linux 5.3).
/// It vanishes with its device, also when that is only switched off, and all routes through it vanish with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopObject {
    /// Its number, the only one of this network namespace.
    pub id: u32,
    /// Who made it, `RTPROT_*`, or who replaced it last.
    pub protocol: u8,
    /// What it says. [`NextHop::Other`]: a group, one for forwarding entries, or something else that fairlead never writes.
    pub hop: NextHop,
}

impl HopObject {
    pub(super) fn read(message: &Received<'_>) -> Option<Self> {
        let [_, _, protocol, _, flags @ ..] = *message.payload.first_chunk::<HOP_HEADER>()?;
        let list = attributes(message.payload.get(HOP_HEADER..)?);
        let get = |kind| list.clone().get(kind);
        let id = get(NHA_ID).and_then(read_u32)?;
        let flags = u32::from_ne_bytes(flags);
        let encap = get(NHA_ENCAP).map(|content| fib::encap(content).ok_or(())).transpose();
        let hop = match encap {
            _ if get(NHA_BLACKHOLE).is_some() => NextHop::Blackhole,
            _ if flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0 => NextHop::Other,
            Ok(encap) if get(NHA_GROUP).is_none() && get(NHA_FDB).is_none() => NextHop::Unicast {
                index: get(NHA_OIF).and_then(read_u32).unwrap_or(0),
                gateway: get(NHA_GATEWAY).and_then(read_ip),
                onlink: flags & RTNH_F_ONLINK != 0,
                encap,
            },
            _ => NextHop::Other,
        };
        Some(Self { id, protocol, hop })
    }
}

impl Rtnl {
    /// The nexthop objects through an interface, of both families and whoever made them (Linux 5.3).
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn hops(&mut self, index: u32) -> Result<Vec<HopObject>, RtnlError> {
        self.hops_where(index, |_| true)
    }

    /// Those of them that are wanted, without keeping the others.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn hops_where(&mut self, index: u32, wanted: impl Fn(&HopObject) -> bool) -> Result<Vec<HopObject>, RtnlError> {
        self.gather("list nexthop objects", |kernel, each| {
            kernel.each_hop(index, |object| {
                if wanted(&object) {
                    each(object)
                }
            })
        })
    }

    /// Tells them, as [`Rtnl::each_neighbour`] does.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn each_hop(&mut self, index: u32, mut each: impl FnMut(HopObject)) -> Result<bool, RtnlError> {
        let filter = [(NHA_OIF, index)];
        self.dump("list nexthop objects", RTM_GETNEXTHOP, &[0; HOP_HEADER], &filter, RTM_NEWNEXTHOP, |message| {
            HopObject::read(message).into_iter().for_each(&mut each);
        })
    }

    /// The nexthop object of this number, if there is one.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn hop(&mut self, id: u32) -> Result<Option<HopObject>, RtnlError> {
        self.ask("look up a nexthop object", |seq| get(id, seq), HopObject::read)
    }

    /// What a route does in the end: instead of the number of a nexthop object, what that says.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn resolve(&mut self, hop: NextHop) -> Result<NextHop, RtnlError> {
        let NextHop::Object(id) = hop else { return Ok(hop) };
        Ok(self.hop(id)?.map_or(NextHop::Other, |object| object.hop))
    }
}

/// Only if nobody has one of this number.
pub(super) fn add(hop: &HopObject, seq: u32) -> Message {
    message(CREATE | EXCL, hop, seq)
}

/// Only if there is one of this number.
pub(super) fn replace(hop: &HopObject, seq: u32) -> Message {
    message(REPLACE, hop, seq)
}

fn message(flags: u16, object: &HopObject, seq: u32) -> Message {
    let HopObject { id, protocol, hop } = *object;
    let (family, onlink) = match hop {
        NextHop::Unicast { gateway, onlink, .. } => (gateway.map_or(AF_INET, family_of), onlink),
        // The kernel refuses one that says nothing.
        NextHop::Object(_) | NextHop::Blackhole | NextHop::Other => (AF_UNSPEC, false),
    };
    let header = header(family, protocol, if onlink { RTNH_F_ONLINK } else { 0 });
    let mut message = put_id(RTM_NEWNEXTHOP, flags, header, id, seq);
    if let NextHop::Unicast { index, gateway, encap, .. } = hop {
        message.put(NHA_OIF, &index.to_ne_bytes());
        if let Some(gateway) = gateway {
            message.put(NHA_GATEWAY, &octets(gateway));
        }
        if let Some(encap) = encap {
            fib::put_encap(&mut message, [NHA_ENCAP_TYPE, NHA_ENCAP], &encap);
        }
    }
    message
}

pub(super) fn delete(id: u32, seq: u32) -> Message {
    put_id(RTM_DELNEXTHOP, 0, header(AF_UNSPEC, 0, 0), id, seq)
}

pub(super) fn get(id: u32, seq: u32) -> Message {
    put_id(RTM_GETNEXTHOP, 0, header(AF_UNSPEC, 0, 0), id, seq)
}

fn put_id(kind: u16, flags: u16, header: [u8; HOP_HEADER], id: u32, seq: u32) -> Message {
    let mut message = Message::new(kind, REQUEST | ACK | flags, seq, &header);
    message.put(NHA_ID, &id.to_ne_bytes());
    message
}

fn header(family: u8, protocol: u8, flags: u32) -> [u8; HOP_HEADER] {
    let mut header = [0; HOP_HEADER];
    (header[0], header[2]) = (family, protocol);
    header[4..].copy_from_slice(&flags.to_ne_bytes());
    header
}
