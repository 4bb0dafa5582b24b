//! What one node must do with service traffic, as a value.
//!
//! A [`Plan`] holds *decisions*: for each service port its [`Frontend`]s, for each [`Origin`] of a packet an
//! [`Action`], and the pools of endpoints that actions refer to. It knows no Kubernetes and does no I/O. A
//! [`Backend`] receives whole plans and makes the kernel carry them out. [`Plan::decide`] is the executable
//! specification: tests use it as the oracle and `fairlead explain` shows it beside what the kernel holds.
//!
//! ```text
//!   resolve (src) ── Plan ──> Backend (nft, iptables, ipvs) ──> kernel
//!                     └────> decide(packet): what should happen
//! ```
#![forbid(unsafe_code)]

mod backend;
mod decide;
mod followed;
mod key;
mod node;
mod service;
mod services;

pub use backend::{Backend, FamilyCounts, Report, SyncError};
pub use decide::{Packet, Verdict};
pub use followed::{Branch, Followed};
pub use key::{Family, Protocol, ServiceKey};
pub use node::{LocalTraffic, Node};
pub use service::{Action, Affinity, Endpoint, Frontend, FrontendAddr, Origin, Pool, Pools, Priority, Route, Service};
pub use services::{Change, Services};

use std::sync::Arc;

/// Everything one node must do with service traffic. Cloning copies two pointers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Facts about the node that decide where a packet comes from.
    pub node: Arc<Node>,
    /// Every service port of both IP families.
    pub services: Services,
}
