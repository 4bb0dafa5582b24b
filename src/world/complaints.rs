use std::collections::BTreeMap;

use crate::object::{Kind, ObjectName};
use crate::resolve::Note;

/// Which step complained: reading an object, or making a plan from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Parse,
    Plan,
}

/// What is wrong at present, so that nothing is said twice.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// Only objects with notes are here. The number is the round of the list that named the object last.
    current: BTreeMap<(Kind, ObjectName, Step), (u32, Vec<Note>)>,
    fresh: Vec<Note>,
}

impl Complaints {
    /// Replaces everything that a step says about an object.
    pub(super) fn set(&mut self, kind: Kind, name: &ObjectName, step: Step, round: u32, notes: Vec<Note>) {
        if notes.is_empty() && self.current.is_empty() {
            return;
        }
        let key = (kind, name.clone(), step);
        let known = self.current.get(&key).map(|(_, notes)| notes.as_slice()).unwrap_or_default();
        self.fresh.extend(notes.iter().filter(|note| !known.contains(note)).cloned());
        if notes.is_empty() {
            self.current.remove(&key);
        } else {
            self.current.insert(key, (round, notes));
        }
    }

    /// Forgets an object that is gone, also what has not been reported yet.
    pub(super) fn forget(&mut self, kind: Kind, name: &ObjectName) {
        for step in [Step::Parse, Step::Plan] {
            if self.current.remove(&(kind, name.clone(), step)).is_some() {
                self.fresh.retain(|note| note.object.kind != kind || note.object.object_name() != *name);
            }
        }
    }

    /// Forgets the objects that the newest list has not named.
    pub(super) fn sweep(&mut self, kind: Kind, round: u32) {
        let stale = |key: &(Kind, ObjectName, Step), seen: u32| key.0 == kind && key.2 == Step::Parse && seen != round;
        let gone: Vec<_> =
            self.current.iter().filter(|(key, (seen, _))| stale(key, *seen)).map(|(key, _)| key.1.clone()).collect();
        gone.iter().for_each(|name| self.forget(kind, name));
    }

    /// What has not been said yet.
    pub(super) fn take(&mut self) -> Vec<Note> {
        let mut notes = std::mem::take(&mut self.fresh);
        notes.sort();
        notes.dedup();
        notes
    }
}
