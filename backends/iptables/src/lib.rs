//! Carries out a plan with iptables, in the chains that operators of kube-proxy know.
//!
//! ```text
//!  nat     PREROUTING, OUTPUT ─> KUBE-SERVICES ─> KUBE-SVC-10.96.16.0/20 ... ─> KUBE-SVC-(service) ─> DNAT, or KUBE-SEP-(endpoint)
//!                                  │  by address, a tree        └─> KUBE-FW- ─> KUBE-EXT- ─> KUBE-SVC-, KUBE-SVL-
//!                                  └─> KUBE-NODEPORTS ─> by port, a tree ─> KUBE-EXT-
//!          POSTROUTING ─> KUBE-POSTROUTING: masquerade what KUBE-MARK-MASQ marked
//!  filter  INPUT, FORWARD, OUTPUT ─> KUBE-SERVICES ─> KUBE-PROXY-FIREWALL, KUBE-EXTERNAL-SERVICES: refuse and drop
//! ```
//!
//! One service change: [`desired::Desired::step`] renders the old and the new service ([`render`]) and compares; the variant
//! writes the chains that differ: [`legacy`] replaces a table as a whole, [`nft`] makes transactions of nf_tables. No program
//! is started. [`Tracer`] follows a packet through the rules without a kernel, or through those that the
//! kernel holds ([`Tracer::held`]).
#![forbid(unsafe_code)]

mod aside;
mod backend;
mod concern;
mod decode;
mod desired;
mod dispatch;
mod door;
mod encode;
mod figures;
mod held;
#[cfg(test)]
mod lacking;
#[cfg(test)]
mod law;
mod legacy;
mod name;
#[cfg(test)]
#[path = "../tests/namespace/mod.rs"]
mod namespace;
mod nft;
mod origin;
mod refuse;
mod render;
mod rules;
#[cfg(test)]
#[path = "../../plan/tests/sample/mod.rs"]
mod sample;
mod structure;
mod text;
mod trace;
mod witness;

pub use aside::{ASIDE, Aside, Chains, Position};
pub use backend::{IptablesBackend, LOCK_PATIENCE};
pub use concern::concerns;
pub use door::DoorError;
pub use fairlead_kernel::xtables::Variant;
pub use figures::{Figures, OfFamily, OfTable};
pub use held::{HeldError, held_variant};
pub use name::{chains_of, is_ours};
pub use text::{family_text, text};
pub use trace::{Fault, Tracer, trace};
pub use witness::Witness;
