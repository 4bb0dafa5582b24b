use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_plan::{Affinity, Family, Frontend, Priority, Protocol, ServiceKey};
use ipnet::IpNet;

/// A Service, parsed and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceModel {
    /// `metadata.uid`
    pub uid: Option<Box<str>>,
    /// `metadata.creationTimestamp`; the API server writes it in UTC and whole seconds, so that text order is age.
    pub created: Option<Box<str>>,
    /// One for each port and each family in which the Service has a ClusterIP.
    pub ports: Box<[PortModel]>,
    /// `internalTrafficPolicy: Local`
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`, where the type of the Service gives it a meaning.
    pub external_local: bool,
    /// `sessionAffinity: ClientIP`
    pub affinity: Option<Affinity>,
    /// Annotation `fairlead.io/ipvs-scheduler`.
    pub scheduler: Option<Box<str>>,
    /// Its place in a cold start.
    pub priority: Priority,
    /// The sources that may use the load balancer, both families, disjoint; a family without entry is unrestricted.
    pub ranges: Box<[IpNet]>,
    /// Every load-balancer address, both families.
    pub vips: Box<[IpAddr]>,
    /// `healthCheckNodePort`, where it applies.
    pub health_check_port: Option<u16>,
}

/// One port of a Service in one family.
#[derive(Debug, Clone, PartialEq)]
pub struct PortModel {
    /// Its name.
    pub key: Arc<ServiceKey>,
    /// What it asks for: sorted, no address twice. Load balancers have no sources yet, because these depend on the node.
    pub frontends: Box<[Frontend]>,
}

/// An EndpointSlice, parsed and checked. Names are shared with all other slices.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceModel {
    /// `addressType`
    pub family: Family,
    /// `ports`
    pub ports: Arc<[SlicePortModel]>,
    /// `endpoints`
    pub endpoints: Box<[EndpointModel]>,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`.
    pub trigger: Option<SystemTime>,
}

impl SliceModel {
    /// Whether both lead to the same plan.
    #[must_use]
    pub fn same_endpoints(&self, other: &Self) -> bool {
        self.family == other.family && self.ports == other.ports && self.endpoints == other.endpoints
    }
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlicePortModel {
    /// Joins it to the Service's port; empty for the unnamed one.
    pub name: Box<str>,
    /// The same.
    pub protocol: Protocol,
    /// Where the endpoint listens.
    pub port: u16,
}

/// One endpoint of an EndpointSlice. 100,000 of these are in memory on every node of a large cluster: 32 bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointModel {
    /// Its address, of the slice's family.
    pub addr: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, though it may be on its way out.
    pub serving: bool,
    /// Is on its way out.
    pub terminating: bool,
    /// Whether it runs on this node.
    pub local: bool,
    /// Who should use it.
    pub hints: Option<Arc<Hints>>,
}

/// `endpoints[].hints`
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hints {
    /// `forZones`
    pub zones: Box<[Arc<str>]>,
    /// `forNodes`
    pub nodes: Box<[Arc<str>]>,
}
