use std::net::IpAddr;

use super::{Mac, family_of, octets, read_ip, uapi::*};
use crate::netlink::{ACK, CREATE, Message, REQUEST, Received, attributes};

/// `NLM_F_REPLACE`: what is there is overwritten.
pub(super) const REPLACE: u16 = 0x100;

/// Which Ethernet address an IP address has on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's index.
    pub index: u32,
    /// The neighbour's address.
    pub addr: IpAddr,
    /// Its Ethernet address; `None` while it is being asked for.
    pub mac: Option<Mac>,
    /// Whether it was written and never expires (`PERMANENT`).
    pub permanent: bool,
}

impl Neighbour {
    pub(super) fn read(message: &Received<'_>) -> Option<Self> {
        let header = Header::read(message)?;
        let list = attributes(message.payload.get(NEIGHBOUR_HEADER..)?);
        Some(Self {
            index: header.index,
            addr: list.clone().get(NDA_DST).and_then(read_ip)?,
            mac: list.get(NDA_LLADDR).and_then(Mac::read),
            permanent: header.state & NUD_PERMANENT != 0,
        })
    }
}

/// Where a VXLAN device sends frames for an Ethernet address: an entry of its forwarding database (FDB).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarding {
    /// The device's index.
    pub index: u32,
    /// The Ethernet address; all zeroes stands for every one that has no entry.
    pub mac: Mac,
    /// Where its tunnel ends.
    pub destination: Option<IpAddr>,
    /// Whether it was written and never expires (`permanent`).
    pub permanent: bool,
    /// Whether it names a UDP port, VNI, interface or nexthop of its own.
    pub special: bool,
}

impl Forwarding {
    pub(super) fn read(message: &Received<'_>) -> Option<Self> {
        let header = Header::read(message)?;
        let list = attributes(message.payload.get(NEIGHBOUR_HEADER..)?);
        let special = [NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_SRC_VNI, NDA_NH_ID];
        Some(Self {
            index: header.index,
            mac: list.clone().get(NDA_LLADDR).and_then(Mac::read)?,
            destination: list.clone().get(NDA_DST).and_then(read_ip),
            permanent: header.state & NUD_PERMANENT != 0,
            special: special.into_iter().any(|kind| list.clone().get(kind).is_some()),
        })
    }
}

/// The part of `struct ndmsg` that counts.
pub(super) struct Header {
    pub family: u8,
    pub index: u32,
    state: u16,
}

impl Header {
    pub fn read(message: &Received<'_>) -> Option<Self> {
        let [family, _, _, _, a, b, c, d, low, high, ..] = *message.payload.first_chunk::<NEIGHBOUR_HEADER>()?;
        let (index, state) = (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([low, high]));
        Some(Self { family, index, state })
    }

    pub fn bytes(family: u8, index: u32, flags: u8) -> [u8; NEIGHBOUR_HEADER] {
        let mut header = [0; NEIGHBOUR_HEADER];
        header[0] = family;
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        header[10] = flags;
        header
    }
}

pub(super) fn set(index: u32, addr: IpAddr, mac: Mac, seq: u32) -> Message {
    let header = Header::bytes(family_of(addr), index, 0);
    let mut message = Message::new(RTM_NEWNEIGH, REQUEST | ACK | CREATE | REPLACE, seq, &header);
    message.put(NDA_DST, &octets(addr)).put(NDA_LLADDR, &mac.0);
    message
}

pub(super) fn delete(index: u32, addr: IpAddr, seq: u32) -> Message {
    let header = Header::bytes(family_of(addr), index, 0);
    let mut message = Message::new(RTM_DELNEIGH, REQUEST | ACK, seq, &header);
    message.put(NDA_DST, &octets(addr));
    message
}

pub(super) fn set_forwarding(index: u32, mac: Mac, destination: IpAddr, seq: u32) -> Message {
    let header = Header::bytes(AF_BRIDGE, index, NTF_SELF);
    let mut message = Message::new(RTM_NEWNEIGH, REQUEST | ACK | CREATE | REPLACE, seq, &header);
    message.put(NDA_LLADDR, &mac.0).put(NDA_DST, &octets(destination));
    message
}

/// Without a destination the whole entry goes. With a wrong one the kernel would say yes and do nothing.
pub(super) fn delete_forwarding(index: u32, mac: Mac, seq: u32) -> Message {
    let header = Header::bytes(AF_BRIDGE, index, NTF_SELF);
    let mut message = Message::new(RTM_DELNEIGH, REQUEST | ACK, seq, &header);
    message.put(NDA_LLADDR, &mac.0);
    message
}
