//! Comparing what the kernel holds with what it should hold.
//!
//! Used after a start, after a failure and after somebody else's change: whatever is right stays, so connections and
//! remembered clients live through restarts of fairlead.

use std::collections::{BTreeMap, HashMap};

use fairlead_kernel::nft::{DataRef, Dumped, ElementInfo, Nft, NftError};
use fairlead_plan::{Family, Plan};

use crate::diff::{self, Tables, Writes};
use crate::element::{Bytes, Element};
use crate::encode;
use crate::fingerprint::Fingerprints;
use crate::layout::TABLE;
use crate::rules::{Chain, Datum, Name, Set, Value};
use crate::whole::Whole;
use crate::write::nfproto;

/// What must be done to a table.
pub enum Adoption {
    /// It was made by another release, or somebody changed a declaration: it must be replaced at once as a whole.
    Foreign(String),
    /// It differs so much.
    Differs(Writes),
}

/// Reads the table of one family and compares it.
///
/// # Errors
/// If the kernel cannot be read.
pub fn compare(
    nft: &mut Nft,
    family: Family,
    plan: &Plan,
    whole: &Whole,
    tables: &Tables,
) -> Result<Adoption, NftError> {
    let mut writes = Writes::default();
    if let Some(reason) = sets(nft, family, whole, &mut writes)? {
        return Ok(Adoption::Foreign(reason));
    }
    if let Some(reason) = chains(nft, family, whole, &mut writes)? {
        return Ok(Adoption::Foreign(reason));
    }
    elements(nft, family, plan, whole, tables, &mut writes)?;
    Ok(Adoption::Differs(writes))
}

fn sets(nft: &mut Nft, family: Family, whole: &Whole, writes: &mut Writes) -> Result<Option<String>, NftError> {
    let held = nft.sets(nfproto(family), TABLE)?;
    let held: HashMap<&str, _> = held.iter().map(|set| (set.name.as_str(), set)).collect();
    for set in &whole.sets {
        let wanted = encode::set(family, set);
        let Some(info) = held.get(wanted.name) else {
            writes.new_sets.push(set.clone());
            continue;
        };
        let data = info.data_type.zip(info.data_len);
        // The kernel adds the flag for maps itself.
        const MAP: u32 = 0x8;
        let same = info.flags & !MAP == wanted.flags
            && (info.key_type, info.key_len) == (wanted.key_type, wanted.key_len)
            && data.map(|(number, _)| number) == wanted.data.map(|(number, _)| number);
        if !same {
            return Ok(Some(format!("set {} is declared otherwise", set.name)));
        }
    }
    let wanted: HashMap<&str, ()> = whole.sets.iter().map(|set| (&*set.name, ())).collect();
    writes.old_sets.extend(held.keys().filter(|name| !wanted.contains_key(**name)).map(|name| Name::from(*name)));
    Ok(None)
}

fn chains(nft: &mut Nft, family: Family, whole: &Whole, writes: &mut Writes) -> Result<Option<String>, NftError> {
    let proto = nfproto(family);
    let held = nft.chains(proto, TABLE)?;
    let mut rules: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for rule in nft.rules(proto, TABLE)? {
        rules.entry(rule.chain).or_default().push(rule.expressions);
    }
    for chain in &whole.chains {
        let Some(info) = held.iter().find(|info| info.name == *chain.name) else {
            writes.new_chains.push(chain.clone());
            continue;
        };
        let wanted = chain.hook.map(|hook| (hook.number, hook.priority, Some(hook.kind)));
        let hook = info.hook.map(|hook| (hook.num, hook.priority, info.kind.as_deref()));
        if wanted != hook {
            return Ok(Some(format!("chain {} hangs elsewhere", chain.name)));
        }
        if !same_rules(family, chain, rules.get(&*chain.name)) {
            writes.changed_chains.push(chain.clone());
        }
    }
    let stray = held.iter().filter(|info| whole.chains.iter().all(|chain| *chain.name != info.name));
    writes.old_chains.extend(stray.map(|info| Name::from(info.name.as_str())));
    Ok(None)
}

fn same_rules(family: Family, chain: &Chain, held: Option<&Vec<Vec<u8>>>) -> bool {
    let held = held.map_or(&[][..], Vec::as_slice);
    held.len() == chain.rules.len()
        && chain.rules.iter().zip(held).all(|(rule, held)| encode::rule(family, rule).matches(held))
}

/// What every set and map should hold.
struct Desired {
    data: Fingerprints,
    verdicts: Vec<Element>,
}

/// Hands out every element that the table of one family should hold.
fn each_wanted(family: Family, plan: &Plan, whole: &Whole, tables: &Tables, mut each: impl FnMut(&Element)) {
    whole.constant.iter().for_each(&mut each);
    Whole::each_element(family, plan, tables, each);
}

fn desired(family: Family, plan: &Plan, whole: &Whole, tables: &Tables) -> Desired {
    let mut desired = Desired { data: Fingerprints::new(family, &whole.sets), verdicts: Vec::new() };
    each_wanted(family, plan, whole, tables, |element| {
        if !desired.data.want(element) {
            desired.verdicts.push(element.clone());
        }
    });
    desired.data.seal();
    desired
}

/// Reads what is there and keeps what should not be, then goes through the plan once more for what was not met.
fn elements(
    nft: &mut Nft,
    family: Family,
    plan: &Plan,
    whole: &Whole,
    tables: &Tables,
    writes: &mut Writes,
) -> Result<(), NftError> {
    let Desired { mut data, verdicts } = desired(family, plan, whole, tables);
    for set in &whole.sets {
        let present = writes.new_sets.iter().all(|new| new.name != set.name);
        if set.value == Value::Verdict {
            verdict_map(nft, family, set, &verdicts, present, writes)?;
        } else if present && data.covers(&set.name) {
            foreign_data(nft, family, set, &mut data, writes)?;
        }
    }
    if data.any_missing() {
        each_wanted(family, plan, whole, tables, |element| {
            if data.is_missing(element) {
                writes.new_elements.push(element.clone());
            }
        });
    }
    writes.old_elements.sort_unstable();
    writes.new_elements.sort_unstable();
    Ok(())
}

fn foreign_data(
    nft: &mut Nft,
    family: Family,
    set: &Set,
    data: &mut Fingerprints,
    writes: &mut Writes,
) -> Result<(), NftError> {
    let before = writes.old_elements.len();
    nft.stream_elements(nfproto(family), TABLE, &set.name, &mut |step| match step {
        Dumped::Begin => {
            data.begin(&set.name);
            writes.old_elements.truncate(before);
        }
        Dumped::Item(info) => {
            let held = from_kernel(&set.name, &info);
            if !is_lower_bound(&info) && data.is_foreign(&held) {
                writes.old_elements.push(held);
            }
        }
    })
}

fn verdict_map(
    nft: &mut Nft,
    family: Family,
    set: &Set,
    wanted: &[Element],
    present: bool,
    writes: &mut Writes,
) -> Result<(), NftError> {
    let mut held = Vec::new();
    if present {
        nft.elements(nfproto(family), TABLE, &set.name, &mut |info| held.push(from_kernel(&set.name, &info)))?;
    }
    let mut wanted: Vec<Element> = wanted.iter().filter(|element| element.set == set.name).cloned().collect();
    wanted.sort_unstable();
    held.sort_unstable();
    diff::elements(&held, &wanted, writes);
    Ok(())
}

/// `nft` itself begins a set of ranges with the mark "nothing is in here below the first range", which changes nothing.
pub fn is_lower_bound(info: &ElementInfo<'_>) -> bool {
    info.interval_end() && info.key.iter().all(|byte| *byte == 0)
}

/// An element as it was read.
pub fn from_kernel(set: &Name, info: &ElementInfo<'_>) -> Element {
    let datum = match info.data {
        None => Datum::None,
        Some(DataRef::Value(bytes)) => Datum::Bytes(Bytes::from_slice(bytes)),
        Some(DataRef::Verdict { chain: Some(chain), .. }) => Datum::Goto(chain.into()),
        Some(DataRef::Verdict { .. }) => Datum::Drop,
    };
    let (key, key_end) = (Bytes::from_slice(info.key), info.key_end.map(Bytes::from_slice));
    Element { set: Name::clone(set), key, key_end, range_end: info.interval_end(), datum }
}
