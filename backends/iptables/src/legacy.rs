//! The legacy variant: each table is read, changed and replaced as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_kernel::xtables::{
    Edit, EncodedChain, Hook, Ip, TableInfo, TableView, Xtables, XtablesError, legacy_table_exists,
};
use fairlead_plan::{Family, Plan};

use crate::desired::{Changes, Desired};
use crate::door::{self, CANARY, Done, DoorError, MANGLE};
use crate::encode::{self, ip};
use crate::name;
use crate::rules::{Jump, Rule, Table};

type Encoded = BTreeMap<String, Arc<EncodedChain>>;
type Infos = BTreeMap<(Family, Table), TableInfo>;

/// How large the tables were when we left them: a change by somebody else shows in that nearly always.
#[derive(Debug, Default)]
pub struct Witness {
    left: Mutex<Infos>,
}

impl Witness {
    fn left(&self) -> MutexGuard<'_, Infos> {
        // Only whole entries are written.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares with nothing any more.
    pub(crate) fn forget(&self) {
        self.left().clear();
    }

    /// Compares; a sentence if somebody has changed a table since we left it. Waits while we change one ourselves.
    ///
    /// # Errors
    /// If a table cannot be asked.
    pub fn changed(&self) -> Result<Option<String>, XtablesError> {
        let left = self.left();
        for ((family, table), was) in left.iter() {
            let now = Xtables::open(ip(*family))?.info(table.name())?;
            if now != *was {
                let place = door::place(*family, table.name());
                return Ok(Some(format!(
                    "somebody changed the {place}: it has {} entries, had {}",
                    now.entries, was.entries
                )));
            }
        }
        Ok(None)
    }
}

/// The tables of both families.
#[derive(Debug)]
pub struct Legacy {
    patience: Duration,
    witness: Arc<Witness>,
}

impl Legacy {
    pub fn new(patience: Duration, witness: Arc<Witness>) -> Self {
        Self { patience, witness }
    }

    /// What this kernel lacks for a family, and whether it knows SCTP.
    pub fn lacks(&self, family: Family) -> Result<(Vec<String>, bool), DoorError> {
        let tables = Xtables::open(ip(family))?;
        for table in Table::BOTH {
            match tables.info(table.name()) {
                Err(error) if error.is_unsupported() && tables.load() => tables.info(table.name())?,
                info => info?,
            };
        }
        let needed = encode::needed(ip(family)).into_iter().filter(|(target, one)| !tables.knows(*target, one));
        Ok((
            needed.map(|(target, one)| encode::words(target, &one)).collect(),
            tables.knows(false, &encode::needed_for_sctp(ip(family))),
        ))
    }

    /// Whether the tables are as we left them.
    pub fn is_untouched(&self, family: Family) -> Result<bool, DoorError> {
        let tables = Xtables::open(ip(family))?;
        let left = self.witness.left();
        for table in Table::BOTH {
            if left.get(&(family, table)) != Some(&tables.info(table.name())?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the tables and writes what differs from the plan.
    pub fn adopt(&mut self, family: Family, plan: &Plan, sctp: bool) -> Result<(Desired, Done), DoorError> {
        let mut wanted = [Encoded::new(), Encoded::new()];
        let desired = Desired::whole(plan, family, sctp, |chain| {
            let encoded = Arc::new(encode::chain(ip(family), &chain.rules));
            wanted[chain.table as usize].insert(chain.name, encoded);
        });
        let mut done = Done::default();
        for (table, wanted) in Table::BOTH.into_iter().zip(wanted) {
            let jumps = door::jumps(table);
            done.and(self.change(family, table, |view, done| compare(family, table, view, &wanted, &jumps, done))?);
        }
        done.and(self.remove_canary(family)?);
        Ok((desired, done))
    }

    /// Writes what is different between two plans.
    pub fn step(&mut self, family: Family, changes: &Changes) -> Result<Done, DoorError> {
        let mut done = Done::default();
        for table in Table::BOTH {
            let of_table = |chains: &BTreeMap<(Table, String), Vec<Rule>>| {
                let chains = chains.iter().filter(|((of, _), _)| *of == table);
                chains
                    .map(|((_, name), rules)| (name.clone(), Arc::new(encode::chain(ip(family), rules))))
                    .collect::<Encoded>()
            };
            let mut edit = Edit { put: of_table(&changes.new), ..Edit::default() };
            edit.put.extend(of_table(&changes.changed));
            edit.remove.extend(changes.remove.iter().filter(|(of, _)| *of == table).map(|(_, name)| name.clone()));
            if !edit.is_empty() {
                done.and(self.change(family, table, |_, _| edit.clone())?);
            }
        }
        Ok(done)
    }

    /// Removes all chains of ours.
    pub fn cleanup(&mut self, family: Family) -> Result<Done, DoorError> {
        let mut done = Done::default();
        for table in Table::BOTH {
            if legacy_table_exists(ip(family), table.name()) {
                done.and(
                    self.change(family, table, |view, done| compare(family, table, view, &Encoded::new(), &[], done))?,
                );
            }
        }
        done.and(self.remove_canary(family)?);
        self.witness.left().retain(|(of, _), _| *of != family);
        Ok(done)
    }

    fn remove_canary(&self, family: Family) -> Result<Done, DoorError> {
        if !legacy_table_exists(ip(family), MANGLE) {
            return Ok(Done::default());
        }
        let mut done = Done::default();
        Xtables::open(ip(family))?.change(MANGLE, self.patience, |view| {
            let mut edit = Edit::default();
            if view.chain(CANARY).is_some() {
                edit.remove.insert(CANARY.to_owned());
                done = Done { writes: 1, transactions: 1, found: Vec::new() };
            }
            edit
        })?;
        Ok(done)
    }

    /// Changes a table and remembers how we left it.
    fn change(
        &self,
        family: Family,
        table: Table,
        mut change: impl FnMut(&TableView<'_>, &mut Done) -> Edit,
    ) -> Result<Done, DoorError> {
        let mut left = self.witness.left();
        // Until it is known how it ended nobody shall compare.
        left.remove(&(family, table));
        let mut done = Done::default();
        let info = Xtables::open(ip(family))?.change(table.name(), self.patience, |view| {
            done = Done::default();
            let edit = change(view, &mut done);
            done.writes = size(&edit);
            done.transactions = u32::from(!edit.is_empty());
            edit
        })?;
        left.insert((family, table), info);
        Ok(done)
    }
}

fn size(edit: &Edit) -> u64 {
    let rules: u64 = edit.put.values().map(|chain| u64::from(chain.rules()) + 1).sum();
    rules + (edit.remove.len() + edit.jumps.len() + edit.cut.len()) as u64
}

/// What a table must have different to hold these chains and jumps and nothing else of ours.
fn compare(
    family: Family,
    table: Table,
    view: &TableView<'_>,
    wanted: &Encoded,
    jumps: &[Jump],
    done: &mut Done,
) -> Edit {
    let ip = ip(family);
    let mut edit = Edit::default();
    let (mut missing, mut changed) = (Vec::new(), Vec::new());
    for (name, chain) in wanted {
        match view.chain(name).map(|held| view.fingerprint(held) == chain.fingerprint(ip)) {
            Some(true) => continue,
            Some(false) => changed.push(name.as_str()),
            None => missing.push(name.as_str()),
        }
        edit.put.insert(name.clone(), Arc::clone(chain));
    }
    let ours = view.chains().iter().filter(|chain| chain.hook.is_none() && name::is_ours(&chain.name));
    edit.remove = ours.filter(|chain| !wanted.contains_key(&chain.name)).map(|chain| chain.name.clone()).collect();
    for chain in view.chains() {
        if let Some(hook) = chain.hook {
            own_chain(ip, view, (hook, chain), jumps, &mut edit);
        }
    }
    let foreign: Vec<&str> = edit.remove.iter().map(String::as_str).collect();
    let gone: Vec<&str> = edit.jumps.iter().map(|(hook, _)| hook.chain()).collect();
    let place = door::place(family, table.name());
    done.found(&place, "chains missing", &missing);
    done.found(&place, "chains changed", &changed);
    done.found(&place, "foreign chains", &foreign);
    done.found(&place, "jumps missing", &gone);
    edit
}

fn own_chain(
    ip: Ip,
    view: &TableView<'_>,
    (hook, chain): (Hook, &fairlead_kernel::xtables::HeldChain),
    jumps: &[Jump],
    edit: &mut Edit,
) {
    let wanted: Vec<_> =
        jumps.iter().filter(|jump| jump.hook == hook).map(|jump| encode::rule(ip, &jump.rule)).collect();
    let (put, cut) = door::sort_out(
        view.rules(chain),
        wanted.len(),
        |rule| rule.jump.is_some_and(door::is_our_jump),
        |rule, number| rule.is(ip, &wanted[number]),
    );
    edit.cut.extend(cut.into_iter().map(|number| (hook, number)));
    if put {
        edit.jumps.extend(wanted.into_iter().map(|rule| (hook, rule)));
    }
}
