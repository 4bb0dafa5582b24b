//! The Kubernetes objects fairlead reads, trimmed while decoding to the fields it uses.
//!
//! `serde` skips every other field, so a managed-fields list of 20 kB never becomes a value. Addresses and names stay
//! strings here: one bad address must cost its own line in the log, not the whole page of a list. [`crate::world`]
//! parses them.

mod node;
mod service;
mod slice;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use node::{
    NodeAddress, NodeCondition, NodeObject, NodeSpec, NodeStatus, ServiceCidrObject, ServiceCidrSpec, Taint,
};
pub use service::{
    ClientIpConfig, LoadBalancerIngress, LoadBalancerStatus, ServiceObject, ServicePort, ServiceSpec, ServiceStatus,
    SessionAffinityConfig,
};
pub use slice::{EndpointConditions, EndpointHints, Named, SliceEndpoint, SliceObject, SlicePort};

/// Which kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// core/v1 Service
    Service,
    /// discovery.k8s.io/v1 EndpointSlice
    EndpointSlice,
    /// core/v1 Node
    Node,
    /// networking.k8s.io/v1 ServiceCIDR
    ServiceCidr,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Service, Self::EndpointSlice, Self::Node, Self::ServiceCidr];

    /// The value of the field `kind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }
}

/// `namespace/name`; the namespace is empty for objects of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `metadata.namespace`
    pub namespace: Box<str>,
    /// `metadata.name`
    pub name: Box<str>,
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// One object of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// [`Kind::Service`]
    Service(ServiceObject),
    /// [`Kind::EndpointSlice`]
    EndpointSlice(SliceObject),
    /// [`Kind::Node`]
    Node(NodeObject),
    /// [`Kind::ServiceCidr`]
    ServiceCidr(ServiceCidrObject),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Node(_) => Kind::Node,
            Self::ServiceCidr(_) => Kind::ServiceCidr,
        }
    }

    /// Its metadata.
    #[must_use]
    pub const fn meta(&self) -> &Meta {
        match self {
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::ServiceCidr(object) => &object.metadata,
        }
    }
}

/// What a source of objects says.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A complete list of this kind begins. Until [`Event::ListEnd`] nothing that it has not named yet is gone.
    ListBegin(Kind),
    /// The object is new or has changed, or is part of a list.
    Apply(Box<Object>),
    /// The object is gone.
    Delete(Kind, ObjectName),
    /// The list is complete: what it did not name is gone.
    ListEnd(Kind),
}

/// The part of `metadata` that fairlead uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    /// Empty for objects of the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Unique in namespace and kind.
    pub name: String,
    /// Unique for ever; Events refer to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The API server's version of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// RFC 3339; the older of two Services wins an address that both claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Set while the object is being deleted; cloud load balancers must leave such a Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Meta {
    /// `namespace/name`.
    #[must_use]
    pub fn object_name(&self) -> ObjectName {
        ObjectName { namespace: self.namespace.as_str().into(), name: self.name.as_str().into() }
    }
}
