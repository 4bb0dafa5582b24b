//! Says a thing once, however often it happens.

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hash, RandomState},
};

/// What is remembered; then everything is forgotten and may be said again.
const CAPACITY: usize = 4096;

/// Remembers what has been said, in 8 bytes each.
#[derive(Debug, Default)]
pub(super) struct Once {
    hasher: RandomState,
    said: HashSet<u64>,
}

impl Once {
    /// Whether this is said for the first time.
    pub fn first(&mut self, what: impl Hash) -> bool {
        if self.said.len() >= CAPACITY {
            self.said.clear();
        }
        self.said.insert(self.hasher.hash_one(what))
    }
}
