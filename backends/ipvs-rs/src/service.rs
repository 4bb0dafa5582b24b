//! Virtual services.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::BitOr;

use netlink_packet_core::DecodeError;

use crate::attribute::ServiceAttribute;
use crate::{Scheduler, Statistics};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `AF_INET` or `AF_INET6`.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }

    /// How many bits an address has.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    pub(crate) fn from_number(number: u16) -> Result<Self, DecodeError> {
        match number {
            AF_INET => Ok(Self::V4),
            AF_INET6 => Ok(Self::V6),
            other => Err(DecodeError::from(format!("{other} is no address family of IPVS"))),
        }
    }
}

/// A transport protocol that IPVS balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, 6
    Tcp,
    /// UDP, 17
    Udp,
    /// SCTP, 132
    Sctp,
    /// Any other, by its number; the kernel has AH and ESP as well.
    Other(u8),
}

impl Protocol {
    /// The number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Other(number) => number,
        }
    }
}

impl From<u8> for Protocol {
    fn from(number: u8) -> Self {
        match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("TCP"),
            Self::Udp => f.write_str("UDP"),
            Self::Sctp => f.write_str("SCTP"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}

/// What tells one virtual service from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceId {
    /// Packets to this address and port; port 0 with persistence stands for all ports.
    Address {
        /// Of this protocol.
        protocol: Protocol,
        /// The virtual address.
        address: SocketAddr,
    },
    /// Packets with this mark, whatever their address. Looked at before addresses.
    Fwmark {
        /// Of this family.
        family: Family,
        /// The whole mark, never 0.
        mark: u32,
    },
}

impl ServiceId {
    /// The family of its packets.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(address.ip()),
            Self::Fwmark { family, .. } => *family,
        }
    }

    #[inline]
    pub(crate) fn describe(&self, mut put: impl FnMut(&ServiceAttribute)) {
        put(&ServiceAttribute::Family(self.family().number()));
        match self {
            Self::Address { protocol, address } => {
                put(&ServiceAttribute::Protocol(protocol.number().into()));
                put(&ServiceAttribute::Address(bytes(address.ip())));
                put(&ServiceAttribute::Port(address.port().to_be_bytes()));
            }
            Self::Fwmark { mark, .. } => put(&ServiceAttribute::Fwmark(*mark)),
        }
    }

    pub(crate) fn attributes(&self) -> Vec<ServiceAttribute> {
        let mut list = Vec::new();
        self.describe(|attribute| list.push(attribute.clone()));
        list
    }

    /// Reads the id among the attributes of a service.
    ///
    /// # Errors
    /// If the attributes name no service.
    pub fn from_attributes(list: &[ServiceAttribute]) -> Result<Self, DecodeError> {
        let (mut family, mut protocol, mut address, mut port, mut mark) = (None, None, None, None, None);
        for attribute in list {
            match attribute {
                ServiceAttribute::Family(value) => family = Some(Family::from_number(*value)?),
                ServiceAttribute::Protocol(value) => protocol = u8::try_from(*value).ok().map(Protocol::from),
                ServiceAttribute::Address(value) => address = Some(*value),
                ServiceAttribute::Port(value) => port = Some(u16::from_be_bytes(*value)),
                ServiceAttribute::Fwmark(value) => mark = Some(*value),
                _ => {}
            }
        }
        let family = family.ok_or_else(|| DecodeError::from("a service has no address family"))?;
        match (mark.filter(|mark| *mark != 0), protocol, address, port) {
            (Some(mark), ..) => Ok(Self::Fwmark { family, mark }),
            (None, Some(protocol), Some(address), Some(port)) => {
                Ok(Self::Address { protocol, address: SocketAddr::new(ip(family, address), port) })
            }
            _ => Err(DecodeError::from("a service has neither a mark nor protocol, address and port")),
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address } => write!(f, "{protocol} {address}"),
            Self::Fwmark { family, mark } => write!(f, "FWM {mark:#x} ({family:?})"),
        }
    }
}

/// Flags of a virtual service: `IP_VS_SVC_F_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// Clients come back to the destination that they met last, until [`Service::timeout`] is over.
    pub const PERSISTENT: Self = Self(1);
    /// Set by the kernel itself; never compared.
    pub const HASHED: Self = Self(2);
    /// Each datagram is scheduled anew. UDP only.
    pub const ONE_PACKET: Self = Self(4);
    /// First flag of the scheduler.
    pub const SCHEDULER_1: Self = Self(8);
    /// Second flag of the scheduler.
    pub const SCHEDULER_2: Self = Self(16);
    /// Third flag of the scheduler.
    pub const SCHEDULER_3: Self = Self(32);
    /// `sh` and `mh`: another destination when the one by hash is not available.
    pub const HASH_FALLBACK: Self = Self::SCHEDULER_1;
    /// `sh` and `mh`: the client's port counts in the hash.
    pub const HASH_PORT: Self = Self::SCHEDULER_2;

    /// Whether all of these are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What a service was configured with: without what the kernel sets itself.
    #[must_use]
    pub const fn configured(self) -> Self {
        Self(self.0 & !Self::HASHED.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A virtual service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is for.
    pub id: ServiceId,
    /// How it chooses a destination.
    pub scheduler: Scheduler,
    /// How it behaves. When read, without [`Flags::HASHED`].
    pub flags: Flags,
    /// How long a client is remembered, in seconds; 0 without persistence.
    pub timeout: u32,
    /// Clients that share so many bits of their address count as one.
    pub prefix: u8,
    /// The persistence engine, such as `sip`. A service cannot lose it by being set again without.
    pub engine: Option<String>,
    /// Its counters; only read.
    pub statistics: Statistics,
}

impl Service {
    /// A service with round robin, without persistence.
    #[must_use]
    pub fn new(id: ServiceId) -> Self {
        Self {
            id,
            scheduler: Scheduler::default(),
            flags: Flags::default(),
            timeout: 0,
            prefix: id.family().bits(),
            engine: None,
            statistics: Statistics::default(),
        }
    }

    /// With another scheduler.
    #[must_use]
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// With these flags too.
    #[must_use]
    pub fn flags(mut self, flags: Flags) -> Self {
        self.flags = self.flags | flags;
        self
    }

    /// Clients come back to the same destination if they do so within so many seconds.
    #[must_use]
    pub fn persistent(mut self, seconds: u32) -> Self {
        self.timeout = seconds;
        self.flags(Flags::PERSISTENT)
    }

    /// All that a service is made or changed with.
    #[must_use]
    pub fn attributes(&self) -> Vec<ServiceAttribute> {
        let mut list = Vec::new();
        self.describe(|attribute| list.push(attribute.clone()));
        list
    }

    pub(crate) fn describe(&self, mut put: impl FnMut(&ServiceAttribute)) {
        let mut flags = [0xff; 8];
        flags[..4].copy_from_slice(&self.flags.configured().0.to_ne_bytes());
        self.id.describe(&mut put);
        put(&ServiceAttribute::Scheduler(self.scheduler.name().to_owned()));
        put(&ServiceAttribute::Flags(flags));
        put(&ServiceAttribute::Timeout(self.timeout));
        put(&ServiceAttribute::Netmask(netmask(self.id.family(), self.prefix)));
        self.engine.iter().for_each(|engine| put(&ServiceAttribute::PersistenceEngine(engine.clone())));
    }

    /// Reads a service.
    ///
    /// # Errors
    /// If the attributes name no service.
    pub fn from_attributes(list: &[ServiceAttribute]) -> Result<Self, DecodeError> {
        let mut service = Self::new(ServiceId::from_attributes(list)?);
        for attribute in list {
            match attribute {
                ServiceAttribute::Scheduler(name) => service.scheduler = name.as_str().into(),
                ServiceAttribute::Flags([a, b, c, d, ..]) => {
                    service.flags = Flags(u32::from_ne_bytes([*a, *b, *c, *d])).configured();
                }
                ServiceAttribute::Timeout(seconds) => service.timeout = *seconds,
                ServiceAttribute::Netmask(mask) => service.prefix = prefix(service.id.family(), *mask),
                ServiceAttribute::PersistenceEngine(name) => service.engine = Some(name.clone()),
                ServiceAttribute::Stats(list) => service.statistics.read_32(list),
                ServiceAttribute::Stats64(list) => service.statistics.read_64(list),
                _ => {}
            }
        }
        Ok(service)
    }
}

fn netmask(family: Family, prefix: u8) -> [u8; 4] {
    match family {
        Family::V4 => u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).to_be_bytes(),
        Family::V6 => u32::from(prefix).to_ne_bytes(),
    }
}

fn prefix(family: Family, mask: [u8; 4]) -> u8 {
    let bits = match family {
        Family::V4 => u32::from_be_bytes(mask).leading_ones(),
        Family::V6 => u32::from_ne_bytes(mask),
    };
    u8::try_from(bits).unwrap_or(family.bits()).min(family.bits())
}

/// Every address takes 16 bytes; those of IPv4 come first, the rest is zero.
pub(crate) fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

pub(crate) fn ip(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::V4 => {
            let [a, b, c, d, ..] = bytes;
            Ipv4Addr::new(a, b, c, d).into()
        }
        Family::V6 => Ipv6Addr::from(bytes).into(),
    }
}
