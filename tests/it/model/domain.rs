//! Random objects and steps, from a domain so small that collisions are common.

use fairlead::object::{
    EndpointConditions, EndpointHints, LoadBalancerIngress, Meta, Named, ServiceObject, ServicePort, SliceEndpoint,
    SliceObject, SlicePort,
};
use fairlead_plan::Family;
use proptest::prelude::*;
use proptest::sample::select;

use super::probes;
use super::steps::{NAMESPACE, OWNER, Step, node_name, policy, service_name, slice_name};
use crate::oracle::Cluster;

/// Enough that two slices of one Service are common.
const SLICES: usize = 5;

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

fn meta(name: String) -> Meta {
    Meta { namespace: NAMESPACE.into(), name, ..Meta::default() }
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
            let mut object = ServiceObject { metadata: meta(service_name(at)), ..ServiceObject::default() };
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
            object.metadata = meta(slice_name(at));
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
