//! What can happen to a cluster, from a domain so small that collisions are common.

use std::collections::BTreeMap;

use fairlead::object::{
    EndpointConditions, EndpointHints, Event, Kind, LoadBalancerIngress, Meta, Named, NodeAddress, NodeObject, Object,
    ObjectName, ServiceCidrObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject, SlicePort,
};
use fairlead_plan::Family;
use proptest::prelude::*;
use proptest::sample::select;

use super::probes;
use crate::oracle::Cluster;

const NAMESPACE: &str = "default";
const ZONE: &str = "topology.kubernetes.io/zone";
const FOREIGN: &str = "service.kubernetes.io/service-proxy-name";
const OWNER: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Enough that two slices of one Service are common.
const SLICES: usize = 5;

/// What a user, a controller or the network does.
#[derive(Debug, Clone)]
pub enum Step {
    PutService(Box<ServiceObject>),
    RemoveService(usize),
    InternalPolicy(usize, bool),
    ExternalPolicy(usize, bool),
    Affinity(usize, bool),
    OtherProxy(usize, bool),
    PutSlice(Box<SliceObject>),
    RemoveSlice(usize),
    MoveSlice(usize, usize),
    HeadlessSlice(usize, bool),
    /// Endpoint of a slice: ready to terminating to gone.
    Age(usize, usize),
    /// A node, its zone and the families in which it has an address.
    PutNode(usize, Option<&'static str>, Vec<Family>),
    PutCidr(usize, Vec<&'static str>),
    RemoveCidr(usize),
    /// Everything is delivered once more.
    Repeat,
    /// The connection breaks, something happens meanwhile, then everything is listed.
    Gap(Vec<Self>),
}

impl Step {
    /// Does it to the cluster; the events are what a watch delivers about it.
    pub fn take(&self, cluster: &mut Cluster) -> Vec<Event> {
        let before = cluster.clone();
        self.change(cluster);
        match self {
            Self::Repeat => objects(cluster).into_values().map(|object| Event::Apply(Box::new(object))).collect(),
            Self::Gap(_) => relist(cluster),
            _ => difference(&before, cluster),
        }
    }

    fn change(&self, cluster: &mut Cluster) {
        match self {
            Self::PutService(object) => {
                cluster.services.insert(object.metadata.name.clone(), (**object).clone());
            }
            Self::RemoveService(at) => drop(cluster.services.remove(&service_name(*at))),
            Self::InternalPolicy(at, local) => {
                with(&mut cluster.services, &service_name(*at), |object| {
                    object.spec.internal_traffic_policy = policy(*local);
                });
            }
            Self::ExternalPolicy(at, local) => {
                with(&mut cluster.services, &service_name(*at), |object| {
                    object.spec.external_traffic_policy = policy(*local);
                });
            }
            Self::Affinity(at, on) => {
                let affinity = if *on { "ClientIP" } else { "None" };
                with(&mut cluster.services, &service_name(*at), |object| {
                    object.spec.session_affinity = Some(affinity.into());
                });
            }
            Self::OtherProxy(at, on) => {
                with(&mut cluster.services, &service_name(*at), |object| label(&mut object.metadata, FOREIGN, *on));
            }
            Self::PutSlice(object) => {
                cluster.slices.insert(object.metadata.name.clone(), (**object).clone());
            }
            Self::RemoveSlice(at) => drop(cluster.slices.remove(&slice_name(*at))),
            Self::MoveSlice(at, owner) => with(&mut cluster.slices, &slice_name(*at), |object| {
                object.metadata.labels.insert(OWNER.into(), service_name(*owner));
            }),
            Self::HeadlessSlice(at, on) => {
                with(&mut cluster.slices, &slice_name(*at), |object| label(&mut object.metadata, HEADLESS, *on));
            }
            Self::Age(at, endpoint) => with(&mut cluster.slices, &slice_name(*at), |object| age(object, *endpoint)),
            Self::PutNode(at, zone, families) => {
                let object = node_object(*at, *zone, families);
                cluster.nodes.insert(object.metadata.name.clone(), object);
            }
            Self::PutCidr(at, cidrs) => {
                let mut object = ServiceCidrObject::default();
                object.metadata.name = format!("cidr-{at}");
                object.spec.cidrs = cidrs.iter().map(|cidr| (*cidr).into()).collect();
                cluster.service_cidrs.insert(object.metadata.name.clone(), object);
            }
            Self::RemoveCidr(at) => drop(cluster.service_cidrs.remove(&format!("cidr-{at}"))),
            Self::Repeat => {}
            Self::Gap(steps) => steps.iter().for_each(|step| step.change(cluster)),
        }
    }
}

fn with<T>(all: &mut BTreeMap<String, T>, name: &str, change: impl FnOnce(&mut T)) {
    if let Some(object) = all.get_mut(name) {
        change(object);
    }
}

fn label(meta: &mut Meta, key: &str, on: bool) {
    if on {
        meta.labels.insert(key.into(), String::new());
    } else {
        meta.labels.remove(key);
    }
}

fn age(object: &mut SliceObject, at: usize) {
    if object.endpoints.is_empty() {
        return;
    }
    let at = at % object.endpoints.len();
    let conditions = &mut object.endpoints[at].conditions;
    if conditions.terminating != Some(true) {
        *conditions = EndpointConditions { ready: Some(false), serving: Some(true), terminating: Some(true) };
    } else if conditions.serving != Some(false) {
        conditions.serving = Some(false);
    } else {
        object.endpoints.remove(at);
    }
}

fn policy(local: bool) -> Option<String> {
    Some(if local { "Local" } else { "Cluster" }.into())
}

fn service_name(at: usize) -> String {
    format!("service-{at}")
}

fn slice_name(at: usize) -> String {
    format!("slice-{at}")
}

fn node_name(at: usize) -> String {
    ["node-a", "node-b", "node-c"][at].into()
}

fn node_object(at: usize, zone: Option<&str>, families: &[Family]) -> NodeObject {
    let mut object = NodeObject::default();
    object.metadata.name = node_name(at);
    object.metadata.labels = zone.map(|zone| (ZONE.to_owned(), zone.to_owned())).into_iter().collect();
    let address = |type_: &str, ip: std::net::IpAddr| NodeAddress { type_: type_.into(), address: ip.to_string() };
    for family in families {
        let of_node_a = [1, 2].map(|host| address("InternalIP", probes::node(*family, host)));
        object.status.addresses.push(address("Hostname", probes::node(*family, 9)));
        object.status.addresses.extend(if at == 0 { of_node_a.to_vec() } else { Vec::new() });
    }
    object
}

/// Complete lists of all kinds; the first one of Services breaks off in the middle.
pub fn relist(cluster: &Cluster) -> Vec<Event> {
    let all = objects(cluster);
    let named = |kind: Kind| {
        let of_kind = all.iter().filter(move |((other, _), _)| *other == kind);
        of_kind.map(|(_, object)| Event::Apply(Box::new(object.clone())))
    };
    let mut events = vec![Event::ListBegin(Kind::Service)];
    events.extend(named(Kind::Service).take(1));
    for kind in Kind::ALL {
        events.push(Event::ListBegin(kind));
        events.extend(named(kind));
        events.push(Event::ListEnd(kind));
    }
    events
}

fn difference(was: &Cluster, now: &Cluster) -> Vec<Event> {
    let (was, now) = (objects(was), objects(now));
    let gone = was.keys().filter(|key| !now.contains_key(key));
    let gone = gone.map(|(kind, name)| Event::Delete(*kind, name.clone()));
    let changed = now.iter().filter(|(key, object)| was.get(key) != Some(object));
    gone.chain(changed.map(|(_, object)| Event::Apply(Box::new(object.clone())))).collect()
}

fn objects(cluster: &Cluster) -> BTreeMap<(Kind, ObjectName), Object> {
    let services = cluster.services.values().cloned().map(Object::Service);
    let slices = cluster.slices.values().cloned().map(Object::EndpointSlice);
    let nodes = cluster.nodes.values().cloned().map(Object::Node);
    let cidrs = cluster.service_cidrs.values().cloned().map(Object::ServiceCidr);
    let all = services.chain(slices).chain(nodes).chain(cidrs);
    all.map(|object| ((object.kind(), object.meta().object_name()), object)).collect()
}

/// A cluster with its nodes and nothing else.
pub fn configuration() -> impl Strategy<Value = Cluster> {
    let detectors =
        select(vec![vec!["10.0.0.0/16", "fd00:10::/64"], vec!["10.0.0.0/16"], vec!["fd00:10::/64"], vec![]]);
    (detectors, any::<[bool; 3]>(), zone()).prop_map(
        |(cidrs, [masquerade_all, node_ports_everywhere, no_external_ips], zone)| {
            let mut cluster = Cluster {
                cluster_cidrs: cidrs.into_iter().map(|cidr| cidr.parse().unwrap()).collect(),
                masquerade_all,
                node_ports_everywhere,
                no_external_ips,
                ..Cluster::default()
            };
            for at in 0..3 {
                Step::PutNode(at, zone, Family::BOTH.to_vec()).change(&mut cluster);
            }
            cluster
        },
    )
}

/// Any step; endpoints and Services change most.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => single_step(),
        1 => Just(Step::Repeat),
        1 => prop::collection::vec(single_step(), 0..4).prop_map(Step::Gap),
    ]
}

fn single_step() -> impl Strategy<Value = Step> {
    let service = 0..probes::SERVICES.len();
    let flag = any::<bool>();
    prop_oneof![
        8 => service_object().prop_map(|object| Step::PutService(Box::new(object))),
        8 => slice_object().prop_map(|object| Step::PutSlice(Box::new(object))),
        4 => (0..SLICES, 0..4_usize).prop_map(|(at, endpoint)| Step::Age(at, endpoint)),
        1 => service.clone().prop_map(Step::RemoveService),
        2 => (service.clone(), flag).prop_map(|(at, on)| Step::InternalPolicy(at, on)),
        2 => (service.clone(), flag).prop_map(|(at, on)| Step::ExternalPolicy(at, on)),
        1 => (service.clone(), flag).prop_map(|(at, on)| Step::Affinity(at, on)),
        1 => (service.clone(), flag).prop_map(|(at, on)| Step::OtherProxy(at, on)),
        1 => (0..SLICES).prop_map(Step::RemoveSlice),
        1 => (0..SLICES, service).prop_map(|(at, owner)| Step::MoveSlice(at, owner)),
        1 => (0..SLICES, flag).prop_map(|(at, on)| Step::HeadlessSlice(at, on)),
        1 => node(),
        1 => (0..2_usize, cidrs()).prop_map(|(at, cidrs)| Step::PutCidr(at, cidrs)),
        1 => (0..2_usize).prop_map(Step::RemoveCidr),
    ]
}

fn zone() -> impl Strategy<Value = Option<&'static str>> {
    select(vec![None, Some("zone-a"), Some("zone-b")])
}

fn families() -> impl Strategy<Value = Vec<Family>> {
    use Family::{V4, V6};
    select(vec![vec![V4, V6], vec![V6, V4], vec![V4], vec![V6]])
}

fn node() -> impl Strategy<Value = Step> {
    (0..3_usize, zone(), families()).prop_map(|(at, zone, families)| Step::PutNode(at, zone, families))
}

fn cidrs() -> impl Strategy<Value = Vec<&'static str>> {
    select(vec![vec!["10.96.0.0/16", "fd00:96::/112"], vec!["10.96.0.0/24"], vec!["fd00:96::/108"]])
}

/// One in three.
fn sometimes() -> impl Strategy<Value = bool> {
    prop::bool::weighted(1.0 / 3.0)
}

fn service_object() -> impl Strategy<Value = ServiceObject> {
    let identity = (
        0..probes::SERVICES.len(),
        families(),
        select(vec![None, Some("2026-01-01T00:00:00Z"), Some("2026-01-02T00:00:00Z")]),
    );
    let type_ = select(vec!["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "None"]);
    let ports = (sometimes(), select(vec![0, 30080, 30081]), sometimes());
    let ranges = select(vec![
        vec![],
        vec![" 203.0.113.0/24 ", "2001:db8:c::/64"],
        vec!["203.0.113.0/24", "172.16.0.0/24", "fd00:ac::/64", "2001:db8:c::/64"],
        vec!["203.0.113.0/24", "0.0.0.0/0", "2001:db8:c::/64", "::/0"],
        vec!["10.0.0.2/31", "10.0.0.0/31", "fd00:10::4/126"],
    ]);
    let extra = (
        select(vec![None, Some(1_u8), Some(2), Some(100)]),
        select(vec![None, Some(1_u8), Some(2)]),
        sometimes(),
        ranges,
    );
    (identity, type_, ports, (any::<[bool; 2]>(), sometimes()), extra).prop_map(
        |((at, families, created), type_, (two_ports, node_port, udp), ([internal, external], affinity), extra)| {
            let mut object = ServiceObject::default();
            object.metadata = Meta { namespace: NAMESPACE.into(), name: service_name(at), ..Meta::default() };
            object.metadata.creation_timestamp = created.map(str::to_owned);
            let spec = &mut object.spec;
            let headless = type_ == "None";
            spec.type_ = Some(if headless { "ClusterIP" } else { type_ }.into());
            let ip = |family: &Family| probes::cluster_ip(*family, probes::SERVICES[at]).to_string();
            spec.cluster_ips = if headless { vec!["None".into()] } else { families.iter().map(ip).collect() };
            spec.cluster_ip = spec.cluster_ips.first().cloned();
            spec.ip_families = families.iter().map(|family| family.label().into()).collect();
            spec.ports = service_ports(two_ports, node_port, udp);
            spec.internal_traffic_policy = policy(internal);
            spec.external_traffic_policy = policy(external);
            spec.session_affinity = affinity.then(|| "ClientIP".into());
            spec.health_check_node_port = Some(32000);
            let (external_ip, vip, proxy, ranges) = extra;
            spec.load_balancer_source_ranges = ranges.into_iter().map(str::to_owned).collect();
            for family in Family::BOTH {
                spec.external_ips.extend(external_ip.map(|host| external_ip_of(family, host).to_string()));
                object.status.load_balancer.ingress.extend(vip.map(|host| LoadBalancerIngress {
                    ip: Some(probes::external(family, host).to_string()),
                    ip_mode: proxy.then(|| "Proxy".into()),
                }));
            }
            object
        },
    )
}

/// 100 is somebody's ClusterIP.
fn external_ip_of(family: Family, host: u8) -> std::net::IpAddr {
    if host == 100 { probes::cluster_ip(family, 1) } else { probes::external(family, host) }
}

fn service_ports(two: bool, node_port: i32, udp: bool) -> Vec<ServicePort> {
    let port = |name: &str, protocol: &str, port, node_port| ServicePort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port,
        node_port: Some(node_port),
    };
    let (http, dns) = (port("http", "TCP", 80, node_port), port("dns", "UDP", 53, node_port));
    match (two, udp) {
        (true, _) => vec![http, dns],
        (false, true) => vec![dns],
        (false, false) => vec![http],
    }
}

fn slice_object() -> impl Strategy<Value = SliceObject> {
    let family = select(Family::BOTH.to_vec());
    let target = select(vec![8080, 8081]);
    let endpoints = prop::collection::vec(endpoint(), 0..4);
    (0..SLICES, 0..probes::SERVICES.len(), family, target, endpoints).prop_map(
        |(at, owner, family, target, endpoints)| {
            let mut object = SliceObject { address_type: family.label().into(), ..SliceObject::default() };
            object.metadata = Meta { namespace: NAMESPACE.into(), name: slice_name(at), ..Meta::default() };
            object.metadata.labels.insert(OWNER.into(), service_name(owner));
            let port = |name: &str, protocol: &str, port| SlicePort {
                name: Some(name.into()),
                port: Some(port),
                protocol: Some(protocol.into()),
            };
            object.ports = vec![port("http", "TCP", target), port("dns", "UDP", 5353)];
            object.endpoints = endpoints
                .into_iter()
                .map(|(host, endpoint)| SliceEndpoint {
                    addresses: vec![probes::pod(family, host).to_string()],
                    ..endpoint
                })
                .collect();
            object
        },
    )
}

fn endpoint() -> impl Strategy<Value = (u8, SliceEndpoint)> {
    let flag = |likely: bool| select(vec![None, Some(likely), Some(likely), Some(!likely)]);
    let conditions = (flag(true), flag(true), flag(false));
    let hints = select(vec![
        (None, None),
        (Some("zone-a"), None),
        (Some("zone-b"), None),
        (Some("zone-a"), Some("node-a")),
        (Some("zone-b"), Some("node-b")),
    ]);
    (select(probes::PODS.to_vec()), conditions, 0..4_usize, hints).prop_map(
        |(host, (ready, serving, terminating), node, (zone, near))| {
            let named = |name: Option<&str>| name.map(|name| Named { name: name.into() }).into_iter().collect();
            let hints = EndpointHints { for_zones: named(zone), for_nodes: named(near) };
            let endpoint = SliceEndpoint {
                conditions: EndpointConditions { ready, serving, terminating },
                node_name: (node < 3).then(|| node_name(node)),
                hints: (hints != EndpointHints::default()).then_some(hints),
                ..SliceEndpoint::default()
            };
            (host, endpoint)
        },
    )
}
