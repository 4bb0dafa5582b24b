use std::net::{IpAddr, SocketAddr};

use fairlead_plan::{Endpoint, ServiceKey};

use super::model::{EndpointModel, Hints, SliceModel};
use super::{NodeFacts, Surroundings};

/// The endpoints of one service port, each address once, sorted.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    list: Vec<Candidate<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    addr: SocketAddr,
    endpoint: &'a EndpointModel,
}

impl Candidate<'_> {
    /// What may be used when nothing is ready: it still answers, and clients would rather have it than nothing.
    fn is_last_resort(&self) -> bool {
        self.endpoint.serving && self.endpoint.terminating
    }

    fn hints(&self) -> Option<&Hints> {
        self.endpoint.hints.as_deref()
    }
}

/// How far hints narrow the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology<'a> {
    Anywhere,
    Node(&'a str),
    Zone(&'a str),
}

impl Topology<'_> {
    fn allows(self, hints: Option<&Hints>) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Node(name) => hints.is_some_and(|hints| hints.nodes.iter().any(|node| **node == *name)),
            Self::Zone(name) => hints.is_some_and(|hints| hints.zones.iter().any(|zone| **zone == *name)),
        }
    }
}

impl<'a> Candidates<'a> {
    /// Joins slices to a service port, by port name and protocol. The number is the slice's.
    ///
    /// An address that is there more than once counts as the one that does not terminate (a new pod has got the address
    /// of an old one), then as the ready one, then as the serving one, then as the first.
    pub(super) fn gather(slices: impl Iterator<Item = &'a SliceModel>, key: &ServiceKey) -> Self {
        let mut list: Vec<Candidate<'a>> = Vec::new();
        for slice in slices.filter(|slice| slice.family == key.family) {
            let fits = |port: &&super::SlicePortModel| port.name == key.port_name && port.protocol == key.protocol;
            for port in slice.ports.iter().filter(fits) {
                list.extend(
                    slice
                        .endpoints
                        .iter()
                        .map(|endpoint| Candidate { addr: SocketAddr::new(endpoint.addr, port.port), endpoint }),
                );
            }
        }
        list.sort_by_key(|candidate| {
            let EndpointModel { ready, serving, terminating, .. } = *candidate.endpoint;
            (candidate.addr, terminating, !ready, !serving)
        });
        list.dedup_by_key(|candidate| candidate.addr);
        Self { list }
    }

    /// Whether any node has an endpoint that could be used.
    pub(super) fn usable(&self) -> bool {
        self.list.iter().any(|candidate| candidate.endpoint.ready || candidate.is_last_resort())
    }

    /// What policy Cluster may use.
    pub(super) fn cluster(&self, around: Surroundings<'_>) -> Vec<Endpoint> {
        let topology = self.topology(&around.settings.node_name, around.node);
        self.chosen(|candidate| topology.allows(candidate.hints()), |_| true)
    }

    /// What policy Local may use. Topology has no say in it.
    pub(super) fn local(&self) -> Vec<Endpoint> {
        let is_local = |candidate: &Candidate<'_>| candidate.endpoint.local;
        self.chosen(is_local, is_local)
    }

    /// Those of the ready ones, or else those of the last resort.
    fn chosen(&self, ready: impl Fn(&Candidate<'_>) -> bool, last: impl Fn(&Candidate<'_>) -> bool) -> Vec<Endpoint> {
        // Room for all is asked for once.
        let mut chosen = Vec::with_capacity(self.list.len());
        chosen.extend(self.ready().filter(|candidate| ready(candidate)).map(endpoint));
        if chosen.is_empty() {
            let resort = self.list.iter().filter(|candidate| candidate.is_last_resort());
            chosen.extend(resort.filter(|candidate| last(candidate)).map(endpoint));
        }
        chosen
    }

    /// Whether policy Local has something to use.
    pub(super) fn has_local(&self) -> bool {
        let usable = |candidate: &Candidate<'_>| candidate.endpoint.ready || candidate.is_last_resort();
        self.list.iter().any(|candidate| candidate.endpoint.local && usable(candidate))
    }

    /// Addresses of the ready endpoints on this node.
    pub(super) fn local_ready(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ready().filter(|candidate| candidate.endpoint.local).map(|candidate| candidate.addr.ip())
    }

    /// Everything to which a flow may go on.
    pub(super) fn serving(&self) -> Vec<SocketAddr> {
        let answers = |candidate: &&Candidate<'_>| candidate.endpoint.serving || candidate.endpoint.ready;
        self.list.iter().filter(answers).map(|candidate| candidate.addr).collect()
    }

    fn ready(&self) -> impl Iterator<Item = &Candidate<'a>> {
        self.list.iter().filter(|candidate| candidate.endpoint.ready)
    }

    /// Hints count only if every ready endpoint has them: one without would get no traffic from anybody.
    fn topology<'n>(&self, node_name: &'n str, node: &'n NodeFacts) -> Topology<'n> {
        let every = |has: fn(&Hints) -> bool| self.ready().all(|candidate| candidate.hints().is_some_and(has));
        let some = |topology: Topology<'n>| self.ready().any(|candidate| topology.allows(candidate.hints()));
        let by_node = Topology::Node(node_name);
        if every(|hints| !hints.nodes.is_empty()) && some(by_node) {
            return by_node;
        }
        let by_zone = node.zone.as_deref().map(Topology::Zone);
        match by_zone {
            Some(by_zone) if every(|hints| !hints.zones.is_empty()) && some(by_zone) => by_zone,
            _ => Topology::Anywhere,
        }
    }
}

fn endpoint(candidate: &Candidate<'_>) -> Endpoint {
    Endpoint::new(candidate.addr, candidate.endpoint.local)
}
