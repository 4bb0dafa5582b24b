//! Addresses that are this machine's although no interface has them: routes of type `local` over `lo` in the table `local`.
//!
//! A socket whose source is such an address goes on: its packets may leave (IPv4 lets only local sources), and answers are
//! delivered. A socket that is opened later does not get it as its source: in IPv4 the route names another one, in IPv6 the kernel
//! chooses among the addresses that interfaces have. IPv4 takes the route that was made last where several lead to one address, so it
//! counts beside the kernel's own; in IPv6 it does when that is gone.

use std::net::IpAddr;

use super::uapi::*;
use super::{Rtnl, RtnlError, family_of, octets, read_ip};
use crate::netlink::{ACK, CREATE, Message, REQUEST, Received, attributes};

/// The table that is asked before all others, `RT_TABLE_LOCAL`.
const TABLE_LOCAL: u8 = 255;
/// The index of `lo` (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

impl Rtnl {
    /// The addresses with such a route of this protocol, each as often as it has one.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn locals(&mut self, protocol: u8) -> Result<Vec<IpAddr>, RtnlError> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut header = [0; ROUTE_HEADER];
            (header[0], header[5], header[7]) = (family, protocol, RTN_LOCAL);
            let filter = [(RTA_TABLE, u32::from(TABLE_LOCAL))];
            found.extend(self.list(
                "list local routes",
                RTM_GETROUTE,
                &header,
                &filter,
                RTM_NEWROUTE,
                |found, route| {
                    found.extend(read(route, protocol));
                },
            )?);
        }
        Ok(found)
    }
}

fn read(message: &Received<'_>, wanted: u8) -> Option<IpAddr> {
    let header: &[u8; ROUTE_HEADER] = message.payload.first_chunk()?;
    let [_, _, _, _, table, protocol, _, kind, ..] = *header;
    if (table, protocol, kind) != (TABLE_LOCAL, wanted, RTN_LOCAL) {
        return None;
    }
    attributes(message.payload.get(ROUTE_HEADER..)?).get(RTA_DST).and_then(read_ip)
}

/// Behind nobody's: `NLM_F_APPEND` and `NLM_F_REPLACE` are left out.
pub(super) fn add(address: IpAddr, source: Option<IpAddr>, protocol: u8, seq: u32) -> Message {
    let mut message = message(RTM_NEWROUTE, REQUEST | ACK | CREATE, address, protocol, seq);
    if let Some(source) = source {
        message.put(RTA_PREFSRC, &octets(source));
    }
    message
}

pub(super) fn delete(address: IpAddr, protocol: u8, seq: u32) -> Message {
    message(RTM_DELROUTE, REQUEST | ACK, address, protocol, seq)
}

fn message(kind: u16, flags: u16, address: IpAddr, protocol: u8, seq: u32) -> Message {
    let octets = octets(address);
    let mut header = [0; ROUTE_HEADER];
    header[0] = family_of(address);
    header[1] = octets.len() as u8 * 8;
    (header[4], header[5], header[6], header[7]) = (TABLE_LOCAL, protocol, RT_SCOPE_HOST, RTN_LOCAL);
    let mut message = Message::new(kind, flags, seq, &header);
    message.put(RTA_DST, &octets).put(RTA_OIF, &LOOPBACK.to_ne_bytes());
    message
}
