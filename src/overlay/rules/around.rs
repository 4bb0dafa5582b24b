//! What the rules around the overlay say in a family, whoever holds them. Pure: the one decision about whose source is
//! translated, what is forwarded, and from whom tunnelled packets are taken.

use std::net::IpAddr;

use fairlead_plan::Family;
use ipnet::IpNet;

use crate::overlay::outside::Installed;
use crate::overlay::settings::{Backend, Settings};

/// From whom tunnelled packets are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The UDP port of the tunnels.
    pub port: u16,
    /// Addresses of peers, sorted, each once.
    pub peers: Vec<IpAddr>,
}

/// What is ruled in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// Which.
    pub family: Family,
    /// What pods reach with their own address, and what is forwarded: sorted prefixes, none inside another. `None`: this node
    /// has no pods in the family.
    pub cluster: Option<Vec<IpNet>>,
    /// The prefix of pods that get an address of this node when they leave the cluster.
    pub masqueraded: Option<IpNet>,
    /// `None`: tunnelled packets are taken from everybody, or there are none.
    pub filter: Option<Filter>,
    /// The bit of the packet mark by which the service backend says "masquerade".
    pub mark: u32,
}

impl Around {
    /// Whether the two differ in nothing but from whom tunnelled packets are taken.
    pub fn is_same_but_for_peers(&self, other: &Self) -> bool {
        let rest =
            |around: &Self| (around.family, around.masqueraded, around.mark, around.filter.as_ref().map(|f| f.port));
        rest(self) == rest(other) && self.cluster == other.cluster
    }
}

/// What is ruled in a family; `None` while the overlay has nothing there, and what there is stays as it is.
#[must_use]
pub fn around(family: Family, settings: &Settings, mark: u32, installed: &Installed) -> Option<Around> {
    if installed.backend == Backend::None {
        return None;
    }
    let pods = installed.pods[family];
    // The socket of an external device listens in both families, whatever pods have.
    let listens =
        installed.backend == Backend::VxlanLwt && (installed.pods.v4.is_some() || installed.pods.v6.is_some());
    let filtered = settings.peer_filter && installed.backend.tunnels() && (pods.is_some() || listens);
    let around = Around {
        family,
        cluster: pods.map(|_| cluster(family, settings, installed)),
        masqueraded: pods.filter(|_| settings.masquerade),
        filter: filtered.then(|| filter(family, settings, installed)),
        mark,
    };
    (around.cluster.is_some() || around.filter.is_some()).then_some(around)
}

fn filter(family: Family, settings: &Settings, installed: &Installed) -> Filter {
    let external = settings.external.iter().map(|vtep| vtep.endpoint);
    let ends = installed.ends.iter().copied().chain(external).filter(|end| Family::of(*end) == family);
    let mut peers: Vec<IpAddr> = ends.collect();
    peers.sort_unstable();
    peers.dedup();
    Filter { port: installed.port, peers }
}

/// What pods reach with their own address: all pods, what is behind external tunnel ends, and nodes if packets of pods travel
/// between them as they are.
fn cluster(family: Family, settings: &Settings, installed: &Installed) -> Vec<IpNet> {
    let external = settings.external.iter().map(|vtep| vtep.cidr);
    let mut nets: Vec<IpNet> = external.chain(installed.prefixes.iter().copied()).collect();
    nets.extend(settings.networks[family]);
    nets.extend(installed.pods[family]);
    if installed.backend == Backend::HostGw {
        nets.extend(installed.ends.iter().map(|end| IpNet::from(*end)));
    }
    nets.retain(|net| Family::of(net.addr()) == family);
    IpNet::aggregate(&nets)
}
