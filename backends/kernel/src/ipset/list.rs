use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::netlink::{Attributes, be_u16, be_u32, be_u64, text};

/// A set that the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSet {
    /// Its name.
    pub name: String,
    /// What its entries are made of; `None` for types that this program has no use for.
    pub kind: Option<SetKind>,
    /// Whether its addresses are IPv6.
    pub v6: bool,
    /// Whether entries carry marks.
    pub marks: bool,
    /// How many entries it has.
    pub elements: u32,
}

/// An entry of a set that the kernel holds.
pub type HeldEntry = SetEntry;

/// Reads the head of a set out of a message; `None` if it continues another.
pub(super) fn head(list: Attributes<'_>) -> Option<HeldSet> {
    let name = list.clone().get(ATTR_SETNAME).and_then(text)?.to_owned();
    let type_name = list.clone().get(ATTR_TYPENAME).and_then(text)?;
    let family = list.clone().get(ATTR_FAMILY).and_then(|bytes| bytes.first().copied());
    let data = crate::netlink::attributes(list.get(ATTR_DATA).unwrap_or_default());
    let flags = data.clone().get(DATA_FLAGS).and_then(be_u32);
    Some(HeldSet {
        name,
        kind: SetKind::ALL.into_iter().find(|kind| kind.name() == type_name),
        v6: family.map(i32::from) == Some(libc::AF_INET6),
        marks: flags.unwrap_or(0) & FLAG_MARKS != 0,
        elements: data.get(DATA_ELEMENTS).and_then(be_u32).unwrap_or(0),
    })
}

/// Reads the entries out of a message.
pub(super) fn entries(list: Attributes<'_>) -> impl Iterator<Item = HeldEntry> {
    let adt = list.get(ATTR_ADT).unwrap_or_default();
    crate::netlink::attributes(adt).filter(|one| one.kind == ATTR_DATA).map(|data| {
        let get = |kind| data.nested().get(kind);
        let mark = get(DATA_SKBMARK).and_then(be_u64).map(|mark_and_mask| (mark_and_mask >> 32) as u32);
        HeldEntry {
            ip: get(DATA_IP).and_then(address),
            protocol: get(DATA_PROTO).and_then(|bytes| bytes.first().copied()),
            port: get(DATA_PORT).and_then(be_u16),
            second: get(DATA_IP2).and_then(address),
            prefix: get(DATA_CIDR2).or_else(|| get(DATA_CIDR)).and_then(|bytes| bytes.first().copied()),
            mark,
        }
    })
}

fn address(nested: &[u8]) -> Option<IpAddr> {
    let one = crate::netlink::attributes(nested).next()?;
    match one.kind {
        ADDRESS_V4 => one.payload.first_chunk().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes).into()),
        ADDRESS_V6 => one.payload.first_chunk().map(|bytes: &[u8; 16]| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}
