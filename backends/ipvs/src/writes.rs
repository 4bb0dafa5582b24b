//! What must be written, in the order in which it must be: servers before what leads to them, and the other way round.

use std::collections::BTreeMap;
use std::iter;
use std::net::SocketAddr;

use fairlead_kernel::ipset::{SetBatch, SetEntry};
use fairlead_plan::Family;
use ipvs_rs::{Change, Destination, Service, ServiceId};

use crate::entry::Entry;
use crate::layout::Set;
use crate::render::Server;

/// What IPVS is told.
#[derive(Debug)]
pub enum Write {
    /// A new virtual service with its endpoints. Of these most of a start consists, so they are put into words as they are sent.
    Server(Server),
    /// Anything else.
    Change(Change),
}

impl Write {
    /// As it is sent.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        let (first, server) = match self {
            Self::Server(server) => (Change::NewService(described(server)), Some(server)),
            Self::Change(change) => (change.clone(), None),
        };
        let endpoints = server.into_iter().flat_map(|server| {
            server.endpoints.iter().map(|endpoint| Change::NewDestination(server.id, Destination::new(*endpoint)))
        });
        iter::once(first).chain(endpoints)
    }

    /// How many changes that are.
    pub const fn count(&self) -> usize {
        match self {
            Self::Server(server) => 1 + server.endpoints.len(),
            Self::Change(_) => 1,
        }
    }
}

/// Messages for IPVS, changes of sets, messages for IPVS.
#[derive(Debug, Default)]
pub struct Writes {
    /// What leads nowhere yet.
    pub first: Vec<Write>,
    add: BTreeMap<(Set, Family), Vec<SetEntry>>,
    delete: BTreeMap<(Set, Family), Vec<SetEntry>>,
    /// What nothing leads to any more.
    pub last: Vec<Write>,
}

impl Writes {
    /// Makes a virtual service with its endpoints.
    pub fn new_server(&mut self, server: Server) {
        self.first.push(Write::Server(server));
    }

    /// Changes how a virtual service chooses.
    pub fn set_server(&mut self, server: &Server) {
        self.first.push(Write::Change(Change::SetService(described(server))));
    }

    /// Deletes a virtual service.
    pub fn old_server(&mut self, id: ServiceId) {
        self.last.push(Write::Change(Change::DelService(id)));
    }

    /// Adds an endpoint.
    pub fn new_endpoint(&mut self, id: ServiceId, endpoint: SocketAddr) {
        self.first.push(Write::Change(Change::NewDestination(id, Destination::new(endpoint))));
    }

    /// Lets an endpoint have new connections again.
    pub fn keep_endpoint(&mut self, id: ServiceId, endpoint: SocketAddr) {
        self.first.push(Write::Change(Change::SetDestination(id, Destination::new(endpoint))));
    }

    /// Lets an endpoint have no new connections when others have taken its place.
    pub fn leave_endpoint(&mut self, id: ServiceId, endpoint: SocketAddr) {
        self.last.push(Write::Change(Change::SetDestination(id, Destination::new(endpoint).weight(0))));
    }

    /// Takes an endpoint away, with its connections.
    pub fn old_endpoint(&mut self, id: ServiceId, endpoint: SocketAddr) {
        self.last.push(Write::Change(Change::DelDestination(id, endpoint)));
    }

    /// Puts an entry into a set, or gives it another mark.
    pub fn add(&mut self, entry: Entry, with_mark: SetEntry) {
        self.add.entry((entry.set, entry.family)).or_default().push(with_mark);
    }

    /// Takes an entry out of its set.
    pub fn delete(&mut self, entry: Entry) {
        self.delete.entry((entry.set, entry.family)).or_default().push(entry.key);
    }

    /// Entries that sets get.
    pub fn additions(&self, batch: &mut SetBatch) {
        for ((set, family), entries) in &self.add {
            batch.add(set.name(*family), entries);
        }
    }

    /// Entries that sets lose.
    pub fn deletions(&self, batch: &mut SetBatch) {
        for ((set, family), entries) in self.delete.iter().rev() {
            batch.delete(set.name(*family), entries);
        }
    }

    /// Entries that are put in, with their marks.
    #[cfg(test)]
    pub fn added(&self) -> impl Iterator<Item = (Entry, Option<u32>)> {
        let all = self.add.iter().flat_map(|((set, family), entries)| entries.iter().map(|one| (*set, *family, *one)));
        all.map(|(set, family, one)| (Entry { family, set, key: one.key() }, one.mark))
    }

    /// Entries that are taken out.
    #[cfg(test)]
    pub fn deleted(&self) -> impl Iterator<Item = Entry> {
        let all = self.delete.iter().flat_map(|((set, family), keys)| keys.iter().map(|key| (*set, *family, *key)));
        all.map(|(set, family, key)| Entry { family, set, key })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.last.is_empty() && self.add.is_empty() && self.delete.is_empty()
    }
}

/// A virtual service as the kernel is asked for it.
pub fn described(server: &Server) -> Service {
    let mut service = Service::new(server.id).scheduler(server.style.scheduler.clone()).flags(server.style.flags);
    service.timeout = server.style.timeout;
    service
}
