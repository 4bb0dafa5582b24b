//! A blocking netlink socket, and the bytes that go over it.
//!
//! Three layers, each usable alone: [`Message`] writes requests, [`Socket`] carries datagrams, [`messages`] and
//! [`attributes`] take replies apart without copying. Nothing here knows a subsystem.

mod answer;
mod parse;
mod socket;
mod write;

pub use parse::{Attribute, Attributes, Failure, Header, Messages, Received, attributes, messages};
pub use socket::{Socket, Wait};
pub use write::{ATTRIBUTE_MAX, Message, TooLong};

pub(crate) use answer::Broken;
pub(crate) use parse::{Raw, be_u16, be_u32, be_u64, text};
pub(crate) use write::{align, close, header, open, put};

/// `NLM_F_REQUEST`: set on everything that is sent to the kernel.
pub const REQUEST: u16 = 0x01;
/// `NLM_F_ACK`: answer with an acknowledgement even if nothing failed.
pub const ACK: u16 = 0x04;
/// `NLM_F_DUMP_INTR`: the dump is not consistent, something changed while it ran.
pub const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`: answer with every object.
pub const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`: fail if the object exists.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`: create the object if it does not exist.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: add to the end of the list.
pub const APPEND: u16 = 0x800;

/// `NLMSG_ERROR`: an error, or with code 0 an acknowledgement.
pub const KIND_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const KIND_DONE: u16 = 3;
/// `NLMSG_OVERRUN`: data was lost.
pub const KIND_OVERRUN: u16 = 4;

/// Size of `struct nlmsghdr`.
pub const HEADER_LEN: usize = 16;
