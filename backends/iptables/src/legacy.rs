//! The legacy variant: each table is read, changed and replaced as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_kernel::xtables::{Edit, EncodedChain, Hook, Ip, TableView, Xtables, legacy_table_exists};
use fairlead_plan::{Family, Plan};

use crate::desired::{Changes, Desired};
use crate::door::{self, CANARY, Done, DoorError, Lead, MANGLE, Owner};
use crate::encode::{self, Needed, ip};
use crate::rules::{Rule, Table};
use crate::witness::{Content, Left, Witness};

/// Chains by name.
pub type Encoded = BTreeMap<String, Arc<EncodedChain>>;

/// The tables of both families.
#[derive(Debug)]
pub struct Legacy {
    patience: Duration,
    witness: Arc<Witness>,
    owner: Owner,
}

impl Legacy {
    pub fn new(patience: Duration, witness: Arc<Witness>) -> Self {
        Self { patience, witness, owner: Owner::default() }
    }

    /// For chains of another owner.
    pub fn of(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    /// What of this the kernel lacks for a family, and whether it knows SCTP.
    pub fn lacks(&self, family: Family, needed: &[Needed]) -> Result<(Vec<String>, bool), DoorError> {
        let tables = Xtables::open(ip(family))?;
        for table in Table::BOTH {
            match tables.info(table.name()) {
                Err(error) if error.is_unsupported() && tables.load() => tables.info(table.name())?,
                info => info?,
            };
        }
        let unknown = needed.iter().filter(|needed| !tables.knows(needed.target, needed.one.name, needed.one.revision));
        let sctp = encode::needed_for_sctp(ip(family));
        Ok((unknown.map(Needed::words).collect(), tables.knows(false, sctp.name, sctp.revision)))
    }

    /// Whether the tables are as we left them.
    pub fn is_untouched(&self, family: Family) -> Result<bool, DoorError> {
        let tables = Xtables::open(ip(family))?;
        let left = self.witness.left();
        for table in Table::BOTH {
            if left.get(&(family, table)).map(|left| left.info) != Some(tables.info(table.name())?) {
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
        let mut done = self.hold(family, &wanted, &Table::BOTH.map(|table| door::jumps(family, table)))?;
        done.and(self.remove_canary(family)?);
        Ok((desired, done))
    }

    /// Reads the tables and writes what differs from these chains and jumps, by table.
    pub fn hold(&mut self, family: Family, wanted: &[Encoded; 2], jumps: &[Vec<Lead>; 2]) -> Result<Done, DoorError> {
        let mut done = Done::default();
        for (table, (wanted, jumps)) in Table::BOTH.into_iter().zip(wanted.iter().zip(jumps)) {
            let nothing = wanted.is_empty() && jumps.is_empty();
            if nothing && !legacy_table_exists(ip(family), table.name()) {
                continue;
            }
            let content = Content::wanted(ip(family), wanted, jumps);
            let owner = self.owner;
            done.and(self.change(family, table, |view, done| {
                (compare(owner, (family, table), view, wanted, jumps, done), content)
            })?);
        }
        Ok(done)
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
                let was = self.witness.left().get(&(family, table)).map(|left| left.content).unwrap_or_default();
                done.and(self.change(family, table, |view, _| (edit.clone(), was.after(view, &edit, ip(family))))?);
            }
        }
        Ok(done)
    }

    /// Removes all chains of ours, and those of kube-proxy.
    pub fn cleanup(&mut self, family: Family) -> Result<Done, DoorError> {
        let mut done = self.empty(family)?;
        done.and(self.remove_canary(family)?);
        Ok(done)
    }

    /// Removes all chains of ours.
    pub fn empty(&mut self, family: Family) -> Result<Done, DoorError> {
        let done = self.hold(family, &Default::default(), &Default::default())?;
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
                done = Done { writes: 1, transactions: 1, ..Done::default() };
            }
            edit
        })?;
        Ok(done)
    }

    /// Changes a table and remembers how we left it: `change` gives what shall be different, and what is ours then.
    fn change(
        &self,
        family: Family,
        table: Table,
        mut change: impl FnMut(&TableView<'_>, &mut Done) -> (Edit, Content),
    ) -> Result<Done, DoorError> {
        let mut left = self.witness.left();
        // Until it is known how it ended nobody shall compare.
        left.remove(&(family, table));
        let mut done = Done::default();
        let mut content = Content::default();
        let info = Xtables::open(ip(family))?.change(table.name(), self.patience, |view| {
            done = Done::default();
            let edit;
            (edit, content) = change(view, &mut done);
            done.rules[table as usize] = written(&edit);
            done.writes = size(&edit);
            done.transactions = u32::from(!edit.is_empty());
            edit
        })?;
        left.insert((family, table), Left { info, content });
        Ok(done)
    }
}

fn written(edit: &Edit) -> u64 {
    edit.put.values().map(|chain| u64::from(chain.rules())).sum::<u64>() + (edit.jumps.len() + edit.tails.len()) as u64
}

fn size(edit: &Edit) -> u64 {
    written(edit) + (edit.put.len() + edit.remove.len() + edit.cut.len()) as u64
}

/// What a table must have different to hold these chains and jumps and nothing else of ours.
fn compare(
    owner: Owner,
    (family, table): (Family, Table),
    view: &TableView<'_>,
    wanted: &Encoded,
    jumps: &[Lead],
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
    let ours = view.chains().iter().filter(|chain| chain.hook.is_none() && (owner.is_ours)(&chain.name));
    edit.remove = ours.filter(|chain| !wanted.contains_key(&chain.name)).map(|chain| chain.name.clone()).collect();
    for chain in view.chains() {
        if let Some(hook) = chain.hook {
            own_chain(owner, ip, view, (hook, chain), jumps, &mut edit);
        }
    }
    let foreign: Vec<&str> = edit.remove.iter().map(String::as_str).collect();
    let gone: Vec<&str> = edit.jumps.iter().chain(&edit.tails).map(|(hook, _)| hook.chain()).collect();
    let place = door::place(family, table.name());
    done.found(&place, "chains missing", &missing);
    done.found(&place, "chains changed", &changed);
    done.found(&place, "foreign chains", &foreign);
    done.found(&place, "jumps missing", &gone);
    edit
}

fn own_chain(
    owner: Owner,
    ip: Ip,
    view: &TableView<'_>,
    (hook, chain): (Hook, &fairlead_kernel::xtables::HeldChain),
    jumps: &[Lead],
    edit: &mut Edit,
) {
    let wanted: Vec<_> = jumps.iter().filter(|jump| jump.hook == hook).collect();
    let (put, cut) = door::sort_out(
        view.rules(chain),
        wanted.len(),
        |rule| rule.jump.is_some_and(owner.is_our_jump),
        |rule, number| rule.is(ip, &wanted[number].rule),
    );
    edit.cut.extend(cut.into_iter().map(|number| (hook, number)));
    if put {
        let of = |last| wanted.iter().filter(move |jump| jump.last == last).map(move |jump| (hook, jump.rule.clone()));
        edit.jumps.extend(of(false));
        edit.tails.extend(of(true));
    }
}
