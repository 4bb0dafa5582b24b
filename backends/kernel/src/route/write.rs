use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{HopObject, Mac, Route, Vxlan, VxlanSpec, address, fib, link, local, neighbour, nexthop};
use crate::netlink::Message;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Makes a VXLAN device and switches it on.
    CreateVxlan(VxlanSpec),
    /// Gives the device of this index another source, interface below, or learning.
    AlterVxlan(u32, Vxlan),
    /// Deletes the interface with everything on it.
    DeleteLink(u32),
    /// Switches the interface on.
    Up(u32),
    /// Sets the largest packet of an interface, bytes.
    SetMtu(u32, u32),
    /// Sets the Ethernet address of an interface.
    SetMac(u32, Mac),
    /// Lets an external device with a filter take this VNI.
    AddVni(u32, u32),
    /// The opposite.
    DeleteVni(u32, u32),
    /// Gives an interface an address.
    AddAddress(u32, IpNet),
    /// Takes it away.
    DeleteAddress(u32, IpNet),
    /// Makes or replaces a permanent neighbour.
    SetNeighbour(u32, IpAddr, Mac),
    /// Removes it.
    DeleteNeighbour(u32, IpAddr),
    /// Makes or replaces a permanent forwarding entry of a VXLAN device.
    SetForwarding(u32, Mac, IpAddr),
    /// Removes it with all its destinations.
    DeleteForwarding(u32, Mac),
    /// Makes a route, or replaces the one with its destination, table and metric, whoever made that. IPv6 refuses with
    /// [`Refusal::is_in_the_way`] to replace one of another interface by an onlink one whose gateway it covers.
    SetRoute(Route),
    /// Removes whatever has the destination, table and metric of this route.
    ClearWay(Route),
    /// Removes it.
    DeleteRoute(Route),
    /// Makes a nexthop object. One of its number that is there, whoever made that, is a refusal: [`Refusal::is_taken`].
    AddHop(HopObject),
    /// Gives a nexthop object another content, and with it all routes that lead through it, without a moment between.
    ReplaceHop(HopObject),
    /// Removes the nexthop object of this number, and with it the routes that lead through it.
    DeleteHop(u32),
    /// Makes an address this machine's by a route of this protocol over `lo`, which suggests another source for what is sent there.
    AddLocal(IpAddr, Option<IpAddr>, u8),
    /// Removes one such route of the protocol.
    DeleteLocal(IpAddr, u8),
}

impl Write {
    const fn deletes(&self) -> bool {
        matches!(
            self,
            Self::DeleteLink(_)
                | Self::DeleteVni(..)
                | Self::DeleteAddress(..)
                | Self::DeleteNeighbour(..)
                | Self::DeleteForwarding(..)
                | Self::DeleteRoute(_)
                | Self::ClearWay(_)
                | Self::DeleteHop(_)
                | Self::DeleteLocal(..)
        )
    }

    pub(super) fn message(&self, seq: u32) -> Message {
        match self {
            Self::CreateVxlan(spec) => link::create(spec, seq),
            Self::AlterVxlan(index, vxlan) => link::alter(*index, vxlan, seq),
            Self::DeleteLink(index) => link::delete(*index, seq),
            Self::Up(index) => link::up(*index, seq),
            Self::SetMtu(index, mtu) => link::set_mtu(*index, *mtu, seq),
            Self::SetMac(index, mac) => link::set_mac(*index, *mac, seq),
            Self::AddVni(index, vni) => link::vni(true, *index, *vni, seq),
            Self::DeleteVni(index, vni) => link::vni(false, *index, *vni, seq),
            Self::AddAddress(index, net) => address::request(false, *index, *net, seq),
            Self::DeleteAddress(index, net) => address::request(true, *index, *net, seq),
            Self::SetNeighbour(index, addr, mac) => neighbour::set(*index, *addr, *mac, seq),
            Self::DeleteNeighbour(index, addr) => neighbour::delete(*index, *addr, seq),
            Self::SetForwarding(index, mac, to) => neighbour::set_forwarding(*index, *mac, *to, seq),
            Self::DeleteForwarding(index, mac) => neighbour::delete_forwarding(*index, *mac, seq),
            Self::SetRoute(route) => fib::set(route, seq),
            Self::ClearWay(route) => fib::clear(route, seq),
            Self::AddLocal(address, source, protocol) => local::add(*address, *source, *protocol, seq),
            Self::DeleteLocal(address, protocol) => local::delete(*address, *protocol, seq),
            Self::DeleteRoute(route) => fib::delete(route, seq),
            Self::AddHop(hop) => nexthop::add(hop, seq),
            Self::ReplaceHop(hop) => nexthop::replace(hop, seq),
            Self::DeleteHop(id) => nexthop::delete(*id, seq),
        }
    }

    /// Whether a refusal means that it is as wanted already.
    pub(super) const fn is_done(&self, errno: i32) -> bool {
        match errno {
            libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::ENXIO | libc::EADDRNOTAVAIL => self.deletes(),
            libc::EEXIST => matches!(self, Self::AddAddress(..) | Self::AddVni(..) | Self::AddLocal(..)),
            _ => false,
        }
    }
}

/// A change that the kernel did not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place among the changes that were asked for.
    pub at: usize,
    /// The kernel's error number.
    pub errno: i32,
    /// The kernel's own words, where it has any.
    pub text: Option<String>,
}

impl Refusal {
    /// Whether something of that number or name is there already.
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        self.errno == libc::EEXIST
    }

    /// Whether a route that is there may be the reason.
    #[must_use]
    pub const fn is_in_the_way(&self) -> bool {
        self.errno == libc::EINVAL
    }

    /// Whether the interface is gone or down, whatever was to be done with it.
    #[must_use]
    pub const fn is_about_device(&self) -> bool {
        matches!(self.errno, libc::ENODEV | libc::ENETDOWN)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        match &self.text {
            Some(text) => write!(f, "{error} ({text})"),
            None => write!(f, "{error}"),
        }
    }
}
