use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Serialize;

use crate::Verdict;

/// What the kernel's own rules do with a packet: what a backend answers that read them back and followed the packet through
/// them. It knows no plan, so that it can be held against one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Followed {
    /// The rules that applied and what was found for them, in order, in the kernel's words, up to where chance decides.
    pub steps: Vec<String>,
    /// The ways from there, one for each outcome of chance; a single one if nothing is left to it.
    pub branches: Vec<Branch>,
    /// What comes of all of it.
    pub verdict: Verdict,
}

/// One way that a packet may take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Branch {
    /// Where it leads, `None` if to no endpoint.
    pub endpoint: Option<SocketAddr>,
    /// How probable it is, 0 to 1.
    pub share: f64,
    /// Whether the endpoint sees an address of this node.
    pub masqueraded: bool,
    /// What applies on this way alone.
    pub steps: Vec<String>,
}

impl Followed {
    /// How probable each endpoint is, in the order of their addresses.
    #[must_use]
    pub fn shares(&self) -> Vec<(SocketAddr, f64)> {
        let endpoints: BTreeSet<SocketAddr> = self.branches.iter().filter_map(|branch| branch.endpoint).collect();
        let share = |wanted: SocketAddr| {
            let leading = self.branches.iter().filter(|branch| branch.endpoint == Some(wanted));
            leading.map(|branch| branch.share).sum()
        };
        endpoints.into_iter().map(|endpoint| (endpoint, share(endpoint))).collect()
    }
}
