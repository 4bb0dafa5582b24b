//! What is counted and what is timed.

use netlink_packet_core::Nla;

use crate::attribute::{MessageAttribute, Stats32Attribute, Stats64Attribute};

/// What a service or destination has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections a second, of late.
    pub connection_rate: u64,
    /// Packets a second from clients, of late.
    pub packet_rate_in: u64,
    /// Packets a second to clients, of late.
    pub packet_rate_out: u64,
    /// Bytes a second from clients, of late.
    pub byte_rate_in: u64,
    /// Bytes a second to clients, of late.
    pub byte_rate_out: u64,
}

macro_rules! reader {
    ($name:ident, $attribute:ident) => {
        pub(crate) fn $name(&mut self, list: &[$attribute]) {
            for attribute in list {
                let (place, value): (&mut u64, u64) = match attribute {
                    $attribute::Connections(value) => (&mut self.connections, (*value).into()),
                    $attribute::PacketsIn(value) => (&mut self.packets_in, (*value).into()),
                    $attribute::PacketsOut(value) => (&mut self.packets_out, (*value).into()),
                    $attribute::BytesIn(value) => (&mut self.bytes_in, *value),
                    $attribute::BytesOut(value) => (&mut self.bytes_out, *value),
                    $attribute::ConnectionRate(value) => (&mut self.connection_rate, (*value).into()),
                    $attribute::PacketRateIn(value) => (&mut self.packet_rate_in, (*value).into()),
                    $attribute::PacketRateOut(value) => (&mut self.packet_rate_out, (*value).into()),
                    $attribute::ByteRateIn(value) => (&mut self.byte_rate_in, (*value).into()),
                    $attribute::ByteRateOut(value) => (&mut self.byte_rate_out, (*value).into()),
                    $attribute::Other(_) => continue,
                };
                // Both widths come in one message, and the narrow one wraps.
                *place = value.max(*place);
            }
        }
    };
}

impl Statistics {
    reader!(read_32, Stats32Attribute);
    reader!(read_64, Stats64Attribute);
}

/// How long the kernel remembers idle connections, in seconds. 0 stands for "as it is" when set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// An established TCP connection; 900 at first.
    pub tcp: u32,
    /// A TCP connection after a FIN; 120 at first.
    pub tcp_fin: u32,
    /// A UDP flow; 300 at first.
    pub udp: u32,
}

impl Timeouts {
    pub(crate) fn attributes(self) -> Vec<MessageAttribute> {
        vec![
            MessageAttribute::TimeoutTcp(self.tcp),
            MessageAttribute::TimeoutTcpFin(self.tcp_fin),
            MessageAttribute::TimeoutUdp(self.udp),
        ]
    }

    pub(crate) fn from_attributes(list: &[MessageAttribute]) -> Self {
        let mut timeouts = Self::default();
        for attribute in list {
            match attribute {
                MessageAttribute::TimeoutTcp(seconds) => timeouts.tcp = *seconds,
                MessageAttribute::TimeoutTcpFin(seconds) => timeouts.tcp_fin = *seconds,
                MessageAttribute::TimeoutUdp(seconds) => timeouts.udp = *seconds,
                _ => {}
            }
        }
        timeouts
    }
}

/// What IPVS says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Info {
    /// Major, minor and patch number.
    pub version: (u8, u8, u8),
    /// Buckets of the connection table.
    pub connection_buckets: u32,
}

impl Info {
    const VERSION: u16 = 1;
    const BUCKETS: u16 = 2;

    pub(crate) fn from_attributes(list: &[MessageAttribute]) -> Self {
        let mut info = Self::default();
        for attribute in list {
            let MessageAttribute::Other(nla) = attribute else { continue };
            let mut bytes = [0; 4];
            if nla.value_len() != bytes.len() {
                continue;
            }
            nla.emit_value(&mut bytes);
            let number = u32::from_ne_bytes(bytes);
            match nla.kind() {
                Self::VERSION => info.version = ((number >> 16) as u8, (number >> 8) as u8, number as u8),
                Self::BUCKETS => info.connection_buckets = number,
                _ => {}
            }
        }
        info
    }
}
