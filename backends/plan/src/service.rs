use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ServiceKey;

/// An address and port, or a node port, at which clients reach a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum FrontendAddr {
    /// An address of the cluster and its port.
    Addr(SocketAddr),
    /// This port on every address of [`crate::Node::node_port_addresses`].
    NodePort(u16),
}

/// One way in to a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Frontend {
    /// `spec.clusterIPs[]`. Its other ports are refused. Routed by [`Service::internal`].
    ClusterIp(SocketAddr),
    /// `spec.externalIPs[]`. Routed by [`Service::external`].
    ExternalIp(SocketAddr),
    /// `status.loadBalancer.ingress[].ip`. Routed by [`Service::external`].
    LoadBalancer {
        /// The virtual address and port.
        addr: SocketAddr,
        /// Sources that may use it; empty means everybody. Disjoint.
        allow: Vec<IpNet>,
    },
    /// `spec.ports[].nodePort`. Routed by [`Service::external`].
    NodePort(u16),
}

impl Frontend {
    /// What a packet's destination is compared with.
    #[must_use]
    pub const fn addr(&self) -> FrontendAddr {
        match self {
            Self::ClusterIp(addr) | Self::ExternalIp(addr) | Self::LoadBalancer { addr, .. } => {
                FrontendAddr::Addr(*addr)
            }
            Self::NodePort(port) => FrontendAddr::NodePort(*port),
        }
    }
}

/// Where a packet comes from, as far as policy is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// A pod, as [`crate::Node::local_traffic`] recognises it.
    Pod,
    /// This node itself: the source is one of its addresses.
    Node,
    /// Anything else.
    Outside,
}

impl Origin {
    /// All of them, in the order in which they are tested.
    pub const ALL: [Self; 3] = [Self::Pod, Self::Node, Self::Outside];
}

/// Which of a service's two pools a packet may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Pool {
    /// The endpoints that policy Cluster may use.
    Cluster,
    /// The endpoints on this node that policy Local may use.
    Local,
}

/// What happens to the first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Action {
    /// Send it to one endpoint of the pool, all with the same probability. The pool is not empty.
    Forward {
        /// Where to.
        to: Pool,
        /// Whether the endpoint shall see an address of this node as the source.
        masquerade: bool,
    },
    /// Answer so that the client's connection attempt fails at once.
    Reject,
    /// Do not answer.
    Drop,
}

/// What happens to a packet, by where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Route {
    /// From a pod.
    pub from_pod: Action,
    /// From this node.
    pub from_node: Action,
    /// From anywhere else.
    pub from_outside: Action,
}

impl Route {
    /// The same action for everybody.
    #[must_use]
    pub const fn all(action: Action) -> Self {
        Self { from_pod: action, from_node: action, from_outside: action }
    }

    /// The row of one origin.
    #[must_use]
    pub const fn from(&self, origin: Origin) -> Action {
        match origin {
            Origin::Pod => self.from_pod,
            Origin::Node => self.from_node,
            Origin::Outside => self.from_outside,
        }
    }
}

/// An address that serves a service port. A large cluster has 100,000 of these: 20 bytes where a `SocketAddr` alone has 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "WrittenEndpoint")]
pub struct Endpoint {
    ip: IpAddr,
    port: u16,
    /// Whether it is on this node.
    pub local: bool,
}

impl Endpoint {
    /// One that listens there. Of an IPv6 address flow label and scope do not count.
    #[must_use]
    pub const fn new(addr: SocketAddr, local: bool) -> Self {
        Self { ip: addr.ip(), port: addr.port(), local }
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// How an [`Endpoint`] is written.
#[derive(Serialize)]
struct WrittenEndpoint {
    addr: SocketAddr,
    local: bool,
}

impl From<Endpoint> for WrittenEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self { addr: endpoint.addr(), local: endpoint.local }
    }
}

/// The endpoints that actions refer to.
///
/// The position of an endpoint in its list is its *slot*. `resolve` keeps the slots of endpoints that stay and moves the
/// last one into a hole, so that a change of one endpoint is a change of one or two slots in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pools {
    /// [`Pool::Cluster`]
    pub cluster: Vec<Endpoint>,
    /// [`Pool::Local`]; empty unless an action refers to it.
    pub local: Vec<Endpoint>,
}

impl Pools {
    /// One of the two.
    #[must_use]
    pub fn get(&self, pool: Pool) -> &[Endpoint] {
        match pool {
            Pool::Cluster => &self.cluster,
            Pool::Local => &self.local,
        }
    }
}

/// `sessionAffinity: ClientIP`: a client goes to the endpoint that it went to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Affinity {
    /// `sessionAffinityConfig.clientIP.timeoutSeconds`, counted from the client's newest connection.
    pub timeout_seconds: u32,
}

/// In which order services are programmed when there is nothing in the kernel yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Priority {
    /// What the node itself needs to work: `default/kubernetes`.
    Api,
    /// What nearly every pod needs: the cluster's DNS.
    Dns,
    /// Everything else.
    #[default]
    Other,
}

/// One port of one Service in one IP family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name.
    pub key: Arc<ServiceKey>,
    /// The ways in, sorted, no address twice.
    pub frontends: Vec<Frontend>,
    /// What [`Frontend::ClusterIp`] does.
    pub internal: Route,
    /// What all other frontends do.
    pub external: Route,
    /// Where [`Action::Forward`] leads.
    pub pools: Pools,
    /// Whether clients stick to endpoints.
    pub affinity: Option<Affinity>,
    /// The name of the IPVS scheduler that chooses an endpoint of a pool, where somebody asks for one. Backends that can
    /// only choose at random, all endpoints with the same probability, do not look at it.
    pub scheduler: Option<Box<str>>,
    /// UDP only: every endpoint that still serves, whatever policy and topology say, sorted. Flows to these are left
    /// alone.
    pub serving: Vec<SocketAddr>,
    /// Its place in a cold start.
    pub priority: Priority,
}

impl Service {
    /// The route of one of its frontends.
    #[must_use]
    pub const fn route(&self, frontend: &Frontend) -> &Route {
        match frontend {
            Frontend::ClusterIp(_) => &self.internal,
            Frontend::ExternalIp(_) | Frontend::LoadBalancer { .. } | Frontend::NodePort(_) => &self.external,
        }
    }

    /// The addresses whose unused ports are refused.
    pub fn cluster_ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.frontends.iter().filter_map(|frontend| match frontend {
            Frontend::ClusterIp(addr) => Some(addr.ip()),
            Frontend::ExternalIp(_) | Frontend::LoadBalancer { .. } | Frontend::NodePort(_) => None,
        })
    }

    /// Every endpoint of both pools; one that is in both comes twice.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> + '_ {
        self.pools.cluster.iter().chain(&self.pools.local)
    }
}
