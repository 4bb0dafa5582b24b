//! The addresses and interfaces of the calling thread's network namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{DUMP, Message, REQUEST, Received, Socket, attributes, text};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFLA_IFNAME: u16 = 3;
/// `struct ifaddrmsg`: family, prefix length, flags, scope, then the interface's index.
const ADDRESS_HEADER: usize = 8;
/// `struct ifinfomsg`: family, type, then the interface's index, flags and change mask.
const LINK_HEADER: usize = 16;
/// Both headers have the index here.
const INDEX_AT: usize = 4;
/// How often a dump is begun again when something changed under it.
const ATTEMPTS: u32 = 10;

/// Why the addresses or interfaces could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the node's {what}: {source}")]
pub struct AddressError {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// Every local address of both families: interface index, address, prefix length. Tentative IPv6 addresses are among
/// them.
///
/// # Errors
/// If the kernel refuses, or addresses kept changing while they were read.
pub fn local_addresses() -> Result<Vec<(u32, IpAddr, u8)>, AddressError> {
    list("addresses", RTM_GETADDR, ADDRESS_HEADER, |message| {
        if message.header.kind != RTM_NEWADDR {
            return None;
        }
        let prefix = *message.payload.get(1)?;
        let index = index(message)?;
        let list = attributes(message.payload.get(ADDRESS_HEADER..)?);
        // On a point-to-point interface IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL only there.
        let bytes = list.clone().get(IFA_LOCAL).or_else(|| list.get(IFA_ADDRESS))?;
        Some((index, address(bytes)?, prefix))
    })
}

/// Every interface: index and name.
///
/// # Errors
/// As [`local_addresses`].
pub fn interface_names() -> Result<Vec<(u32, String)>, AddressError> {
    list("interfaces", RTM_GETLINK, LINK_HEADER, |message| {
        if message.header.kind != RTM_NEWLINK {
            return None;
        }
        let list = attributes(message.payload.get(LINK_HEADER..)?);
        Some((index(message)?, list.get(IFLA_IFNAME).and_then(text)?.to_owned()))
    })
}

fn list<T>(
    what: &'static str,
    kind: u16,
    header: usize,
    read: impl Fn(&Received<'_>) -> Option<T>,
) -> Result<Vec<T>, AddressError> {
    let failed = |source| AddressError { what, source };
    let mut socket = Socket::open(libc::NETLINK_ROUTE).map_err(failed)?;
    let mut buffer = Vec::new();
    for seq in 1..=ATTEMPTS {
        let request = Message::new(kind, REQUEST | DUMP, seq, &vec![0; header]);
        let request = request.finish().map_err(|error| failed(io::Error::other(error)))?;
        socket.send(&request).map_err(failed)?;
        let mut found = Vec::new();
        let result = socket.answer(seq, &mut buffer, |message| found.extend(read(message)));
        if result.map_err(|broken| failed(broken.into()))? {
            return Ok(found);
        }
    }
    Err(failed(io::Error::new(io::ErrorKind::Interrupted, "they changed each time they were read; read them again")))
}

fn index(message: &Received<'_>) -> Option<u32> {
    message.payload.get(INDEX_AT..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes).into()),
        16 => bytes.first_chunk().map(|bytes: &[u8; 16]| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}
