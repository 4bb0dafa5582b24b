use std::io;
use std::time::Duration;

use ipnet::IpNet;

use super::neighbour::Header;
use super::socket::failed;
use super::{Address, Forwarding, HopObject, Link, Neighbour, NextHop, Route, RtnlError, uapi::*};
use crate::netlink::{Received, Socket, Wait, messages};

/// How long [`Listener::next`] waits for news, so that its thread can be told to stop.
const PATIENCE: Duration = Duration::from_millis(500);
/// [`Listener::next`] returns when it holds this many changes, even if more are queued.
const ENOUGH: usize = 4096;
const GROUPS: [u32; 9] = [
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_NEXTHOP,
];

/// Something that somebody else has changed, or the kernel by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An interface came, changed or went.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
    },
    /// An address came or went on the interface of this index.
    Address(u32),
    /// A neighbour came, changed or went.
    Neighbour {
        /// As it is now, or was.
        entry: Neighbour,
        /// Whether it is gone.
        deleted: bool,
    },
    /// A forwarding entry came, changed or went. The kernel does not say who asked for it, so it may have been us.
    Forwarding {
        /// As it is now, or was.
        entry: Forwarding,
        /// Whether it is gone.
        deleted: bool,
    },
    /// A route came, changed or went.
    Route {
        /// Its destination.
        destination: IpNet,
        /// Its interface; 0 if it has none or several, or a nexthop object says which.
        index: u32,
        /// Who made it.
        protocol: u8,
        /// The routing table.
        table: u32,
        /// Whether it is gone.
        deleted: bool,
    },
    /// A nexthop object came, changed or went. Those that vanish with their device, or when it goes down, do so without a word.
    Hop {
        /// Its number.
        id: u32,
        /// Who made it, or replaced it last.
        protocol: u8,
        /// Whether it is gone.
        deleted: bool,
    },
    /// One of the settings that the kernel announces was set, on some interface or on all: forwarding, the filter of sources, answers
    /// for others.
    Setting,
}

/// News of links, addresses, neighbours, nexthop objects, routes and settings of one network namespace.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    /// Starts listening. Changes asked for by the port `ours` ([`super::Rtnl::port_id`]) are dropped inside the kernel, but
    /// for those of forwarding entries, which the kernel announces without a name.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(ours: u32) -> Result<Self, RtnlError> {
        let socket = Socket::open(libc::NETLINK_ROUTE).map_err(failed("open the socket"))?;
        socket.set_receive_timeout(Some(PATIENCE)).map_err(failed("set the time to wait"))?;
        socket.drop_messages_of(ours).map_err(failed("leave out our own changes"))?;
        for group in GROUPS {
            socket.join(group).map_err(failed("listen to changes"))?;
        }
        Ok(Self { socket, buffer: Vec::new() })
    }

    /// Waits for changes; an empty list after half a second without any. `None` means that some were lost: everything
    /// may have changed.
    ///
    /// # Errors
    /// If the socket fails.
    #[expect(clippy::should_implement_trait, reason = "it never ends and it fails, an iterator would hide both")]
    pub fn next(&mut self) -> Result<Option<Vec<Change>>, RtnlError> {
        let mut changes = Vec::new();
        let mut wait = Wait::Block;
        while changes.len() < ENOUGH {
            match self.socket.recv(&mut self.buffer, wait) {
                Ok(()) => changes.extend(messages(&self.buffer).filter_map(|message| change(&message))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                Err(error) => return Err(failed("read changes")(error)),
            }
            wait = Wait::No;
        }
        Ok(Some(changes))
    }
}

fn change(message: &Received<'_>) -> Option<Change> {
    match message.header.kind {
        RTM_NEWLINK | RTM_DELLINK => {
            let Link { index, name, .. } = Link::read(message)?;
            Some(Change::Link { index, name })
        }
        RTM_NEWADDR | RTM_DELADDR => Address::read(message).map(|address| Change::Address(address.index)),
        RTM_NEWNEIGH | RTM_DELNEIGH => {
            let deleted = message.header.kind == RTM_DELNEIGH;
            if Header::read(message)?.family == AF_BRIDGE {
                return Forwarding::read(message).map(|entry| Change::Forwarding { entry, deleted });
            }
            Neighbour::read(message).map(|entry| Change::Neighbour { entry, deleted })
        }
        RTM_NEWROUTE | RTM_DELROUTE => {
            let Route { destination, table, protocol, hop, .. } = Route::read(message)?;
            let index = if let NextHop::Unicast { index, .. } = hop { index } else { 0 };
            let deleted = message.header.kind == RTM_DELROUTE;
            Some(Change::Route { destination, index, protocol, table, deleted })
        }
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
            let deleted = message.header.kind == RTM_DELNEXTHOP;
            HopObject::read(message).map(|HopObject { id, protocol, .. }| Change::Hop { id, protocol, deleted })
        }
        RTM_NEWNETCONF => Some(Change::Setting),
        _ => None,
    }
}
