//! Carries out a plan with IPVS: one virtual service for each frontend, ipsets under kube-proxy's names, and a few constant
//! rules. All over netlink; `iptables-restore` runs once, for the constant rules.
//!
//! ```text
//!  packet ─> KUBE-IPVS-SERVICES (mangle): is ip:port in KUBE-CLUSTER-IP, KUBE-EXTERNAL-IP, KUBE-LOAD-BALANCER, or the node port in
//!                │                        KUBE-NODE-PORT-TCP, -UDP, -SCTP-NET?  Its mark says for each origin what to do
//!                │ row of the origin: drop, masquerade, which server
//!                ▼
//!            rule "mark -> table", whose one route delivers to kube-ipvs0  ─>  IPVS: virtual service by mark, else by address
//!                                                                                 │ scheduler, persistence
//!                                                                                 ▼
//!            masquerade what is marked, and an endpoint that reaches itself  <─  endpoint
//! ```
//!
//! Four things differ from kube-proxy, and why:
//!
//! - *No addresses on `kube-ipvs0`.* An address costs the kernel time in proportion to those that are there (2 s for 10,000);
//!   a mark and one route cost nothing for each. What is not a frontend of a virtual address is not delivered here, so the
//!   node's own ports cannot be reached through one, and this node itself keeps its own source address.
//! - *Origin counts.* With policy Local, packets from outside go to a virtual service by mark with this node's endpoints, those
//!   of pods and of the node to all.
//! - *Refusals* are made by rules. IPVS would refuse from the virtual address, from which the node cannot send in IPv4.
//! - *A frontend that goes* keeps its open connections: its endpoints get weight 0, and it stays until they have ended.
//!
//! What IPVS itself does otherwise than the other modes:
//!
//! - Affinity is of a frontend, not of the Service, and a client is remembered for as long as one of its connections, closed
//!   ones too. Where a frontend is reached by mark (node ports, and where the pool depends on the origin) a hash of the
//!   client's address decides (`mh`), for ever: the kernel does not translate ports of persistent services by mark.
//! - Connections from one port of a client to two virtual addresses of one endpoint are one connection to IPVS.
//! - In IPv4 nobody is told that a datagram is too large for the way to its endpoint, for the same reason as above.
//! - An endpoint of a UDP service that goes answers for another second; then its flows go elsewhere.
#![forbid(unsafe_code)]

mod adopt;
mod asked;
mod backend;
mod cleanup;
mod doors;
mod draining;
mod entry;
mod error;
mod follow;
mod held;
mod kube_proxy;
#[cfg(test)]
mod law;
mod layout;
mod leave;
mod mark;
mod numbers;
mod parse;
mod pin;
mod render;
mod rules;
#[cfg(test)]
#[path = "../../plan/tests/sample/mod.rs"]
mod sample;
mod sentinel;
mod settings;
mod shares;
mod stay;
mod structure;
mod tables;
mod text;
mod trace;
mod watch;
mod writes;

pub use backend::IpvsBackend;
pub use follow::{HeldError, is_here};
pub use ipvs_rs::{Scheduler, Timeouts};
pub use pin::{has_rules, others_translate, pin, unpin};
pub use sentinel::Sentinel;
pub use settings::Settings;
pub use stay::{Keeper, let_go};
pub use text::text;
pub use trace::{Fault, Tracer};
