use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a table of the legacy variant was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum XtablesError {
    /// The kernel refused.
    #[error("{table} of {program}: {call}: {source}{}", hint(.source))]
    Refused {
        /// The table.
        table: String,
        /// `iptables` or `ip6tables`.
        program: &'static str,
        /// What was asked.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The kernel lacks matches or targets of a new rule.
    #[error("{table} of {program}: the kernel lacks {}; load it", lacking.join(", "))]
    Lacking {
        /// The table.
        table: String,
        /// `iptables` or `ip6tables`.
        program: &'static str,
        /// Each of them in words.
        lacking: Vec<String>,
    },
    /// The kernel's own table cannot be understood.
    #[error("{table} of {program}: byte {at} of what the kernel holds cannot be understood ({what})")]
    Malformed {
        /// The table.
        table: String,
        /// `iptables` or `ip6tables`.
        program: &'static str,
        /// Where.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// Somebody else holds the lock.
    #[error(
        "somebody else has held the lock {} for {waited:?}: an iptables program that does not end? `fuser -v {}` names it",
        path.display(), path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The lock's file cannot be used.
    #[error("the lock {}: {source}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl XtablesError {
    /// This kernel has no tables of the legacy variant.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        let unknown = [libc::ENOPROTOOPT, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];
        matches!(self, Self::Refused { source, .. } if source.raw_os_error().is_some_and(|errno| unknown.contains(&errno)))
    }

    /// A match, a target or the table itself is missing in this kernel, or known with other data.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        let missing = [libc::ENOENT, libc::EPROTOTYPE];
        match self {
            Self::Refused { source, .. } => source.raw_os_error().is_some_and(|errno| missing.contains(&errno)),
            Self::Lacking { .. } => true,
            _ => false,
        }
    }

    /// Somebody who does not take the lock changed the table between reading and writing.
    #[must_use]
    pub fn is_outrun(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(libc::EAGAIN))
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "; the process needs CAP_NET_ADMIN and CAP_NET_RAW in this network namespace",
        Some(libc::ENOENT) => "; the kernel lacks the table, a match or a target",
        Some(libc::ELOOP) => "; chains lead in a circle",
        _ => "",
    }
}
