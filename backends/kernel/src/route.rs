//! Links, addresses, neighbours, forwarding entries, nexthop objects and routes (rtnetlink), read, written and heard about.
//!
//! ```text
//!   Rtnl::links, addresses, neighbours, forwarding, routes, hops, locals, vnis
//!                            one dump each, filtered by the kernel where it can
//!   Rtnl::write(&[Write])    many changes in few datagrams; which were refused
//!   Listener::next           what others have changed
//! ```
//!
//! The values are those of the kernel and carry no meaning of ours. Only what an overlay of VXLAN and routes needs is
//! there: VXLAN devices, permanent neighbours, unicast forwarding entries, unicast and blackhole routes, and nexthop objects and
//! routes that encapsulate (`encap ip`, `encap ip6`).
//!
//! An acknowledgement is not proof. The kernel acknowledges, and ignores, a second destination for a unicast MAC and the
//! deletion of a forwarding entry with another destination; and it removes IPv4 routes without a word when their device
//! goes down. Who needs to know reads back.

mod address;
mod fib;
mod link;
mod listen;
mod local;
mod neighbour;
mod nexthop;
mod socket;
mod uapi;
mod write;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

pub use address::Address;
pub use fib::{Encap, NextHop, Route, RouteFilter};
pub use link::{Link, Vxlan, VxlanSpec};
pub use listen::{Change, Listener};
pub use neighbour::{Forwarding, Neighbour};
pub use nexthop::HopObject;
pub use socket::{Rtnl, RtnlError};
pub use write::{Refusal, Write};

/// The main routing table, `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;
/// The protocol number of fairlead's routes and nexthop objects, by which everybody can tell them: `ip route show table all
/// proto 76`, `ip nexthop show proto 76`. Free in `/etc/iproute2/rt_protos` and in the kernel's own list.
pub const PROTOCOL_OURS: u8 = 76;
/// Routes without an own protocol (`ip route` hides it): `RTPROT_BOOT`.
pub const PROTOCOL_BOOT: u8 = 3;
/// The default UDP port of Linux for VXLAN, older than the one of RFC 7348 (4789).
pub const VXLAN_PORT: u16 = 8472;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether a device can have it: neither a group address nor all zeroes.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether it was made up rather than assigned to a manufacturer (IEEE 802, the second bit of the first byte).
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 != 0
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        <[u8; 6]>::try_from(bytes).ok().map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text is not an Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an Ethernet address like 0a:58:0a:f4:01:01")]
pub struct NotAMac;

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| (1..=2).contains(&part.len())).ok_or(NotAMac)?;
            if part.starts_with('+') {
                return Err(NotAMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| NotAMac)?;
        }
        if parts.next().is_some() { Err(NotAMac) } else { Ok(Self(bytes)) }
    }
}

/// `AF_INET` or `AF_INET6`.
const fn family_of(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => uapi::AF_INET,
        IpAddr::V6(_) => uapi::AF_INET6,
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes).into()),
        16 => bytes.first_chunk().map(|bytes: &[u8; 16]| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_address_is_read_as_it_is_written_and_nothing_else_is() {
        let mac: Mac = "52:17:43:ba:2e:56".parse().unwrap();
        assert_eq!(mac.to_string(), "52:17:43:ba:2e:56");
        assert_eq!("A-B-C-D-E-F".parse::<Mac>().unwrap().to_string(), "0a:0b:0c:0d:0e:0f");
        for wrong in
            ["", "52:17:43:ba:2e", "52:17:43:ba:2e:56:00", "52:17:43:ba:2e:5g", "5217:43:ba:2e:56", "+1:2:3:4:5:6"]
        {
            assert_eq!(wrong.parse::<Mac>(), Err(NotAMac), "{wrong}");
        }
    }

    #[test]
    fn group_addresses_and_zero_belong_to_no_device() {
        let unicast = |text: &str| text.parse::<Mac>().unwrap().is_unicast();
        assert!(unicast("62:c8:a9:ce:ca:4e"));
        assert!(!unicast("01:00:5e:00:00:01") && !unicast("ff:ff:ff:ff:ff:ff") && !unicast("00:00:00:00:00:00"));
    }
}
