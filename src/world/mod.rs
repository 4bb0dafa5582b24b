//! What the API says, in a compact form, and what of it must be planned again.
//!
//! Events go in ([`World::apply`]), plans come out ([`World::plan`]). A plan after one change costs what the Services
//! concerned cost, whatever the number of others. Only a change of this node's own facts (address, zone, pod detector)
//! concerns all Services.
//!
//! # Addresses that several Services claim
//!
//! One destination (protocol, address and port, or node port) has one owner. The ClusterIP that the API server has
//! allocated to a Service beats everything that people can write into a Service (external IPs, load-balancer addresses,
//! node ports), whatever the age: else whoever may edit one Service could take over the traffic of another
//! (CVE-2020-8554). Among equals the Service with the older `creationTimestamp` wins, then the one whose namespace and
//! name come first. The loser keeps its other frontends, gets a note, and gets the address when the winner gives it up.

mod claims;
mod complaints;
mod lists;
mod planned;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_plan::Plan;
use ipnet::IpNet;

use crate::object::{Event, Kind, NodeObject, Object, ObjectName, ServiceCidrObject, ServiceObject, SliceObject};
use crate::resolve::{self, Names, NodeFacts, NodeModel, Note, Settings, Surroundings, Tally};

use claims::Claims;
use complaints::{Complaints, Step};
use lists::Lists;
pub use planned::{Applied, HealthCheck, Planned};
use store::{Entry, SliceChange, Store};

/// Everything that is known about the cluster.
#[derive(Debug)]
pub struct World {
    settings: Settings,
    started: SystemTime,
    lists: Lists,
    store: Store,
    names: Names,
    claims: Claims,
    complaints: Complaints,
    node: OwnNode,
    service_cidrs: BTreeMap<ObjectName, (u32, Vec<IpNet>)>,
    facts: NodeFacts,
    plan_node: Arc<fairlead_plan::Node>,
    dirty: BTreeSet<Arc<ObjectName>>,
    triggers: BTreeMap<ObjectName, Vec<SystemTime>>,
    counts: Tally,
    health_checks: Arc<BTreeMap<ObjectName, HealthCheck>>,
}

/// This node's Node object. When it is deleted its facts stay: services go on as long as the node does.
#[derive(Debug, Default)]
struct OwnNode {
    model: Option<NodeModel>,
    present: bool,
    round: u32,
}

impl World {
    /// An empty world. Changes triggered from now on count for the latency of the control plane.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::started_at(settings, SystemTime::now())
    }

    /// An empty world in a process that started then.
    #[must_use]
    pub fn started_at(settings: Settings, started: SystemTime) -> Self {
        let (facts, plan_node) = resolve::facts(&settings, None, &BTreeSet::new());
        Self {
            settings,
            started,
            lists: Lists::default(),
            store: Store::default(),
            names: Names::default(),
            claims: Claims::default(),
            complaints: Complaints::default(),
            node: OwnNode::default(),
            service_cidrs: BTreeMap::new(),
            facts,
            plan_node: Arc::new(plan_node),
            dirty: BTreeSet::new(),
            triggers: BTreeMap::new(),
            counts: Tally::default(),
            health_checks: Arc::default(),
        }
    }

    /// Takes in one event. The same event twice changes nothing.
    pub fn apply(&mut self, event: Event) -> Applied {
        let changed = match event {
            Event::ListBegin(kind) => {
                self.lists.begin(kind);
                false
            }
            Event::ListEnd(kind) => self.lists.end(kind) && self.sweep(kind),
            Event::Apply(object) => match *object {
                Object::Service(object) => self.apply_service(&object),
                Object::EndpointSlice(object) => self.apply_slice(&object),
                Object::Node(object) => self.apply_node(&object),
                Object::ServiceCidr(object) => self.apply_service_cidr(&object),
            },
            Event::Delete(kind, name) => self.delete(kind, &name),
        };
        Applied { changed }
    }

    /// Whether the first list of every kind that the settings ask for is complete. Before that a plan would lack
    /// services that the kernel may still hold rightly.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.settings.kinds.iter().all(|kind| self.lists.complete(*kind))
    }

    /// Whether cloud load balancers may send traffic to this node: its Node exists, is not being deleted, and the
    /// cluster autoscaler is not about to remove it.
    #[must_use]
    pub fn node_eligible(&self) -> bool {
        self.node.present && self.node.model.as_ref().is_some_and(|node| node.eligible)
    }

    /// What is known about this node.
    #[must_use]
    pub const fn node(&self) -> &NodeFacts {
        &self.facts
    }

    /// What is wrong with objects and has not been said yet. An object of which nothing can be used changes no plan, so
    /// this must be asked for after events as well.
    #[must_use]
    pub fn notes(&mut self) -> Vec<Note> {
        self.complaints.take()
    }

    /// Plans everything that has changed since the last call.
    ///
    /// `previous` is the plan that the last call returned, or the empty plan at the first call; its parts that have not
    /// changed are shared.
    #[must_use]
    pub fn plan(&mut self, previous: &Plan) -> Planned {
        let mut plan = previous.clone();
        if plan.node != self.plan_node {
            plan.node = Arc::clone(&self.plan_node);
        }
        for name in std::mem::take(&mut self.dirty) {
            self.plan_service(&name, previous, &mut plan);
        }
        if let Some(node) = &self.node.model {
            let notes = resolve::missing_addresses(&self.settings, node, &self.facts, self.counts.node_ports);
            self.complaints.set(Kind::Node, &node.object.object_name(), Step::Plan, 0, notes);
        }
        Planned {
            plan,
            notes: self.complaints.take(),
            health_checks: Arc::clone(&self.health_checks),
            counts: self.counts,
            triggers: std::mem::take(&mut self.triggers).into_values().flatten().collect(),
        }
    }

    fn plan_service(&mut self, name: &Arc<ObjectName>, previous: &Plan, plan: &mut Plan) {
        let Some(entry) = self.store.services.get_mut(name) else { return };
        let around = Surroundings { settings: &self.settings, node: &self.facts, previous: &previous.services };
        let (resolved, notes) = resolve_entry(entry, &self.claims, around);
        let round = self.lists.round(Kind::Service);
        self.complaints.set(Kind::Service, name, Step::Plan, round, notes);
        self.counts -= entry.tally;
        self.counts += resolved.tally;
        entry.tally = resolved.tally;
        let health = entry.service.as_ref().and_then(|model| model.health_check_port);
        let health = health.map(|port| HealthCheck { port, local_ready: resolved.local_ready });
        if self.health_checks.get(&**name) != health.as_ref() {
            let checks = Arc::make_mut(&mut self.health_checks);
            match health {
                Some(health) => checks.insert((**name).clone(), health),
                None => checks.remove(&**name),
            };
        }
        let keys: Box<[_]> = resolved.services.iter().map(|service| Arc::clone(&service.key)).collect();
        for key in entry.keys.iter().filter(|key| !keys.contains(key)) {
            plan.services.remove(key);
        }
        for service in resolved.services {
            if previous.services.get(&service.key).is_some_and(|old| **old == service) {
                continue;
            }
            plan.services.insert(Arc::new(service));
        }
        entry.keys = keys;
        self.store.release(name);
    }

    fn apply_service(&mut self, object: &ServiceObject) -> bool {
        let name = object.metadata.object_name();
        let round = self.lists.round(Kind::Service);
        let (model, notes) = resolve::parse_service(object, &self.settings);
        self.complaints.set(Kind::Service, &name, Step::Parse, round, notes);
        self.set_service(&name, model, round)
    }

    fn set_service(&mut self, name: &ObjectName, model: Option<resolve::ServiceModel>, round: u32) -> bool {
        let Some((name, was)) = self.store.set_service(name, model, round) else { return false };
        let now = self.store.services.get(&name).and_then(|entry| entry.service.as_ref());
        for other in self.claims.replace(was.as_ref(), now) {
            if let Some((other, _)) = self.store.services.get_key_value(&other) {
                self.dirty.insert(Arc::clone(other));
            }
        }
        self.dirty.insert(name);
        true
    }

    fn apply_slice(&mut self, object: &SliceObject) -> bool {
        let name = object.metadata.object_name();
        let round = self.lists.round(Kind::EndpointSlice);
        let (model, notes) = resolve::parse_slice(object, &self.settings, &mut self.names);
        self.complaints.set(Kind::EndpointSlice, &name, Step::Parse, round, notes);
        let owner = resolve::owner(object)
            .map(|owner| ObjectName { namespace: name.namespace.clone(), name: owner.into() })
            .filter(|_| model.is_some());
        let change = self.store.set_slice(&name, owner.zip(model), round);
        if let Some((service, trigger)) = &change.triggered
            && *trigger > self.started
        {
            self.triggers.entry((**service).clone()).or_default().push(*trigger);
        }
        self.take_slice_change(change)
    }

    fn take_slice_change(&mut self, change: SliceChange) -> bool {
        if let Some(service) = &change.shrunk {
            self.triggers.remove(&**service);
        }
        let changed = !change.dirty.is_empty();
        self.dirty.extend(change.dirty);
        changed
    }

    fn apply_node(&mut self, object: &NodeObject) -> bool {
        if object.metadata.name != self.settings.node_name {
            return false;
        }
        let round = self.lists.round(Kind::Node);
        let (model, notes) = NodeModel::parse(object);
        self.complaints.set(Kind::Node, &object.metadata.object_name(), Step::Parse, round, notes);
        self.node = OwnNode { model: Some(model), present: true, round };
        self.node_changed()
    }

    fn apply_service_cidr(&mut self, object: &ServiceCidrObject) -> bool {
        let name = object.metadata.object_name();
        let round = self.lists.round(Kind::ServiceCidr);
        let (nets, notes) = resolve::parse_service_cidr(object);
        self.complaints.set(Kind::ServiceCidr, &name, Step::Parse, round, notes);
        self.service_cidrs.insert(name, (round, nets));
        self.node_changed()
    }

    /// Works out the node's facts again. If services depend on what has changed, all of them are planned again.
    fn node_changed(&mut self) -> bool {
        let cidrs = self.service_cidrs.values().flat_map(|(_, nets)| nets.iter().copied()).collect();
        let (facts, plan_node) = resolve::facts(&self.settings, self.node.model.as_ref(), &cidrs);
        let mut changed = false;
        if *self.plan_node != plan_node {
            self.plan_node = Arc::new(plan_node);
            changed = true;
        }
        if self.facts != facts {
            self.facts = facts;
            self.dirty.extend(self.store.services.keys().cloned());
            changed = true;
        }
        changed
    }

    fn delete(&mut self, kind: Kind, name: &ObjectName) -> bool {
        match kind {
            Kind::Service => {
                self.complaints.forget(kind, name);
                self.set_service(name, None, 0)
            }
            Kind::EndpointSlice => {
                self.complaints.forget(kind, name);
                let change = self.store.set_slice(name, None, 0);
                self.take_slice_change(change)
            }
            Kind::Node => {
                if *name.name == *self.settings.node_name {
                    self.node.present = false;
                }
                false
            }
            Kind::ServiceCidr => {
                self.complaints.forget(kind, name);
                self.service_cidrs.remove(name).is_some() && self.node_changed()
            }
        }
    }

    /// Removes what the list that has just ended did not name.
    fn sweep(&mut self, kind: Kind) -> bool {
        let round = self.lists.round(kind);
        self.complaints.sweep(kind, round);
        let gone = match kind {
            Kind::Service => self.store.services_not_in(round),
            Kind::EndpointSlice => self.store.slices_not_in(round),
            Kind::Node => {
                self.node.present &= self.node.round == round;
                Vec::new()
            }
            Kind::ServiceCidr => {
                let stale = self.service_cidrs.iter().filter(|(_, (seen, _))| *seen != round);
                stale.map(|(name, _)| name.clone()).collect()
            }
        };
        let mut changed = false;
        for name in &gone {
            changed |= self.delete(kind, name);
        }
        changed
    }
}

fn resolve_entry(entry: &Entry, claims: &Claims, around: Surroundings<'_>) -> (resolve::Resolved, Vec<Note>) {
    let Some(model) = &entry.service else { return Default::default() };
    let lost = claims.lost(model);
    let notes = lost.iter().map(|lost| lost.note(model.uid.as_deref())).collect();
    let slices = entry.slices.iter().map(|(_, slice)| slice);
    let resolved = resolve::service(model, slices, around, |port, frontend| {
        !lost.iter().any(|lost| lost.port.key == port.key && lost.frontend == frontend)
    });
    (resolved, notes)
}
