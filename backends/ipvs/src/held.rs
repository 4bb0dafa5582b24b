//! What the kernel holds, read at a start or after a doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use fairlead_kernel::address::local_addresses;
use fairlead_kernel::ipset::{SetEntry, SetKind};
use fairlead_plan::{Family, Protocol};
use ipnet::IpNet;
use ipvs_rs::{Destination, Service, ServiceId};

use crate::doors::Doors;
use crate::entry::{self, Entry};
use crate::error::Error;
use crate::layout::{self, Set};
use crate::mark::Marks;
use crate::render::{self, Server, Style, Way};
use crate::tables::{Tables, Wanted};

/// Everything of ours.
#[derive(Debug, Default)]
pub struct Held {
    /// Entries with their marks.
    pub entries: BTreeMap<Entry, Option<u32>>,
    /// Virtual services with their endpoints.
    pub servers: BTreeMap<ServiceId, (Service, Vec<Destination>)>,
    /// Addresses of this node with the node ports that kube-proxy keeps so.
    kube_proxys: BTreeSet<SetEntry>,
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
        for name in Family::BOTH.map(layout::kube_proxys_sctp) {
            if sets.iter().any(|held| held.name == name && held.kind == Some(SetKind::IpPort)) {
                held.kube_proxys.extend(doors.ipset.entries(&name)?.iter().map(|entry| entry.key()));
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
        let Some(protocol) = entry::protocol(protocol.number()) else { return false };
        let (ip, family) = (address.ip(), Family::of(address.ip()));
        let place = entry::place(protocol, *address);
        let listed = |set, key| self.entries.contains_key(&Entry { family, set, key });
        !excluded.iter().any(|net| net.contains(&ip))
            && (nets.iter().any(|net| net.contains(&ip))
                || Set::FRONTENDS.into_iter().any(|set| listed(set, place))
                || self.kube_proxys.contains(&place)
                || local.contains(&ip) && listed(Set::node_ports(protocol), entry::at_node(protocol, *address)))
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
        let address = entry.address();
        let numbered = marks.is_ours(mark) && (address.is_none() || marks.given(mark).is_some());
        let mut servers: Vec<ServiceId> = by_number.get(&number).filter(|_| numbered).cloned().unwrap_or_default();
        if let Some((protocol, address)) = address {
            servers.push(ServiceId::Address { protocol: render::protocol(protocol), address });
        }
        servers.retain(|id| self.servers.contains_key(id));
        Way { entry, mark, servers, address: address.map(|(_, at)| (at.ip(), false)) }
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
            if let Some(number) = given.filter(|_| entry.address().is_some()) {
                tables.numbers.note(*entry, number);
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
        ServiceId::Address { protocol, .. } => entry::protocol(protocol.number()),
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const PORT: u16 = 30_000;
    const HERE: [&str; 2] = ["192.168.50.1", "fd00:50::1"];
    const ELSEWHERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

    /// Whether a virtual service at this address is ours.
    fn is_ours(held: &Held, ip: &str, protocol: Protocol, port: u16) -> bool {
        let local = HERE.map(|here| here.parse().expect("an address")).into();
        let address = SocketAddr::new(ip.parse().expect("an address"), port);
        let id = ServiceId::Address { protocol: render::protocol(protocol), address };
        held.is_ours(&id, Marks::new(1 << 14), &[], &[], &local)
    }

    #[test]
    fn a_virtual_service_at_a_node_port_is_ours_where_a_set_of_ours_says_so() {
        for protocol in Protocol::ALL {
            let entries = Family::BOTH.into_iter().flat_map(|family| entry::node_port(family, protocol, PORT));
            let held = Held { entries: entries.map(|entry| (entry, Some(1))).collect(), ..Held::default() };
            for (here, elsewhere) in HERE.into_iter().zip(ELSEWHERE) {
                assert!(is_ours(&held, here, protocol, PORT), "{here} {protocol}");
                assert!(!is_ours(&held, here, protocol, PORT + 1), "{here} {protocol}");
                assert!(!is_ours(&held, elsewhere, protocol, PORT), "{elsewhere} {protocol}");
                for other in Protocol::ALL.into_iter().filter(|other| *other != protocol) {
                    assert!(!is_ours(&held, here, other, PORT), "{here} {other}");
                }
            }
        }
    }

    #[test]
    fn a_virtual_service_at_an_sctp_node_port_of_kube_proxy_is_ours() {
        let mut held = Held::default();
        let at = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), PORT);
        held.kube_proxys.extend(HERE.map(|ip| entry::place(Protocol::Sctp, at(ip))));
        for (here, elsewhere) in HERE.into_iter().zip(ELSEWHERE) {
            assert!(is_ours(&held, here, Protocol::Sctp, PORT));
            assert!(!is_ours(&held, here, Protocol::Tcp, PORT));
            assert!(!is_ours(&held, elsewhere, Protocol::Sctp, PORT));
        }
    }
}
