//! Elements of sets and maps in the kernel's own encoding: each part of a key padded to four bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fairlead_plan::Family;

use crate::rules::{Datum, Kind, Name};

/// The longest key: protocol, IPv6 address, port, IPv6 address.
const LONGEST: usize = 40;

const BLOCK_MASK_V4: u32 = !0xff;
const BLOCK_MASK_V6: u128 = !0xff;

/// A key or datum. On the stack, because a cluster has hundreds of thousands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes {
    buf: [u8; LONGEST],
    len: u8,
}

impl Bytes {
    /// Nothing yet.
    pub const EMPTY: Self = Self { buf: [0; LONGEST], len: 0 };

    /// A copy of what the kernel sent; what is longer than any key of ours is cut and so never equal to one.
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut all = Self::EMPTY;
        all.push(&bytes[..bytes.len().min(LONGEST)]);
        all
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.buf[..usize::from(self.len)]
    }

    fn push(&mut self, bytes: &[u8]) {
        let from = usize::from(self.len);
        self.buf[from..from + bytes.len()].copy_from_slice(bytes);
        let padded = (from + bytes.len()).next_multiple_of(4);
        self.len = u8::try_from(padded.min(LONGEST)).unwrap_or(u8::MAX);
    }

    /// The same with a protocol number behind it.
    #[must_use]
    pub fn proto(mut self, number: u8) -> Self {
        self.push(&[number]);
        self
    }

    /// The same with an address behind it.
    #[must_use]
    pub fn addr(mut self, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => self.push(&addr.octets()),
            IpAddr::V6(addr) => self.push(&addr.octets()),
        }
        self
    }

    /// The same with the first address of the block behind it: the 256 addresses that differ in the last byte alone.
    #[must_use]
    pub fn block(self, addr: IpAddr) -> Self {
        self.addr(match addr {
            IpAddr::V4(addr) => (addr & Ipv4Addr::from_bits(BLOCK_MASK_V4)).into(),
            IpAddr::V6(addr) => (addr & Ipv6Addr::from_bits(BLOCK_MASK_V6)).into(),
        })
    }

    /// The same with a port behind it.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.push(&port.to_be_bytes());
        self
    }

    /// The same with a number in host order behind it.
    #[must_use]
    pub fn number(mut self, number: u32) -> Self {
        self.push(&number.to_ne_bytes());
        self
    }

    /// The same with address and port behind it.
    #[must_use]
    pub fn socket(self, addr: SocketAddr) -> Self {
        self.addr(addr.ip()).port(addr.port())
    }

    /// The parts, given their kinds.
    pub fn parts(&self, family: Family, kinds: &[Kind]) -> Vec<Part> {
        let mut rest = self.as_slice();
        kinds.iter().map_while(|kind| Part::take(family, *kind, &mut rest)).collect()
    }
}

/// What the address of a block keeps of an address, in network order.
pub fn block_mask(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(BLOCK_MASK_V4).into(),
        Family::V6 => Ipv6Addr::from_bits(BLOCK_MASK_V6).into(),
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One decoded part of a key or datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// [`Kind::Proto`]
    Proto(u8),
    /// [`Kind::Addr`]
    Addr(IpAddr),
    /// [`Kind::Port`]
    Port(u16),
    /// [`Kind::Index`]
    Index(u32),
    /// [`Kind::Number`]
    Number(u32),
}

impl Part {
    fn take(family: Family, kind: Kind, from: &mut &[u8]) -> Option<Self> {
        let (part, rest) = from.split_at_checked(kind.padded(family))?;
        *from = rest;
        let word = || part.try_into().ok().map(u32::from_ne_bytes);
        Some(match kind {
            Kind::Proto => Self::Proto(part[0]),
            Kind::Port => Self::Port(u16::from_be_bytes([part[0], part[1]])),
            Kind::Index => Self::Index(word()?),
            Kind::Number => Self::Number(word()?),
            Kind::Addr => Self::Addr(match family {
                Family::V4 => Ipv4Addr::from(<[u8; 4]>::try_from(part).ok()?).into(),
                Family::V6 => Ipv6Addr::from(<[u8; 16]>::try_from(part).ok()?).into(),
            }),
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proto(6) => f.write_str("tcp"),
            Self::Proto(17) => f.write_str("udp"),
            Self::Proto(132) => f.write_str("sctp"),
            Self::Proto(number) => write!(f, "{number}"),
            Self::Addr(addr) => write!(f, "{addr}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Index(index) => write!(f, "{index}"),
            Self::Number(number) => write!(f, "{:x}:{:x}", number >> 16, number & 0xffff),
        }
    }
}

impl Kind {
    /// Bytes without padding.
    pub const fn size(self, family: Family) -> usize {
        match (self, family) {
            (Self::Proto, _) => 1,
            (Self::Port, _) => 2,
            (Self::Addr, Family::V6) => 16,
            (Self::Addr, Family::V4) | (Self::Index | Self::Number, _) => 4,
        }
    }

    /// Bytes in a concatenation.
    pub const fn padded(self, family: Family) -> usize {
        self.size(family).next_multiple_of(4)
    }
}

/// One element of one set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Name of the set or map.
    pub set: Name,
    /// Key, or first key of a range.
    pub key: Bytes,
    /// Last key of the range in a set of concatenated ranges.
    pub key_end: Option<Bytes>,
    /// Whether the key is the first one behind a range (sets of plain ranges are stored as such pairs).
    pub range_end: bool,
    /// What it maps to.
    pub datum: Datum,
}

impl Element {
    /// An element of a set of exact keys.
    pub fn member(set: &Name, key: Bytes) -> Self {
        Self { set: Name::clone(set), key, key_end: None, range_end: false, datum: Datum::None }
    }

    /// An element of a map to data.
    pub fn pair(set: &Name, key: Bytes, value: Bytes) -> Self {
        Self { datum: Datum::Bytes(value), ..Self::member(set, key) }
    }

    /// An element of a verdict map.
    pub fn verdict(set: &Name, key: Bytes, datum: Datum) -> Self {
        Self { datum, ..Self::member(set, key) }
    }
}
