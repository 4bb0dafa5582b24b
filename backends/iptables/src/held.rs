//! The chains of ours that the kernel holds, read back whole, to follow packets through them.

use std::collections::BTreeMap;

use fairlead_kernel::nft::{Nft, NftError};
use fairlead_kernel::xtables::{
    Hook, Variant, Xtables, XtablesError, legacy_table_exists, remembered, rule_of, used_here,
};
use fairlead_plan::Family;

use crate::door::{self, is_our_jump};
use crate::encode::ip;
use crate::nft::proto;
use crate::rules::{Chain, Match, Rule, Table, Target};
use crate::trace::{Fault, Rules};
use crate::{decode, name};

/// How often the tables are read again because somebody changed them meanwhile.
const ATTEMPTS: u32 = 10;

/// Why what the kernel holds cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// The legacy variant cannot be read.
    #[error(transparent)]
    Legacy(#[from] XtablesError),
    /// The nf_tables variant cannot be read.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// It can be read, but somebody has put a rule into a chain of ours that fairlead never writes.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The variant in which there are chains of ours; `None` if in neither.
///
/// # Errors
/// If the kernel cannot be read.
pub fn held_variant() -> Result<Option<Variant>, HeldError> {
    let here = used_here()?;
    let other = if here == Variant::Nft { Variant::Legacy } else { Variant::Nft };
    for variant in [here, other] {
        for family in Family::BOTH {
            if has_services(variant, family)? {
                return Ok(Some(variant));
            }
        }
    }
    Ok(None)
}

fn has_services(variant: Variant, family: Family) -> Result<bool, HeldError> {
    let nat = Table::Nat.name();
    Ok(match variant {
        Variant::Legacy if !legacy_table_exists(ip(family), nat) => false,
        Variant::Legacy => Xtables::open(ip(family))?.read(nat, |view| view.chain(name::SERVICES).is_some())?.1,
        Variant::Nft => Nft::open()?.chains(proto(family), nat)?.iter().any(|chain| chain.name == name::SERVICES),
    })
}

/// Reads the tables of one family.
pub fn read(variant: Variant, family: Family) -> Result<Rules, HeldError> {
    let mut rules = match variant {
        Variant::Legacy => legacy(family)?,
        Variant::Nft => nft(family)?,
    };
    rules.remembered = Some(lists(&rules));
    Ok(rules)
}

fn legacy(family: Family) -> Result<Rules, HeldError> {
    let mut rules = Rules::default();
    for table in Table::BOTH.into_iter().filter(|table| legacy_table_exists(ip(family), table.name())) {
        let read = Xtables::open(ip(family))?.read(table.name(), |view| {
            let reader = Reader { family, table };
            for chain in view.chains() {
                let held = view.rules(chain).map(|rule| {
                    let rule = || decode::rule(ip(family), &rule.rule(ip(family))?);
                    rule()
                });
                match chain.hook {
                    Some(hook) => reader.own_chain(hook, held, &mut rules),
                    None if name::is_ours(&chain.name) => reader.chain(&chain.name, held, &mut rules)?,
                    None => {}
                }
            }
            Ok::<_, Fault>(())
        })?;
        read.1?;
    }
    Ok(rules)
}

/// As the tables were at one moment.
fn nft(family: Family) -> Result<Rules, HeldError> {
    let mut nft = Nft::open()?;
    for _ in 0..ATTEMPTS {
        let generation = nft.generation()?;
        let rules = nft_once(&mut nft, family)?;
        if nft.generation()? == generation {
            return Ok(rules);
        }
    }
    Err(NftError::Interrupted.into())
}

fn nft_once(nft: &mut Nft, family: Family) -> Result<Rules, HeldError> {
    let mut rules = Rules::default();
    for table in Table::BOTH {
        let reader = Reader { family, table };
        for chain in nft.chains(proto(family), table.name())? {
            let hook = Hook::ALL.into_iter().find(|hook| hook.chain() == chain.name);
            if hook.is_none() && !name::is_ours(&chain.name) {
                continue;
            }
            let held = nft.rules_of_chain(proto(family), table.name(), &chain.name)?;
            let held = held.iter().map(|rule| decode::rule(ip(family), &rule_of(ip(family), &rule.expressions)?));
            match hook {
                Some(hook) => reader.own_chain(hook, held, &mut rules),
                None => reader.chain(&chain.name, held, &mut rules)?,
            }
        }
    }
    Ok(rules)
}

#[derive(Clone, Copy)]
struct Reader {
    family: Family,
    table: Table,
}

impl Reader {
    /// Of the kernel's own chains only what leads to us is ours.
    fn own_chain(self, hook: Hook, held: impl Iterator<Item = Option<Rule>>, rules: &mut Rules) {
        let ours = |rule: &Rule| matches!(&rule.target, Target::Jump(chain) if is_our_jump(chain));
        let jumps = (1..).zip(held).filter_map(|(number, rule)| Some((number, rule.filter(ours)?)));
        rules.jumps.insert((self.table, hook), jumps.collect());
    }

    fn chain(self, name: &str, held: impl Iterator<Item = Option<Rule>>, rules: &mut Rules) -> Result<(), Fault> {
        let unknown = |number| Fault::Unknown {
            table: door::place(self.family, self.table.name()),
            chain: name.to_owned(),
            number,
        };
        let all = (1..).zip(held).map(|(number, rule)| rule.ok_or_else(|| unknown(number)));
        let all = all.collect::<Result<Vec<Rule>, Fault>>()?;
        rules.extend([Chain::new(self.table, name, all)]);
        Ok(())
    }
}

/// Who is in the lists that rules ask for.
fn lists(rules: &Rules) -> BTreeMap<String, std::collections::BTreeSet<std::net::IpAddr>> {
    let matches = rules.chains.values().flatten().flat_map(|rule| &rule.matches);
    let names = matches.filter_map(|one| match one {
        Match::Remembered { list, .. } => Some(list.clone()),
        _ => None,
    });
    names.map(|list| (list.clone(), remembered(&list))).collect()
}
