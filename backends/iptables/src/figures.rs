//! What can be measured of the iptables mode while it runs, by other threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fairlead_kernel::nft::{Exprs, Nft};
use fairlead_kernel::xtables::{Variant, Xtables, legacy_table_exists};
use fairlead_plan::Family;

use crate::door::{Done, DoorError};
use crate::encode::ip;
use crate::name;
use crate::nft::proto;
use crate::rules::Table;

/// Figures of both families.
#[derive(Debug, Default)]
pub struct Figures {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    variant: Option<Variant>,
    families: [OfFamily; 2],
    dropped: [Count; 2],
}

/// A count of the kernel, which begins anew with the rule that it belongs to.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    read: u64,
    total: u64,
}

impl Count {
    fn see(&mut self, now: u64) {
        self.total += now.checked_sub(self.read).unwrap_or(now);
        self.read = now;
    }
}

/// Figures of one family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OfFamily {
    /// By table.
    pub tables: [OfTable; 2],
    /// Syncs from nothing that the kernel refused.
    pub failures: u64,
    /// Changes that the kernel refused.
    pub failed_changes: u64,
}

/// Figures of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfTable {
    /// As after `-t`.
    pub name: &'static str,
    /// Rules of ours.
    pub rules: u64,
    /// Rules that the last sync wrote.
    pub written: u64,
}

impl Default for OfTable {
    fn default() -> Self {
        Self { name: Table::Nat.name(), rules: 0, written: 0 }
    }
}

impl Figures {
    fn state(&self) -> MutexGuard<'_, State> {
        // Figures alone: nothing depends on them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn uses(&self, variant: Variant) {
        self.state().variant = Some(variant);
    }

    pub(crate) fn synced(&self, family: Family, rules: [u64; 2], done: &Done) {
        self.state().families[family as usize].tables = Table::BOTH.map(|table| {
            let (rules, written) = (rules[table as usize], done.rules[table as usize]);
            OfTable { name: table.name(), rules, written }
        });
    }

    pub(crate) fn failed(&self, family: Family, change: bool) {
        let of = &mut self.state().families[family as usize];
        *(if change { &mut of.failed_changes } else { &mut of.failures }) += 1;
    }

    /// Those of a family since the start of this process.
    #[must_use]
    pub fn of(&self, family: Family) -> OfFamily {
        let mut of = self.state().families[family as usize];
        of.tables.iter_mut().zip(Table::BOTH).for_each(|(of, table)| of.name = table.name());
        of
    }

    /// Packets of both families that were dropped because conntrack could not place them: what the kernel had counted at the
    /// first call and has counted since. Reads the kernel, in the network namespace of the calling thread.
    #[must_use]
    pub fn invalid_dropped(&self) -> u64 {
        let Some(variant) = self.state().variant else { return 0 };
        let counted = Family::BOTH.map(|family| match variant {
            Variant::Legacy => legacy_dropped(family),
            Variant::Nft => nft_dropped(family),
        });
        let mut state = self.state();
        for (count, now) in state.dropped.iter_mut().zip(counted) {
            // What cannot be read now is counted the next time.
            now.ok().flatten().into_iter().for_each(|now| count.see(now));
        }
        state.dropped.iter().map(|count| count.total).sum()
    }
}

/// The rule that drops them is the first of its chain.
fn legacy_dropped(family: Family) -> Result<Option<u64>, DoorError> {
    let filter = Table::Filter.name();
    if !legacy_table_exists(ip(family), filter) {
        return Ok(None);
    }
    let (_, packets) = Xtables::open(ip(family))?.read(filter, |view| {
        let chain = view.chain(name::FORWARD)?;
        view.rules(chain).next().map(|rule| rule.packets())
    })?;
    Ok(packets)
}

fn nft_dropped(family: Family) -> Result<Option<u64>, DoorError> {
    let rules = Nft::open()?.rules_of_chain(proto(family), Table::Filter.name(), name::FORWARD)?;
    Ok(rules.first().and_then(|rule| Exprs::packets(&rule.expressions)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_goes_on_when_the_rule_that_it_belongs_to_is_made_again() {
        let mut count = Count::default();
        for (now, total) in [(5, 5), (5, 5), (9, 9), (2, 11), (0, 11), (3, 14)] {
            count.see(now);
            assert_eq!(count.total, total);
        }
    }
}
