//! What a table holds, and what of it must be different. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fairlead_kernel::nft::{ChainInfo, Exprs, RuleInfo};
use fairlead_kernel::xtables::Hook;
use fairlead_plan::Family;

use super::{Encoded, in_nft};
use crate::door::{self, Done, Lead, Owner};
use crate::rules::Table;

/// What is to be done to the tables of one family.
#[derive(Debug, Default)]
pub struct Edit {
    pub new: BTreeMap<(Table, String), Vec<Encoded>>,
    pub changed: BTreeMap<(Table, String), Vec<Encoded>>,
    /// Rules for the top of the kernel's own chains, the last one uppermost, or for their end.
    pub jumps: Vec<(Table, Hook, Encoded, bool)>,
    /// Rules of the kernel's own chains, by chain and handle.
    pub cut: Vec<(Table, String, u64)>,
    pub remove: BTreeSet<(Table, String)>,
    /// Chains to remove that a foreign rule leads to.
    pub keep: BTreeSet<(Table, String)>,
}

impl Edit {
    /// How many rules it writes to a table.
    pub fn rules(&self, table: Table) -> u64 {
        let chains = self.new.iter().chain(&self.changed).filter(|((of, _), _)| *of == table);
        let jumps = self.jumps.iter().filter(|(of, ..)| *of == table).count();
        (chains.map(|(_, rules)| rules.len()).sum::<usize>() + jumps) as u64
    }
}

/// What a table holds.
pub struct Held {
    pub chains: HashMap<String, ChainInfo>,
    pub rules: HashMap<String, Vec<RuleInfo>>,
}

/// The kernel's own chains of a table, as `iptables-nft` makes them.
pub fn own_chains(table: Table) -> Vec<(Hook, &'static str, i32)> {
    match table {
        Table::Nat => vec![
            (Hook::Prerouting, "nat", -100),
            (Hook::Input, "nat", 100),
            (Hook::Output, "nat", -100),
            (Hook::Postrouting, "nat", 100),
        ],
        Table::Filter => [Hook::Input, Hook::Forward, Hook::Output].map(|hook| (hook, "filter", 0)).to_vec(),
    }
}

impl Held {
    pub fn has(&self, chain: &str) -> bool {
        self.chains.contains_key(chain)
    }

    fn rules(&self, chain: &str) -> &[RuleInfo] {
        self.rules.get(chain).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn is(&self, chain: &str, rules: &[Encoded]) -> bool {
        let held = self.rules(chain);
        held.len() == rules.len() && held.iter().zip(rules).all(|(held, (rule, _))| rule.matches(&held.expressions))
    }
}

/// What a table must have different to hold these chains and, with `jumps`, the jumps to them, and nothing else of ours.
pub fn compare(
    owner: Owner,
    (family, table): (Family, Table),
    held: &Held,
    wanted: &BTreeSet<(Table, String)>,
    jumps: &[Lead],
    edit: &mut Edit,
) {
    let stays = |chain: &str| !(owner.is_ours)(chain);
    let foreign: BTreeSet<&str> = held
        .rules
        .iter()
        .filter(|(chain, _)| stays(chain))
        .flat_map(|(_, rules)| rules)
        .filter_map(|rule| Exprs::leads_to(&rule.expressions))
        .collect();
    let mut own: BTreeSet<&str> = BTreeSet::new();
    for (hook, ..) in own_chains(table) {
        let of_hook: Vec<&Lead> = jumps.iter().filter(|jump| jump.hook == hook).collect();
        let wanted: Vec<Encoded> = of_hook.iter().map(|jump| in_nft(family, &jump.rule)).collect();
        let rules = held.rules(hook.chain());
        let leads_to_us = |rule: &&RuleInfo| Exprs::leads_to(&rule.expressions).is_some_and(owner.is_our_jump);
        let is = |rule: &&RuleInfo, number: usize| wanted[number].0.matches(&rule.expressions);
        let (put, cut) = door::sort_out(rules.iter(), wanted.len(), leads_to_us, is);
        edit.cut.extend(cut.into_iter().map(|number| (table, hook.chain().to_owned(), rules[number].handle)));
        if put {
            let lasts = of_hook.iter().map(|jump| jump.last);
            edit.jumps.extend(wanted.into_iter().zip(lasts).map(|(rule, last)| (table, hook, rule, last)));
        }
        own.insert(hook.chain());
    }
    // Rules of the kernel's own chains that lead to us are cut; others may lead to us for reasons of their own.
    let kept_for = |chain: &str| {
        foreign.contains(chain)
            && held.rules.iter().filter(|(from, _)| stays(from)).any(|(from, rules)| {
                let leads = |rule: &&RuleInfo| Exprs::leads_to(&rule.expressions) == Some(chain);
                rules.iter().any(|rule| leads(&rule) && !(own.contains(from.as_str()) && (owner.is_our_jump)(chain)))
            })
    };
    for chain in held.chains.values().filter(|chain| (owner.is_ours)(&chain.name)) {
        let key = (table, chain.name.clone());
        match () {
            () if wanted.contains(&key) => {}
            () if kept_for(&chain.name) => drop(edit.keep.insert(key)),
            () => drop(edit.remove.insert(key)),
        }
    }
}

pub fn tell(family: Family, edit: &Edit, done: &mut Done) {
    for table in Table::BOTH {
        let place = door::place(family, table.name());
        let of = |chains: &BTreeMap<(Table, String), Vec<Encoded>>| {
            chains.keys().filter(|(of, _)| *of == table).map(|(_, name)| name.clone()).collect::<Vec<_>>()
        };
        let removed = edit.remove.iter().filter(|(of, _)| *of == table).map(|(_, name)| name.clone()).collect();
        let jumps =
            edit.jumps.iter().filter(|(of, ..)| *of == table).map(|(_, hook, ..)| hook.chain().to_owned()).collect();
        let all = [
            ("chains missing", of(&edit.new)),
            ("chains changed", of(&edit.changed)),
            ("foreign chains", removed),
            ("jumps missing", jumps),
        ];
        for (what, names) in all {
            done.found(&place, what, &names.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
