use std::net::IpAddr;

use ipnet::IpNet;

use super::{family_of, octets, read_ip, read_u32, uapi::*};
use crate::netlink::{ACK, CREATE, Message, REQUEST, Received, attributes};

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface's index.
    pub index: u32,
    /// The address itself.
    pub addr: IpAddr,
    /// Length of the prefix that is on the link.
    pub prefix: u8,
    /// `RT_SCOPE_*`: 0 is global, 253 the link's own, 254 the host's.
    pub scope: u8,
    flags: u32,
}

impl Address {
    /// Whether it works everywhere (`scope global`).
    #[must_use]
    pub const fn is_global(&self) -> bool {
        self.scope == RT_SCOPE_UNIVERSE
    }

    /// Whether it has no end of life: written by hand rather than leased or advertised.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0
    }

    /// Whether it is an IPv6 privacy address (RFC 8981); for IPv4 the same bit means "secondary".
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        self.flags & IFA_F_TEMPORARY != 0
    }

    /// Whether nothing new should be sent from it.
    #[must_use]
    pub const fn is_deprecated(&self) -> bool {
        self.flags & IFA_F_DEPRECATED != 0
    }

    /// Whether it is not yet known to be unique on the link.
    #[must_use]
    pub const fn is_tentative(&self) -> bool {
        self.flags & IFA_F_TENTATIVE != 0
    }

    /// An address as a test wants it: global and permanent.
    #[must_use]
    pub const fn global(index: u32, addr: IpAddr, prefix: u8) -> Self {
        Self { index, addr, prefix, scope: RT_SCOPE_UNIVERSE, flags: IFA_F_PERMANENT }
    }

    pub(super) fn read(message: &Received<'_>) -> Option<Self> {
        let header: &[u8; ADDRESS_HEADER] = message.payload.first_chunk()?;
        let [_, prefix, short_flags, scope, index @ ..] = *header;
        let list = attributes(message.payload.get(ADDRESS_HEADER..)?);
        // On a point-to-point interface IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL only there.
        let bytes = list.clone().get(IFA_LOCAL).or_else(|| list.clone().get(IFA_ADDRESS))?;
        let flags = list.get(IFA_FLAGS).and_then(read_u32).unwrap_or(u32::from(short_flags));
        Some(Self { index: u32::from_ne_bytes(index), addr: read_ip(bytes)?, prefix, scope, flags })
    }
}

pub(super) fn request(delete: bool, index: u32, net: IpNet, seq: u32) -> Message {
    let (kind, flags) = if delete { (RTM_DELADDR, REQUEST | ACK) } else { (RTM_NEWADDR, REQUEST | ACK | CREATE) };
    let mut header = [0; ADDRESS_HEADER];
    header[0] = family_of(net.addr());
    header[1] = net.prefix_len();
    header[3] = RT_SCOPE_UNIVERSE;
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(kind, flags, seq, &header);
    let bytes = octets(net.addr());
    message.put(IFA_LOCAL, &bytes).put(IFA_ADDRESS, &bytes);
    if !delete && net.addr().is_ipv6() {
        // A tunnel has nobody to ask whether the address is taken.
        message.put(IFA_FLAGS, &(IFA_F_NODAD | IFA_F_PERMANENT).to_ne_bytes());
    }
    message
}
