//! Carries out a plan with nf_tables, every service and every endpoint a data element.
//!
//! One table `fairlead` for each of the families `ip` and `ip6`. Its rules are constant ([`structure`]); what changes is
//! elements of its maps, so a change costs the kernel the same whether there are 100 services or 50,000. fairlead speaks
//! nf_tables over netlink; no `nft` program is needed, but `nft list ruleset` shows our tables rightly and its output loads
//! back.
//!
//! ```text
//!  packet ─> nat-prerouting, nat-output ─> services ─> frontends ─> from-pod | from-node | from-outside
//!                                             │            maps: frontend -> number ─> act ─> cluster: dnat to endpoints[frontend, random slot]
//!                                             │                                         └─> actions: number -> chain, for what is rare
//!                                             └─ unused port of a ClusterIP: refuse; unallocated ClusterIP: drop
//!          ─> nat-postrouting: masquerade what is marked, and an endpoint that reaches itself
//! ```
//!
//! One service change: [`diff::Tables::change`] renders the old and the new service ([`render`]), subtracts, and
//! [`mod@write`] makes one netlink transaction of it. [`Tracer`] follows a packet through rules and elements without a kernel,
//! or through those that the kernel holds ([`Tracer::held`]).
#![forbid(unsafe_code)]

mod adopt;
mod backend;
mod decode;
mod diff;
mod element;
mod encode;
mod fingerprint;
mod held;
mod json;
#[cfg(test)]
mod law;
mod layout;
mod moves;
#[cfg(test)]
#[path = "../tests/namespace/mod.rs"]
mod namespace;
mod render;
mod rules;
#[cfg(test)]
#[path = "../../plan/tests/sample/mod.rs"]
mod sample;
mod start;
mod sticky;
mod structure;
mod text;
mod trace;
mod type_of;
mod whole;
mod write;

pub use backend::{NftBackend, remove_kube_proxy};
pub use held::HeldError;
pub use json::json;
pub use layout::TABLE;
pub use text::text;
pub use trace::{End, Fault, Path, Tracer, trace};
