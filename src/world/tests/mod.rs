//! What events do to plans, notes, counts and ownership of addresses.

mod claims;
mod lists;
mod outcome;

use std::net::IpAddr;

use fairlead_plan::{Action, Family, Frontend, Plan, Service, ServiceKey};

use crate::object::{
    Event, Kind, Meta, Named, NodeAddress, NodeObject, Object, ObjectName, ServiceCidrObject, ServiceObject,
    ServicePort, SliceEndpoint, SliceObject, SlicePort,
};
use crate::resolve::{DetectMode, Settings};
use crate::world::{Applied, Planned, World};

/// A world with the plan that came last.
struct Scene {
    family: Family,
    world: World,
    plan: Plan,
}

fn both(test: impl Fn(Scene)) {
    for family in Family::BOTH {
        let settings = Settings {
            node_name: "node-a".into(),
            detect: DetectMode::ClusterCidr(vec!["10.0.0.0/16".parse().unwrap(), "fd00::/32".parse().unwrap()]),
            ..Settings::default()
        };
        test(Scene { family, world: World::new(settings), plan: Plan::default() });
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "shop".into(), name: name.into() }
}

impl Scene {
    fn apply(&mut self, object: impl Into<Object>) -> Applied {
        self.world.apply(Event::Apply(Box::new(object.into())))
    }

    fn delete(&mut self, kind: Kind, object: &str) -> Applied {
        self.world.apply(Event::Delete(kind, name(object)))
    }

    fn list(&mut self, kind: Kind, objects: Vec<Object>) {
        self.world.apply(Event::ListBegin(kind));
        for object in objects {
            self.apply(object);
        }
        self.world.apply(Event::ListEnd(kind));
    }

    fn plan(&mut self) -> Planned {
        let planned = self.world.plan(&self.plan);
        self.plan = planned.plan.clone();
        planned
    }

    fn key(&self, service: &str) -> ServiceKey {
        let protocol = fairlead_plan::Protocol::Tcp;
        ServiceKey {
            namespace: "shop".into(),
            name: service.into(),
            port_name: "".into(),
            protocol,
            family: self.family,
        }
    }

    /// A service of the newest plan.
    fn service(&mut self, service: &str) -> Option<Service> {
        self.plan();
        self.plan.services.get(&self.key(service)).map(|service| (**service).clone())
    }

    fn frontends(&mut self, service: &str) -> Vec<Frontend> {
        self.service(service).map(|service| service.frontends).unwrap_or_default()
    }

    fn endpoints(&mut self, service: &str) -> usize {
        self.service(service).map_or(0, |service| service.endpoints().count())
    }

    fn refuses(&mut self, service: &str) -> bool {
        self.service(service).is_some_and(|service| service.internal.from_pod == Action::Reject)
    }

    fn ip(&self, net: u8, host: u8) -> IpAddr {
        match self.family {
            Family::V4 => format!("10.{net}.0.{host}"),
            Family::V6 => format!("fd00:{net}::{host}"),
        }
        .parse()
        .unwrap()
    }

    fn web(&self, service: &str, host: u8) -> ServiceObject {
        let metadata = Meta { namespace: "shop".into(), name: service.into(), ..Meta::default() };
        let mut object = ServiceObject { metadata, ..ServiceObject::default() };
        object.metadata.creation_timestamp = Some(format!("2026-01-{host:02}T00:00:00Z"));
        object.spec.cluster_ip = Some(self.ip(96, host).to_string());
        object.spec.ports = vec![ServicePort { port: 80, ..ServicePort::default() }];
        object
    }

    fn slice(&self, slice: &str, service: &str, hosts: &[u8]) -> SliceObject {
        let mut object = SliceObject { address_type: self.family.label().into(), ..SliceObject::default() };
        object.metadata = Meta { namespace: "shop".into(), name: slice.into(), ..Meta::default() };
        object.metadata.labels.insert("kubernetes.io/service-name".into(), service.into());
        object.ports = vec![SlicePort { name: Some(String::new()), port: Some(8080), protocol: None }];
        let endpoint = |host: &u8| SliceEndpoint {
            addresses: vec![self.ip(0, *host).to_string()],
            node_name: Some("node-a".into()),
            ..SliceEndpoint::default()
        };
        object.endpoints = hosts.iter().map(endpoint).collect();
        object
    }

    fn node(&self) -> NodeObject {
        let mut node = NodeObject::default();
        node.metadata.name = "node-a".into();
        node.status.addresses = vec![NodeAddress { type_: "InternalIP".into(), address: self.ip(100, 1).to_string() }];
        node
    }

    fn cidr(&self, object: &str, cidrs: &[&str]) -> ServiceCidrObject {
        let mut cidr = ServiceCidrObject::default();
        cidr.metadata.name = object.into();
        cidr.spec.cidrs = cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
        cidr
    }
}

/// The reasons of all notes of a plan.
fn reasons(planned: &Planned) -> Vec<&'static str> {
    planned.notes.iter().map(|note| note.reason).collect()
}

fn hint(zone: &str) -> crate::object::EndpointHints {
    crate::object::EndpointHints { for_zones: vec![Named { name: zone.into() }], for_nodes: Vec::new() }
}

impl From<ServiceObject> for Object {
    fn from(object: ServiceObject) -> Self {
        Self::Service(object)
    }
}

impl From<SliceObject> for Object {
    fn from(object: SliceObject) -> Self {
        Self::EndpointSlice(object)
    }
}

impl From<NodeObject> for Object {
    fn from(object: NodeObject) -> Self {
        Self::Node(object)
    }
}

impl From<ServiceCidrObject> for Object {
    fn from(object: ServiceCidrObject) -> Self {
        Self::ServiceCidr(object)
    }
}
