//! The table of one family with its elements in the order in which they are looked up.

use std::collections::BTreeMap;

use fairlead_plan::{Family, Plan};

use super::Fault;
use crate::element::{Bytes, Element};
use crate::layout::TABLE;
use crate::rules::{Chain, Datum, Kind, Name, Set};
use crate::text;
use crate::whole::Whole;

/// One table.
#[derive(Debug)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Chains by name.
    pub chains: BTreeMap<Name, Chain>,
    sets: BTreeMap<Name, Contents>,
    /// Chains at a hook, by its name, first priority first.
    hooks: BTreeMap<&'static str, Vec<Name>>,
}

/// A set or map and what is in it.
#[derive(Debug)]
pub struct Contents {
    /// The declaration.
    pub set: Set,
    family: Family,
    exact: BTreeMap<Bytes, Datum>,
    /// Where plain ranges begin (`false`) and where they have ended (`true`).
    bounds: BTreeMap<Bytes, bool>,
    /// Ranges of concatenated keys, first to last, by first.
    ranges: Vec<(Bytes, Bytes)>,
}

impl Table {
    /// What a plan becomes in one family.
    pub fn new(family: Family, plan: &Plan) -> Result<Self, Fault> {
        let (whole, elements) = Whole::with_elements(family, plan);
        Self::of(family, whole.sets, whole.chains, &elements)
    }

    /// A table of these. Elements come sorted.
    pub fn of(family: Family, sets: Vec<Set>, mut chains: Vec<Chain>, elements: &[Element]) -> Result<Self, Fault> {
        let mut table = Self { family, chains: BTreeMap::new(), sets: BTreeMap::new(), hooks: BTreeMap::new() };
        for set in sets {
            let name = Name::clone(&set.name);
            if table.sets.insert(Name::clone(&name), Contents::new(family, set)).is_some() {
                return Err(table.fault(&format!("the set {name} is declared twice")));
            }
        }
        chains.sort_by_key(|chain| chain.hook.map(|hook| hook.priority));
        for chain in chains {
            let name = Name::clone(&chain.name);
            if let Some(hook) = &chain.hook {
                table.hooks.entry(hook.name).or_default().push(Name::clone(&name));
            }
            if table.chains.insert(Name::clone(&name), chain).is_some() {
                return Err(table.fault(&format!("there are two chains {name}")));
            }
        }
        for element in elements {
            let Some(contents) = table.sets.get_mut(&element.set) else {
                return Err(table.fault(&format!("an element is for the set {}, which is not declared", element.set)));
            };
            contents.add(element).map_err(|sentence| table.fault(&sentence))?;
        }
        Ok(table)
    }

    /// A sentence about this table.
    pub fn fault(&self, sentence: &str) -> Fault {
        Fault(format!("table {} {TABLE}: {sentence}", text::ip(self.family)))
    }

    /// The names of all chains and sets.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.chains.keys().chain(self.sets.keys())
    }

    /// The chain of this name.
    pub fn chain(&self, name: &Name) -> Result<&Chain, Fault> {
        self.chains.get(name).ok_or_else(|| self.fault(&format!("there is no chain {name}")))
    }

    /// The chains at a hook in the order in which packets meet them.
    pub fn hook(&self, name: &str) -> impl Iterator<Item = &Chain> {
        self.hooks.get(name).into_iter().flatten().filter_map(|chain| self.chains.get(chain))
    }

    /// The set or map of this name.
    pub fn contents(&self, name: &Name) -> Result<&Contents, Fault> {
        self.sets.get(name).ok_or_else(|| self.fault(&format!("there is no set {name}")))
    }
}

impl Contents {
    const fn new(family: Family, set: Set) -> Self {
        Self { set, family, exact: BTreeMap::new(), bounds: BTreeMap::new(), ranges: Vec::new() }
    }

    /// Elements come sorted. The kernel takes the same element twice, but not two meanings of one key.
    fn add(&mut self, element: &Element) -> Result<(), String> {
        let name = &self.set.name;
        let text = || text::value(self.family, &element.key, self.set.key);
        let length: usize = self.set.key.iter().map(|kind| kind.padded(self.family)).sum();
        if element.key.as_slice().len() != length {
            return Err(format!("the key {:?} does not fit into {name}", element.key));
        }
        let is_range = self.set.interval && self.set.key.len() > 1;
        if element.key_end.is_some() != is_range || (element.range_end && (is_range || !self.set.interval)) {
            return Err(format!("{} is a range where {name} has none, or the other way round", text()));
        }
        if let Some(last) = element.key_end {
            let (before, kinds) = (self.ranges.last(), self.set.key);
            if let Some(before) = before.filter(|before| overlap(self.family, kinds, **before, (element.key, last))) {
                return Err(format!("{name} has two ranges over {}, the other from {:?}", text(), before.0));
            }
            self.ranges.push((element.key, last));
        } else if self.set.interval {
            let ended = self.bounds.entry(element.key).or_insert(element.range_end);
            *ended &= element.range_end;
        } else if let Some(other) = self.exact.insert(element.key, element.datum.clone())
            && other != element.datum
        {
            return Err(format!("{} in {name} is both {other:?} and {:?}", text(), element.datum));
        }
        Ok(())
    }

    /// What the key leads to, `None` if it is not in here.
    pub fn find(&self, key: &Bytes) -> Option<&Datum> {
        const MEMBER: &Datum = &Datum::None;
        if !self.set.interval {
            return self.exact.get(key);
        }
        let found = if self.set.key.len() == 1 {
            self.bounds.range(..=*key).next_back().is_some_and(|(_, ended)| !ended)
        } else {
            self.ranges.iter().any(|range| overlap(self.family, self.set.key, *range, (*key, *key)))
        };
        found.then_some(MEMBER)
    }

    /// The first key that leads there.
    pub fn key_of(&self, datum: &Datum) -> Option<Bytes> {
        self.exact.iter().find(|(_, other)| *other == datum).map(|(key, _)| *key)
    }

    /// The keys, where they are not ranges.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.exact.keys()
    }

    /// What the elements map to.
    pub fn data(&self) -> impl Iterator<Item = &Datum> {
        self.exact.values()
    }
}

/// Whether two ranges of concatenated keys have a key in common: in every part the ranges must meet.
fn overlap(family: Family, kinds: &[Kind], one: (Bytes, Bytes), other: (Bytes, Bytes)) -> bool {
    let mut at = 0;
    kinds.iter().all(|kind| {
        let part = at..at + kind.padded(family);
        at = part.end;
        let [first, last, other_first, other_last] =
            [&one.0, &one.1, &other.0, &other.1].map(|bytes| &bytes.as_slice()[part.clone()]);
        first <= other_last && other_first <= last
    })
}
