//! What the kernel holds, read at a start or after a doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use fairlead_kernel::address::local_addresses;
use fairlead_kernel::ipset::SetEntry;
use fairlead_plan::{Family, Protocol};
use ipnet::IpNet;
use ipvs_rs::{Destination, Service, ServiceId};

use crate::doors::Doors;
use crate::error::Error;
use crate::layout::Set;
use crate::mark::Marks;
use crate::render::{self, Entry, Server, Style, Way};
use crate::tables::{Tables, Wanted, protocol};

/// Everything of ours.
#[derive(Debug, Default)]
pub struct Held {
    /// Entries with their marks.
    pub entries: BTreeMap<Entry, Option<u32>>,
    /// Virtual services with their endpoints.
    pub servers: BTreeMap<ServiceId, (Service, Vec<Destination>)>,
    /// Virtual services of which nothing says that they are ours.
    others: Vec<Service>,
}

impl Held {
    /// Reads the sets and the virtual services. Of the latter ours are those with a mark of ours and those whose address stands
    /// in one of our sets or among `nets`; never those in `excluded`.
    pub fn read(doors: &mut Doors, marks: Marks, nets: &[IpNet], excluded: &[IpNet]) -> Result<Self, Error> {
        let mut held = Self::default();
        let sets = doors.ipset.sets()?;
        for (set, family) in Set::ALL.into_iter().flat_map(|set| Family::BOTH.map(|family| (set, family))) {
            if sets.iter().any(|held| held.name == set.name(family) && held.kind == Some(set.kind())) {
                let entries = doors.ipset.entries(set.name(family))?;
                held.entries.extend(entries.iter().map(|entry| (Entry { family, set, key: entry.key() }, entry.mark)));
            }
        }
        let local: BTreeSet<IpAddr> =
            local_addresses().map(|all| all.into_iter().map(|(_, ip, _)| ip).collect()).unwrap_or_default();
        for service in doors.ipvs.services()? {
            if held.is_ours(&service.id, marks, nets, excluded, &local) {
                let destinations = doors.ipvs.destinations(&service.id)?;
                held.servers.insert(service.id, (service, destinations));
            } else {
                held.others.push(service);
            }
        }
        Ok(held)
    }

    /// Takes over what is at a place that the plan wants: somebody may have emptied the sets that say whose it is.
    pub fn claim(&mut self, doors: &mut Doors, wanted: impl FnOnce() -> BTreeSet<ServiceId>) -> Result<(), Error> {
        if self.others.is_empty() {
            return Ok(());
        }
        let wanted = wanted();
        for service in std::mem::take(&mut self.others).into_iter().filter(|other| wanted.contains(&other.id)) {
            let destinations = doors.ipvs.destinations(&service.id)?;
            self.servers.insert(service.id, (service, destinations));
        }
        Ok(())
    }

    fn is_ours(
        &self,
        id: &ServiceId,
        marks: Marks,
        nets: &[IpNet],
        excluded: &[IpNet],
        local: &BTreeSet<IpAddr>,
    ) -> bool {
        let ServiceId::Address { address, protocol, .. } = id else {
            return matches!(id, ServiceId::Fwmark { mark, .. } if marks.is_ours(*mark));
        };
        let Some(protocol) = self::protocol(protocol.number()) else { return false };
        let (ip, family) = (address.ip(), Family::of(address.ip()));
        let listed = |set, key| self.entries.contains_key(&Entry { family, set, key });
        let node_port = SetEntry { port: Some(address.port()), ..SetEntry::default() };
        !excluded.iter().any(|net| net.contains(&ip))
            && (nets.iter().any(|net| net.contains(&ip))
                || Set::FRONTENDS.into_iter().any(|set| listed(set, render::place(protocol, *address)))
                || local.contains(&ip) && listed(Set::node_ports(protocol), node_port))
    }

    /// As if it had been wanted, so that it can be compared.
    pub fn as_wanted(&self, marks: Marks) -> Wanted {
        let mut wanted = Wanted::default();
        let mut by_number: BTreeMap<(ipvs_rs::Family, u32), Vec<ServiceId>> = BTreeMap::new();
        for (id, (service, destinations)) in &self.servers {
            if let ServiceId::Fwmark { family, mark } = id {
                by_number.entry((*family, marks.number(*mark))).or_default().push(*id);
            }
            let server = server(*id, service, destinations, marks);
            wanted.servers.insert(*id, server);
        }
        for (entry, mark) in &self.entries {
            match entry.set {
                Set::SourceCidr | Set::Firewall => drop(wanted.limits.insert(*entry)),
                Set::LoopBack | Set::Addresses => {}
                _ => {
                    let way = self.way(*entry, mark.unwrap_or(0), marks, &by_number);
                    wanted.ways.insert(*entry, way);
                }
            }
        }
        wanted
    }

    fn way(
        &self,
        entry: Entry,
        mark: u32,
        marks: Marks,
        by_number: &BTreeMap<(ipvs_rs::Family, u32), Vec<ServiceId>>,
    ) -> Way {
        let number = (render::family(entry.family), marks.number(mark));
        let numbered = marks.is_ours(mark) && (entry.key.ip.is_none() || marks.given(mark).is_some());
        let mut servers: Vec<ServiceId> = by_number.get(&number).filter(|_| numbered).cloned().unwrap_or_default();
        if let Some((place, protocol)) = address_of(&entry) {
            servers.push(ServiceId::Address { protocol: render::protocol(protocol), address: place });
        }
        servers.retain(|id| self.servers.contains_key(id));
        Way { entry, mark, servers, address: entry.key.ip.map(|ip| (ip, false)) }
    }

    /// Entries that several services may need, with their marks.
    pub fn shared(&self) -> impl Iterator<Item = (Entry, Option<u32>)> + '_ {
        let shared = |set| matches!(set, Set::LoopBack | Set::Addresses);
        self.entries.iter().filter(move |(entry, _)| shared(entry.set)).map(|(entry, mark)| (*entry, *mark))
    }

    /// Takes over the numbers that addresses have, and what was on its way out.
    pub fn note_in(&self, tables: &mut Tables, at: Instant) {
        for (entry, mark) in &self.entries {
            let given = mark.and_then(|mark| tables.context.marks.given(mark));
            if let (Some(number), Some((place, protocol))) = (given, address_of(entry)) {
                tables.numbers.note(protocol, place, number);
            }
        }
        for (id, (service, destinations)) in &self.servers {
            let server = server(*id, service, destinations, tables.context.marks);
            for one in destinations.iter().filter(|one| one.weight == 0) {
                tables.draining.put(&server, one.address, at);
            }
        }
    }
}

/// A virtual service as if it had been wanted. What its packets are, a mark tells of node ports alone.
pub fn server(id: ServiceId, service: &Service, destinations: &[Destination], marks: Marks) -> Server {
    let protocol = match id {
        ServiceId::Address { protocol, .. } => self::protocol(protocol.number()),
        ServiceId::Fwmark { mark, .. } => marks.node_port_protocol(mark),
    };
    let mut endpoints: Vec<_> = destinations.iter().filter(|one| one.weight > 0).map(|one| one.address).collect();
    render::sort(&mut endpoints);
    Server {
        id,
        protocol: protocol.unwrap_or(Protocol::Tcp),
        style: Style { scheduler: service.scheduler.clone(), flags: service.flags, timeout: service.timeout },
        endpoints,
    }
}

/// The address and port of a frontend's entry.
fn address_of(entry: &Entry) -> Option<(SocketAddr, Protocol)> {
    let (ip, port) = (entry.key.ip?, entry.key.port?);
    Set::FRONTENDS.contains(&entry.set).then_some(())?;
    Some((SocketAddr::new(ip, port), entry.key.protocol.and_then(protocol)?))
}
