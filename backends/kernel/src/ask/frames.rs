use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Instant;

use super::{raw_socket, read_until};

/// `ETH_P_ALL`
const ALL: u16 = 3;
/// Of a frame, only so much is looked at: all headers, and an address resolution.
const LOOKED_AT: usize = 256;

/// The frames that pass an Ethernet interface in both directions, whoever they are addressed to. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct Frames {
    socket: UdpSocket,
}

impl Frames {
    /// Listens on the interface of this index.
    ///
    /// # Errors
    /// If there is no such interface, or the process may not.
    pub fn open(index: u32) -> io::Result<Self> {
        // With the protocol 0 nothing is heard before the interface is named.
        let socket = raw_socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        // SAFETY: `sockaddr_ll` is plain data for which all zeroes is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::sa_family_t;
        address.sll_protocol = ALL.to_be();
        address.sll_ifindex = index.cast_signed();
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` is a `sockaddr_ll` that outlives the call, and the length is its size.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { socket }) }
    }

    /// The next frame from its Ethernet header on, at most 256 bytes of it; `None` if none comes until then.
    ///
    /// # Errors
    /// What the system says; `ENETDOWN` when the interface goes.
    pub fn next(&self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0; LOOKED_AT];
        let read = read_until(&self.socket, &mut frame, until)?;
        frame.truncate(read);
        Ok((read > 0).then_some(frame))
    }
}
