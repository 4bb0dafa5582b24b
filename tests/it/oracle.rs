//! What the Kubernetes API promises about one packet, worked out from the raw objects.
//!
//! This is written the other way round than `fairlead::resolve`: it starts from a packet and reads the objects in the
//! order in which the API documents explain them, with nothing prepared and nothing remembered. It shares no code with
//! what it checks, except the types of the question ([`Packet`]) and of the answer ([`Verdict`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fairlead::object::{NodeObject, ServiceCidrObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject};
use fairlead_plan::{Packet, Verdict};
use ipnet::IpNet;

/// All objects of a cluster by name, and what the administrator has configured for `node-a`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    pub services: BTreeMap<String, ServiceObject>,
    pub slices: BTreeMap<String, SliceObject>,
    pub nodes: BTreeMap<String, NodeObject>,
    pub service_cidrs: BTreeMap<String, ServiceCidrObject>,
    pub cluster_cidrs: Vec<IpNet>,
    pub masquerade_all: bool,
    pub node_ports_everywhere: bool,
    pub no_external_ips: bool,
}

/// By which of its addresses a packet reaches a Service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    ClusterIp,
    LoadBalancer,
    ExternalIp,
    NodePort,
}

/// Who is asking.
#[derive(PartialEq)]
enum Client {
    Pod,
    Node,
    Other,
}

type Port<'a> = (&'a ServiceObject, &'a ServicePort);

const OURS: &str = "node-a";

fn is(text: &Option<String>, value: &str) -> bool {
    text.as_deref() == Some(value)
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

impl Cluster {
    /// What must happen to the packet.
    pub fn answer(&self, packet: &Packet) -> Verdict {
        let to = packet.destination;
        if let Some((port, door)) = self.addressee(packet) {
            return self.enter(port, door, packet);
        }
        if self.served().any(|service| !service.spec.ports.is_empty() && cluster_ip(service, to.ip()) == Some(to.ip()))
        {
            return Verdict::Reject;
        }
        let mut reserved = self.service_cidrs.values().flat_map(|object| &object.spec.cidrs);
        if reserved.any(|cidr| cidr.parse::<IpNet>().unwrap().contains(&to.ip())) {
            return Verdict::Drop;
        }
        Verdict::Pass
    }

    /// Services with a virtual address that no other proxy serves.
    fn served(&self) -> impl Iterator<Item = &ServiceObject> {
        self.services.values().filter(|service| {
            !service.metadata.labels.contains_key("service.kubernetes.io/service-proxy-name")
                && !is(&service.spec.cluster_ip, "None")
                && !is(&service.spec.type_, "ExternalName")
        })
    }

    /// The service port that the packet is for. A ClusterIP belongs to its Service; anything else that several Services
    /// claim belongs to the oldest; node ports come after addresses.
    fn addressee(&self, packet: &Packet) -> Option<(Port<'_>, Door)> {
        let to = packet.destination;
        let protocol = packet.protocol.name().to_uppercase();
        let mut found = Vec::new();
        for service in self.served().filter(|service| cluster_ip(service, to.ip()).is_some()) {
            for port in &service.spec.ports {
                if port.protocol.as_deref().unwrap_or("TCP") == protocol
                    && let Some(door) = self.door(service, port, packet)
                {
                    let rank = match door {
                        Door::ClusterIp => 0,
                        Door::LoadBalancer | Door::ExternalIp => 1,
                        Door::NodePort => 2,
                    };
                    let created = &service.metadata.creation_timestamp;
                    found.push(((rank, created.is_none(), created, &service.metadata.name), (service, port), door));
                }
            }
        }
        found.sort_by_key(|(rank, ..)| *rank);
        found.first().map(|(_, port, door)| (*port, *door))
    }

    fn door(&self, service: &ServiceObject, port: &ServicePort, packet: &Packet) -> Option<Door> {
        let to = packet.destination;
        let here = |text: &String| text.parse() == Ok(to.ip());
        let at_port = i32::from(to.port()) == port.port;
        if at_port && cluster_ip(service, to.ip()) == Some(to.ip()) {
            return Some(Door::ClusterIp);
        }
        if at_port && vips(service).any(|vip| vip == to.ip()) {
            return Some(Door::LoadBalancer);
        }
        if at_port && !self.no_external_ips && service.spec.external_ips.iter().any(here) {
            return Some(Door::ExternalIp);
        }
        let ours = self.node_ports_everywhere || self.node_address(to.ip()) == Some(to.ip());
        let node_port = packet.destination_is_local && ours && port.node_port == Some(to.port().into());
        node_port.then_some(Door::NodePort)
    }

    fn enter(&self, port: Port<'_>, door: Door, packet: &Packet) -> Verdict {
        let (service, _) = port;
        if door == Door::LoadBalancer && !self.may_use_balancer(service, packet.source) {
            return Verdict::Drop;
        }
        let endpoints = self.endpoints(port, packet.destination.ip());
        let spec = &service.spec;
        let anywhere = endpoints.values().any(|endpoint| ready(endpoint) || last_resort(endpoint));
        if !anywhere {
            return Verdict::Reject;
        }
        let client = self.client(packet);
        let told_apart = self.pods_of_family(packet.source).is_some();
        let (local, masquerade) = if door == Door::ClusterIp {
            let from_elsewhere = told_apart && client != Client::Pod;
            (is(&spec.internal_traffic_policy, "Local"), self.masquerade_all || from_elsewhere)
        } else if !is(&spec.external_traffic_policy, "Local") || !lets_others_in(service) {
            (false, true)
        } else {
            (client == Client::Other, client == Client::Node)
        };
        let chosen = if local { only_here(&endpoints) } else { self.spread(&endpoints) };
        if chosen.is_empty() {
            return Verdict::Drop;
        }
        let masqueraded = chosen
            .iter()
            .filter(|addr| masquerade || (addr.ip() == packet.source && is_here(endpoints[addr])))
            .copied()
            .collect();
        Verdict::Forward { endpoints: chosen, masqueraded }
    }

    /// `spec.loadBalancerSourceRanges`. A node that may use the load balancer may do so with the balancer's address.
    fn may_use_balancer(&self, service: &ServiceObject, source: IpAddr) -> bool {
        let ranges = service.spec.load_balancer_source_ranges.iter().map(|text| text.trim().parse::<IpNet>().unwrap());
        let ranges: Vec<_> = ranges.filter(|range| same_family(range.addr(), source)).collect();
        let covered = |ip: IpAddr| ranges.iter().any(|range| range.contains(&ip));
        let node_may = self.node_address(source).is_some_and(covered);
        ranges.is_empty() || covered(source) || (node_may && vips(service).any(|vip| vip == source))
    }

    /// Endpoints of a service port. An address that several slices name counts as its best state.
    fn endpoints(&self, (service, port): Port<'_>, family: IpAddr) -> BTreeMap<SocketAddr, &SliceEndpoint> {
        let state = |endpoint: &SliceEndpoint| (terminating(endpoint), !ready(endpoint), !serving(endpoint));
        let mut found: BTreeMap<SocketAddr, &SliceEndpoint> = BTreeMap::new();
        for slice in self.slices.values() {
            let labels = &slice.metadata.labels;
            let owned = labels.get("kubernetes.io/service-name") == Some(&service.metadata.name);
            let wanted = slice.address_type == if family.is_ipv4() { "IPv4" } else { "IPv6" };
            if !owned || !wanted || labels.contains_key("service.kubernetes.io/headless") {
                continue;
            }
            for target in
                slice.ports.iter().filter(|target| target.name == port.name && target.protocol == port.protocol)
            {
                for endpoint in &slice.endpoints {
                    let number = target.port.and_then(|port| u16::try_from(port).ok()).unwrap();
                    let addr = SocketAddr::new(endpoint.addresses[0].parse().unwrap(), number);
                    let known = found.entry(addr).or_insert(endpoint);
                    if state(endpoint) < state(known) {
                        *known = endpoint;
                    }
                }
            }
        }
        found
    }

    /// Policy Cluster: ready endpoints, near ones if the hints of all of them allow that; else the last resort.
    fn spread(&self, endpoints: &BTreeMap<SocketAddr, &SliceEndpoint>) -> BTreeSet<SocketAddr> {
        let usable: BTreeMap<_, _> = endpoints.iter().filter(|(_, endpoint)| ready(endpoint)).collect();
        if usable.is_empty() {
            let rest = endpoints.iter().filter(|(_, endpoint)| last_resort(endpoint));
            return rest.map(|(addr, _)| *addr).collect();
        }
        let node = Some(OURS.to_owned());
        let zone =
            self.nodes.get(OURS).and_then(|node| node.metadata.labels.get("topology.kubernetes.io/zone").cloned());
        for (place, by_node) in [(node, true), (zone, false)] {
            let hints = |endpoint: &SliceEndpoint| -> Vec<String> {
                let Some(hints) = &endpoint.hints else { return Vec::new() };
                let names = if by_node { &hints.for_nodes } else { &hints.for_zones };
                names.iter().map(|named| named.name.clone()).collect()
            };
            let near = |endpoint: &SliceEndpoint| place.as_ref().is_some_and(|place| hints(endpoint).contains(place));
            let all_hinted = usable.values().all(|endpoint| !hints(endpoint).is_empty());
            if all_hinted && usable.values().any(|endpoint| near(endpoint)) {
                return usable.iter().filter(|(_, endpoint)| near(endpoint)).map(|(addr, _)| **addr).collect();
            }
        }
        usable.into_keys().copied().collect()
    }

    fn client(&self, packet: &Packet) -> Client {
        if self.pods_of_family(packet.source).is_some_and(|pods| pods.contains(&packet.source)) {
            Client::Pod
        } else if packet.source_is_local {
            Client::Node
        } else {
            Client::Other
        }
    }

    fn pods_of_family(&self, ip: IpAddr) -> Option<&IpNet> {
        self.cluster_cidrs.iter().find(|cidr| same_family(cidr.addr(), ip))
    }

    /// The node's first internal address of the family.
    fn node_address(&self, family: IpAddr) -> Option<IpAddr> {
        let addresses = self.nodes.get(OURS)?.status.addresses.iter().filter(|entry| entry.type_ == "InternalIP");
        addresses.map(|entry| entry.address.parse().unwrap()).find(|ip| same_family(*ip, family))
    }
}

/// Policy Local: ready endpoints on this node, else those on this node that still serve.
fn only_here(endpoints: &BTreeMap<SocketAddr, &SliceEndpoint>) -> BTreeSet<SocketAddr> {
    let here = |usable: fn(&SliceEndpoint) -> bool| -> BTreeSet<SocketAddr> {
        endpoints.iter().filter(|(_, endpoint)| is_here(endpoint) && usable(endpoint)).map(|(addr, _)| *addr).collect()
    };
    let first = here(ready);
    if first.is_empty() { here(last_resort) } else { first }
}

/// The Service's virtual address of the family of `ip`.
fn cluster_ip(service: &ServiceObject, ip: IpAddr) -> Option<IpAddr> {
    service.spec.cluster_ips.iter().filter_map(|text| text.parse().ok()).find(|own| same_family(*own, ip))
}

/// `externalTrafficPolicy` is a field of Services that are meant for clients outside.
fn lets_others_in(service: &ServiceObject) -> bool {
    let type_ = &service.spec.type_;
    is(type_, "NodePort") || is(type_, "LoadBalancer") || !service.spec.external_ips.is_empty()
}

fn vips(service: &ServiceObject) -> impl Iterator<Item = IpAddr> + '_ {
    let ingress = service.status.load_balancer.ingress.iter().filter(|ingress| !is(&ingress.ip_mode, "Proxy"));
    ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
}

fn is_here(endpoint: &SliceEndpoint) -> bool {
    is(&endpoint.node_name, OURS)
}

fn ready(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.ready != Some(false)
}

fn serving(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.serving != Some(false)
}

fn terminating(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.terminating == Some(true)
}

fn last_resort(endpoint: &SliceEndpoint) -> bool {
    serving(endpoint) && terminating(endpoint)
}
