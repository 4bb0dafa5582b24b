//! Reads our table, compares, and makes one transaction of what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fairlead_kernel::nft::{Batch, ChainSpec, Element, Nfproto, Nft, NftError, SetSpec};
use fairlead_plan::Family;

use super::TABLE;
use super::wanted::{self, Member, PEERS, Set, Table};

/// nft's numbers for the types of addresses.
const TYPE_V4: u32 = 7;
const TYPE_V6: u32 = 8;
/// `NFT_SET_INTERVAL`
const RANGES: u32 = 4;

/// How the kernel calls a family.
pub const fn proto(family: Family) -> Nfproto {
    match family {
        Family::V4 => Nfproto::Ipv4,
        Family::V6 => Nfproto::Ipv6,
    }
}

/// What must be done.
#[derive(Debug)]
pub enum Step {
    /// Nothing.
    Fine,
    /// There is no table.
    Create(Batch),
    /// This, and why in words.
    Repair(Batch, String),
}

/// Compares the kernel's table with the wanted one.
///
/// # Errors
/// If the kernel cannot be read.
pub fn compare(nft: &mut Nft, family: Family, wanted: &Table) -> Result<Step, NftError> {
    if nft.table(proto(family), TABLE)?.is_none() {
        let mut batch = Batch::new();
        create(&mut batch, family, wanted);
        return Ok(Step::Create(batch));
    }
    let mut batch = Batch::new();
    if let Some(why) = other_structure(nft, family, wanted)? {
        batch.del_table(proto(family), TABLE);
        create(&mut batch, family, wanted);
        return Ok(Step::Repair(batch, why));
    }
    let mut words = Vec::new();
    for set in &wanted.sets {
        let mut held = BTreeSet::new();
        nft.elements(proto(family), TABLE, set.name, &mut |element| {
            // `nft` itself begins a set of ranges with the mark "nothing below the first range", which changes nothing.
            if !(element.interval_end() && element.key.iter().all(|byte| *byte == 0)) {
                held.insert((Box::from(element.key), element.interval_end()));
            }
        })?;
        let changes = step(&mut batch, family, set, &held);
        if changes > 0 {
            words.push(format!("{changes} elements of {}", set.name));
        }
    }
    Ok(if batch.is_empty() { Step::Fine } else { Step::Repair(batch, words.join(", ")) })
}

/// The way from one table that the kernel holds to the next; `None` if only a comparison finds it.
pub fn change(family: Family, held: &Table, wanted: &Table) -> Option<Batch> {
    let names = |table: &Table| table.sets.iter().map(|set| (set.name, set.ranges)).collect::<Vec<_>>();
    if held.chains != wanted.chains || names(held) != names(wanted) {
        return None;
    }
    let mut batch = Batch::new();
    for (held, wanted) in held.sets.iter().zip(&wanted.sets) {
        step(&mut batch, family, wanted, &held.members);
    }
    Some(batch)
}

/// The same where only peers have come and gone, sorted before and after.
pub fn change_of_peers(family: Family, held: &[IpAddr], wanted: &[IpAddr]) -> Batch {
    let mut batch = Batch::new();
    let without = |some: &[IpAddr], others: &[IpAddr]| {
        let others = |peer: &&IpAddr| others.binary_search(peer).is_err();
        some.iter().filter(others).map(|peer| (wanted::octets(*peer), false)).collect::<Vec<Member>>()
    };
    for member in without(held, wanted) {
        batch.del_element(proto(family), TABLE, PEERS, &element(&member));
    }
    for member in without(wanted, held) {
        batch.add_element(proto(family), TABLE, PEERS, &element(&member));
    }
    batch
}

fn step(batch: &mut Batch, family: Family, wanted: &Set, held: &BTreeSet<Member>) -> usize {
    let (extra, missing): (Vec<_>, Vec<_>) =
        (held.difference(&wanted.members).collect(), wanted.members.difference(held).collect());
    for member in &extra {
        batch.del_element(proto(family), TABLE, wanted.name, &element(member));
    }
    for member in &missing {
        batch.add_element(proto(family), TABLE, wanted.name, &element(member));
    }
    extra.len() + missing.len()
}

fn element(member: &Member) -> Element<'_> {
    Element { key: &member.0, interval_end: member.1, ..Element::default() }
}

fn create(batch: &mut Batch, family: Family, wanted: &Table) {
    let proto = proto(family);
    batch.add_table(proto, TABLE, None);
    for set in &wanted.sets {
        batch.add_set(proto, TABLE, &declared(family, set));
        for member in &set.members {
            batch.add_element(proto, TABLE, set.name, &element(member));
        }
    }
    for chain in &wanted.chains {
        let spec = ChainSpec { name: chain.name, hook: Some(chain.hook.clone()), userdata: None };
        batch.add_chain(proto, TABLE, &spec);
        for rule in &chain.rules {
            batch.add_rule(proto, TABLE, chain.name, &rule.0, None);
        }
    }
}

fn declared(family: Family, set: &Set) -> SetSpec<'static> {
    let (key_type, key_len) = match family {
        Family::V4 => (TYPE_V4, 4),
        Family::V6 => (TYPE_V6, 16),
    };
    SetSpec { name: set.name, key_type, key_len, flags: if set.ranges { RANGES } else { 0 }, ..SetSpec::default() }
}

/// What is declared or ruled otherwise than wanted, in words.
fn other_structure(nft: &mut Nft, family: Family, wanted: &Table) -> Result<Option<String>, NftError> {
    let proto = proto(family);
    if let Some(flags) = nft.table(proto, TABLE)?.map(|table| table.flags).filter(|flags| *flags != 0) {
        return Ok(Some(format!("the table has flags {flags:#x}")));
    }
    let sets = nft.sets(proto, TABLE)?;
    for set in &wanted.sets {
        let spec = declared(family, set);
        let same = |held: &&fairlead_kernel::nft::SetInfo| {
            held.name == spec.name
                && (held.flags, held.key_type, held.key_len) == (spec.flags, spec.key_type, spec.key_len)
        };
        if !sets.iter().any(|held| same(&held)) {
            return Ok(Some(format!("set {} is missing or declared otherwise", set.name)));
        }
    }
    let chains = nft.chains(proto, TABLE)?;
    let mut rules: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for rule in nft.rules(proto, TABLE)? {
        rules.entry(rule.chain).or_default().push(rule.expressions);
    }
    for chain in &wanted.chains {
        let hook = Some((chain.hook.hook, chain.hook.priority, Some(chain.hook.kind)));
        let hangs = |held: &fairlead_kernel::nft::ChainInfo| {
            held.hook.map(|hook| (hook.num, hook.priority, held.kind.as_deref())) == hook && held.policy != Some(0)
        };
        if !chains.iter().any(|held| held.name == chain.name && hangs(held)) {
            return Ok(Some(format!("chain {} is missing or hangs elsewhere", chain.name)));
        }
        let held = rules.get(chain.name).map_or(&[][..], Vec::as_slice);
        let same =
            held.len() == chain.rules.len() && chain.rules.iter().zip(held).all(|(rule, held)| rule.matches(held));
        if !same {
            return Ok(Some(format!("rules of chain {} are changed", chain.name)));
        }
    }
    if sets.len() != wanted.sets.len() || chains.len() != wanted.chains.len() {
        return Ok(Some("there are foreign sets or chains".to_owned()));
    }
    Ok(None)
}
