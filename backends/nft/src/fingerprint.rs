//! What a table should hold as one number for each element, against which what it does hold is read: at 100,000 endpoints
//! 1 MB, where the elements of both sides took 8.
//!
//! A number is 64 bits of a hash whose secret is drawn anew each time, so nobody can make an element that passes for
//! another; that one of 100,000 foreign ones does by chance among a million of ours has a probability of 10^-8.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use fairlead_plan::Family;

use crate::element::{Bytes, Element};
use crate::rules::{Datum, Kind, Name, Set, Value};

/// How long the parts of an element of one set are.
#[derive(Debug, Clone, Copy)]
struct Shape {
    key: usize,
    key_end: usize,
    data: usize,
}

impl Shape {
    fn of(family: Family, set: &Set) -> Self {
        let length = |kinds: &[Kind]| kinds.iter().map(|kind| kind.padded(family)).sum();
        let key = length(set.key);
        let data = match &set.value {
            Value::Data(kinds) => length(kinds),
            Value::None | Value::Verdict => 0,
        };
        Self { key, key_end: if set.interval && set.key.len() > 1 { key } else { 0 }, data }
    }

    /// What counts of an element: kernel and plan leave different parts out where they say nothing.
    fn record(self, element: &Element, record: &mut Vec<u8>) {
        let data = match &element.datum {
            Datum::Bytes(bytes) => bytes.as_slice(),
            Datum::None | Datum::Goto(_) | Datum::Drop => &[],
        };
        let end = element.key_end.as_ref().map_or(&[][..], Bytes::as_slice);
        record.push(u8::from(element.range_end));
        for (part, length) in [(element.key.as_slice(), self.key), (end, self.key_end), (data, self.data)] {
            let part = &part[..part.len().min(length)];
            record.extend_from_slice(part);
            record.extend(std::iter::repeat_n(0, length - part.len()));
        }
    }
}

/// The elements that the sets and maps of data should hold, and which of them were met.
pub struct Fingerprints {
    secret: RandomState,
    sets: HashMap<Name, Wanted>,
    record: Vec<u8>,
}

/// Those of one set.
struct Wanted {
    shape: Shape,
    prints: Vec<u64>,
    met: Vec<bool>,
}

impl Fingerprints {
    /// Of no element yet. Verdicts and what packets put into sets are no data.
    pub fn new(family: Family, sets: &[Set]) -> Self {
        let data = sets.iter().filter(|set| !set.dynamic && set.value != Value::Verdict);
        let none = |set| Wanted { shape: Shape::of(family, set), prints: Vec::new(), met: Vec::new() };
        let sets = data.map(|set| (Name::clone(&set.name), none(set))).collect();
        Self { secret: RandomState::new(), sets, record: Vec::new() }
    }

    /// Whether the elements of this set are compared here.
    pub fn covers(&self, set: &Name) -> bool {
        self.sets.contains_key(set)
    }

    /// One element more that should be there; false if its set is not compared here.
    pub fn want(&mut self, element: &Element) -> bool {
        let print = self.print(element);
        let Some((wanted, print)) = self.sets.get_mut(&element.set).zip(print) else { return false };
        wanted.prints.push(print);
        true
    }

    /// Nothing else should be there.
    pub fn seal(&mut self) {
        for wanted in self.sets.values_mut() {
            wanted.prints.sort_unstable();
            wanted.prints.dedup();
            wanted.met = vec![false; wanted.prints.len()];
        }
    }

    /// No element of this set has been met.
    pub fn begin(&mut self, set: &Name) {
        if let Some(wanted) = self.sets.get_mut(set) {
            wanted.met.fill(false);
        }
    }

    /// Takes note that an element is there; true if it should not be.
    pub fn is_foreign(&mut self, held: &Element) -> bool {
        self.met(held).is_none_or(|met| {
            *met = true;
            false
        })
    }

    /// Whether any element that should be there has not been met.
    pub fn any_missing(&self) -> bool {
        self.sets.values().any(|wanted| wanted.met.contains(&false))
    }

    /// Whether this element should be there and has not been met; said once.
    pub fn is_missing(&mut self, element: &Element) -> bool {
        self.met(element).is_some_and(|met| !std::mem::replace(met, true))
    }

    fn met(&mut self, element: &Element) -> Option<&mut bool> {
        let print = self.print(element)?;
        let wanted = self.sets.get_mut(&element.set)?;
        let at = wanted.prints.binary_search(&print).ok()?;
        wanted.met.get_mut(at)
    }

    fn print(&mut self, element: &Element) -> Option<u64> {
        let wanted = self.sets.get(&element.set)?;
        self.record.clear();
        wanted.shape.record(element, &mut self.record);
        Some(self.secret.hash_one(&self.record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{self, NAMES};

    fn element(set: &Name, number: u32, datum: u32) -> Element {
        let datum = Datum::Bytes(Bytes::EMPTY.number(datum));
        Element { datum, ..Element::member(set, Bytes::EMPTY.number(number)) }
    }

    fn wanted(family: Family) -> Fingerprints {
        let mut prints = Fingerprints::new(family, &layout::sets());
        for number in [3, 1, 2, 1] {
            assert!(prints.want(&element(NAMES.frontends(layout::Keyspace::Address), number, 7)));
        }
        prints.seal();
        prints
    }

    #[test]
    fn what_is_met_is_neither_foreign_nor_missing() {
        let set = NAMES.frontends(layout::Keyspace::Address);
        for family in Family::BOTH {
            let mut prints = wanted(family);
            assert!(prints.any_missing());
            assert!((1..=3).all(|number| !prints.is_foreign(&element(set, number, 7))), "{family:?}");
            assert!(!prints.any_missing(), "{family:?}");
            prints.begin(set);
            assert!(prints.any_missing(), "{family:?}: a dump that begins anew has met nothing");
        }
    }

    #[test]
    fn another_datum_and_another_set_make_another_element() {
        let set = NAMES.frontends(layout::Keyspace::Address);
        for family in Family::BOTH {
            let mut prints = wanted(family);
            assert!(prints.is_foreign(&element(set, 1, 8)), "{family:?}");
            assert!(prints.is_foreign(&element(NAMES.frontends(layout::Keyspace::NodePort), 1, 7)), "{family:?}");
            assert!(prints.is_foreign(&element(set, 4, 7)), "{family:?}");
            assert!(!prints.is_missing(&element(set, 1, 8)), "{family:?}");
        }
    }

    #[test]
    fn what_is_missing_is_told_once() {
        let set = NAMES.frontends(layout::Keyspace::Address);
        for family in Family::BOTH {
            let mut prints = wanted(family);
            assert!(!prints.is_foreign(&element(set, 2, 7)));
            let told: Vec<u32> = [1, 2, 3, 1].into_iter().filter(|n| prints.is_missing(&element(set, *n, 7))).collect();
            assert_eq!(told, [1, 3], "{family:?}");
        }
    }
}
