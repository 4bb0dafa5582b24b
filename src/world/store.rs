use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_plan::ServiceKey;

use crate::object::ObjectName;
use crate::resolve::{ServiceModel, SliceModel, Tally};

/// The models of all Services and EndpointSlices, slices filed under their Service.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Not sorted: to find a name among ten thousand sorted ones is forty cache misses. Boxed, because many places are empty.
    pub(super) services: HashMap<Arc<ObjectName>, Box<Entry>>,
    slices: HashMap<Arc<ObjectName>, Filed>,
}

/// What is known under the name of one Service, whether or not the Service itself is there yet.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) service: Option<ServiceModel>,
    round: u32,
    /// Sorted by name: which of two equal endpoints counts must not depend on the order of events.
    pub(super) slices: Vec<(Arc<ObjectName>, SliceModel)>,
    /// What the last plan has of it.
    pub(super) keys: Box<[Arc<ServiceKey>]>,
    /// What the counts have of it.
    pub(super) tally: Tally,
}

/// Where a slice is.
#[derive(Debug)]
struct Filed {
    service: Arc<ObjectName>,
    round: u32,
}

/// What became of a slice.
#[derive(Debug, Default)]
pub(super) struct SliceChange {
    /// The Services whose endpoints have changed.
    pub(super) dirty: Vec<Arc<ObjectName>>,
    /// The Service that has lost the slice.
    pub(super) shrunk: Option<Arc<ObjectName>>,
    /// When the change was triggered, if the slice says so anew.
    pub(super) triggered: Option<(Arc<ObjectName>, SystemTime)>,
}

impl Store {
    fn name_of_entry(&mut self, name: &ObjectName) -> Arc<ObjectName> {
        if let Some((known, _)) = self.services.get_key_value(name) {
            return Arc::clone(known);
        }
        let name = Arc::new(name.clone());
        self.services.insert(Arc::clone(&name), Box::default());
        name
    }

    /// Replaces a Service. `None` if nothing has changed, else its name and what it was.
    pub(super) fn set_service(
        &mut self,
        name: &ObjectName,
        model: Option<ServiceModel>,
        round: u32,
    ) -> Option<(Arc<ObjectName>, Option<ServiceModel>)> {
        if model.is_none() && self.services.get(name).is_none_or(|entry| entry.service.is_none()) {
            return None;
        }
        let name = self.name_of_entry(name);
        let entry = self.services.get_mut(&name)?;
        entry.round = round;
        if entry.service == model {
            return None;
        }
        let was = std::mem::replace(&mut entry.service, model);
        Some((name, was))
    }

    /// Replaces a slice, moves it to another Service, or removes it.
    pub(super) fn set_slice(
        &mut self,
        name: &ObjectName,
        now: Option<(ObjectName, SliceModel)>,
        round: u32,
    ) -> SliceChange {
        let mut change = SliceChange::default();
        let owner_now = now.as_ref().map(|(owner, _)| owner);
        let moved = self.slices.get(name).filter(|filed| Some(&*filed.service) != owner_now);
        if let Some(old_owner) = moved.map(|filed| Arc::clone(&filed.service)) {
            self.slices.remove(name);
            if let Some(entry) = self.services.get_mut(&old_owner) {
                entry.slices.retain(|(slice, _)| **slice != *name);
            }
            change.shrunk = Some(Arc::clone(&old_owner));
            change.dirty.push(old_owner);
        }
        let Some((owner, model)) = now else { return change };
        let service = self.name_of_entry(&owner);
        let name = match self.slices.get_key_value(name) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(name.clone()),
        };
        self.slices.insert(Arc::clone(&name), Filed { service: Arc::clone(&service), round });
        if let Some(entry) = self.services.get_mut(&service) {
            let (changed, triggered) = entry.put_slice(name, model);
            change.triggered = triggered.filter(|_| changed).map(|trigger| (Arc::clone(&service), trigger));
            change.dirty.extend(changed.then_some(service));
        }
        change
    }

    /// Forgets a name under which nothing is left.
    pub(super) fn release(&mut self, name: &ObjectName) {
        let empty = |entry: &Entry| entry.service.is_none() && entry.slices.is_empty() && entry.keys.is_empty();
        if self.services.get(name).is_some_and(|entry| empty(entry)) {
            self.services.remove(name);
        }
    }

    /// The Services that were not named in this round.
    pub(super) fn services_not_in(&self, round: u32) -> Vec<ObjectName> {
        let stale = self.services.iter().filter(|(_, entry)| entry.service.is_some() && entry.round != round);
        stale.map(|(name, _)| (**name).clone()).collect()
    }

    /// The slices that were not named in this round.
    pub(super) fn slices_not_in(&self, round: u32) -> Vec<ObjectName> {
        let stale = self.slices.iter().filter(|(_, filed)| filed.round != round);
        stale.map(|(name, _)| (**name).clone()).collect()
    }
}

impl Entry {
    /// Whether the endpoints have changed, and when that was triggered if the slice says so anew.
    fn put_slice(&mut self, name: Arc<ObjectName>, model: SliceModel) -> (bool, Option<SystemTime>) {
        match self.slices.binary_search_by(|(other, _)| (**other).cmp(&name)) {
            Ok(at) => {
                let old = std::mem::replace(&mut self.slices[at].1, model);
                let new = &self.slices[at].1;
                (!new.same_endpoints(&old), new.trigger.filter(|_| new.trigger != old.trigger))
            }
            Err(at) => {
                let trigger = model.trigger;
                if self.slices.is_empty() {
                    self.slices.reserve_exact(1);
                }
                self.slices.insert(at, (name, model));
                (true, trigger)
            }
        }
    }
}
