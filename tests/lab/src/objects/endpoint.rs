use fairlead_plan::{Family, Protocol};
use serde_json::{Map, Value, json};

use super::NAMESPACE;
use crate::{Kind, Lab, PORTS};

/// Describes one endpoint of an EndpointSlice.
#[derive(Debug, Clone)]
pub struct Endpoint {
    place: String,
    conditions: Map<String, Value>,
    zones: Vec<String>,
    nodes: Vec<String>,
}

impl Endpoint {
    /// A pod or, for a pod in the network of its host, a node. Ready.
    #[must_use]
    pub fn at(place: &str) -> Self {
        let conditions = Map::from_iter([("ready".to_owned(), json!(true))]);
        Self { place: place.to_owned(), conditions, zones: Vec::new(), nodes: Vec::new() }
    }

    /// Neither ready nor serving.
    #[must_use]
    pub fn unready(self) -> Self {
        self.conditions(false, false, false)
    }

    /// Being deleted; `serving` says whether it still answers.
    #[must_use]
    pub fn terminating(self, serving: bool) -> Self {
        self.conditions(false, serving, true)
    }

    /// Sets all three conditions.
    #[must_use]
    pub fn conditions(mut self, ready: bool, serving: bool, terminating: bool) -> Self {
        let all = [("ready", ready), ("serving", serving), ("terminating", terminating)];
        self.conditions = all.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        self
    }

    /// A hint: nodes of this zone should use it.
    #[must_use]
    pub fn for_zone(mut self, zone: &str) -> Self {
        self.zones.push(zone.to_owned());
        self
    }

    /// A hint: this node should use it.
    #[must_use]
    pub fn for_node(mut self, node: &str) -> Self {
        self.nodes.push(node.to_owned());
        self
    }

    fn json(&self, lab: &Lab, family: Family) -> Value {
        let place = lab.place(&self.place);
        let node = match place.kind() {
            Kind::Pod { node } => node.as_str(),
            Kind::Node { .. } | Kind::Client => place.name(),
        };
        let named = |names: &[String]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
        let mut endpoint = json!({
            "addresses": [place.addr(family)],
            "conditions": self.conditions,
            "nodeName": node,
        });
        if !self.zones.is_empty() || !self.nodes.is_empty() {
            endpoint["hints"] = json!({ "forZones": named(&self.zones), "forNodes": named(&self.nodes) });
        }
        endpoint
    }
}

/// Describes the EndpointSlices of a Service, one for each family.
#[derive(Debug, Clone)]
pub struct Slice {
    service: String,
    suffix: String,
    ports: Vec<(String, Protocol, u16)>,
    endpoints: Vec<Endpoint>,
    managed_by: &'static str,
}

impl Slice {
    /// The first slice of this Service, empty.
    #[must_use]
    pub fn of(service: &str) -> Self {
        let managed_by = "endpointslice-controller.k8s.io";
        Self {
            service: service.to_owned(),
            suffix: "1".to_owned(),
            ports: Vec::new(),
            endpoints: Vec::new(),
            managed_by,
        }
    }

    /// Another slice of the same Service.
    #[must_use]
    pub fn numbered(mut self, number: u8) -> Self {
        self.suffix = number.to_string();
        self
    }

    /// Sets the label that says who manages the slice, which must make no difference.
    #[must_use]
    pub const fn managed_by(mut self, manager: &'static str) -> Self {
        self.managed_by = manager;
        self
    }

    /// Adds a port by the name of the Service's port.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: Protocol, number: u16) -> Self {
        self.ports.push((name.to_owned(), protocol, number));
        self
    }

    /// Adds a TCP port.
    #[must_use]
    pub fn tcp(self, name: &str, number: u16) -> Self {
        self.port(name, Protocol::Tcp, number)
    }

    /// Adds a UDP port.
    #[must_use]
    pub fn udp(self, name: &str, number: u16) -> Self {
        self.port(name, Protocol::Udp, number)
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Adds ready endpoints.
    #[must_use]
    pub fn ready(mut self, places: &[&str]) -> Self {
        self.endpoints.extend(places.iter().map(|place| Endpoint::at(place)));
        self
    }

    /// The objects. A slice without ports has the first of [`PORTS`], unnamed, TCP.
    #[must_use]
    pub fn manifests(&self, lab: &Lab, families: &[Family]) -> Vec<Value> {
        families.iter().map(|family| self.manifest(lab, *family)).collect()
    }

    fn manifest(&self, lab: &Lab, family: Family) -> Value {
        let port = |(name, protocol, number): &(String, Protocol, u16)| json!({ "name": name, "protocol": protocol.name().to_uppercase(), "port": number });
        let mut ports: Vec<_> = self.ports.iter().map(port).collect();
        if ports.is_empty() {
            ports.push(port(&(String::new(), Protocol::Tcp, PORTS[0])));
        }
        let endpoints: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.json(lab, family)).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{}-{}", self.service, self.suffix, family.label().to_lowercase()),
                "namespace": NAMESPACE,
                "labels": {
                    "kubernetes.io/service-name": self.service,
                    "endpointslice.kubernetes.io/managed-by": self.managed_by,
                },
            },
            "addressType": family.label(),
            "endpoints": endpoints,
            "ports": ports,
        })
    }
}
