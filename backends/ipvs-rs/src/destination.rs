//! Destinations: the real servers behind a virtual service.

use std::net::SocketAddr;

use netlink_packet_core::DecodeError;

use crate::attribute::DestinationAttribute;
use crate::service::{bytes, ip};
use crate::{Family, Statistics};

/// How packets get to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Forward {
    /// The destination address is translated, and back in answers.
    #[default]
    Masquerade,
    /// The destination is this machine.
    Local,
    /// In a tunnel.
    Tunnel(Tunnel),
    /// By the link-layer address alone; the destination has the virtual address too.
    DirectRoute,
    /// Past the virtual service; only the kernel makes these.
    Bypass,
    /// A method that this library does not know.
    Other(u32),
}

/// The kind of a tunnel to a destination (Linux 5.3; before, always IPIP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Tunnel {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// The port of the other end.
        port: u16,
        /// `IP_VS_TUNNEL_ENCAP_FLAG_*`: 1 checksums, 2 remote checksums.
        flags: u16,
    },
    /// GRE.
    Gre {
        /// `IP_VS_TUNNEL_ENCAP_FLAG_*`
        flags: u16,
    },
}

const METHOD_MASK: u32 = 7;
const TUNNEL_GUE: u8 = 1;
const TUNNEL_GRE: u8 = 2;

impl Forward {
    /// `IP_VS_CONN_F_*`
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Masquerade => 0,
            Self::Local => 1,
            Self::Tunnel(_) => 2,
            Self::DirectRoute => 3,
            Self::Bypass => 4,
            Self::Other(number) => number,
        }
    }
}

/// A real server of a virtual service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Where it listens; what tells it from the others. Port 0 keeps the port of the packet.
    pub address: SocketAddr,
    /// How packets get there.
    pub forward: Forward,
    /// Its share of new connections; with 0 it keeps those it has and gets no more.
    pub weight: u32,
    /// With more connections than these it gets no more; 0 is without a limit.
    pub upper_threshold: u32,
    /// With fewer connections than these it gets new ones again.
    pub lower_threshold: u32,
    /// The connections that it has; only read.
    pub connections: Connections,
    /// Its counters; only read.
    pub statistics: Statistics,
}

/// How many connections a destination has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connections {
    /// Established.
    pub active: u32,
    /// In any other state, half closed ones too.
    pub inactive: u32,
    /// Clients remembered.
    pub persistent: u32,
}

impl Destination {
    /// A destination with weight 1 whose address is translated.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            forward: Forward::default(),
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            connections: Connections::default(),
            statistics: Statistics::default(),
        }
    }

    /// With another weight.
    #[must_use]
    pub const fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Reached in another way.
    #[must_use]
    pub const fn forward(mut self, forward: Forward) -> Self {
        self.forward = forward;
        self
    }

    /// What tells the destination of this address from others.
    #[inline]
    pub(crate) fn describe_id(address: SocketAddr, mut put: impl FnMut(&DestinationAttribute)) {
        put(&DestinationAttribute::Family(Family::of(address.ip()).number()));
        put(&DestinationAttribute::Address(bytes(address.ip())));
        put(&DestinationAttribute::Port(address.port().to_be_bytes()));
    }

    /// All that a destination is made or changed with.
    #[inline]
    pub(crate) fn describe(&self, mut put: impl FnMut(&DestinationAttribute)) {
        Self::describe_id(self.address, &mut put);
        put(&DestinationAttribute::Forward(self.forward.number()));
        // The kernel keeps it in an `int`.
        put(&DestinationAttribute::Weight(i32::try_from(self.weight).unwrap_or(i32::MAX)));
        put(&DestinationAttribute::UpperThreshold(self.upper_threshold));
        put(&DestinationAttribute::LowerThreshold(self.lower_threshold));
        match self.forward {
            Forward::Tunnel(Tunnel::Gue { port, flags }) => {
                put(&DestinationAttribute::TunnelType(TUNNEL_GUE));
                put(&DestinationAttribute::TunnelPort(port.to_be_bytes()));
                put(&DestinationAttribute::TunnelFlags(flags));
            }
            Forward::Tunnel(Tunnel::Gre { flags }) => {
                put(&DestinationAttribute::TunnelType(TUNNEL_GRE));
                put(&DestinationAttribute::TunnelFlags(flags));
            }
            _ => {}
        }
    }

    /// All that a destination is made or changed with.
    #[must_use]
    pub fn attributes(&self) -> Vec<DestinationAttribute> {
        let mut list = Vec::new();
        self.describe(|attribute| list.push(attribute.clone()));
        list
    }

    /// Reads a destination of a service of this family.
    ///
    /// # Errors
    /// If the attributes name no destination.
    pub fn from_attributes(service: Family, list: &[DestinationAttribute]) -> Result<Self, DecodeError> {
        let (mut family, mut address, mut port) = (service, None, None);
        for attribute in list {
            match attribute {
                DestinationAttribute::Family(number) => family = Family::from_number(*number)?,
                DestinationAttribute::Address(bytes) => address = Some(*bytes),
                DestinationAttribute::Port(bytes) => port = Some(u16::from_be_bytes(*bytes)),
                _ => {}
            }
        }
        let (Some(address), Some(port)) = (address, port) else {
            return Err(DecodeError::from("a destination has no address or no port"));
        };
        let mut destination = Self::new(SocketAddr::new(ip(family, address), port));
        list.iter().for_each(|attribute| destination.read(attribute));
        destination.forward = forward(list);
        Ok(destination)
    }

    fn read(&mut self, attribute: &DestinationAttribute) {
        match attribute {
            DestinationAttribute::Weight(weight) => self.weight = u32::try_from(*weight).unwrap_or(0),
            DestinationAttribute::UpperThreshold(most) => self.upper_threshold = *most,
            DestinationAttribute::LowerThreshold(least) => self.lower_threshold = *least,
            DestinationAttribute::ActiveConnections(count) => self.connections.active = *count,
            DestinationAttribute::InactiveConnections(count) => self.connections.inactive = *count,
            DestinationAttribute::PersistentConnections(count) => self.connections.persistent = *count,
            DestinationAttribute::Stats(list) => self.statistics.read_32(list),
            DestinationAttribute::Stats64(list) => self.statistics.read_64(list),
            _ => {}
        }
    }
}

fn forward(list: &[DestinationAttribute]) -> Forward {
    let (mut method, mut kind, mut port, mut flags) = (0, 0, 0, 0);
    for attribute in list {
        match attribute {
            DestinationAttribute::Forward(number) => method = number & METHOD_MASK,
            DestinationAttribute::TunnelType(number) => kind = *number,
            DestinationAttribute::TunnelPort(bytes) => port = u16::from_be_bytes(*bytes),
            DestinationAttribute::TunnelFlags(bits) => flags = *bits,
            _ => {}
        }
    }
    match (method, kind) {
        (0, _) => Forward::Masquerade,
        (1, _) => Forward::Local,
        (2, TUNNEL_GUE) => Forward::Tunnel(Tunnel::Gue { port, flags }),
        (2, TUNNEL_GRE) => Forward::Tunnel(Tunnel::Gre { flags }),
        (2, _) => Forward::Tunnel(Tunnel::Ipip),
        (3, _) => Forward::DirectRoute,
        (4, _) => Forward::Bypass,
        (other, _) => Forward::Other(other),
    }
}
