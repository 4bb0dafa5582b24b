use std::collections::HashSet;

use fairlead_plan::Node;
use ipnet::IpNet;
use ipvs_rs::{Scheduler, Timeouts};

use crate::mark::Marks;
use crate::render::Context;

/// What an operator may choose in this mode; the names are kube-proxy's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// How virtual services choose (`--ipvs-scheduler`); round robin by default.
    pub scheduler: Scheduler,
    /// Virtual services on addresses in here are somebody else's, whatever else they look like (`--ipvs-exclude-cidrs`).
    pub exclude_cidrs: Vec<IpNet>,
    /// Let this machine answer ARP only for addresses of the interface that is asked (`--ipvs-strict-arp`).
    pub strict_arp: bool,
    /// How long IPVS remembers idle connections, in seconds; 0 leaves the kernel's value (`--ipvs-tcp-timeout`, ...).
    pub timeouts: Timeouts,
}

impl Settings {
    /// What rendering depends on.
    pub(crate) fn context(&self, node: &Node) -> Context {
        Context { marks: Marks::new(node.masquerade_mark), scheduler: self.scheduler.clone(), missing: HashSet::new() }
    }
}
