use std::io;

use super::{ConntrackError, Flow, NEW, NFGENMSG_LEN, failed, flow};
use crate::netlink::{Socket, Wait, attributes, messages};

/// `NFNLGRP_CONNTRACK_NEW`
const GROUP_NEW: u32 = 1;

/// What a look at the announcements gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Everything that was announced.
    All,
    /// The reader was too slow, and the kernel has thrown some announcements away.
    NotAll,
}

/// The kernel's announcements of tracked connections that begin, in the network namespace in which it was opened. A connection is
/// announced when its first packet leaves the last hook, translated already; a packet that is dropped begins none.
///
/// While it is open the kernel describes each connection once: a kilobyte of memory until it is read, and a microsecond or two. Needs
/// `net.netfilter.nf_conntrack_events` other than 0 at the time when a connection begins.
#[derive(Debug)]
pub struct Beginnings {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Beginnings {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the kernel lacks `nf_conntrack_netlink`, or the process `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, ConntrackError> {
        let socket = Socket::open(libc::NETLINK_NETFILTER).map_err(failed("open the socket"))?;
        socket.join(GROUP_NEW).map_err(failed("listen for connections that begin"))?;
        Ok(Self { socket, buffer: Vec::new() })
    }

    /// Waits for an announcement and hands out all that are there, if they are of connections with ports: TCP, UDP, SCTP.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn hear(&mut self, each: &mut dyn FnMut(&Flow)) -> Result<Heard, ConntrackError> {
        let mut wait = Wait::Block;
        loop {
            match self.socket.recv(&mut self.buffer, wait) {
                Ok(()) => wait = Wait::No,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Heard::NotAll),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::All),
                Err(error) => return Err(failed("hear of connections that begin")(error)),
            }
            for message in messages(&self.buffer).filter(|message| message.header.kind == NEW) {
                let list = message.payload.get(NFGENMSG_LEN..).unwrap_or_default();
                if let Some(flow) = flow(&attributes(list), |_| true) {
                    each(&flow);
                }
            }
        }
    }
}
