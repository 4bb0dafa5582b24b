use std::net::IpAddr;

use super::*;
use crate::netlink::Message;

/// An entry of a set; which fields it needs is the set's type's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SetEntry {
    /// The first address.
    pub ip: Option<IpAddr>,
    /// The transport protocol's number, with a port in hash types.
    pub protocol: Option<u8>,
    /// The port.
    pub port: Option<u16>,
    /// The second address.
    pub second: Option<IpAddr>,
    /// How many bits of the last address count, in types that have a `net`. Never 0: two halves stand for everything.
    pub prefix: Option<u8>,
    /// What the target `SET --map-set` makes of the whole packet mark, in sets with marks.
    pub mark: Option<u32>,
}

impl SetEntry {
    /// The same without what may be overwritten in place: what tells one entry of a set from another.
    #[must_use]
    pub const fn key(mut self) -> Self {
        self.mark = None;
        self
    }

    pub(super) fn write(&self, message: &mut Message) {
        message.nest(ATTR_DATA, |message| {
            if let Some(ip) = self.ip {
                address(message, DATA_IP, ip);
            }
            if let Some(ip) = self.second {
                address(message, DATA_IP2, ip);
            }
            if let Some(prefix) = self.prefix {
                message.put(if self.second.is_some() { DATA_CIDR2 } else { DATA_CIDR }, &[prefix]);
            }
            if let Some(port) = self.port {
                message.put(DATA_PORT | NETWORK_ORDER, &port.to_be_bytes());
            }
            if let Some(protocol) = self.protocol {
                message.put(DATA_PROTO, &[protocol]);
            }
            if let Some(mark) = self.mark {
                let mark_and_mask = (u64::from(mark) << 32) | u64::from(u32::MAX);
                message.put(DATA_SKBMARK | NETWORK_ORDER, &mark_and_mask.to_be_bytes());
            }
        });
    }
}

fn address(message: &mut Message, kind: u16, ip: IpAddr) {
    message.nest(kind, |message| {
        match ip {
            IpAddr::V4(ip) => message.put(ADDRESS_V4 | NETWORK_ORDER, &ip.octets()),
            IpAddr::V6(ip) => message.put(ADDRESS_V6 | NETWORK_ORDER, &ip.octets()),
        };
    });
}
