//! nf_tables over netlink: batches of changes, dumps, and news of what others change.
//!
//! ```text
//!   Batch (bytes, no kernel)  ── Nft::commit ──►  kernel, one transaction
//!   TableInfo, RuleInfo, ...  ◄── Nft::rules ───  kernel
//!   Notice                    ◄── Monitor::next ─ kernel, whoever made the change
//! ```
//!
//! A transaction is one datagram: either all of it holds or none of it. The kernel does the work inside the system
//! call, so [`Nft::commit`] blocks its thread while a large batch is applied (about 0.1 s for 100,000 elements).

mod batch;
mod describe;
mod dissect;
mod dump;
mod error;
mod expr;
mod monitor;
mod ours;
mod socket;
mod spec;
pub(crate) mod uapi;

pub use batch::Batch;
pub use dissect::Expr;
pub use dump::{ChainInfo, DataRef, Dumped, ElementInfo, Hook, RuleInfo, SetInfo, TableInfo};
pub use error::NftError;
pub use expr::Exprs;
pub use monitor::{Monitor, Notice, NoticeKind};
pub use ours::Ours;
pub use socket::Nft;
pub use spec::{ChainSpec, Data, Element, HookSpec, SetSpec};

/// The family of a table (`NFPROTO_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Nfproto {
    /// Both IP families in one table.
    Inet = 1,
    /// `ip` in nft's language.
    Ipv4 = 2,
    /// `ip6` in nft's language.
    Ipv6 = 10,
}
