//! The few statements of which our rules are made, in the very bytes that `nft` 1.0.6 and newer write and show.

use fairlead_kernel::nft::Exprs;
use fairlead_plan::Family;

/// Numbers of `linux/netfilter/nf_tables.h` and its neighbours.
mod uapi {
    pub const REG_1: u32 = 1;
    pub const META_MARK: u32 = 3;
    pub const META_L4PROTO: u32 = 16;
    pub const NETWORK: u32 = 1;
    pub const TRANSPORT: u32 = 2;
    pub const EQUAL: u32 = 0;
    pub const NOT_EQUAL: u32 = 1;
    pub const FIB_ADDRTYPE: u32 = 3;
    pub const FIB_DADDR: u32 = 2;
    pub const RTN_LOCAL: u32 = 2;
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
    pub const FULLY_RANDOM: u32 = 1 << 4;
    pub const DROP: i32 = 0;
    pub const ACCEPT: i32 = 1;
}
use uapi::REG_1;

/// `IPPROTO_UDP`
const UDP: u8 = 17;

/// One of a packet's two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Whence it comes.
    Source,
    /// Where it goes.
    Destination,
}

/// Where an address stands in the header, and its length.
const fn place(family: Family, side: Side) -> (u32, u32) {
    match (family, side) {
        (Family::V4, Side::Source) => (12, 4),
        (Family::V4, Side::Destination) => (16, 4),
        (Family::V6, Side::Source) => (8, 16),
        (Family::V6, Side::Destination) => (24, 16),
    }
}

/// `ip saddr @set`, or `ip saddr != @set`.
pub fn in_set(rule: &mut Exprs, family: Family, side: Side, set: &str, negated: bool) {
    let (offset, length) = place(family, side);
    rule.payload(uapi::NETWORK, offset, length, REG_1).lookup(set, None, REG_1, None, negated);
}

/// `ip daddr != 224.0.0.0/4`, `ip6 daddr != ff00::/8`
pub fn not_multicast(rule: &mut Exprs, family: Family) {
    let (offset, length) = place(family, Side::Destination);
    match family {
        Family::V4 => {
            rule.payload(uapi::NETWORK, offset, length, REG_1);
            rule.bitwise(REG_1, REG_1, length, &[0xf0, 0, 0, 0], &[0; 4]);
            rule.cmp(uapi::NOT_EQUAL, REG_1, &[0xe0, 0, 0, 0]);
        }
        Family::V6 => {
            rule.payload(uapi::NETWORK, offset, 1, REG_1).cmp(uapi::NOT_EQUAL, REG_1, &[0xff]);
        }
    }
}

/// `fib daddr type != local`
pub fn not_to_this_node(rule: &mut Exprs) {
    rule.fib(uapi::FIB_ADDRTYPE, uapi::FIB_DADDR, REG_1);
    rule.cmp(uapi::NOT_EQUAL, REG_1, &uapi::RTN_LOCAL.to_ne_bytes());
}

/// `meta mark & MARK != MARK`
pub fn not_marked(rule: &mut Exprs, mark: u32) {
    rule.meta_load(uapi::META_MARK, REG_1).bitwise(REG_1, REG_1, 4, &mark.to_ne_bytes(), &[0; 4]);
    rule.cmp(uapi::NOT_EQUAL, REG_1, &mark.to_ne_bytes());
}

/// `udp dport PORT`
pub fn udp_to(rule: &mut Exprs, port: u16) {
    rule.meta_load(uapi::META_L4PROTO, REG_1).cmp(uapi::EQUAL, REG_1, &[UDP]);
    rule.payload(uapi::TRANSPORT, 2, 2, REG_1).cmp(uapi::EQUAL, REG_1, &port.to_be_bytes());
}

/// `masquerade fully-random`
pub fn masquerade(rule: &mut Exprs) {
    rule.masq(Some(uapi::FULLY_RANDOM));
}

/// `accept`
pub fn accept(rule: &mut Exprs) {
    rule.verdict(uapi::ACCEPT, None);
}

/// `counter drop`
pub fn count_and_drop(rule: &mut Exprs) {
    rule.counter().verdict(uapi::DROP, None);
}
