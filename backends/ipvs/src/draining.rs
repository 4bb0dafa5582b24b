//! What is on its way out: endpoints that keep their connections and get no new ones, and what must stay for those.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairlead_plan::{Family, Protocol};
use ipvs_rs::{Destination, ServiceId};

use crate::entry::Entry;
use crate::render::{Server, Way};

/// Connections that have not ended after so long are cut off.
pub const LIMIT: Duration = Duration::from_secs(3_600);

/// So long answers to datagrams may take. Then flows go elsewhere: nobody says when they end.
const GRACE: Duration = Duration::from_secs(1);

/// See above.
#[derive(Debug, Default)]
pub struct Draining {
    /// Endpoints of weight 0.
    endpoints: BTreeMap<ServiceId, BTreeMap<SocketAddr, Leaving>>,
    /// Virtual services that go with their last endpoint.
    servers: BTreeSet<ServiceId>,
    /// Frontends that go with their last server, and the entry of their address.
    ways: BTreeMap<Entry, (Vec<ServiceId>, Option<Entry>)>,
}

#[derive(Debug, Clone, Copy)]
struct Leaving {
    since: Instant,
    datagrams: bool,
}

impl Draining {
    /// Whether there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.servers.is_empty() && self.ways.is_empty()
    }

    /// An endpoint begins to leave.
    pub fn put(&mut self, server: &Server, endpoint: SocketAddr, at: Instant) {
        let leaving = Leaving { since: at, datagrams: server.protocol == Protocol::Udp };
        self.endpoints.entry(server.id).or_default().entry(endpoint).or_insert(leaving);
    }

    /// An endpoint has left, or stays after all. False if it was not leaving.
    pub fn take(&mut self, id: &ServiceId, endpoint: SocketAddr) -> bool {
        let Some(endpoints) = self.endpoints.get_mut(id) else { return false };
        let was_there = endpoints.remove(&endpoint).is_some();
        if endpoints.is_empty() {
            self.endpoints.remove(id);
        }
        was_there
    }

    /// Whether a virtual service has endpoints that leave.
    pub fn has_endpoints(&self, id: &ServiceId) -> bool {
        self.endpoints.contains_key(id)
    }

    /// A virtual service leaves with its endpoints.
    pub fn remove_server(&mut self, id: ServiceId) {
        self.servers.insert(id);
    }

    /// A virtual service stays after all. False if it was not leaving.
    pub fn revive(&mut self, id: &ServiceId) -> bool {
        self.servers.remove(id)
    }

    /// Whether one of these leaves.
    pub fn has_servers(&self, ids: &[ServiceId]) -> bool {
        ids.iter().any(|id| self.servers.contains(id))
    }

    /// A frontend leaves with its servers.
    pub fn remove_way(&mut self, way: &Way, address: Option<Entry>) {
        self.ways.insert(way.entry, (way.servers.clone(), address));
    }

    /// A frontend stays after all; gives back the entry of its address.
    pub fn keep_way(&mut self, entry: &Entry) -> Option<Entry> {
        self.ways.remove(entry).and_then(|(_, address)| address)
    }

    /// Takes out the virtual services whose last endpoint has left.
    pub fn empty_servers(&mut self) -> Vec<ServiceId> {
        let empty: Vec<_> = self.servers.iter().filter(|id| !self.endpoints.contains_key(*id)).copied().collect();
        self.servers.retain(|id| !empty.contains(id));
        empty
    }

    /// Takes out the frontends whose last server has left.
    pub fn empty_ways(&mut self) -> Vec<(Entry, Option<Entry>)> {
        let gone = |servers: &[ServiceId]| !self.has_servers(servers);
        let empty: Vec<_> = self
            .ways
            .iter()
            .filter(|(_, (servers, _))| gone(servers))
            .map(|(entry, (_, address))| (*entry, *address))
            .collect();
        for (entry, _) in &empty {
            self.ways.remove(entry);
        }
        empty
    }

    /// How many frontends leave, of one family.
    pub fn ways(&self, family: Family) -> u64 {
        self.ways.keys().filter(|entry| entry.family == family).count() as u64
    }

    /// The virtual services to look at.
    pub fn watched(&self) -> Vec<ServiceId> {
        self.endpoints.keys().copied().collect()
    }

    /// Which endpoints of a virtual service have nothing left to serve, or have had time enough.
    pub fn ended(&self, id: &ServiceId, held: &[Destination], now: Instant) -> Vec<SocketAddr> {
        let Some(endpoints) = self.endpoints.get(id) else { return Vec::new() };
        let busy = |address: &SocketAddr| {
            let found = held.iter().find(|destination| destination.address == *address);
            found.is_some_and(|found| found.connections.active + found.connections.inactive > 0)
        };
        let ended = |(address, leaving): &(&SocketAddr, &Leaving)| {
            let waited = now.duration_since(leaving.since);
            if leaving.datagrams { waited >= GRACE } else { !busy(address) || waited >= LIMIT }
        };
        endpoints.iter().filter(ended).map(|(address, _)| *address).collect()
    }
}
