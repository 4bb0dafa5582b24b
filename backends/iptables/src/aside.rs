//! Chains of another part of the program in the same tables, beside those of services.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_kernel::nft::{Notice, Ours};
use fairlead_kernel::xtables::{EncodedChain, Hook, Rule, Variant, Xtables, used_here};
use fairlead_plan::Family;

use crate::LOCK_PATIENCE;
use crate::door::{DoorError, Lead, Owner};
use crate::encode::ip;
use crate::legacy::{Encoded, Legacy};
use crate::nft::{NftVariant, in_nft};
use crate::rules::Table;
use crate::witness::Witness;

/// What the names of all these chains begin with.
pub const ASIDE: &str = "FAIRLEAD-";

const OWNER: Owner = Owner { is_ours: is_aside, is_our_jump: is_aside, is_led_to: false };

fn is_aside(chain: &str) -> bool {
    chain.starts_with(ASIDE)
}

/// Where a rule that leads to a chain stands in one of the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// In front of everybody's.
    First,
    /// Behind everybody's that were there before.
    Last,
}

/// Chains of one family, and what leads there from the kernel's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chains {
    chains: BTreeMap<(Table, String), Vec<Rule>>,
    jumps: Vec<(Table, Hook, Position, Rule)>,
}

impl Chains {
    /// A chain of the table `nat`, whose name must begin with [`ASIDE`].
    pub fn nat(&mut self, name: impl Into<String>, rules: Vec<Rule>) {
        self.chains.insert((Table::Nat, name.into()), rules);
    }

    /// A chain of the table `filter`, whose name must begin with [`ASIDE`].
    pub fn filter(&mut self, name: impl Into<String>, rules: Vec<Rule>) {
        self.chains.insert((Table::Filter, name.into()), rules);
    }

    /// A rule in one of the kernel's own chains of the table `nat`.
    pub fn nat_jump(&mut self, hook: Hook, position: Position, rule: Rule) {
        self.jumps.push((Table::Nat, hook, position, rule));
    }

    /// A rule in one of the kernel's own chains of the table `filter`.
    pub fn filter_jump(&mut self, hook: Hook, position: Position, rule: Rule) {
        self.jumps.push((Table::Filter, hook, position, rule));
    }

    fn leads(&self) -> [Vec<Lead>; 2] {
        Table::BOTH.map(|table| {
            let of_table = self.jumps.iter().filter(|(of, ..)| *of == table);
            let lead = |hook: &Hook, position: &Position, rule: &Rule| Lead {
                hook: *hook,
                rule: rule.clone(),
                last: *position == Position::Last,
            };
            of_table.map(|(_, hook, position, rule)| lead(hook, position, rule)).collect()
        })
    }
}

#[derive(Debug)]
enum Door {
    Legacy(Legacy),
    Nft(NftVariant),
}

/// Loads the module that knows of legacy tables, where that does not come by itself. What fails is said when a table is needed.
fn load(family: Family) {
    let tables = Xtables::open(ip(family));
    let lacking = |tables: &Xtables| tables.info(Table::Filter.name()).is_err_and(|error| error.is_unsupported());
    let _ = tables.is_ok_and(|tables| lacking(&tables) && tables.load());
}

/// Holds [`Chains`] in the tables of one variant.
#[derive(Debug)]
pub struct Aside {
    door: Door,
    variant: Variant,
    witness: Arc<Witness>,
}

impl Aside {
    /// Opens the tables of this variant, or of the one that the host uses, in the network namespace of the caller. Changes
    /// of the nf_tables variant are counted by `ours`.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn open(choice: Option<Variant>, ours: Arc<Ours>) -> Result<Self, DoorError> {
        let variant = match choice {
            Some(variant) => variant,
            None => used_here()?,
        };
        let witness = Arc::new(Witness::of(OWNER));
        let door = match variant {
            Variant::Legacy => {
                Family::BOTH.into_iter().for_each(load);
                Door::Legacy(Legacy::new(LOCK_PATIENCE, Arc::clone(&witness)).of(OWNER))
            }
            Variant::Nft => Door::Nft(NftVariant::open(ours)?.of(OWNER)),
        };
        Ok(Self { door, variant, witness })
    }

    /// Which variant it is.
    #[must_use]
    pub const fn variant(&self) -> Variant {
        self.variant
    }

    /// Whether the kernel has a match or target; loads its module.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn knows(&mut self, family: Family, target: bool, name: &str, revision: u8) -> Result<bool, DoorError> {
        match &mut self.door {
            Door::Legacy(_) => Ok(Xtables::open(ip(family))?.knows(target, name, revision)),
            Door::Nft(door) => door.knows(family, target, name, revision),
        }
    }

    /// Reads the tables and makes the kernel hold these chains and none else whose names begin with [`ASIDE`]. Says how much
    /// was written, and in sentences what was found different.
    ///
    /// # Errors
    /// If the kernel cannot be read or refuses.
    pub fn hold(&mut self, family: Family, wanted: &Chains) -> Result<(u64, Vec<String>), DoorError> {
        let leads = wanted.leads();
        let done = match &mut self.door {
            Door::Legacy(door) => {
                let mut encoded = [Encoded::new(), Encoded::new()];
                for ((table, name), rules) in &wanted.chains {
                    let mut chain = EncodedChain::default();
                    rules.iter().for_each(|rule| chain.push(ip(family), rule));
                    encoded[*table as usize].insert(name.clone(), Arc::new(chain));
                }
                door.hold(family, &encoded, &leads)?
            }
            Door::Nft(door) => {
                let encoded = |rules: &Vec<Rule>| rules.iter().map(|rule| in_nft(family, rule)).collect();
                let chains = wanted.chains.iter().map(|(key, rules)| (key.clone(), encoded(rules))).collect();
                door.hold(family, chains, &leads)?
            }
        };
        Ok((done.writes, done.found))
    }

    /// Whether the tables of the legacy variant hold what we have left there; looks only at those of which the size tells
    /// that somebody has changed them, or at `all`. The kernel announces changes of the other variant.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub fn is_as_left(&self, all: bool) -> Result<bool, DoorError> {
        Ok(self.witness.holds(all)?)
    }

    /// Removes all chains of a family whose names begin with [`ASIDE`].
    ///
    /// # Errors
    /// If the kernel cannot be read or refuses. That it lacks the variant is no error.
    pub fn remove(variant: Variant, family: Family) -> Result<(), DoorError> {
        let done = match variant {
            Variant::Legacy => Legacy::new(LOCK_PATIENCE, Arc::default()).of(OWNER).empty(family),
            Variant::Nft => NftVariant::open(Arc::default()).and_then(|door| door.of(OWNER).empty(family)),
        };
        crate::backend::unsupported(done).map(drop)
    }

    /// Whether an announcement of nf_tables is about one of these chains, or about what leads there.
    #[must_use]
    pub fn concerns(notice: &Notice) -> bool {
        OWNER.concerns(notice)
    }
}
