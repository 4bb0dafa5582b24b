//! What this program has in the kernel, and from two states of services to what must be written. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use fairlead_kernel::ipset::SetEntry;
use fairlead_plan::{Family, Protocol, Service};
use ipvs_rs::ServiceId;

use crate::draining::Draining;
use crate::layout::Set;
use crate::mark::{Marks, Tag};
use crate::numbers::Numbers;
use crate::render::{self, Context, Entry, Objects, Server, Way};
use crate::writes::Writes;

/// What several services need, counted: an address by its `ClusterIP`s and by its other frontends, an endpoint that may reach
/// itself by its services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    strong: u32,
    weak: u32,
}

impl Share {
    /// As the kernel should have it.
    fn entry(self, marks: Marks, entry: &Entry) -> SetEntry {
        let tag = if self.strong > 0 { Tag::Refuse } else { Tag::OtherVip };
        SetEntry { mark: entry.set.marks().then(|| marks.tag(tag).0), ..entry.key }
    }
}

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
    /// What is on its way out.
    pub draining: Draining,
    /// One of the virtual services that are there.
    pub witness: Option<ServiceId>,
    shares: HashMap<Entry, Share>,
    share_counts: [u64; 2],
    /// Entries of shares as they were when the step began.
    touched: BTreeMap<Entry, Option<SetEntry>>,
    /// Entries of ways and limits, by family.
    own: [u64; 2],
}

impl Tables {
    /// Nothing yet.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            numbers: Numbers::default(),
            draining: Draining::default(),
            witness: None,
            shares: HashMap::new(),
            share_counts: [0; 2],
            touched: BTreeMap::new(),
            own: [0; 2],
        }
    }

    /// What services need.
    pub fn wanted<'a>(&mut self, services: impl IntoIterator<Item = &'a Service>) -> Wanted {
        let mut wanted = Wanted::default();
        for service in services {
            let numbers = &mut self.numbers;
            let objects = render::service(&self.context, service, &mut |protocol, addr| numbers.give(protocol, addr));
            for way in &objects.ways {
                self.share_of_way(way, true);
            }
            for hairpin in &objects.hairpins {
                self.share(*hairpin, true, true);
            }
            wanted.extend(objects);
        }
        wanted
    }

    /// What services needed and no longer do.
    pub fn unwanted<'a>(&mut self, services: impl IntoIterator<Item = &'a Service>) -> Wanted {
        let mut unwanted = Wanted::default();
        for service in services {
            let numbers = &mut self.numbers;
            let objects = render::service(&self.context, service, &mut |protocol, addr| numbers.give(protocol, addr));
            for way in &objects.ways {
                self.share_of_way(way, false);
            }
            for hairpin in &objects.hairpins {
                self.share(*hairpin, true, false);
            }
            unwanted.extend(objects);
        }
        unwanted
    }

    /// From what was needed to what is needed now.
    pub fn step(&mut self, was: &Wanted, now: &Wanted, at: Instant) -> Writes {
        let mut writes = self.difference(was, now, at);
        self.settle_shares(&mut writes);
        writes
    }

    /// The same without what several services need.
    pub fn difference(&mut self, was: &Wanted, now: &Wanted, at: Instant) -> Writes {
        let mut writes = Writes::default();
        self.servers(was, now, at, &mut writes);
        self.ways(was, now, &mut writes);
        for limit in now.limits.difference(&was.limits) {
            writes.add(*limit, limit.key);
        }
        for limit in was.limits.difference(&now.limits) {
            writes.delete(*limit);
        }
        for family in Family::BOTH {
            let own = &mut self.own[family as usize];
            *own = (*own + now.entries(family)).saturating_sub(was.entries(family));
        }
        writes
    }

    /// Entries that the kernel holds for services, of one family.
    pub fn entries(&self, family: Family) -> u64 {
        self.own[family as usize] + self.share_counts[family as usize]
    }

    fn servers(&mut self, was: &Wanted, now: &Wanted, at: Instant, writes: &mut Writes) {
        for (id, server) in &now.servers {
            match was.servers.get(id) {
                Some(old) if old == server => {}
                Some(old) => self.change(old, server, at, writes),
                None if self.draining.revive(id) => {
                    writes.set_server(server);
                    server.endpoints.iter().for_each(|endpoint| self.add_endpoint(id, *endpoint, writes));
                }
                None => {
                    writes.new_server(server);
                    server.endpoints.iter().for_each(|endpoint| writes.new_endpoint(id, *endpoint));
                }
            }
        }
        if self.witness.is_none_or(|id| !now.servers.contains_key(&id) && was.servers.contains_key(&id)) {
            self.witness = now.servers.keys().next().copied();
        }
        for (id, server) in was.servers.iter().filter(|(id, _)| !now.servers.contains_key(id)) {
            for endpoint in &server.endpoints {
                self.remove_endpoint(server, *endpoint, at, writes);
            }
            if self.draining.has_endpoints(id) {
                self.draining.remove_server(*id);
            } else {
                writes.old_server(id);
            }
        }
    }

    fn change(&mut self, old: &Server, new: &Server, at: Instant, writes: &mut Writes) {
        if old.style != new.style {
            writes.set_server(new);
        }
        for endpoint in new.endpoints.difference(&old.endpoints) {
            self.add_endpoint(&new.id, *endpoint, writes);
        }
        for endpoint in old.endpoints.difference(&new.endpoints) {
            self.remove_endpoint(new, *endpoint, at, writes);
        }
    }

    fn add_endpoint(&mut self, id: &ServiceId, endpoint: SocketAddr, writes: &mut Writes) {
        if self.draining.take(id, endpoint) {
            writes.weigh_endpoint(id, endpoint, 1);
        } else {
            writes.new_endpoint(id, endpoint);
        }
    }

    /// Nothing new goes there from now on; what is under way is served.
    fn remove_endpoint(&mut self, server: &Server, endpoint: SocketAddr, at: Instant, writes: &mut Writes) {
        writes.weigh_endpoint_later(&server.id, endpoint, 0);
        self.draining.put(server, endpoint, at);
    }

    fn ways(&mut self, was: &Wanted, now: &Wanted, writes: &mut Writes) {
        for (entry, way) in &now.ways {
            if was.ways.get(entry).is_none_or(|old| old.mark != way.mark) {
                writes.add(*entry, SetEntry { mark: Some(way.mark), ..entry.key });
            }
            if let Some(address) = self.draining.keep_way(entry) {
                self.share(address, false, false);
            }
        }
        for (entry, way) in was.ways.iter().filter(|(entry, _)| !now.ways.contains_key(entry)) {
            if self.draining.has_servers(&way.servers) {
                self.leave(way, writes);
            } else {
                writes.delete(*entry);
                self.forget_number(entry);
            }
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
            self.share(address, false, true);
        }
        self.draining.remove_way(way, address);
    }

    /// What has ended leaves the kernel.
    pub fn ended(&mut self, ended: &[(ServiceId, SocketAddr)]) -> Writes {
        let mut writes = Writes::default();
        for (id, endpoint) in ended {
            if self.draining.take(id, *endpoint) {
                writes.old_endpoint(id, *endpoint);
            }
        }
        for id in self.draining.empty_servers() {
            writes.old_server(&id);
        }
        for (entry, address) in self.draining.empty_ways() {
            writes.delete(entry);
            self.forget_number(&entry);
            if let Some(address) = address {
                self.share(address, false, false);
            }
        }
        self.settle_shares(&mut writes);
        writes
    }

    fn forget_number(&mut self, entry: &Entry) {
        if let (Some(ip), Some(protocol), Some(port)) =
            (entry.key.ip, entry.key.protocol.and_then(protocol), entry.key.port)
        {
            self.numbers.take_back(protocol, SocketAddr::new(ip, port));
        }
    }

    fn share_of_way(&mut self, way: &Way, more: bool) {
        if let Some((ip, strong)) = way.address {
            self.share(address(way.entry.family, ip), strong, more);
        }
    }

    fn share(&mut self, entry: Entry, strong: bool, more: bool) {
        let nobody = Share::default();
        let share = self.shares.entry(entry).or_default();
        let was = *share;
        let count = if strong { &mut share.strong } else { &mut share.weak };
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        let now = *share;
        if now == nobody {
            self.shares.remove(&entry);
        }
        let held = &mut self.share_counts[entry.family as usize];
        match (was == nobody, now == nobody) {
            (true, false) => *held += 1,
            (false, true) => *held -= 1,
            _ => {}
        }
        let marks = self.context.marks;
        self.touched.entry(entry).or_insert_with(|| (was != nobody).then(|| was.entry(marks, &entry)));
    }

    /// The entry as the kernel should have it now.
    fn shared(&self, entry: &Entry) -> Option<SetEntry> {
        Some(self.shares.get(entry)?.entry(self.context.marks, entry))
    }

    /// All shared entries.
    pub fn all_shared(&self) -> impl Iterator<Item = (Entry, SetEntry)> + '_ {
        self.shares.keys().filter_map(|entry| Some((*entry, self.shared(entry)?)))
    }

    /// Shared entries are compared one by one with what the kernel holds, not with what they were.
    pub fn forget_touched(&mut self) {
        self.touched.clear();
    }

    /// Whether some service needs this entry.
    pub fn has_share(&self, entry: &Entry) -> bool {
        self.shares.contains_key(entry)
    }

    /// The kernel holds this, beside shared entries, which are compared one by one.
    pub fn assume(&mut self, held: &Wanted) {
        self.own = Family::BOTH.map(|family| held.entries(family));
    }

    fn settle_shares(&mut self, writes: &mut Writes) {
        for (entry, before) in std::mem::take(&mut self.touched) {
            match (before, self.shared(&entry)) {
                (before, now) if before == now => {}
                (_, Some(now)) => writes.add(entry, now),
                (_, None) => writes.delete(entry),
            }
        }
    }
}

/// The entry of a virtual address.
pub fn address(family: Family, ip: IpAddr) -> Entry {
    Entry { family, set: Set::Addresses, key: SetEntry { ip: Some(ip), ..SetEntry::default() } }
}

/// The protocol of a number.
pub fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| protocol.number() == number)
}
