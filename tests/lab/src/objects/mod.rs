//! Builds the Kubernetes objects that describe a lab and what runs in it, as JSON.
//!
//! One description gives an IPv4, an IPv6 or a dual-stack Service, by the families it is asked for. Places are named,
//! not addressed: `Endpoint::at("a1")` is pod `a1` with its addresses and its node.
//!
//! ```
//! use fairlead_lab::objects::{Endpoint, Port, Service, Slice};
//! use fairlead_plan::Family;
//! # fn example(lab: &fairlead_lab::Lab) -> Vec<serde_json::Value> {
//! let web = Service::new("web").cluster_ip(1).port(Port::tcp(80).node_port(30080));
//! let slice = Slice::of("web").tcp("", 8080).endpoint(Endpoint::at("a1")).endpoint(Endpoint::at("b1"));
//! let mut manifests = lab.cluster_manifests();
//! manifests.push(web.manifest(lab, &Family::BOTH));
//! manifests.extend(slice.manifests(lab, &Family::BOTH));
//! # manifests
//! # }
//! ```

mod endpoint;
mod service;

use fairlead_plan::Family;
use serde_json::{Value, json};

pub use endpoint::{Endpoint, Slice};
pub use service::{Port, Range, Service};

use crate::{Kind, Lab, Place, SERVICE_NETS};

/// The namespace of all Services and EndpointSlices of a lab.
pub const NAMESPACE: &str = "default";

/// The label of a Node that names its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The Node object of a node.
///
/// # Panics
/// If the place is no node.
#[must_use]
pub fn node(place: &Place, zone: Option<&str>) -> Value {
    assert!(matches!(place.kind(), Kind::Node { .. }), "{} is no node", place.name());
    let addresses = Family::BOTH.map(|family| json!({ "type": "InternalIP", "address": place.addr(family) }));
    let labels = zone.map_or_else(|| json!({}), |zone| json!({ ZONE: zone }));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": place.name(), "labels": labels },
        "spec": { "podCIDRs": place.pod_cidrs() },
        "status": { "addresses": addresses },
    })
}

/// A ServiceCIDR.
#[must_use]
pub fn service_cidr(name: &str, cidrs: &[&str]) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": name },
        "spec": { "cidrs": cidrs },
    })
}

impl Lab {
    /// What a cluster of this lab holds before anything runs in it: its Nodes, without zones, and the ServiceCIDR
    /// `kubernetes`.
    #[must_use]
    pub fn cluster_manifests(&self) -> Vec<Value> {
        let mut manifests: Vec<_> = self.nodes().map(|place| node(place, None)).collect();
        manifests.push(service_cidr("kubernetes", &SERVICE_NETS));
        manifests
    }
}
