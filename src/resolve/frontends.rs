use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fairlead_plan::{Affinity, Family, Frontend, Protocol, ServiceKey};

use super::note::{Note, Notes, ObjectRef};
use super::sources::{self, Sources};
use super::{PortModel, ServiceModel, Settings, address};
use crate::object::{Kind, ServiceObject, ServicePort, ServiceSpec};

/// Its presence, with any value, means that another proxy serves the Service.
const LABEL_OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
const LABEL_APP: &str = "k8s-app";
/// The scheduler of IPVS that chooses the endpoints of the Service, in place of that of `--ipvs-scheduler`.
pub const ANNOTATION_SCHEDULER: &str = "fairlead.io/ipvs-scheduler";
const HEADLESS: &str = "None";
/// What the API server fills in for `sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;
/// The longest affinity that the API allows: a day.
const MAX_AFFINITY_SECONDS: u32 = 86_400;

/// Reads a Service. `None` if this proxy has nothing to do with it: headless, `ExternalName`, another proxy's, or
/// without any address.
#[must_use]
pub fn parse_service(object: &ServiceObject, settings: &Settings) -> (Option<ServiceModel>, Vec<Note>) {
    let mut notes = Notes::about(ObjectRef::new(Kind::Service, &object.metadata));
    let model = is_ours(object).then(|| read(object, settings, &mut notes)).flatten();
    (model, notes.into_list())
}

fn is_ours(object: &ServiceObject) -> bool {
    !object.metadata.labels.contains_key(LABEL_OTHER_PROXY)
        && object.spec.type_.as_deref() != Some("ExternalName")
        && object.spec.cluster_ip.as_deref() != Some(HEADLESS)
}

fn read(object: &ServiceObject, settings: &Settings, notes: &mut Notes) -> Option<ServiceModel> {
    let (spec, meta) = (&object.spec, &object.metadata);
    let cluster_ips = cluster_ips(spec, notes);
    if cluster_ips.is_empty() {
        let message = "spec.clusterIP is empty; set an address, or the word None for a headless Service";
        notes.add(Note::NO_CLUSTER_IP, message.to_owned());
        return None;
    }
    let cluster_ips: Vec<_> =
        cluster_ips.into_iter().filter(|ip| settings.families.contains(&Family::of(*ip))).collect();
    let mut vips = vips(object, notes);
    let ranges = match sources::parse(&spec.load_balancer_source_ranges, settings, notes) {
        Sources::Ranges(ranges) => ranges,
        Sources::Closed => {
            vips.clear();
            Box::default()
        }
    };
    vips.retain(|vip| settings.families.contains(&Family::of(*vip)));
    sources::warn_of_open_family(&spec.load_balancer_source_ranges, &vips, notes);
    let external_ips = if settings.allow_external_ips { external_ips(spec, notes) } else { Vec::new() };
    let external_local = external_local(spec);
    let addresses = Addresses { cluster_ips: &cluster_ips, vips: &vips, external_ips: &external_ips };
    let app = meta.labels.get(LABEL_APP).map(String::as_str);
    Some(ServiceModel {
        uid: meta.uid.as_deref().map(Into::into),
        created: meta.creation_timestamp.as_deref().map(Into::into),
        ports: ports(object, &addresses, notes),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local,
        affinity: affinity(spec, notes),
        scheduler: scheduler(object, notes),
        priority: super::priority(&meta.namespace, &meta.name, app),
        health_check_port: health_check_port(spec, external_local, notes),
        ranges,
        vips: vips.into(),
    })
}

/// Which schedulers the kernel has is seen when one is used.
fn scheduler(object: &ServiceObject, notes: &mut Notes) -> Option<Box<str>> {
    let name = object.metadata.annotations.get(ANNOTATION_SCHEDULER)?.trim();
    if name.parse::<fairlead_ipvs::Scheduler>().is_ok() {
        return Some(name.into());
    }
    let message = format!("{ANNOTATION_SCHEDULER}: {name:?} is no name of a scheduler; write one like rr, lc or mh");
    notes.add(Note::INVALID_SCHEDULER, message);
    None
}

/// `externalTrafficPolicy` has a meaning only where the API lets outside traffic in.
fn external_local(spec: &ServiceSpec) -> bool {
    let reachable = match spec.type_.as_deref() {
        Some("LoadBalancer" | "NodePort") => true,
        _ => !spec.external_ips.is_empty(),
    };
    reachable && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// At most one for each family.
fn cluster_ips(spec: &ServiceSpec, notes: &mut Notes) -> Vec<IpAddr> {
    let single = || spec.cluster_ip.iter().map(|text| (None, text)).collect();
    let texts: Vec<(Option<&String>, &String)> = if spec.ip_families.is_empty() || spec.cluster_ips.is_empty() {
        single()
    } else {
        spec.ip_families.iter().map(Some).zip(&spec.cluster_ips).collect()
    };
    let mut found: Vec<IpAddr> = Vec::new();
    for (family, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        match address::usable_ip(text) {
            Some(ip) if family.is_some_and(|family| family != Family::of(ip).label()) => notes.add(
                Note::INVALID_ADDRESS,
                format!("spec.clusterIPs: {text:?} is not of the family that spec.ipFamilies says; it is left out"),
            ),
            Some(ip) if found.iter().any(|other| Family::of(*other) == Family::of(ip)) => {}
            Some(ip) => found.push(ip),
            None => notes.add(
                Note::INVALID_ADDRESS,
                format!("spec.clusterIPs: {text:?} is not an address that a Service can have; it is left out"),
            ),
        }
    }
    found
}

fn external_ips(spec: &ServiceSpec, notes: &mut Notes) -> Vec<IpAddr> {
    let mut read = |text: &String| {
        let ip = address::usable_ip(text);
        if ip.is_none() {
            let message =
                format!("spec.externalIPs: {text:?} is not an address that a Service can have; it is left out");
            notes.add(Note::INVALID_ADDRESS, message);
        }
        ip
    };
    spec.external_ips.iter().filter(|text| !text.is_empty()).filter_map(&mut read).collect()
}

/// The load-balancer addresses that lead packets here unchanged. With `ipMode: Proxy` the balancer connects to a node
/// port itself.
fn vips(object: &ServiceObject, notes: &mut Notes) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for ingress in &object.status.load_balancer.ingress {
        let is_vip = matches!(ingress.ip_mode.as_deref(), None | Some("VIP"));
        let Some(text) = ingress.ip.as_deref().filter(|text| is_vip && !text.is_empty()) else { continue };
        match address::usable_ip(text) {
            Some(ip) => found.push(ip),
            None => notes.add(
                Note::INVALID_ADDRESS,
                format!("status.loadBalancer.ingress: {text:?} is not an address; it is left out"),
            ),
        }
    }
    found
}

struct Addresses<'a> {
    cluster_ips: &'a [IpAddr],
    vips: &'a [IpAddr],
    external_ips: &'a [IpAddr],
}

fn ports(object: &ServiceObject, addresses: &Addresses<'_>, notes: &mut Notes) -> Box<[PortModel]> {
    let mut all: Vec<PortModel> = Vec::new();
    for port in &object.spec.ports {
        let name = port.name.as_deref().unwrap_or_default();
        let Some((protocol, number)) = port_number(port, name, notes) else { continue };
        for ip in addresses.cluster_ips {
            let family = Family::of(*ip);
            let (namespace, service) = (object.metadata.namespace.as_str(), object.metadata.name.as_str());
            let key = ServiceKey {
                namespace: namespace.into(),
                name: service.into(),
                port_name: name.into(),
                protocol,
                family,
            };
            if all.iter().any(|other| *other.key == key) {
                let message = format!("spec.ports: {name:?} occurs twice for {protocol}; the second one is left out");
                notes.add(Note::INVALID_PORT, message);
                continue;
            }
            let node_port = node_port(port, name, notes);
            let frontends = frontends(addresses, family, number, node_port);
            all.push(PortModel { key: Arc::new(key), frontends });
        }
    }
    all.into()
}

fn port_number(port: &ServicePort, name: &str, notes: &mut Notes) -> Option<(Protocol, u16)> {
    let protocol = address::protocol(port.protocol.as_deref());
    let number = address::port(port.port);
    if protocol.is_none() {
        let text = port.protocol.as_deref().unwrap_or_default();
        let message = format!("spec.ports {name:?}: protocol {text:?} is not TCP, UDP or SCTP; the port is left out");
        notes.add(Note::INVALID_PORT, message);
    }
    if number.is_none() {
        let message = format!("spec.ports {name:?}: port {} is not within 1 to 65535; it is left out", port.port);
        notes.add(Note::INVALID_PORT, message);
    }
    protocol.zip(number)
}

fn node_port(port: &ServicePort, name: &str, notes: &mut Notes) -> Option<u16> {
    let number = port.node_port.filter(|number| *number != 0)?;
    let valid = address::port(number);
    if valid.is_none() {
        let message = format!("spec.ports {name:?}: nodePort {number} is not within 1 to 65535; it is left out");
        notes.add(Note::INVALID_PORT, message);
    }
    valid
}

/// An address that is there more than once keeps its strictest meaning: the ClusterIP, whose owner the API server
/// guarantees; then the load balancer, which may be limited to some sources; then the external IP.
fn frontends(addresses: &Addresses<'_>, family: Family, port: u16, node_port: Option<u16>) -> Box<[Frontend]> {
    let of_family = |ips: &[IpAddr]| -> Vec<SocketAddr> {
        ips.iter().filter(|ip| Family::of(**ip) == family).map(|ip| SocketAddr::new(*ip, port)).collect()
    };
    let cluster_ips = of_family(addresses.cluster_ips).into_iter().map(Frontend::ClusterIp);
    let vips = of_family(addresses.vips).into_iter();
    let vips = vips.map(|addr| Frontend::LoadBalancer { addr, allow: Vec::new() });
    let external_ips = of_family(addresses.external_ips).into_iter().map(Frontend::ExternalIp);
    let mut all: Vec<Frontend> = Vec::new();
    for frontend in cluster_ips.chain(vips).chain(external_ips).chain(node_port.map(Frontend::NodePort)) {
        if all.iter().all(|other| other.addr() != frontend.addr()) {
            all.push(frontend);
        }
    }
    all.sort_unstable();
    all.into()
}

fn affinity(spec: &ServiceSpec, notes: &mut Notes) -> Option<Affinity> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(given) = config.and_then(|config| config.timeout_seconds) else {
        return Some(Affinity { timeout_seconds: DEFAULT_AFFINITY_SECONDS });
    };
    let valid = u32::try_from(given).ok().filter(|seconds| (1..=MAX_AFFINITY_SECONDS).contains(seconds));
    if valid.is_none() {
        notes.add(
            Note::INVALID_AFFINITY,
            format!(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: {given} is not within 1 to \
                 {MAX_AFFINITY_SECONDS}; {DEFAULT_AFFINITY_SECONDS} is used"
            ),
        );
    }
    Some(Affinity { timeout_seconds: valid.unwrap_or(DEFAULT_AFFINITY_SECONDS) })
}

fn health_check_port(spec: &ServiceSpec, external_local: bool, notes: &mut Notes) -> Option<u16> {
    if !external_local || spec.type_.as_deref() != Some("LoadBalancer") {
        return None;
    }
    let port = spec.health_check_node_port.and_then(address::port);
    if port.is_none() {
        let message =
            "spec.healthCheckNodePort is not set, so no load balancer can ask whether this node has endpoints";
        notes.add(Note::NO_HEALTH_CHECK_PORT, message.to_owned());
    }
    port
}
