//! What can happen to a cluster, and which events a watch delivers about it.

use std::collections::BTreeMap;

use fairlead::object::{
    EndpointConditions, Event, Kind, Meta, NodeAddress, NodeObject, Object, ObjectName, ServiceCidrObject,
    ServiceObject, SliceObject,
};
use fairlead_plan::Family;

use super::probes;
use crate::oracle::Cluster;

pub const NAMESPACE: &str = "default";
const ZONE: &str = "topology.kubernetes.io/zone";
const FOREIGN: &str = "service.kubernetes.io/service-proxy-name";
pub const OWNER: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";

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

    /// Does it to the cluster unseen.
    pub fn change(&self, cluster: &mut Cluster) {
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

pub fn policy(local: bool) -> Option<String> {
    Some(if local { "Local" } else { "Cluster" }.into())
}

pub fn service_name(at: usize) -> String {
    format!("service-{at}")
}

pub fn slice_name(at: usize) -> String {
    format!("slice-{at}")
}

pub fn node_name(at: usize) -> String {
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
