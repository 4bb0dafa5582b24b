use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use anyhow::{Context, Result};
use fairlead_kernel::netns::Netns;
use fairlead_plan::Family;

use crate::addresses::pod_nets;
use crate::{Addresses, ip};

/// What a place is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A node.
    Node {
        /// Its number, from 1.
        number: u8,
        /// A second address on the same link, which is not among the Node's addresses.
        second: Addresses,
        /// Its own address on the bridge of its pods.
        gateway: Addresses,
    },
    /// A pod.
    Pod {
        /// The name of its node.
        node: String,
    },
    /// A machine that is not of the cluster.
    Client,
}

/// A network namespace of the lab: a node, a pod or a client.
#[derive(Debug, Clone)]
pub struct Place {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) addresses: Addresses,
    pub(crate) kind: Kind,
    pub(crate) next_port: Arc<AtomicU16>,
}

/// Source ports of probes, away from servers, from node ports, and from what the kernel chooses for others in the lab.
const SOURCE_PORTS: RangeInclusive<u16> = 33_000..=65_535;

impl Place {
    /// What the lab calls it: `a`, `a1`, `outside`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The name of its namespace in `/run/netns`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its main addresses.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its main address of a family.
    #[must_use]
    pub const fn addr(&self, family: Family) -> IpAddr {
        self.addresses.of(family)
    }

    /// The second address of a node.
    ///
    /// # Panics
    /// If this is no node.
    #[must_use]
    pub fn second(&self) -> &Addresses {
        match &self.kind {
            Kind::Node { second, .. } => second,
            Kind::Pod { .. } | Kind::Client => panic!("{} is no node and has no second address", self.name),
        }
    }

    /// All addresses that the place has at the start, without loopback.
    #[must_use]
    pub fn all_addresses(&self) -> Vec<Addresses> {
        match &self.kind {
            Kind::Node { second, gateway, .. } => vec![self.addresses, *second, *gateway],
            Kind::Pod { .. } | Kind::Client => vec![self.addresses],
        }
    }

    /// The prefixes of a node's pods, IPv4 and IPv6; empty for anything else.
    #[must_use]
    pub fn pod_cidrs(&self) -> Vec<String> {
        match &self.kind {
            Kind::Node { number, .. } => pod_nets(*number).to_vec(),
            Kind::Pod { .. } | Kind::Client => Vec::new(),
        }
    }

    /// Runs a closure on a new thread inside the namespace. Sockets and processes that it makes belong there.
    ///
    /// # Panics
    /// If the closure panics, with the same payload, or if the namespace cannot be entered.
    pub fn run<R: Send>(&self, closure: impl FnOnce() -> R + Send) -> R {
        let inside = || {
            self.enter().expect("the lab holds the namespace while it lives");
            closure()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name(self.namespace.clone()).spawn_scoped(scope, inside);
            let joined = thread.expect("a thread can be started").join();
            joined.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        })
    }

    /// Moves the calling thread into the namespace, for threads that shall stay there.
    ///
    /// # Errors
    /// If the namespace is gone or the caller is not root.
    pub fn enter(&self) -> Result<()> {
        enter(&self.namespace)
    }

    /// A command that will run inside the namespace.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// A source port that no probe from here has had for as long as possible. Ports that the kernel chooses at
    /// random meet the conntrack entry of an earlier probe now and then, and would follow its translation.
    pub(crate) fn next_source_port(&self) -> u16 {
        let count = SOURCE_PORTS.end() - SOURCE_PORTS.start() + 1;
        SOURCE_PORTS.start() + self.next_port.fetch_add(1, Ordering::Relaxed) % count
    }

    /// Runs `ip` with these words in the namespace and returns what it prints.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn ip(&self, args: &str) -> Result<String> {
        ip::run(&self.namespace, args)
    }
}

/// Moves the calling thread into a named namespace.
pub(crate) fn enter(namespace: &str) -> Result<()> {
    let opened = Netns::open_named(namespace).with_context(|| format!("cannot open namespace {namespace}"))?;
    opened.enter().with_context(|| format!("cannot enter namespace {namespace}"))
}
