use std::collections::{BTreeMap, HashMap};

use super::PeerId;
use crate::overlay::desired::{Key, Local, Value};
use crate::overlay::settings::Settings;

/// One decision in progress.
pub(super) struct Round<'a> {
    pub settings: &'a Settings,
    pub local: &'a Local,
    /// What keys were before, if anything, where somebody asks.
    pub before: HashMap<Key, Option<Value>>,
    asked: bool,
    /// What became of each peer that was looked at: the trouble with it, if any.
    pub decided: BTreeMap<PeerId, Option<(&'static str, String)>>,
}

impl<'a> Round<'a> {
    pub fn new(settings: &'a Settings, local: &'a Local, asked: bool) -> Self {
        Self { settings, local, before: HashMap::new(), asked, decided: BTreeMap::new() }
    }

    /// The first word counts.
    pub fn was(&mut self, key: Key, value: Option<Value>) {
        if self.asked {
            self.before.entry(key).or_insert(value);
        }
    }
}
