use std::collections::BTreeMap;

use crate::object::Kind;

/// Where each kind stands between its lists.
///
/// Every object is stamped with the round in which it was named last. When a list ends, an object with an older stamp
/// is gone. A list that breaks off and begins again starts a new round, so that nothing counts as named by halves.
#[derive(Debug, Default)]
pub(super) struct Lists {
    kinds: BTreeMap<Kind, List>,
}

#[derive(Debug, Clone, Copy, Default)]
struct List {
    round: u32,
    open: bool,
    complete: bool,
}

impl Lists {
    pub(super) fn begin(&mut self, kind: Kind) {
        let list = self.kinds.entry(kind).or_default();
        list.round = list.round.wrapping_add(1);
        list.open = true;
    }

    /// Whether a list was open, so that what it did not name is gone.
    pub(super) fn end(&mut self, kind: Kind) -> bool {
        let list = self.kinds.entry(kind).or_default();
        let was_open = std::mem::take(&mut list.open);
        list.complete |= was_open;
        was_open
    }

    pub(super) fn round(&self, kind: Kind) -> u32 {
        self.kinds.get(&kind).map_or(0, |list| list.round)
    }

    pub(super) fn complete(&self, kind: Kind) -> bool {
        self.kinds.get(&kind).is_some_and(|list| list.complete)
    }
}
