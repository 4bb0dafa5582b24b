use fairlead_plan::{Family, Protocol};
use serde_json::{Map, Value, json};

use super::NAMESPACE;
use crate::{Addresses, Lab, cluster_ip, external_ip};

/// Describes a Service. What it is (`ClusterIP`, `NodePort`, `LoadBalancer`) follows from what it has.
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    cluster_ip: Option<Addresses>,
    ports: Vec<Port>,
    external_ips: Vec<Addresses>,
    ingress: Vec<(Addresses, Option<&'static str>)>,
    ranges: Vec<Range>,
    spec: Map<String, Value>,
    created: Option<&'static str>,
}

/// One of its ports.
#[derive(Debug, Clone)]
pub struct Port {
    name: String,
    protocol: Protocol,
    number: u16,
    node_port: Option<u16>,
}

/// One entry of `spec.loadBalancerSourceRanges`.
#[derive(Debug, Clone)]
pub struct Range {
    what: Sources,
    padding: &'static str,
}

#[derive(Debug, Clone)]
enum Sources {
    Place(String),
    Nets(&'static str, &'static str),
}

impl Port {
    /// A TCP port.
    #[must_use]
    pub fn tcp(number: u16) -> Self {
        Self::new(Protocol::Tcp, number)
    }

    /// A UDP port.
    #[must_use]
    pub fn udp(number: u16) -> Self {
        Self::new(Protocol::Udp, number)
    }

    /// A port of any protocol, without a name.
    #[must_use]
    pub const fn new(protocol: Protocol, number: u16) -> Self {
        Self { name: String::new(), protocol, number, node_port: None }
    }

    /// Sets its name, by which ports of EndpointSlices refer to it.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Gives it a port on every node.
    #[must_use]
    pub const fn node_port(mut self, number: u16) -> Self {
        self.node_port = Some(number);
        self
    }

    fn json(&self) -> Value {
        let mut port = json!({ "port": self.number, "protocol": self.protocol.name().to_uppercase() });
        if !self.name.is_empty() {
            port["name"] = json!(self.name);
        }
        if let Some(number) = self.node_port {
            port["nodePort"] = json!(number);
        }
        port
    }
}

impl Range {
    /// The main address of a place alone.
    #[must_use]
    pub fn of(place: &str) -> Self {
        Self { what: Sources::Place(place.to_owned()), padding: "" }
    }

    /// Prefixes, IPv4 and IPv6.
    #[must_use]
    pub const fn nets(v4: &'static str, v6: &'static str) -> Self {
        Self { what: Sources::Nets(v4, v6), padding: "" }
    }

    /// With spaces around, which the API server lets through.
    #[must_use]
    pub const fn padded(mut self) -> Self {
        self.padding = "  ";
        self
    }

    fn text(&self, lab: &Lab, family: Family) -> String {
        let net = match &self.what {
            Sources::Place(name) => lab.place(name).addresses().host_net(family).to_string(),
            Sources::Nets(v4, v6) => if family == Family::V4 { *v4 } else { *v6 }.to_owned(),
        };
        format!("{0}{net}{0}", self.padding)
    }
}

impl Service {
    /// A Service of the namespace [`NAMESPACE`] without addresses and ports.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            cluster_ip: None,
            ports: Vec::new(),
            external_ips: Vec::new(),
            ingress: Vec::new(),
            ranges: Vec::new(),
            spec: Map::new(),
            created: None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it the `host`-th ClusterIP.
    #[must_use]
    pub const fn cluster_ip(self, host: u8) -> Self {
        self.cluster_addresses(cluster_ip(host))
    }

    /// Gives it these ClusterIPs.
    #[must_use]
    pub const fn cluster_addresses(mut self, addresses: Addresses) -> Self {
        self.cluster_ip = Some(addresses);
        self
    }

    /// Adds a port.
    #[must_use]
    pub fn port(mut self, port: Port) -> Self {
        self.ports.push(port);
        self
    }

    /// Takes all ports away.
    #[must_use]
    pub fn without_ports(mut self) -> Self {
        self.ports.clear();
        self
    }

    /// Adds the `host`-th external address to `spec.externalIPs`.
    #[must_use]
    pub fn external_ip(mut self, host: u8) -> Self {
        self.external_ips.push(external_ip(host));
        self
    }

    /// Adds the `host`-th external address to `status.loadBalancer.ingress`, without `ipMode`.
    #[must_use]
    pub fn load_balancer(self, host: u8) -> Self {
        self.ingress(external_ip(host), None)
    }

    /// Adds addresses to `status.loadBalancer.ingress`.
    #[must_use]
    pub fn ingress(mut self, addresses: Addresses, ip_mode: Option<&'static str>) -> Self {
        self.ingress.push((addresses, ip_mode));
        self
    }

    /// Adds to `spec.loadBalancerSourceRanges`.
    #[must_use]
    pub fn allow(mut self, range: Range) -> Self {
        self.ranges.push(range);
        self
    }

    /// Sets any field of `spec`.
    #[must_use]
    pub fn spec(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.spec.insert(field.to_owned(), value.into());
        self
    }

    /// `externalTrafficPolicy: Local`
    #[must_use]
    pub fn external_local(self) -> Self {
        self.spec("externalTrafficPolicy", "Local")
    }

    /// `internalTrafficPolicy: Local`
    #[must_use]
    pub fn internal_local(self) -> Self {
        self.spec("internalTrafficPolicy", "Local")
    }

    /// `sessionAffinity: ClientIP`
    #[must_use]
    pub fn sticky(self, seconds: u32) -> Self {
        self.spec("sessionAffinity", "ClientIP")
            .spec("sessionAffinityConfig", json!({ "clientIP": { "timeoutSeconds": seconds } }))
    }

    /// Sets `metadata.creationTimestamp`, RFC 3339.
    #[must_use]
    pub const fn created(mut self, time: &'static str) -> Self {
        self.created = Some(time);
        self
    }

    /// The object in these families, the first being the primary one.
    #[must_use]
    pub fn manifest(&self, lab: &Lab, families: &[Family]) -> Value {
        let all = |addresses: &Addresses| families.iter().map(|family| addresses.of(*family)).collect::<Vec<_>>();
        let mut spec = Map::from_iter([
            ("type".to_owned(), json!(self.kind())),
            ("ports".to_owned(), self.ports.iter().map(Port::json).collect()),
            ("ipFamilies".to_owned(), families.iter().map(|family| family.label()).collect()),
        ]);
        if let Some(addresses) = &self.cluster_ip {
            let addresses = all(addresses);
            spec.insert("clusterIP".to_owned(), json!(addresses.first()));
            spec.insert("clusterIPs".to_owned(), json!(addresses));
        }
        let externals: Vec<_> = self.external_ips.iter().flat_map(all).collect();
        let ranges = self.ranges.iter().flat_map(|range| families.iter().map(|family| range.text(lab, *family)));
        spec.insert("externalIPs".to_owned(), json!(externals));
        spec.insert("loadBalancerSourceRanges".to_owned(), ranges.collect());
        spec.extend(self.spec.clone());
        let ingress = self.ingress.iter().flat_map(|(addresses, mode)| {
            all(addresses).into_iter().map(move |ip| match mode {
                Some(mode) => json!({ "ip": ip, "ipMode": mode }),
                None => json!({ "ip": ip }),
            })
        });
        let mut metadata = json!({ "name": self.name, "namespace": NAMESPACE, "uid": format!("uid-{}", self.name) });
        if let Some(created) = self.created {
            metadata["creationTimestamp"] = json!(created);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": spec,
            "status": { "loadBalancer": { "ingress": ingress.collect::<Vec<_>>() } },
        })
    }

    fn kind(&self) -> &'static str {
        if !self.ingress.is_empty() {
            "LoadBalancer"
        } else if self.ports.iter().any(|port| port.node_port.is_some()) {
            "NodePort"
        } else {
            "ClusterIP"
        }
    }
}
