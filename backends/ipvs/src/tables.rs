//! What this program has in the kernel, and from two states of services to what must be written. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use fairlead_kernel::ipset::SetEntry;
use fairlead_plan::{Family, Service};
use ipvs_rs::ServiceId;

use crate::draining::Draining;
use crate::entry::Entry;
use crate::layout::Set;
use crate::numbers::Numbers;
use crate::render::{self, Context, Objects, Server, Way};
use crate::shares::Shares;
use crate::writes::Writes;

/// What services need of the kernel, by name.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Virtual services.
    pub servers: BTreeMap<ServiceId, Server>,
    /// Frontends.
    pub ways: BTreeMap<Entry, Way>,
    /// Entries that limit sources.
    pub limits: BTreeSet<Entry>,
}

impl Wanted {
    /// How many entries of sets, of one family.
    fn entries(&self, family: Family) -> u64 {
        self.ways.keys().chain(&self.limits).filter(|entry| entry.family == family).count() as u64
    }

    fn extend(&mut self, objects: Objects) {
        self.servers.extend(objects.servers.into_iter().map(|server| (server.id, server)));
        self.ways.extend(objects.ways.into_iter().map(|way| (way.entry, way)));
        self.limits.extend(objects.limits);
    }
}

/// The state between two syncs: as large as what services share, not as large as the services.
#[derive(Debug)]
pub struct Tables {
    /// What rendering depends on.
    pub context: Context,
    /// Who has which number.
    pub numbers: Numbers,
    /// Frontends of services that were put in, for which no number was free.
    pub unnumbered: Vec<SocketAddr>,
    /// What is on its way out.
    pub draining: Draining,
    /// One of the virtual services that are there.
    pub witness: Option<ServiceId>,
    shares: Shares,
    /// Entries of ways and limits, by family.
    own: [u64; 2],
}

impl Tables {
    /// Nothing yet.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            numbers: Numbers::default(),
            unnumbered: Vec::new(),
            draining: Draining::default(),
            witness: None,
            shares: Shares::default(),
            own: [0; 2],
        }
    }

    /// What services need.
    pub fn wanted<'a>(&mut self, services: impl IntoIterator<Item = &'a Service>) -> Wanted {
        let mut wanted = Wanted::default();
        services.into_iter().for_each(|service| wanted.extend(self.objects(service, true)));
        wanted
    }

    /// From what services needed to what they need now.
    pub fn step<'a>(
        &mut self,
        old: impl IntoIterator<Item = &'a Service>,
        new: impl IntoIterator<Item = &'a Service>,
        at: Instant,
    ) -> Writes {
        let (mut was, mut writes) = (Wanted::default(), Writes::default());
        old.into_iter().for_each(|service| was.extend(self.objects(service, false)));
        self.put(new, &mut was, at, &mut writes);
        self.remove(&was, at, &mut writes);
        self.settle_shares(&mut writes);
        writes
    }

    /// What services need and the kernel does not have. What they need of what `was` there, is taken from that.
    pub fn put<'a>(
        &mut self,
        services: impl IntoIterator<Item = &'a Service>,
        was: &mut Wanted,
        at: Instant,
        writes: &mut Writes,
    ) {
        for service in services {
            let objects = self.objects(service, true);
            for server in objects.servers {
                self.put_server(server, was, at, writes);
            }
            for way in objects.ways {
                self.put_way(&way, was, writes);
            }
            for limit in objects.limits {
                if !was.limits.remove(&limit) {
                    writes.add(limit, limit.key);
                    self.own[limit.family as usize] += 1;
                }
            }
        }
    }

    /// What is no longer needed.
    pub fn remove(&mut self, was: &Wanted, at: Instant, writes: &mut Writes) {
        for server in was.servers.values() {
            self.remove_server(server, at, writes);
        }
        for way in was.ways.values() {
            self.remove_way(way, writes);
        }
        for limit in &was.limits {
            writes.delete(*limit);
            self.own[limit.family as usize] -= 1;
        }
    }

    /// Writes what several services need, and what nobody needs any more.
    pub fn settle_shares(&mut self, writes: &mut Writes) {
        self.shares.settle(self.context.marks, writes);
    }

    /// Entries that the kernel holds for services, of one family.
    pub const fn entries(&self, family: Family) -> u64 {
        self.own[family as usize] + self.shares.entries(family)
    }

    /// What a service needs, or needed. What others need too is counted.
    fn objects(&mut self, service: &Service, more: bool) -> Objects {
        let numbers = &mut self.numbers;
        let objects = render::service(&self.context, service, &mut |entry| {
            if more { numbers.give(entry) } else { numbers.of(entry) }
        });
        if more {
            self.unnumbered.extend(&objects.unnumbered);
        }
        for way in &objects.ways {
            if let Some((ip, strong)) = way.address {
                self.shares.count(address(way.entry.family, ip), strong, more);
            }
        }
        for hairpin in &objects.hairpins {
            self.shares.count(*hairpin, true, more);
        }
        objects
    }

    fn put_server(&mut self, server: Server, was: &mut Wanted, at: Instant, writes: &mut Writes) {
        let id = server.id;
        self.witness = Some(id);
        match was.servers.remove(&id) {
            Some(old) => self.change(&old, &server, at, writes),
            None if self.draining.revive(&id) => {
                writes.set_server(&server);
                server.endpoints.iter().for_each(|endpoint| self.add_endpoint(id, *endpoint, writes));
            }
            None => writes.new_server(server),
        }
    }

    fn remove_server(&mut self, server: &Server, at: Instant, writes: &mut Writes) {
        self.witness = self.witness.filter(|id| *id != server.id);
        for endpoint in &server.endpoints {
            self.remove_endpoint(server, *endpoint, at, writes);
        }
        if self.draining.has_endpoints(&server.id) {
            self.draining.remove_server(server.id);
        } else {
            writes.old_server(server.id);
        }
    }

    fn change(&mut self, old: &Server, new: &Server, at: Instant, writes: &mut Writes) {
        if old.style != new.style {
            writes.set_server(new);
        }
        for endpoint in new.endpoints.iter().filter(|endpoint| !old.has(endpoint)) {
            self.add_endpoint(new.id, *endpoint, writes);
        }
        for endpoint in old.endpoints.iter().filter(|endpoint| !new.has(endpoint)) {
            self.remove_endpoint(new, *endpoint, at, writes);
        }
    }

    fn add_endpoint(&mut self, id: ServiceId, endpoint: SocketAddr, writes: &mut Writes) {
        if self.draining.take(&id, endpoint) {
            writes.keep_endpoint(id, endpoint);
        } else {
            writes.new_endpoint(id, endpoint);
        }
    }

    /// Nothing new goes there from now on; what is under way is served.
    fn remove_endpoint(&mut self, server: &Server, endpoint: SocketAddr, at: Instant, writes: &mut Writes) {
        writes.leave_endpoint(server.id, endpoint);
        self.draining.put(server, endpoint, at);
    }

    fn put_way(&mut self, way: &Way, was: &mut Wanted, writes: &mut Writes) {
        let old = was.ways.remove(&way.entry);
        if old.is_none() {
            self.own[way.entry.family as usize] += 1;
        }
        if old.is_none_or(|old| old.mark != way.mark) {
            writes.add(way.entry, SetEntry { mark: Some(way.mark), ..way.entry.key });
        }
        if let Some(address) = self.draining.keep_way(&way.entry) {
            self.shares.count(address, false, false);
        }
    }

    fn remove_way(&mut self, way: &Way, writes: &mut Writes) {
        self.own[way.entry.family as usize] -= 1;
        if self.draining.has_servers(&way.servers) {
            self.leave(way, writes);
        } else {
            writes.delete(way.entry);
            self.numbers.take_back(&way.entry);
        }
    }

    /// Open connections still find their way, new ones do not.
    fn leave(&mut self, way: &Way, writes: &mut Writes) {
        let (mark, _) = self.context.marks.leaving();
        if way.mark != mark {
            writes.add(way.entry, SetEntry { mark: Some(mark), ..way.entry.key });
        }
        let address = way.address.map(|(ip, _)| address(way.entry.family, ip));
        if let Some(address) = address {
            self.shares.count(address, false, true);
        }
        self.draining.remove_way(way, address);
    }

    /// What has ended leaves the kernel.
    pub fn ended(&mut self, ended: &[(ServiceId, SocketAddr)]) -> Writes {
        let mut writes = Writes::default();
        for (id, endpoint) in ended {
            if self.draining.take(id, *endpoint) {
                writes.old_endpoint(*id, *endpoint);
            }
        }
        for id in self.draining.empty_servers() {
            writes.old_server(id);
        }
        for (entry, address) in self.draining.empty_ways() {
            writes.delete(entry);
            self.numbers.take_back(&entry);
            if let Some(address) = address {
                self.shares.count(address, false, false);
            }
        }
        self.settle_shares(&mut writes);
        writes
    }

    /// Says which frontends were left out since it was asked last.
    pub fn tell_unnumbered(&mut self) -> Option<String> {
        let left_out = std::mem::take(&mut self.unnumbered);
        let first = left_out.first()?;
        let more = left_out.len() - 1;
        Some(format!(
            "{first} and {more} more are not served: mode ipvs has marks for 65,535 addresses of a family that lead pods, the \
             node and others to different endpoints; use mode nftables"
        ))
    }

    /// All entries that several services may need.
    pub fn all_shared(&self) -> impl Iterator<Item = (Entry, SetEntry)> + '_ {
        self.shares.all(self.context.marks)
    }

    /// The kernel holds this for services, and an entry that several may need.
    pub fn assume(&mut self, held: &Wanted, shared: impl Iterator<Item = (Entry, Option<u32>)>) {
        self.own = Family::BOTH.map(|family| held.entries(family));
        shared.for_each(|(entry, mark)| self.shares.note(entry, mark));
    }
}

/// The entry of a virtual address.
pub fn address(family: Family, ip: IpAddr) -> Entry {
    Entry { family, set: Set::Addresses, key: SetEntry { ip: Some(ip), ..SetEntry::default() } }
}
