//! The tables of `iptables` and `ip6tables`, in both variants, without these programs.
//!
//! ```text
//!   Rule (typed, no kernel) ── legacy::Xtables ──►  one table replaced as a whole (getsockopt, setsockopt)
//!                           └─ compat ── nft::Batch ──►  rules of nf_tables tables, as iptables-nft writes them
//! ```
//!
//! `iptables-save` of the variant shows what is written here. The programs themselves are too slow: with 10,000 chains
//! `iptables-restore` of the legacy variant spends seconds in its own lists where the kernel needs a third of one, and that
//! of the nf_tables variant does not end within a minute.

mod blob;
mod compat;
mod error;
mod extension;
mod legacy;
mod lock;
mod meaning;
mod read;
mod recent;
mod variant;

pub use blob::{Edit, EncodedChain, HeldChain, HeldRule, TableView};
pub use compat::expressions;
pub use error::XtablesError;
pub use extension::{ConntrackState, Extension, words};
pub use legacy::{TableInfo, Xtables, set_index};
pub use lock::{LOCK_FILE, Lock};
pub use meaning::Meaning;
pub use read::rule_of;
pub use recent::remembered;
pub use variant::{Variant, legacy_table_exists, used_here};

use ipnet::IpNet;

/// The IP family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ip {
    /// `iptables`
    V4,
    /// `ip6tables`
    V6,
}

/// The longest name of a chain that both variants and their programs take.
pub const CHAIN_NAME_MAX: usize = 28;

/// An address that a rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Net {
    /// The prefix.
    pub net: IpNet,
    /// Addresses outside it match instead.
    pub negated: bool,
}

/// The interface by which a packet came in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Interface {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// The name need only begin so.
    pub prefix: bool,
    /// Other interfaces match instead, and packets that came in by none.
    pub negated: bool,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `-s`
    pub source: Option<Net>,
    /// `-d`
    pub destination: Option<Net>,
    /// `-i`
    pub interface: Option<Interface>,
    /// `-p`, a number of the IP header.
    pub protocol: Option<u8>,
    /// `-m`, in order.
    pub matches: Vec<Extension>,
    /// `-j`
    pub target: Target,
}

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Go on in this chain, then behind this rule.
    Jump(String),
    /// Leave the chain.
    Return,
    /// Leave the table.
    Accept,
    /// Drop the packet.
    Drop,
    /// What a target extension does.
    Extension(Extension),
}

/// A chain of the kernel's own, where packets enter a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// `PREROUTING`
    Prerouting = 0,
    /// `INPUT`
    Input = 1,
    /// `FORWARD`
    Forward = 2,
    /// `OUTPUT`
    Output = 3,
    /// `POSTROUTING`
    Postrouting = 4,
}

impl Hook {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];

    /// The name of the chain.
    #[must_use]
    pub const fn chain(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        }
    }
}
