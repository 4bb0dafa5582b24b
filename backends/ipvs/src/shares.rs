//! What several services need, counted: an address by its `ClusterIP`s and by its other frontends, an endpoint that may reach
//! itself by its services.

use std::collections::HashMap;

use fairlead_kernel::ipset::SetEntry;
use fairlead_plan::Family;

use crate::entry::Entry;
use crate::mark::{Marks, Tag};
use crate::writes::Writes;

/// Entries by those who need them. See above.
#[derive(Debug, Default)]
pub struct Shares {
    of: HashMap<Entry, Share>,
    /// Entries of which the kernel may hold something else than it should.
    doubtful: Vec<Entry>,
    /// How many the kernel should hold, by family.
    counts: [u64; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct Share {
    strong: u32,
    weak: u32,
    /// The mark that the kernel has, if it has the entry.
    held: Option<Option<u32>>,
}

impl Share {
    const fn is_needed(self) -> bool {
        self.strong > 0 || self.weak > 0
    }

    /// The mark that the kernel should have.
    fn wanted(self, marks: Marks, entry: &Entry) -> Option<Option<u32>> {
        let tag = if self.strong > 0 { Tag::Refuse } else { Tag::OtherVip };
        self.is_needed().then(|| entry.set.marks().then(|| marks.tag(tag).0))
    }
}

impl Shares {
    /// The kernel holds this entry.
    pub fn note(&mut self, entry: Entry, mark: Option<u32>) {
        self.of.entry(entry).or_default().held = Some(mark);
        self.doubtful.push(entry);
    }

    /// One more needs an entry, or one less; strongly if unused ports of the address are to be refused.
    pub fn count(&mut self, entry: Entry, strong: bool, more: bool) {
        let share = self.of.entry(entry).or_default();
        let was = share.is_needed();
        let count = if strong { &mut share.strong } else { &mut share.weak };
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        let counts = &mut self.counts[entry.family as usize];
        match (was, share.is_needed()) {
            (false, true) => *counts += 1,
            (true, false) => *counts -= 1,
            _ => {}
        }
        self.doubtful.push(entry);
    }

    /// Brings the kernel to what was counted.
    pub fn settle(&mut self, marks: Marks, writes: &mut Writes) {
        for entry in self.doubtful.drain(..) {
            let Some(share) = self.of.get_mut(&entry) else { continue };
            let wanted = share.wanted(marks, &entry);
            match wanted {
                _ if wanted == share.held => {}
                Some(mark) => writes.add(entry, SetEntry { mark, ..entry.key }),
                None => writes.delete(entry),
            }
            share.held = wanted;
            if wanted.is_none() {
                self.of.remove(&entry);
            }
        }
    }

    /// All that the kernel should hold.
    pub fn all(&self, marks: Marks) -> impl Iterator<Item = (Entry, SetEntry)> + '_ {
        self.of.iter().filter_map(move |(entry, share)| {
            share.wanted(marks, entry).map(|mark| (*entry, SetEntry { mark, ..entry.key }))
        })
    }

    /// How many that are, of one family.
    pub const fn entries(&self, family: Family) -> u64 {
        self.counts[family as usize]
    }
}
