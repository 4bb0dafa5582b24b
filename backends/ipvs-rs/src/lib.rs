//! IPVS, the load balancer of the Linux kernel, over generic netlink.
//!
//! Everything that the kernel's interface has: virtual services by address and by packet mark, destinations with weights,
//! thresholds and every way of forwarding, schedulers, persistence, timeouts, statistics, dumps, flush. IPv4 and IPv6.
//!
//! ```text
//!   Service, Destination, Timeouts      what you mean
//!        │  attributes(), from_attributes()
//!   Message (attribute::*), Change      what goes over the wire, on the crates netlink-packet-*
//!        │
//!   Client<impl Transport>              batches, dumps, which message of a batch was refused
//!        │
//!   your socket                         blocking, of any library
//! ```
//!
//! The library does no system calls of its own: it speaks through a [`Transport`], which is two functions over a netlink
//! socket of whatever library you use. What it does not know, such as attributes of newer kernels or schedulers of your own,
//! it carries along or passes by, and never panics at.
//!
//! # Example
//!
//! ```
//! use std::io;
//!
//! use ipvs_rs::{Client, Destination, Flags, Message, Protocol, Scheduler, Service, ServiceId, Transport};
//!
//! fn balance(socket: impl Transport) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut ipvs = Client::open(socket)?;
//!     let id = ServiceId::Address { protocol: Protocol::Tcp, address: "10.96.0.10:53".parse()? };
//!     let service = Service::new(id).scheduler(Scheduler::MaglevHash).flags(Flags::HASH_FALLBACK);
//!     // One system call for all, however many; refused messages do not stop the others.
//!     let batch = [
//!         Message::new_service(&service),
//!         Message::new_destination(&id, &Destination::new("10.244.1.7:53".parse()?)),
//!         Message::new_destination(&id, &Destination::new("10.244.2.9:53".parse()?).weight(3)),
//!     ];
//!     for refusal in ipvs.apply(&batch)? {
//!         eprintln!("message {}: {}", refusal.index, io::Error::from_raw_os_error(refusal.errno));
//!     }
//!     for destination in ipvs.destinations(&id)? {
//!         println!("{} has {} connections", destination.address, destination.connections.active);
//!     }
//!     Ok(())
//! }
//! ```
#![forbid(unsafe_code)]

pub mod attribute;
mod change;
mod client;
mod destination;
mod figures;
mod message;
mod scheduler;
mod service;
mod value;

pub use change::{Change, Request};
pub use client::{Client, Error, Refusal, Transport};
pub use destination::{Connections, Destination, Forward, Tunnel};
pub use figures::{Info, Statistics, Timeouts};
pub use message::{Command, FAMILY_NAME, Message};
pub use scheduler::{InvalidName, NAME_MAX, Scheduler};
pub use service::{Family, Flags, Protocol, Service, ServiceId};
