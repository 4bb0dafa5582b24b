use std::io;

use crate::netlink::TooLong;

/// Why nf_tables did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The socket itself failed.
    #[error("nf_tables: {call}: {source}")]
    Io {
        /// The system call or step.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The kernel refused; nothing of the transaction was applied.
    #[error("nf_tables: cannot {what}: {}{}", io::Error::from_raw_os_error(*.errno), hint(*.errno))]
    Kernel {
        /// The kernel's error number.
        errno: i32,
        /// What was refused, with table, name and key.
        what: String,
    },
    /// Something is too long for netlink's 16-bit lengths. Nothing was sent.
    #[error("nf_tables: cannot {what}: {source}; make it smaller")]
    TooLong {
        /// What was being written.
        what: String,
        /// Which attribute.
        source: TooLong,
    },
    /// The kernel had more to say than the socket could queue. For a transaction the outcome is unknown, for a
    /// monitor news was lost: read the state back.
    #[error(
        "nf_tables: the kernel dropped replies or notices because they came faster than they were read; read the state again"
    )]
    Overrun,
    /// Others changed the ruleset again and again while it was read.
    #[error("nf_tables: the ruleset changed on every attempt to read it; read it again later")]
    Interrupted,
}

impl NftError {
    /// Something that should be there is not: somebody else deleted it.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.errno() == Some(libc::ENOENT)
    }

    /// This kernel lacks what was asked for.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT))
    }

    /// The system's error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Kernel { errno, .. } => Some(*errno),
            Self::TooLong { .. } | Self::Overrun | Self::Interrupted => None,
        }
    }

    pub(crate) fn io(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::ENOBUFS) if call == RECEIVE => Self::Overrun,
            _ => Self::Io { call, source },
        }
    }
}

/// The name of the step in which `ENOBUFS` means lost replies rather than lack of memory.
pub(crate) const RECEIVE: &str = "receive";

fn hint(errno: i32) -> &'static str {
    match errno {
        libc::EPERM => "; the process needs CAP_NET_ADMIN in this network namespace",
        libc::EEXIST => "; it exists already with other content",
        libc::ENFILE => "; the set is full, it needs a larger size",
        libc::EOPNOTSUPP | libc::EPROTONOSUPPORT => "; this kernel lacks the nf_tables part for it",
        _ => "",
    }
}
