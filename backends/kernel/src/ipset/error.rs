use std::io;

use crate::netlink::TooLong;

/// Why ipset did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IpsetError {
    /// The socket failed.
    #[error("ipset: {call}: {source}")]
    Io {
        /// The step.
        call: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel has no ipset.
    #[error("the kernel has no ipset: the module ip_set is not loaded and could not be loaded")]
    Missing,
    /// The kernel refused; what came before and behind it in the batch was done.
    #[error("ipset: cannot {what}: {}", reason(*.errno))]
    Refused {
        /// What was refused, with the name of the set.
        what: String,
        /// The error number, ipset's own ones from 4096 on.
        errno: i32,
    },
    /// An attribute does not fit; nothing was sent.
    #[error("ipset: {0}")]
    TooLong(#[from] TooLong),
}

/// `IPSET_ERR_FIND_TYPE`
const NO_SUCH_TYPE: i32 = 4098;
/// `IPSET_ERR_BUSY`
const BUSY: i32 = 4100;
/// `IPSET_ERR_TYPE_MISMATCH`
const OTHER_TYPE: i32 = 4102;
/// `IPSET_ERR_REFERENCED`
const REFERENCED: i32 = 4108;
/// `IPSET_ERR_HASH_FULL`, the first of the errors of types
const FULL: i32 = 4352;

fn reason(errno: i32) -> String {
    let text = match errno {
        NO_SUCH_TYPE => "the kernel does not have this type of set, or an older revision without marks (Linux 3.19)",
        BUSY | REFERENCED => "a rule or another set uses it; delete that first",
        OTHER_TYPE => "the two are not of one type",
        FULL => "it is full; it needs a larger maxelem",
        libc::EPERM => "the process needs CAP_NET_ADMIN in this network namespace",
        libc::ENOENT => "there is no such set",
        libc::EEXIST => "a set of that name exists with another type",
        4096.. => return format!("ipset's error {errno}"),
        _ => return io::Error::from_raw_os_error(errno).to_string(),
    };
    text.to_owned()
}

impl IpsetError {
    /// The kernel lacks ipset or a type: trying again is of no use.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Self::Missing | Self::Refused { errno: NO_SUCH_TYPE, .. })
    }

    pub(super) fn io(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { call, source }
    }
}
