//! What holds for every way from plan to plan, with a kernel that is a map.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use fairlead_plan::{Family, Plan};
use ipvs_rs::{Command, Destination, Message, Service, ServiceId};
use proptest::prelude::*;

use crate::Settings;
use crate::entry::Entry;
use crate::held::Held;
use crate::sample;
use crate::tables::Tables;
use crate::writes::{Write, Writes};

/// What the kernel would hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Kernel {
    servers: BTreeMap<ServiceId, (Service, BTreeMap<SocketAddr, u32>)>,
    entries: BTreeMap<Entry, Option<u32>>,
}

impl Kernel {
    fn write(&mut self, writes: &Writes) {
        self.changes(&writes.first);
        for (entry, mark) in writes.added() {
            self.entries.insert(entry, mark);
        }
        for entry in writes.deleted() {
            assert!(self.entries.remove(&entry).is_some(), "{entry:?} is not there");
        }
        self.changes(&writes.last);
    }

    fn changes(&mut self, writes: &[Write]) {
        writes.iter().flat_map(Write::changes).for_each(|change| self.message(&Message::from(&change)));
    }

    /// As the kernel does it, and never a message that it would refuse.
    fn message(&mut self, message: &Message) {
        let id = ServiceId::from_attributes(message.service().expect("it is about one")).expect("it has an id");
        let service = || Service::from_attributes(message.service().expect("it is about one")).expect("it is one");
        if message.command == Command::NewService {
            assert!(self.servers.insert(id, (service(), BTreeMap::new())).is_none(), "{id} exists");
            return;
        }
        let held = self.servers.get_mut(&id).unwrap_or_else(|| panic!("{:?}: no {id}", message.command));
        let destination = message.destination();
        let destination = destination.map(|list| Destination::from_attributes(id.family(), list).expect("it is one"));
        match (message.command, destination) {
            (Command::SetService, None) => held.0 = service(),
            (Command::DelService, None) => drop(self.servers.remove(&id)),
            (Command::NewDestination, Some(new)) => {
                assert_eq!(held.1.insert(new.address, new.weight), None, "{id} has {}", new.address);
            }
            (Command::SetDestination, Some(new)) => {
                assert!(held.1.insert(new.address, new.weight).is_some(), "{id} lacks {}", new.address);
            }
            (Command::DelDestination, Some(old)) => {
                assert!(held.1.remove(&old.address).is_some(), "{id} lacks {}", old.address);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Everything that has no connections ends.
    fn drain(&mut self, tables: &mut Tables, busy: &BTreeSet<SocketAddr>) {
        let all = tables.draining.watched().into_iter().flat_map(|id| {
            let addresses = self.servers[&id].1.keys().map(move |address| (id, *address));
            addresses.filter(|(_, address)| !busy.contains(address)).collect::<Vec<_>>()
        });
        let ended: Vec<_> = all.collect();
        let writes = tables.ended(&ended);
        self.write(&writes);
    }
}

/// What a program that has just been started finds, and what it writes for a plan.
fn adopted(plan: &Plan, kernel: &Kernel) -> (Tables, Writes) {
    let (mut tables, mut writes) = (Tables::new(Settings::default().context(&plan.node)), Writes::default());
    let mut held = Held::default();
    held.entries.clone_from(&kernel.entries);
    for (id, (service, destinations)) in &kernel.servers {
        let all = destinations.iter().map(|(address, weight)| Destination::new(*address).weight(*weight));
        held.servers.insert(*id, (service.clone(), all.collect()));
    }
    let at = Instant::now();
    held.note_in(&mut tables, at);
    let mut was = held.as_wanted(tables.context.marks);
    tables.assume(&was, held.shared());
    tables.put(plan.services.iter().map(|service| &**service), &mut was, at, &mut writes);
    tables.remove(&was, at, &mut writes);
    tables.settle_shares(&mut writes);
    (tables, writes)
}

/// From nothing.
fn whole(plan: &Plan) -> (Tables, Kernel) {
    let (mut tables, mut kernel) = (Tables::new(Settings::default().context(&plan.node)), Kernel::default());
    let writes = tables.step([], plan.services.iter().map(|service| &**service), Instant::now());
    kernel.write(&writes);
    (tables, kernel)
}

fn step(tables: &mut Tables, kernel: &mut Kernel, was: &Plan, now: &Plan) -> Writes {
    let changes: Vec<_> = was.services.changes(&now.services).collect();
    let new = changes.iter().filter_map(|change| change.now).map(|service| &**service);
    let old = changes.iter().filter_map(|change| change.was).map(|service| &**service);
    let writes = tables.step(old, new, Instant::now());
    kernel.write(&writes);
    writes
}

fn held(kernel: &Kernel, family: Family) -> u64 {
    kernel.entries.keys().filter(|entry| entry.family == family).count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_way_to_a_plan_ends_the_same_when_connections_have_ended(mut plans in sample::random::journey(5), busy: u8) {
        // The mark is the node's, and another node begins anew.
        let node = plans[0].node.clone();
        plans.iter_mut().for_each(|plan| plan.node = node.clone());
        let (mut tables, mut kernel) = whole(&plans[0]);
        for (number, pair) in plans.windows(2).enumerate() {
            step(&mut tables, &mut kernel, &pair[0], &pair[1]);
            if busy & (1 << number) == 0 {
                kernel.drain(&mut tables, &BTreeSet::new());
                prop_assert!(tables.draining.is_empty());
                let (others, wanted) = whole(&pair[1]);
                prop_assert_eq!(&kernel, &wanted);
                for family in Family::BOTH {
                    prop_assert_eq!(tables.entries(family), others.entries(family));
                    prop_assert_eq!(tables.entries(family), held(&kernel, family));
                }
            }
        }
    }

    #[test]
    fn a_start_writes_nothing_that_is_there_and_ends_at_the_plan(mut plans in sample::random::journey(1)) {
        // Of marks around another bit the numbers are others.
        plans[1].node = plans[0].node.clone();
        let (_, mut kernel) = whole(&plans[0]);
        let (tables, writes) = adopted(&plans[0], &kernel);
        prop_assert!(writes.is_empty(), "{:?}", writes);
        for family in Family::BOTH {
            prop_assert_eq!(tables.entries(family), held(&kernel, family));
        }
        let (mut tables, writes) = adopted(&plans[1], &kernel);
        kernel.write(&writes);
        kernel.drain(&mut tables, &BTreeSet::new());
        prop_assert!(tables.draining.is_empty());
        let (_, wanted) = whole(&plans[1]);
        prop_assert_eq!(&kernel, &wanted);
    }

    #[test]
    fn the_same_plan_again_writes_nothing(plan in sample::random::plan()) {
        let (mut tables, mut kernel) = whole(&plan);
        let before = kernel.clone();
        prop_assert!(step(&mut tables, &mut kernel, &plan, &plan.clone()).is_empty());
        let all = || plan.services.iter().map(|service| &**service);
        prop_assert!(tables.step(all(), all(), Instant::now()).is_empty());
        prop_assert_eq!(kernel, before);
    }
}
