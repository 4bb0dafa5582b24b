//! What tells that somebody else changed a table of the legacy variant, of which the kernel announces nothing.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairlead_kernel::xtables::{Edit, EncodedChain, Hook, Ip, TableInfo, TableView, Xtables, XtablesError};
use fairlead_plan::Family;

use crate::door::{self, Lead, Owner};
use crate::encode::ip;
use crate::rules::Table;

/// How the tables were when we left them.
#[derive(Debug, Default)]
pub struct Witness {
    left: Mutex<BTreeMap<(Family, Table), Left>>,
    owner: Owner,
}

/// How a table was when we left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Its size: a change by somebody else shows in that nearly always, and it costs nothing to ask for.
    pub info: TableInfo,
    /// What of it is ours.
    pub content: Content,
}

impl Witness {
    /// For chains of this owner.
    pub(crate) fn of(owner: Owner) -> Self {
        Self { left: Mutex::default(), owner }
    }

    pub(crate) fn left(&self) -> MutexGuard<'_, BTreeMap<(Family, Table), Left>> {
        // Only whole entries are written.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares with nothing any more.
    pub(crate) fn forget(&self) {
        self.left().clear();
    }

    /// Compares sizes; a sentence if somebody has changed a table since we left it. Waits while we change one ourselves.
    ///
    /// # Errors
    /// If a table cannot be asked.
    pub fn changed(&self) -> Result<Option<String>, XtablesError> {
        let left = self.left();
        for ((family, table), was) in left.iter() {
            let now = Xtables::open(ip(*family))?.info(table.name())?;
            if now != was.info {
                let place = door::place(*family, table.name());
                return Ok(Some(format!(
                    "somebody changed the {place}: it has {} entries, had {}",
                    now.entries, was.info.entries
                )));
            }
        }
        Ok(None)
    }

    /// Whether what is ours is as we left it, whatever others have done to their own. Reads tables of another size than when
    /// we looked last, or all.
    pub(crate) fn holds(&self, all: bool) -> Result<bool, XtablesError> {
        let left = self.left().clone();
        for (key @ (family, table), was) in &left {
            let tables = Xtables::open(ip(*family))?;
            if !all && tables.info(table.name())? == was.info {
                continue;
            }
            let (info, content) = tables.read(table.name(), |view| Content::held(view, self.owner))?;
            if content != was.content {
                return Ok(false);
            }
            self.left().insert(*key, Left { info, content });
        }
        Ok(true)
    }

    /// Reads the tables and compares what of them is ours; a sentence if somebody has changed that and left the size as it was.
    /// Hinders no change of ours meanwhile. Takes 5 ms for each 10,000 rules.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn altered(&self) -> Result<Option<String>, XtablesError> {
        let left = self.left().clone();
        for (key @ (family, table), was) in &left {
            let (info, content) =
                Xtables::open(ip(*family))?.read(table.name(), |view| Content::held(view, self.owner))?;
            // If we have changed it meanwhile it may have been read before or after.
            let untouched = self.left().get(key) == Some(was);
            if untouched && info == was.info && content != was.content {
                let place = door::place(*family, table.name());
                return Ok(Some(format!("somebody changed the {place}: it has as many entries as before, but others")));
            }
        }
        Ok(None)
    }
}

/// A number for all chains of ours that have rules, and for the jumps to them, whatever the order of chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content(u64);

impl Content {
    /// Of a table that holds these chains and jumps.
    pub fn wanted(ip: Ip, chains: &BTreeMap<String, Arc<EncodedChain>>, jumps: &[Lead]) -> Self {
        let mut sum = Self::default();
        for (name, chain) in chains {
            sum = sum.with(name, chain, ip);
        }
        for hook in Hook::ALL {
            let mut rules = EncodedChain::default();
            // The last stands uppermost.
            let of_hook = jumps.iter().rev().filter(|jump| jump.hook == hook);
            of_hook.for_each(|jump| rules.push(ip, &jump.rule));
            sum = sum.with(hook.chain(), &rules, ip);
        }
        sum
    }

    /// Of a table that was read.
    pub fn held(view: &TableView<'_>, owner: Owner) -> Self {
        let mut sum = Self::default();
        for chain in view.chains() {
            let ours = chain.hook.is_none() && (owner.is_ours)(&chain.name);
            // In the kernel's own chains only what leads to us.
            let counts = |jump: Option<&str>| ours || chain.hook.is_some() && jump.is_some_and(owner.is_our_jump);
            if view.rules(chain).any(|rule| counts(rule.jump)) {
                sum.add(&chain.name, view.fingerprint_where(chain, |rule| counts(rule.jump)));
            }
        }
        sum
    }

    /// Of the same table after chains of ours were changed, and no jump.
    pub fn after(mut self, view: &TableView<'_>, edit: &Edit, ip: Ip) -> Self {
        for name in edit.put.keys().chain(&edit.remove) {
            if let Some(chain) = view.chain(name)
                && view.rules(chain).next().is_some()
            {
                self.0 = self.0.wrapping_sub(part(name, view.fingerprint(chain)));
            }
        }
        edit.put.iter().fold(self, |sum, (name, chain)| sum.with(name, chain, ip))
    }

    fn with(mut self, name: &str, chain: &EncodedChain, ip: Ip) -> Self {
        if chain.rules() > 0 {
            self.add(name, chain.fingerprint(ip));
        }
        self
    }

    fn add(&mut self, name: &str, fingerprint: u64) {
        self.0 = self.0.wrapping_add(part(name, fingerprint));
    }
}

fn part(name: &str, fingerprint: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, fingerprint).hash(&mut hasher);
    hasher.finish()
}
