//! Matches and targets with their data, as `include/uapi/linux/netfilter/xt_*.h` lays them out on 64-bit machines.

use std::net::{IpAddr, SocketAddr};

use super::Ip;

/// What the kernel aligns the data of an extension to.
const ALIGN: usize = 8;

/// A match or a target: its name, the revision of its data, and the data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Extension {
    /// As after `-m` or `-j`.
    pub name: &'static str,
    /// Which layout the data has.
    pub revision: u8,
    /// The data, padded.
    pub data: Vec<u8>,
}

/// How a person calls a match or target, and where it may be found.
#[must_use]
pub fn words(target: bool, name: &str, revision: u8) -> String {
    let kind = if target { "target" } else { "match" };
    format!("the {kind} {name} (revision {revision}; module xt_{name})")
}

/// States for `-m conntrack --ctstate`, to be combined with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConntrackState(u16);

impl ConntrackState {
    /// A packet that belongs to no connection.
    pub const INVALID: Self = Self(1);
    /// `IP_CT_ESTABLISHED`
    pub const ESTABLISHED: Self = Self(1 << 1);
    /// `IP_CT_RELATED`
    pub const RELATED: Self = Self(1 << 2);
    /// `IP_CT_NEW`
    pub const NEW: Self = Self(1 << 3);
    /// A connection whose destination is translated.
    pub const DNAT: Self = Self(1 << 7);

    pub(super) const fn of(bits: u16) -> Self {
        Self(bits)
    }
}

impl std::ops::BitOr for ConntrackState {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Bytes in the host's order, padded by hand.
#[derive(Default)]
struct Data(Vec<u8>);

impl Data {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A string in a field of `len` bytes, cut so that a zero follows it.
    fn text(mut self, text: &str, len: usize) -> Self {
        let mut end = text.len().min(len - 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let from = self.0.len();
        self.0.extend_from_slice(&text.as_bytes()[..end]);
        self.0.resize(from + len, 0);
        self
    }

    fn zeroes(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn named(mut self, name: &'static str, revision: u8) -> Extension {
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
        Extension { name, revision, data: self.0 }
    }
}

impl Extension {
    /// `-m comment`: up to 255 bytes that the kernel only keeps.
    #[must_use]
    pub fn comment(text: &str) -> Self {
        Data::default().text(text, 256).named("comment", 0)
    }

    /// `-m tcp --dport first:last`
    #[must_use]
    pub fn tcp_ports(first: u16, last: u16) -> Self {
        Data::default().u16(0).u16(u16::MAX).u16(first).u16(last).u32(0).named("tcp", 0)
    }

    /// `-m udp --dport first:last`
    #[must_use]
    pub fn udp_ports(first: u16, last: u16) -> Self {
        Data::default().u16(0).u16(u16::MAX).u16(first).u16(last).u16(0).named("udp", 0)
    }

    /// `-m sctp --dport first:last`
    #[must_use]
    pub fn sctp_ports(first: u16, last: u16) -> Self {
        /// `XT_SCTP_DEST_PORTS`
        const DESTINATION: u32 = 2;
        /// The bitmap of chunk types, how it is meant, the flags of three chunks and their number.
        const CHUNKS: usize = 256 + 4 + 12 + 4;
        let data = Data::default().u16(first).u16(last).u16(0).u16(0).zeroes(CHUNKS);
        data.u32(DESTINATION).u32(0).named("sctp", 0)
    }

    /// `-m mark [!] --mark value/mask`
    #[must_use]
    pub fn mark_is(value: u32, mask: u32, negated: bool) -> Self {
        Data::default().u32(value).u32(mask).u8(u8::from(negated)).named("mark", 1)
    }

    /// `-m addrtype --src-type LOCAL`
    #[must_use]
    pub fn source_is_local() -> Self {
        Data::default().u16(ADDRTYPE_LOCAL).u16(0).u32(0).named("addrtype", 1)
    }

    /// `-m addrtype --dst-type LOCAL`
    #[must_use]
    pub fn destination_is_local() -> Self {
        Data::default().u16(0).u16(ADDRTYPE_LOCAL).u32(0).named("addrtype", 1)
    }

    /// `-m set [!] --match-set set src` or `dst`, for a set of addresses that has this number
    /// ([`set_index`](super::set_index)), in the revision that `iptables` prints (Linux 3.15).
    #[must_use]
    pub fn in_set(index: u16, source: bool, negated: bool) -> Self {
        /// `IPSET_DIM_ONE_SRC`, `IPSET_INV_MATCH`
        const SOURCE: u8 = 1 << 1;
        const NOT: u8 = 1;
        /// `struct ip_set_counter_match` for packets and for bytes, and flags: entries are asked for without counters.
        const UNUSED: usize = 4 + 16 + 16 + 4;
        let flags = if source { SOURCE } else { 0 } | if negated { NOT } else { 0 };
        Data::default().u16(index).u8(1).u8(flags).zeroes(UNUSED).named("set", 4)
    }

    /// `-m conntrack [!] --ctstate states`
    #[must_use]
    pub fn conntrack(states: ConntrackState, negated: bool) -> Self {
        /// Four addresses with their masks, two times, protocol, four ports.
        const UNUSED: usize = 4 * 32 + 2 * 4 + 2 + 4 * 2;
        const STATE: u16 = 1;
        let data = Data::default().zeroes(UNUSED).u16(STATE).u16(if negated { STATE } else { 0 });
        data.u16(states.0).u16(0).zeroes(8).named("conntrack", 3)
    }

    /// `-m statistic --mode random --probability threshold/2^31`
    #[must_use]
    pub fn random(threshold: u32) -> Self {
        Data::default().u16(0).u16(0).u32(threshold).zeroes(8 + 8).named("statistic", 0)
    }

    /// `-m recent --name list --rcheck --seconds seconds --reap --rsource`
    #[must_use]
    pub fn recent_check(list: &str, seconds: u32, ip: Ip) -> Self {
        /// `XT_RECENT_CHECK | XT_RECENT_REAP`
        const CHECK: u8 = 0x01 | 0x20;
        recent(list, seconds, CHECK, ip)
    }

    /// `-m recent --name list --set --rsource`
    #[must_use]
    pub fn recent_set(list: &str, ip: Ip) -> Self {
        const SET: u8 = 0x02;
        recent(list, 0, SET, ip)
    }

    /// `-j MARK --or-mark bits`
    #[must_use]
    pub fn set_mark(bits: u32) -> Self {
        Data::default().u32(bits).u32(bits).named("MARK", 2)
    }

    /// `-j MARK --xor-mark bits`
    #[must_use]
    pub fn flip_mark(bits: u32) -> Self {
        Data::default().u32(bits).u32(0).named("MARK", 2)
    }

    /// `-j MASQUERADE --random-fully`
    #[must_use]
    pub fn masquerade(ip: Ip) -> Self {
        /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
        const RANDOM_FULLY: u32 = 1 << 4;
        let data = match ip {
            Ip::V4 => Data::default().u32(1).u32(RANDOM_FULLY).zeroes(4 + 4 + 2 + 2),
            Ip::V6 => Data::default().u32(RANDOM_FULLY).zeroes(16 + 16 + 2 + 2),
        };
        data.named("MASQUERADE", 0)
    }

    /// `-j DNAT --to-destination to`, in the revision that `iptables` uses since kernel 4.18: it cannot print others.
    #[must_use]
    pub fn dnat(to: SocketAddr) -> Self {
        /// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`
        const ADDRESS_AND_PORT: u32 = 3;
        let ip = match to.ip() {
            IpAddr::V4(ip) => [ip.octets(), [0; 4], [0; 4], [0; 4]].concat(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let port = to.port().to_be_bytes();
        let data = Data::default().u32(ADDRESS_AND_PORT).bytes(&ip).bytes(&ip).bytes(&port).bytes(&port);
        data.u16(0).named("DNAT", 2)
    }

    /// `-j REJECT`: an ICMP message "port unreachable".
    #[must_use]
    pub fn reject(ip: Ip) -> Self {
        // `IPT_ICMP_PORT_UNREACHABLE`, `IP6T_ICMP6_PORT_UNREACH`
        let port_unreachable = match ip {
            Ip::V4 => 3,
            Ip::V6 => 4,
        };
        Data::default().u32(port_unreachable).named("REJECT", 0)
    }

    /// `-j REJECT --reject-with tcp-reset`
    #[must_use]
    pub fn reject_with_reset(ip: Ip) -> Self {
        // `IPT_TCP_RESET`, `IP6T_TCP_RESET`
        let reset = match ip {
            Ip::V4 => 7,
            Ip::V6 => 6,
        };
        Data::default().u32(reset).named("REJECT", 0)
    }
}

/// `XT_ADDRTYPE_LOCAL`
const ADDRTYPE_LOCAL: u16 = 1 << 2;

fn recent(list: &str, seconds: u32, check_set: u8, ip: Ip) -> Extension {
    let data = Data::default().u32(seconds).u32(0).u8(check_set).u8(0).text(list, 200).u8(0);
    let mask = match ip {
        Ip::V4 => [[u8::MAX; 4], [0; 4], [0; 4], [0; 4]].concat(),
        Ip::V6 => vec![u8::MAX; 16],
    };
    // One byte that nobody uses brings the mask to a multiple of four.
    data.zeroes(1).bytes(&mask).named("recent", 1)
}
