//! A Kubernetes cluster's network out of namespaces, on one machine, for tests and for the demo.
//!
//! ```text
//!   pod a1   pod a2          pod b1   pod b2
//!      \      /                 \      /
//!      cni0 (10.244.1.1)        cni0 (10.244.2.1)
//!      node a ── 192.168.50.1   node b ── 192.168.50.2
//!         └─────────── switch ───────────┘
//!                        │
//!                  client "outside" ── routes to services lead to node a
//! ```
//!
//! [`Lab::new`] makes one, dropping it removes it, on a panic too. Each lab has namespaces of its own, so tests run side
//! by side. [`Place::run`] runs a closure inside one; [`probe()`] and [`probe_set`] open connections and say who answered,
//! which source it saw, or that the connection was refused or met silence; a [`Hammer`] does so without a pause, and a
//! [`Conversation`] keeps one connection. [`objects`] builds the Kubernetes objects that describe the lab. [`needs`]
//! skips a test aloud where the kernel lacks something. [`api`] is an API server for the programs under test.
//!
//! Pods are connected at layer 3: a pod knows its gateway and nothing else, so two pods of one node also talk through
//! it, whether or not the kernel has `br_netfilter`. Answers to a client always come back through the first node, as
//! they would if it were the client's router.
#![forbid(unsafe_code)]

mod addresses;
pub mod api;
mod build;
mod conversation;
mod echo;
mod feature;
mod hammer;
mod ip;
mod network;
pub mod objects;
mod place;
mod probe;
mod sctp;
mod underlay;
mod wire;

pub use addresses::{Addresses, EXTERNAL_NETS, POD_NETS, SERVICE_NETS, cluster_ip, external_ip};
pub use conversation::Conversation;
pub use feature::{Feature, SKIPPED, needs};
pub use hammer::{Failure, Hammer, Tally};
pub use network::{Lab, Size};
pub use place::{Kind, Place};
pub use probe::{CONNECTIONS, Options, Outcome, Seen, probe, probe_set, probe_with};
pub use wire::{PORTS, SILENCE};
