//! From two states of a service to what must be written. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;

use fairlead_plan::{Family, Pool, Service};

use crate::element::{Bytes, Element};
use crate::layout::{Keyspace, NAMES};
use crate::render::{self, Objects};
use crate::rules::{Chain, Name, Set};
use crate::structure;

/// What must be written to the table of one family, in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Writes {
    /// Sets and maps to declare.
    pub new_sets: Vec<Set>,
    /// Chains to create with their rules.
    pub new_chains: Vec<Chain>,
    /// Chains whose rules are replaced.
    pub changed_chains: Vec<Chain>,
    /// Elements to delete.
    pub old_elements: Vec<Element>,
    /// Elements to add.
    pub new_elements: Vec<Element>,
    /// Chains to delete, with their rules.
    pub old_chains: Vec<Name>,
    /// Sets and maps to delete.
    pub old_sets: Vec<Name>,
}

impl Writes {
    /// Keeps a chain that one service gave up and another needs in the same transaction.
    pub fn settle(&mut self) {
        let both: Vec<Name> = self
            .old_chains
            .iter()
            .filter(|name| self.new_chains.iter().any(|chain| chain.name == **name))
            .cloned()
            .collect();
        self.old_chains.retain(|name| !both.contains(name));
        self.new_chains.retain(|chain| !both.contains(&chain.name));
    }

    /// Takes out what changes nothing for any packet yet: new chains that no hook leads to, with their sets, and the
    /// elements that will lead to them.
    pub fn take_ahead(&mut self) -> Self {
        if self.new_chains.iter().all(|chain| chain.hook.is_some()) {
            return Self::default();
        }
        let (new_chains, hooked) =
            std::mem::take(&mut self.new_chains).into_iter().partition(|chain| chain.hook.is_none());
        self.new_chains = hooked;
        let new_sets = std::mem::take(&mut self.new_sets);
        let replaced =
            |element: &Element, old: &[Element]| old.iter().any(|old| old.set == element.set && old.key == element.key);
        let (new_elements, later) = std::mem::take(&mut self.new_elements).into_iter().partition(|element| {
            let of_new_set = new_sets.iter().any(|set| set.name == element.set);
            of_new_set || (element.set == NAMES.actions && !replaced(element, &self.old_elements))
        });
        self.new_elements = later;
        Self { new_sets, new_chains, new_elements, ..Self::default() }
    }

    /// How many elements it touches: what bounds a transaction.
    pub fn elements(&self) -> usize {
        self.old_elements.len() + self.new_elements.len()
    }
}

/// What several services share: who still needs it?
#[derive(Debug, Default)]
pub struct Shared {
    elements: HashMap<SharedKey, u32>,
    counts: HashMap<(Keyspace, Pool, u32), u32>,
}

impl Shared {
    /// The shared elements.
    pub fn elements(&self) -> impl Iterator<Item = Element> + '_ {
        self.elements.keys().map(SharedKey::element)
    }

    /// The pool sizes in use that need chains of their own.
    pub fn counts(&self) -> impl Iterator<Item = (Keyspace, Pool, u32)> + '_ {
        self.counts.keys().copied()
    }

    /// Takes note of one service's needs, without writing anything.
    pub fn note(&mut self, objects: &Objects) {
        self.take(objects, &mut Writes::default());
    }

    fn take(&mut self, now: &Objects, writes: &mut Writes) {
        for element in &now.shared {
            if !raise(&mut self.elements, &SharedKey::of(element)) {
                continue;
            }
            writes.new_elements.push(element.clone());
        }
        for (space, pool, count) in &now.counts {
            if raise(&mut self.counts, &(*space, *pool, *count)) {
                writes.new_chains.push(structure::spread(*space, *pool, *count));
                writes.new_elements.push(structure::spread_action(*space, *pool, *count));
            }
        }
    }

    fn give(&mut self, was: &Objects, writes: &mut Writes) {
        for element in &was.shared {
            if lower(&mut self.elements, &SharedKey::of(element)) {
                writes.old_elements.push(element.clone());
            }
        }
        for (space, pool, count) in &was.counts {
            if lower(&mut self.counts, &(*space, *pool, *count)) {
                writes.old_chains.push(structure::spread(*space, *pool, *count).name);
                writes.old_elements.push(structure::spread_action(*space, *pool, *count));
            }
        }
    }
}

/// An element that services share, in a quarter of its size: a large cluster has hundreds of thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SharedKey {
    set: u8,
    length: u8,
    /// The longest key of these sets: two IPv6 addresses.
    bytes: [u8; 32],
}

impl SharedKey {
    /// The sets whose elements services share.
    fn sets() -> [&'static Name; 4] {
        [&NAMES.cluster_ips, &NAMES.hairpin, &NAMES.tcp_blocks, &NAMES.tcp_ports]
    }

    fn of(element: &Element) -> Self {
        let set = Self::sets().iter().position(|name| **name == element.set).unwrap_or_default();
        let key = element.key.as_slice();
        let mut bytes = [0; 32];
        bytes[..key.len()].copy_from_slice(key);
        Self { set: u8::try_from(set).unwrap_or_default(), length: u8::try_from(key.len()).unwrap_or_default(), bytes }
    }

    fn element(&self) -> Element {
        let key = Bytes::from_slice(&self.bytes[..usize::from(self.length)]);
        Element::member(Self::sets()[usize::from(self.set)], key)
    }
}

/// Counts one user more; says whether it is the first.
fn raise<K: Clone + Eq + std::hash::Hash>(users: &mut HashMap<K, u32>, key: &K) -> bool {
    if let Some(count) = users.get_mut(key) {
        *count += 1;
        return false;
    }
    users.insert(key.clone(), 1);
    true
}

/// Counts one user less; says whether it was the last.
fn lower<K: Eq + std::hash::Hash>(users: &mut HashMap<K, u32>, key: &K) -> bool {
    match users.get_mut(key) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        Some(_) => users.remove(key).is_some(),
        None => false,
    }
}

/// The tables of both families as far as services share them, and the writes under way.
#[derive(Debug, Default)]
pub struct Tables {
    shared: [Shared; 2],
    /// Elements that belong to one service alone, by family.
    own: [u64; 2],
}

impl Tables {
    /// What services share in one family.
    pub fn shared(&self, family: Family) -> &Shared {
        &self.shared[family as usize]
    }

    /// How many elements the table of a family holds because of services.
    pub fn elements(&self, family: Family) -> u64 {
        let shared = &self.shared[family as usize];
        self.own[family as usize] + (shared.elements.len() + shared.counts.len()) as u64
    }

    /// Takes note of a service that the kernel holds already.
    pub fn note(&mut self, family: Family, objects: &Objects) {
        self.shared[family as usize].note(objects);
        self.own[family as usize] += objects.elements.len() as u64;
    }

    /// Adds what one change needs to the writes of its family.
    pub fn change(&mut self, was: Option<&Service>, now: Option<&Service>, writes: &mut [Writes; 2]) {
        let Some(family) = now.or(was).map(|service| service.key.family) else { return };
        let (was, now) = render::both(was, now);
        let writes = &mut writes[family as usize];
        let shared = &mut self.shared[family as usize];
        elements(&was.elements, &now.elements, writes);
        structure_of(&was, &now, writes);
        if was.shared != now.shared || was.counts != now.counts {
            shared.take(&now, writes);
            shared.give(&was, writes);
        }
        // What both leave out is the same number on either side.
        let own = &mut self.own[family as usize];
        *own = *own + now.elements.len() as u64 - was.elements.len() as u64;
    }
}

/// Two sorted lists to deletions and additions. A changed datum is both, in one transaction.
pub fn elements(was: &[Element], now: &[Element], writes: &mut Writes) {
    let (mut was, mut now) = (was.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (was.peek(), now.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(was), Some(now)) => was.cmp(now),
        };
        if order.is_le() {
            writes.old_elements.extend(was.next().filter(|_| order.is_lt()).cloned());
        }
        if order.is_ge() {
            writes.new_elements.extend(now.next().filter(|_| order.is_gt()).cloned());
        }
    }
}

/// Chains and sets of a service with affinity.
fn structure_of(was: &Objects, now: &Objects, writes: &mut Writes) {
    let has = |sets: &[Set], name: &Name| sets.iter().any(|set| set.name == *name);
    writes.new_sets.extend(now.sets.iter().filter(|set| !has(&was.sets, &set.name)).cloned());
    writes.old_sets.extend(was.sets.iter().filter(|set| !has(&now.sets, &set.name)).map(|set| Name::clone(&set.name)));
    for chain in &now.chains {
        match was.chains.iter().find(|old| old.name == chain.name) {
            None => writes.new_chains.push(chain.clone()),
            Some(old) if old != chain => writes.changed_chains.push(chain.clone()),
            Some(_) => {}
        }
    }
    let gone = was.chains.iter().filter(|old| now.chains.iter().all(|chain| chain.name != old.name));
    writes.old_chains.extend(gone.map(|chain| Name::clone(&chain.name)));
}
