//! For each kind: its path, which objects of it are asked for, and what of its metadata is kept.

use serde::de::DeserializeOwned;

use crate::object::{Kind, Meta, NodeObject, Object, ServiceCidrObject, ServiceObject, SliceObject};
use crate::resolve::ANNOTATION_SCHEDULER;

/// A Service with this label, whatever its value, belongs to another proxy.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Slices of headless Services have this label.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// When the endpoints of a slice last changed, RFC 3339; wanted for the latency of programming.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// A copy of the whole object that `kubectl apply` leaves behind.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Which Nodes are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeScope {
    /// The Node of this name alone: its status changes every few seconds, and so do those of all others.
    Own(String),
    /// All Nodes, as the overlay needs them.
    All,
}

/// Where the API has a kind and which of its objects are asked for, as kube-proxy asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub path: &'static str,
    pub labels: Option<String>,
    pub fields: Option<String>,
}

impl Query {
    pub fn of(kind: Kind, nodes: &NodeScope) -> Self {
        let query = |path, labels: Option<String>, fields: Option<String>| Self { path, labels, fields };
        match kind {
            Kind::Service => {
                query("/api/v1/services", Some(format!("!{PROXY_NAME_LABEL}")), Some("spec.clusterIP!=None".to_owned()))
            }
            Kind::EndpointSlice => {
                query("/apis/discovery.k8s.io/v1/endpointslices", Some(format!("!{HEADLESS_LABEL}")), None)
            }
            Kind::Node => {
                let fields = match nodes {
                    NodeScope::Own(name) => Some(format!("metadata.name={name}")),
                    NodeScope::All => None,
                };
                query("/api/v1/nodes", None, fields)
            }
            Kind::ServiceCidr => query("/apis/networking.k8s.io/v1/servicecidrs", None, None),
        }
    }
}

/// Whether an object that comes without a server's selection, from a manifest, would have been selected.
pub(super) fn selected(object: &Object, nodes: &NodeScope) -> bool {
    match object {
        Object::Service(service) => {
            !service.metadata.labels.contains_key(PROXY_NAME_LABEL)
                && service.spec.cluster_ip.as_deref() != Some("None")
        }
        Object::EndpointSlice(slice) => !slice.metadata.labels.contains_key(HEADLESS_LABEL),
        Object::Node(node) => match nodes {
            NodeScope::Own(name) => node.metadata.name == *name,
            NodeScope::All => true,
        },
        Object::ServiceCidr(_) => true,
    }
}

/// A kind of object as it is decoded.
pub(super) trait Trimmed: DeserializeOwned + Send + 'static {
    const KIND: Kind;
    fn meta(&self) -> &Meta;
    fn meta_mut(&mut self) -> &mut Meta;
    fn wrap(self) -> Object;

    /// Drops the annotations that nobody reads; they can be longer than everything else.
    fn into_object(mut self) -> Object {
        self.meta_mut().annotations.retain(|key, _| match Self::KIND {
            Kind::Node => key != LAST_APPLIED,
            Kind::EndpointSlice => key == TRIGGER_TIME,
            Kind::Service => key == ANNOTATION_SCHEDULER,
            Kind::ServiceCidr => false,
        });
        self.wrap()
    }
}

macro_rules! trimmed {
    ($($type:ty => $kind:ident),*) => {$(
        impl Trimmed for $type {
            const KIND: Kind = Kind::$kind;
            fn meta(&self) -> &Meta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut Meta {
                &mut self.metadata
            }
            fn wrap(self) -> Object {
                Object::$kind(self)
            }
        }
    )*};
}

trimmed!(ServiceObject => Service, SliceObject => EndpointSlice, NodeObject => Node, ServiceCidrObject => ServiceCidr);
