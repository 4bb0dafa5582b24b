//! The schedulers, by the names of their modules.

use std::fmt;
use std::str::FromStr;

macro_rules! schedulers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// How a virtual service chooses a destination. Each is a module of its own, `ip_vs_<name>`, which the kernel loads
        /// when a service first asks for it.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
        #[non_exhaustive]
        pub enum Scheduler {
            $($(#[$doc])* $variant,)*
            /// One that this library does not know, by its name.
            Other(Box<str>),
        }

        impl Scheduler {
            /// Those that this library knows.
            pub const KNOWN: &[Self] = &[$(Self::$variant,)*];

            /// Its name in the kernel.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl From<&str> for Scheduler {
            fn from(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    _ => Self::Other(name.into()),
                }
            }
        }
    };
}

schedulers! {
    /// One after the other.
    #[default]
    RoundRobin = "rr",
    /// One after the other, by weight.
    WeightedRoundRobin = "wrr",
    /// The one with the fewest connections.
    LeastConnection = "lc",
    /// The one with the fewest connections for its weight.
    WeightedLeastConnection = "wlc",
    /// The same destination for the same virtual address, unless it is overloaded.
    LocalityLeastConnection = "lblc",
    /// As `lblc`, with a set of destinations for each address.
    LocalityLeastConnectionReplicated = "lblcr",
    /// By a hash of the virtual address.
    DestinationHash = "dh",
    /// By a hash of the client's address.
    SourceHash = "sh",
    /// The one with the shortest expected delay.
    ShortestExpectedDelay = "sed",
    /// An idle one, or as `sed`.
    NeverQueue = "nq",
    /// The one with the highest weight that is available.
    Failover = "fo",
    /// The one with the highest weight until it has that many connections, then the next.
    Overflow = "ovf",
    /// By Maglev hashing of the client's address: few clients move when destinations come and go (Linux 4.18).
    MaglevHash = "mh",
    /// The better of two chosen at random (Linux 6.2).
    PowerOfTwo = "twos",
}

/// The longest name of a scheduler, with its closing NUL (`IP_VS_SCHEDNAME_MAXLEN`).
pub const NAME_MAX: usize = 16;

/// No scheduler can have this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be the name of a scheduler: it must have 1 to 15 letters, digits, - or _")]
pub struct InvalidName(pub String);

/// Takes any name that a scheduler could have; the kernel says whether it has it.
impl FromStr for Scheduler {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let right = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() >= NAME_MAX || !name.bytes().all(right) {
            return Err(InvalidName(name.to_owned()));
        }
        Ok(name.into())
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
