//! What the kernel holds of this mode, read back whole, to follow packets through it.

use std::collections::HashMap;

use fairlead_kernel::link::Links;
use fairlead_kernel::restore;
use fairlead_plan::{Family, Protocol};
use ipvs_rs::ServiceId;

use crate::doors::Doors;
use crate::entry::protocol;
use crate::error::Error;
use crate::layout::{LINK, Set};
use crate::mark::Marks;
use crate::rules::{Chain, Match, Rule};
use crate::structure::TABLES;
use crate::trace::{Fault, Sets, Tracer};
use crate::{held, parse};

/// Why what the kernel holds cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HeldError(#[from] Why);

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error(transparent)]
    Kernel(#[from] Error),
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Whether this network namespace has what only this mode makes.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn is_here() -> Result<bool, HeldError> {
    let found = Links::open().and_then(|mut links| links.link(LINK)).map_err(|error| Why::Kernel(error.into()))?;
    Ok(found.is_some())
}

impl Tracer {
    /// What the kernel holds in this network namespace. Rules of others in the kernel's own chains are passed over; endpoints that
    /// only keep their open connections do not count.
    ///
    /// # Errors
    /// If the kernel cannot be read, or if somebody has put a rule into our chains that fairlead never writes.
    pub fn held() -> Result<Self, HeldError> {
        let (mut chains, mut entrances) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for family in Doors::families() {
            for table in TABLES {
                let save = restore::save(family == Family::V6, table).map_err(|error| Why::Kernel(error.into()))?;
                let (found, ways_in) = parse::table(family, table, &save).map_err(Why::Fault)?;
                chains[family as usize].extend(found);
                entrances[family as usize].extend(ways_in);
            }
        }
        let marks = Marks::new(masquerade_bit(chains.iter().flatten()).unwrap_or_default());
        let mut tracer = Self { marks, chains, entrances, sets: Default::default(), servers: HashMap::new() };
        tracer.read().map_err(Why::Kernel)?;
        Ok(tracer)
    }

    /// Sets and virtual services.
    fn read(&mut self) -> Result<(), Error> {
        let mut doors = Doors::open()?;
        let there = doors.ipset.sets()?;
        for family in Family::BOTH {
            let mut sets = Sets::new();
            for set in Set::ALL {
                if there.iter().any(|held| held.name == set.name(family) && held.kind == Some(set.kind())) {
                    let entries = doors.ipset.entries(set.name(family))?;
                    sets.insert(set, entries.iter().map(|entry| (entry.key(), entry.mark)).collect());
                }
            }
            self.sets[family as usize] = sets;
        }
        for service in doors.ipvs.services()? {
            let destinations = doors.ipvs.destinations(&service.id)?;
            let mut server = held::server(service.id, &service, &destinations, self.marks);
            if let ServiceId::Fwmark { family, mark } = service.id {
                let sets = &self.sets[usize::from(family == ipvs_rs::Family::V6)];
                server.protocol = self.protocol_behind(sets, mark).unwrap_or(server.protocol);
            }
            if !server.endpoints.is_empty() {
                self.servers.insert(service.id, server);
            }
        }
        Ok(())
    }

    /// Of what the packets are that a virtual service by mark gets, which the kernel does not know: the entry with its number
    /// says so. Node ports have it in the mark.
    fn protocol_behind(&self, sets: &Sets, mark: u32) -> Option<Protocol> {
        let number = self.marks.number(mark);
        let is_same = |held: u32| self.marks.given(held).is_some() && self.marks.number(held) == number;
        let mut entries = Set::FRONTENDS.iter().filter_map(|set| sets.get(set)).flatten();
        let (entry, _) = entries.find(|(_, held)| held.is_some_and(is_same))?;
        entry.protocol.and_then(protocol)
    }

    /// Whether there is a chain of ours in this family.
    #[must_use]
    pub fn is_there(&self, family: Family) -> bool {
        !self.chains[family as usize].is_empty()
    }
}

/// The bit that says "masquerade", as the rule has it that returns without.
fn masquerade_bit<'a>(chains: impl Iterator<Item = &'a Chain>) -> Option<u32> {
    let mut matches =
        chains.filter(|chain| chain.table == "nat").flat_map(|chain| &chain.rules).flat_map(|Rule(all, _)| all);
    matches.find_map(|one| match one {
        Match::Mark { value, mask, not: true } if value == mask => Some(*value),
        _ => None,
    })
}
