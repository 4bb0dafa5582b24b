//! What IPVS needs of this machine beside its netlink family, which the library `ipvs-rs` speaks.

use std::io;

use crate::netlink::{Socket, Wait};

/// A generic netlink socket, for whoever speaks a family over it.
#[derive(Debug)]
pub struct GenericNetlink(Socket);

impl GenericNetlink {
    /// Opens one, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<Self> {
        Socket::open(libc::NETLINK_GENERIC).map(Self)
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// What `sendmsg` says.
    pub fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.0.send(datagram)
    }

    /// Waits for one datagram and puts it into the buffer.
    ///
    /// # Errors
    /// What `recvfrom` says.
    pub fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.0.recv(buffer, Wait::Block)
    }
}
