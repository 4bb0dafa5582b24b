//! The overlay: how packets reach the pods of other nodes. It installs itself and heals.
//!
//! ```text
//!   Node objects ──> facts::Facts ──────> peers::Peers ──┐ who is a peer, conflicts decided, objects wanted (pure)
//!                    facts::Own ──┐                       │
//!   the machine ──> underlay ─────┴──> desired::Local ───┤ this node: interface, addresses, devices (pure)
//!                                                         ▼
//!   the kernel ──> observe ───────────────────────────> diff   wanted - observed = ordered changes (pure)
//!                                                         │
//!                                                         ▼
//!                                                       worker  a thread that writes, and listens to what others change
//! ```
//!
//! The state is flannel's, object for object: the device `flannel.1` (`flannel-v6.1`) with the base address of the node's
//! pods, and for each peer a permanent neighbour, a forwarding entry and an onlink route, all by flannel's annotations. So
//! nodes can be converted one at a time. Only the protocol of the routes is our own ([`diff::PROTOCOL`]), so that what is
//! ours can be told for certain.
//!
//! In mode `vxlan-lwt` a peer has a nexthop object instead of the forwarding entry, and its route names that by its number. The
//! encapsulation could stand in the route itself, but then the kernel compares each new route with all others over the same
//! device: 5,000 peers took 1.7 s, and the change of one 2 ms.
//!
//! # Rules
//!
//! 1. Nothing is written before the first list of Nodes is complete.
//! 2. A change of one Node writes what changed for it and reads nothing. Everything else ends in one full comparison: the
//!    start, doubts about what the kernel holds, a change of this node, and a timer.
//! 3. What the kernel refuses concerns one peer, which is tried again with back-off of its own; the others go on.
//! 4. A family that loses its interface or prefix is left alone until it has one again: what works is not torn down.
//! 5. Ours are the devices named like flannel's, all neighbours and forwarding entries on them, routes and nexthop objects of our
//!    protocol, and routes that flannel has left on them; of the rules around it a table of nf_tables, or chains and sets
//!    ([`rules`]). Nothing else is touched.

pub mod annotation;
mod cleanup;
pub mod cni;
pub mod desired;
mod devices;
pub mod diff;
pub mod facts;
mod handle;
mod holdings;
pub mod list;
mod numbers;
pub mod observe;
mod outside;
pub mod peers;
pub mod probe;
mod publish;
mod reach;
mod retry;
pub mod rules;
pub mod selftest;
mod settings;
pub mod trace;
pub mod underlay;
mod ways;
mod worker;

pub use cleanup::cleanup;
pub use handle::{Overlay, StartError};
pub use outside::Installed;
pub use publish::{Patch, publish};
pub use settings::{Backend, ExternalVtep, Settings, UnderlaySettings};

#[cfg(test)]
mod tests;
