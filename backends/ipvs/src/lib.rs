//! Carries out a plan with IPVS: one virtual service for each frontend, ipsets under kube-proxy's names, and a few constant
//! rules. All over netlink; `iptables-restore` runs once, for the constant rules.
//!
//! ```text
//!  packet ─> KUBE-IPVS-SERVICES (mangle): is ip:port in KUBE-CLUSTER-IP, KUBE-EXTERNAL-IP, KUBE-LOAD-BALANCER, or the node port in
//!                │                        KUBE-NODE-PORT-TCP, -UDP, -SCTP?  The entry's mark says for each origin what to do
//!                │ row of the origin: drop, masquerade, which server
//!                ▼
//!            rule "mark -> table", whose one route delivers to kube-ipvs0  ─>  IPVS: virtual service by mark, else by address
//!                                                                                 │ scheduler, persistence
//!                                                                                 ▼
//!            masquerade what is marked, and an endpoint that reaches itself  <─  endpoint
//! ```
//!
//! Three things differ from kube-proxy, and why:
//!
//! - *No addresses on `kube-ipvs0`.* An address costs the kernel time in proportion to those that are there (2 s for 10,000);
//!   a mark and one route cost nothing for each. What is not a frontend of a virtual address is not delivered here, so the
//!   node's own ports cannot be reached through one, and this node itself keeps its own source address.
//! - *Origin counts.* With policy Local, packets from outside go to a virtual service by mark with this node's endpoints, those
//!   of pods and of the node to all.
//! - *A frontend that goes* keeps its open connections: its endpoints get weight 0, and it stays until they have ended.
#![forbid(unsafe_code)]

mod adopt;
mod backend;
mod cleanup;
mod doors;
mod draining;
mod error;
mod held;
#[cfg(test)]
mod law;
mod layout;
mod mark;
mod numbers;
mod render;
mod rules;
#[cfg(test)]
#[path = "../../nft/tests/sample/mod.rs"]
mod sample;
mod sentinel;
mod settings;
mod structure;
mod tables;
mod text;
mod trace;
mod watch;
mod writes;

pub use backend::IpvsBackend;
pub use ipvs_rs::{Scheduler, Timeouts};
pub use sentinel::Sentinel;
pub use settings::Settings;
pub use text::text;
pub use trace::{Fault, Tracer};
