//! A small language for Services and their endpoints. Addresses are numbers: endpoint 1 is 10.0.0.1 or fd00:10::1.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fairlead_plan::{Endpoint, Family, Service, Services};

use crate::object::{
    EndpointConditions, EndpointHints, LoadBalancerIngress, Meta, Named, NodeAddress, NodeObject, ServiceObject,
    ServicePort, SliceEndpoint, SliceObject, SlicePort,
};
use crate::resolve::{self, DetectMode, Names, NodeModel, Note, Resolved, Settings, Surroundings};

/// Where every endpoint listens unless a test says otherwise.
pub(super) const TARGET_PORT: u16 = 8080;

/// Runs a test in both families.
pub(super) fn both(test: impl Fn(Family)) {
    Family::BOTH.into_iter().for_each(test);
}

fn address(family: Family, net: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, net, 0, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, host.into()).into(),
    }
}

pub(super) fn pod(family: Family, host: u8) -> IpAddr {
    address(family, 0, host)
}

pub(super) fn cluster_ip(family: Family, host: u8) -> IpAddr {
    address(family, 96, host)
}

pub(super) fn external(family: Family, host: u8) -> IpAddr {
    address(family, 200, host)
}

pub(super) fn node_ip(family: Family) -> IpAddr {
    address(family, 100, 1)
}

/// The prefix in which endpoints are.
pub(super) fn pods(family: Family) -> ipnet::IpNet {
    let bits = if family == Family::V4 { 16 } else { 32 };
    ipnet::IpNet::new(pod(family, 0), bits).unwrap().trunc()
}

/// One endpoint of a slice.
pub(super) fn ready(host: u8) -> Pod {
    Pod { host, ready: Some(true), serving: Some(true), terminating: Some(false), ..Pod::default() }
}

pub(super) fn unready(host: u8) -> Pod {
    Pod { ready: Some(false), serving: Some(false), ..ready(host) }
}

/// Terminating, and still answers.
pub(super) fn terminating(host: u8) -> Pod {
    Pod { ready: Some(false), terminating: Some(true), ..ready(host) }
}

/// Terminating, and answers no more.
pub(super) fn gone(host: u8) -> Pod {
    Pod { serving: Some(false), ..terminating(host) }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Pod {
    pub(super) host: u8,
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
    pub(super) node: Option<&'static str>,
    pub(super) zones: Vec<&'static str>,
    pub(super) nodes: Vec<&'static str>,
}

impl Pod {
    /// On this node.
    pub(super) fn here(self) -> Self {
        self.on("node-a")
    }

    pub(super) fn on(self, node: &'static str) -> Self {
        Self { node: Some(node), ..self }
    }

    pub(super) fn zones<const N: usize>(self, zones: [&'static str; N]) -> Self {
        Self { zones: zones.into(), ..self }
    }

    pub(super) fn nodes<const N: usize>(self, nodes: [&'static str; N]) -> Self {
        Self { nodes: nodes.into(), ..self }
    }

    fn object(&self, family: Family) -> SliceEndpoint {
        let named = |names: &[&str]| names.iter().map(|name| Named { name: (*name).to_owned() }).collect();
        let hints = EndpointHints { for_zones: named(&self.zones), for_nodes: named(&self.nodes) };
        SliceEndpoint {
            addresses: vec![pod(family, self.host).to_string()],
            conditions: EndpointConditions { ready: self.ready, serving: self.serving, terminating: self.terminating },
            node_name: self.node.map(str::to_owned),
            hints: (hints != EndpointHints::default()).then_some(hints),
        }
    }
}

/// A ClusterIP Service with the unnamed TCP port 80, on node-a of zone-a, where pods are recognised by their source.
pub(super) fn service(family: Family) -> Case {
    let metadata = Meta { namespace: "shop".into(), name: "web".into(), ..Meta::default() };
    let mut object = ServiceObject { metadata, ..ServiceObject::default() };
    object.spec.cluster_ip = Some(cluster_ip(family, 1).to_string());
    object.spec.cluster_ips = vec![cluster_ip(family, 1).to_string()];
    object.spec.ip_families = vec![family.label().to_owned()];
    object.spec.ports = vec![ServicePort { port: 80, ..ServicePort::default() }];
    let mut node = NodeObject::default();
    node.metadata.name = "node-a".into();
    node.metadata.labels.insert("topology.kubernetes.io/zone".into(), "zone-a".into());
    node.status.addresses = vec![NodeAddress { type_: "InternalIP".into(), address: node_ip(family).to_string() }];
    let settings = Settings {
        node_name: "node-a".into(),
        detect: DetectMode::ClusterCidr(Family::BOTH.map(pods).to_vec()),
        ..Settings::default()
    };
    Case { family, object, node, settings, slices: Vec::new(), previous: Services::default() }
}

#[derive(Debug)]
pub(super) struct Case {
    pub(super) family: Family,
    pub(super) object: ServiceObject,
    pub(super) node: NodeObject,
    pub(super) settings: Settings,
    pub(super) slices: Vec<SliceObject>,
    pub(super) previous: Services,
}

impl Case {
    /// Changes anything about the objects.
    pub(super) fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn internal_local(self) -> Self {
        self.but(|case| case.object.spec.internal_traffic_policy = Some("Local".into()))
    }

    pub(super) fn external_local(self) -> Self {
        self.but(|case| {
            case.object.spec.type_.get_or_insert("NodePort".into());
            case.object.spec.external_traffic_policy = Some("Local".into());
        })
    }

    pub(super) fn node_port(self, port: i32) -> Self {
        self.but(|case| {
            case.object.spec.type_.get_or_insert("NodePort".into());
            case.object.spec.ports[0].node_port = Some(port);
        })
    }

    pub(super) fn external_ip(self, host: u8) -> Self {
        let ip = external(self.family, host).to_string();
        self.but(|case| case.object.spec.external_ips.push(ip))
    }

    pub(super) fn vip(self, host: u8) -> Self {
        let ip = Some(external(self.family, host).to_string());
        self.but(|case| {
            case.object.spec.type_ = Some("LoadBalancer".into());
            case.object.status.load_balancer.ingress.push(LoadBalancerIngress { ip, ip_mode: None });
        })
    }

    pub(super) fn ranges<const N: usize>(self, ranges: [&str; N]) -> Self {
        self.but(|case| case.object.spec.load_balancer_source_ranges = ranges.map(str::to_owned).to_vec())
    }

    pub(super) fn zone(self, zone: &str) -> Self {
        self.but(|case| {
            case.node.metadata.labels.insert("topology.kubernetes.io/zone".into(), zone.into());
        })
    }

    pub(super) fn no_detector(self) -> Self {
        self.but(|case| case.settings.detect = DetectMode::ClusterCidr(Vec::new()))
    }

    pub(super) fn masquerade_all(self) -> Self {
        self.but(|case| case.settings.masquerade_all = true)
    }

    /// Adds a slice with the unnamed TCP port.
    pub(super) fn with<const N: usize>(mut self, pods: [Pod; N]) -> Self {
        let metadata = Meta {
            namespace: "shop".into(),
            name: format!("web-{}", self.slices.len()),
            labels: [("kubernetes.io/service-name".to_owned(), "web".to_owned())].into(),
            ..Meta::default()
        };
        let port = SlicePort { name: Some(String::new()), port: Some(TARGET_PORT.into()), protocol: None };
        self.slices.push(SliceObject {
            metadata,
            address_type: self.family.label().to_owned(),
            endpoints: pods.iter().map(|pod| pod.object(self.family)).collect(),
            ports: vec![port],
        });
        self
    }

    pub(super) fn after(self, previous: &Service) -> Self {
        let previous = previous.clone();
        self.but(|case| case.previous = [previous].into_iter().collect())
    }

    pub(super) fn resolve_all(&self) -> (Resolved, Vec<Note>) {
        let (model, mut notes) = resolve::parse_service(&self.object, &self.settings);
        let mut names = Names::default();
        let mut slices = Vec::new();
        for slice in &self.slices {
            let (slice, said) = resolve::parse_slice(slice, &self.settings, &mut names);
            notes.extend(said);
            slices.extend(slice);
        }
        let (node, said) = NodeModel::parse(&self.node);
        notes.extend(said);
        let (facts, _) = resolve::facts(&self.settings, Some(&node), &BTreeSet::new());
        let around = Surroundings { settings: &self.settings, node: &facts, previous: &self.previous };
        let resolved =
            model.map(|model| resolve::service(&model, slices.iter(), around, |_, _| true)).unwrap_or_default();
        (resolved, notes)
    }

    /// The one service port that comes out.
    pub(super) fn resolve(&self) -> Service {
        let (resolved, notes) = self.resolve_all();
        assert_eq!(notes, []);
        let [service] = <[Service; 1]>::try_from(resolved.services).unwrap();
        service
    }

    /// The reasons of all complaints.
    pub(super) fn complaints(&self) -> Vec<&'static str> {
        self.resolve_all().1.into_iter().map(|note| note.reason).collect()
    }
}

/// A pool as the numbers of its endpoints, in the order of slots.
pub(super) fn endpoints(pool: &[Endpoint]) -> Vec<u8> {
    pool.iter().map(|endpoint| host(endpoint.addr())).collect()
}

pub(super) fn host(addr: SocketAddr) -> u8 {
    match addr.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}
