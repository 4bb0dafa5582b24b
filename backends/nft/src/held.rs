//! The table that the kernel holds, read back whole, to follow packets through it.

use std::collections::{BTreeMap, HashMap};

use fairlead_kernel::nft::{Nft, NftError};
use fairlead_plan::Family;

use crate::adopt::{from_kernel, is_lower_bound};
use crate::decode;
use crate::element::{Bytes, Element};
use crate::layout::TABLE;
use crate::rules::{Chain, Datum, Name, Set};
use crate::text;
use crate::trace::{Fault, Memory};
use crate::write::nfproto;

/// How often a table is read again because somebody changed the ruleset meanwhile.
const ATTEMPTS: u32 = 10;

/// Why what the kernel holds cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// The kernel cannot be read.
    #[error(transparent)]
    Kernel(#[from] NftError),
    /// It can be read, but somebody has put something into the table that fairlead never writes.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The table of one family.
#[derive(Debug, Default)]
pub struct Held {
    /// Declarations of sets and maps.
    pub sets: Vec<Set>,
    /// Chains with their rules.
    pub chains: Vec<Chain>,
    /// What is in the sets and maps, sorted.
    pub elements: Vec<Element>,
    /// What packets have put into maps: the clients that services with affinity remember.
    pub memory: Memory,
}

/// Reads the table of one family as it was at one moment; `None` if there is none.
pub fn read(nft: &mut Nft, family: Family) -> Result<Option<Held>, HeldError> {
    for _ in 0..ATTEMPTS {
        let generation = nft.generation()?;
        let held = match once(nft, family) {
            Err(HeldError::Kernel(error)) if error.is_missing() => continue,
            other => other?,
        };
        if nft.generation()? == generation {
            return Ok(held);
        }
    }
    Err(NftError::Interrupted.into())
}

fn once(nft: &mut Nft, family: Family) -> Result<Option<Held>, HeldError> {
    if nft.table(nfproto(family), TABLE)?.is_none() {
        return Ok(None);
    }
    let fault = |sentence: String| Fault(format!("table {} {TABLE}: {sentence}", text::ip(family)));
    let mut held = Held { chains: chains(nft, family)?, ..Held::default() };
    for info in nft.sets(nfproto(family), TABLE)? {
        let set = decode::set(family, &info);
        let set = set.ok_or_else(|| fault(format!("the set {} is none that fairlead makes", info.name)))?;
        elements(nft, family, &set, &mut held)?;
        held.sets.push(set);
    }
    held.elements.sort_unstable();
    Ok(Some(held))
}

fn chains(nft: &mut Nft, family: Family) -> Result<Vec<Chain>, HeldError> {
    let fault = |sentence: String| Fault(format!("table {} {TABLE}: {sentence}", text::ip(family)));
    let mut rules: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for rule in nft.rules(nfproto(family), TABLE)? {
        rules.entry(rule.chain).or_default().push(rule.expressions);
    }
    let mut chains = Vec::new();
    for info in nft.chains(nfproto(family), TABLE)? {
        let name = &info.name;
        let hook =
            decode::hook(&info).map_err(|()| fault(format!("the chain {name} hangs where none of fairlead's does")))?;
        let decoded = rules.remove(name).unwrap_or_default().into_iter().zip(1..).map(|(rule, number)| {
            let unknown = || fault(format!("rule {number} of the chain {name} is none that fairlead writes"));
            decode::rule(family, &rule).ok_or_else(unknown)
        });
        let rules = decoded.collect::<Result<_, Fault>>()?;
        chains.push(Chain { name: name.as_str().into(), hook, rules });
    }
    Ok(chains)
}

fn elements(nft: &mut Nft, family: Family, set: &Set, held: &mut Held) -> Result<(), NftError> {
    let mut remembered: BTreeMap<Bytes, u32> = BTreeMap::new();
    nft.elements(nfproto(family), TABLE, &set.name, &mut |info| {
        let element = from_kernel(&set.name, &info);
        match &element.datum {
            Datum::Bytes(bytes) if set.dynamic => {
                remembered.extend(crate::trace::number_of(bytes).map(|number| (element.key, number)));
            }
            _ if is_lower_bound(&info) => {}
            _ => held.elements.push(element),
        }
    })?;
    held.memory.extend(remembered.into_iter().map(|(key, number)| ((Name::clone(&set.name), key), number)));
    Ok(())
}
