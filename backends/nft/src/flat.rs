//! The elements of one set as records of equal length side by side: at 100,000 endpoints 2 MB instead of 15.

use std::cmp::Ordering;

use fairlead_plan::Family;

use crate::element::{Bytes, Element};
use crate::rules::{Datum, Kind, Name, Set, Value};

/// How long the parts of a record are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    key: usize,
    key_end: usize,
    data: usize,
}

impl Shape {
    /// For the elements of this set.
    pub fn of(family: Family, set: &Set) -> Self {
        let length = |kinds: &[Kind]| kinds.iter().map(|kind| kind.padded(family)).sum();
        let key = length(set.key);
        let data = match &set.value {
            Value::Data(kinds) => length(kinds),
            Value::None | Value::Verdict => 0,
        };
        Self { key, key_end: if set.interval && set.key.len() > 1 { key } else { 0 }, data }
    }

    const fn place(self) -> usize {
        1 + self.key + self.key_end
    }

    const fn record(self) -> usize {
        self.place() + self.data
    }
}

/// The elements of one set.
pub struct Flat {
    shape: Shape,
    bytes: Vec<u8>,
}

impl Flat {
    /// None yet.
    pub const fn new(shape: Shape) -> Self {
        Self { shape, bytes: Vec::new() }
    }

    /// The lengths.
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// One more.
    pub fn push(&mut self, element: &Element) {
        let start = self.bytes.len();
        let data = match &element.datum {
            Datum::Bytes(bytes) => bytes.as_slice(),
            Datum::None | Datum::Goto(_) | Datum::Drop => &[],
        };
        let end = element.key_end.as_ref().map_or(&[][..], Bytes::as_slice);
        self.bytes.push(u8::from(element.range_end));
        for (part, length) in
            [(element.key.as_slice(), self.shape.key), (end, self.shape.key_end), (data, self.shape.data)]
        {
            let part = &part[..part.len().min(length)];
            self.bytes.extend_from_slice(part);
            self.bytes.extend(std::iter::repeat_n(0, length - part.len()));
        }
        debug_assert_eq!(self.bytes.len() - start, self.shape.record());
    }

    /// What must be deleted from `held` and added to it so that it becomes `self`.
    pub fn subtract_from(self, held: Self, set: &Name, old: &mut Vec<Element>, new: &mut Vec<Element>) {
        let (wanted_order, held_order) = (self.order(), held.order());
        let (mut wanted, mut present) = (wanted_order.iter().peekable(), held_order.iter().peekable());
        loop {
            let order = match (present.peek(), wanted.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(is), Some(should)) => held.record(**is).cmp(self.record(**should)),
            };
            if order.is_le() {
                old.extend(present.next().filter(|_| order.is_lt()).map(|at| held.element(set, *at)));
            }
            if order.is_ge() {
                new.extend(wanted.next().filter(|_| order.is_gt()).map(|at| self.element(set, *at)));
            }
        }
    }

    fn record(&self, at: u32) -> &[u8] {
        let start = at as usize * self.shape.record();
        &self.bytes[start..start + self.shape.record()]
    }

    /// Positions of the records in order, each record once.
    fn order(&self) -> Vec<u32> {
        let count = u32::try_from(self.bytes.len() / self.shape.record()).unwrap_or(u32::MAX);
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_unstable_by(|a, b| self.record(*a).cmp(self.record(*b)));
        order.dedup_by(|a, b| self.record(*a) == self.record(*b));
        order
    }

    fn element(&self, set: &Name, at: u32) -> Element {
        let record = self.record(at);
        let (place, data) = record.split_at(self.shape.place());
        let key_end = &place[1 + self.shape.key..];
        Element {
            set: Name::clone(set),
            key: Bytes::from_slice(&place[1..=self.shape.key]),
            key_end: (!key_end.is_empty()).then(|| Bytes::from_slice(key_end)),
            range_end: place[0] != 0,
            datum: if data.is_empty() { Datum::None } else { Datum::Bytes(Bytes::from_slice(data)) },
        }
    }
}
