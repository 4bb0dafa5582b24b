//! ipset over netlink: sets are made, filled, listed and destroyed without a process, a thousand entries in one message.
//!
//! ipset is not transactional: what was done before a message failed stays. Adding what is there and deleting what is not are
//! no errors, so a list of changes may be sent again.

mod batch;
mod entry;
mod error;
mod list;
mod socket;

pub use batch::{SetBatch, SetKind, SetSpec};
pub use entry::SetEntry;
pub use error::IpsetError;
pub use list::{HeldEntry, HeldSet};
pub use socket::Ipset;

/// The longest name of a set (`IPSET_MAXNAMELEN`), without its closing NUL.
pub const NAME_MAX: usize = 31;

const SUBSYSTEM: u16 = 6;
/// What kernels from 2.6.39 on understand.
const PROTOCOL_VERSION: u8 = 6;

const CMD_PROTOCOL: u16 = 1;
const CMD_CREATE: u16 = 2;
const CMD_DESTROY: u16 = 3;
const CMD_FLUSH: u16 = 4;
const CMD_SWAP: u16 = 6;
const CMD_LIST: u16 = 7;
const CMD_ADD: u16 = 9;
const CMD_DEL: u16 = 10;

const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
const ATTR_TYPENAME: u16 = 3;
const ATTR_REVISION: u16 = 4;
const ATTR_FAMILY: u16 = 5;
const ATTR_FLAGS: u16 = 6;
const ATTR_DATA: u16 = 7;
const ATTR_ADT: u16 = 8;
const ATTR_LINENO: u16 = 9;

const DATA_IP: u16 = 1;
const DATA_CIDR: u16 = 3;
const DATA_PORT: u16 = 4;
const DATA_PORT_TO: u16 = 5;
const DATA_PROTO: u16 = 7;
const DATA_FLAGS: u16 = 8;
const DATA_MAXELEM: u16 = 19;
const DATA_IP2: u16 = 20;
const DATA_CIDR2: u16 = 21;
const DATA_ELEMENTS: u16 = 24;
const DATA_SKBMARK: u16 = 27;

const ADDRESS_V4: u16 = 1;
const ADDRESS_V6: u16 = 2;
/// `NLA_F_NET_BYTEORDER`: ipset refuses numbers without it.
const NETWORK_ORDER: u16 = 0x4000;

/// `IPSET_FLAG_WITH_SKBINFO`: entries carry marks (Linux 3.19).
const FLAG_MARKS: u32 = 1 << 6;
/// `IPSET_FLAG_LIST_HEADER`: names and types, no entries.
const FLAG_LIST_HEADER: u32 = 1 << 2;
