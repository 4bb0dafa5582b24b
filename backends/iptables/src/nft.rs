//! The nf_tables variant: rules as `iptables-nft` writes them, in transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fairlead_kernel::nft::{Batch, ChainInfo, ChainSpec, Exprs, HookSpec, Nfproto, Nft, NftError, Ours, RuleInfo};
use fairlead_kernel::xtables::{self, Hook, expressions};
use fairlead_plan::{Family, Plan};

use crate::desired::{Changes, Desired};
mod difference;

use difference::{Edit, Held, compare, own_chains, tell};

use crate::door::{self, CANARY, Done, DoorError, Lead, MANGLE, Owner};
use crate::encode::{self, Needed, ip};
use crate::rules::{Rule, Table};

/// Rules or chains in one transaction where it need not be one.
const AT_ONCE: usize = 8_000;
/// What tables and chains of the kernel's own carry that we made, so that cleanup takes them away again.
const MADE_BY_US: &[u8] = b"fairlead";
const POLICY_ACCEPT: u32 = 1;

/// A rule as the kernel takes it, with the protocol that it asks for.
pub type Encoded = (Exprs, Option<u8>);

/// The tables of both families.
#[derive(Debug)]
pub struct NftVariant {
    nft: Nft,
    ours: Arc<Ours>,
    owner: Owner,
}

/// The kernel's name for a family.
pub const fn proto(family: Family) -> Nfproto {
    match family {
        Family::V4 => Nfproto::Ipv4,
        Family::V6 => Nfproto::Ipv6,
    }
}

fn encoded(family: Family, rule: &Rule) -> Encoded {
    in_nft(family, &encode::rule(ip(family), rule))
}

/// A rule in the kernel's terms, in those of this variant.
pub fn in_nft(family: Family, rule: &xtables::Rule) -> Encoded {
    (expressions(ip(family), rule), rule.protocol)
}

fn all_encoded(family: Family, rules: &[Rule]) -> Vec<Encoded> {
    rules.iter().map(|rule| encoded(family, rule)).collect()
}

impl NftVariant {
    /// Opens the connection, and tells `ours` what it does.
    pub fn open(ours: Arc<Ours>) -> Result<Self, DoorError> {
        let nft = Nft::open()?;
        ours.opened(nft.port_id());
        Ok(Self { nft, ours, owner: Owner::default() })
    }

    /// For chains of another owner.
    pub fn of(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    /// What of this the kernel lacks for a family, and whether it knows SCTP.
    pub fn lacks(&mut self, family: Family, needed: &[Needed]) -> Result<(Vec<String>, bool), DoorError> {
        let mut lacking = Vec::new();
        for one in needed {
            if !self.nft.knows_extension(proto(family), one.target, one.one.name, one.one.revision)? {
                lacking.push(one.words());
            }
        }
        let sctp = encode::needed_for_sctp(ip(family));
        Ok((lacking, self.nft.knows_extension(proto(family), false, sctp.name, sctp.revision)?))
    }

    /// Whether the kernel has a match or target; loads its module.
    pub fn knows(&mut self, family: Family, target: bool, name: &str, revision: u8) -> Result<bool, DoorError> {
        Ok(self.nft.knows_extension(proto(family), target, name, revision)?)
    }

    /// Reads the tables and writes what differs from the plan.
    pub fn adopt(&mut self, family: Family, plan: &Plan, sctp: bool) -> Result<(Desired, Done), DoorError> {
        if family == Family::V4 {
            self.ours.begin(self.nft.generation()?);
        }
        self.make_tables(family)?;
        let held = [self.held(family, Table::Nat)?, self.held(family, Table::Filter)?];
        let mut edit = Edit::default();
        let mut wanted: BTreeSet<(Table, String)> = BTreeSet::new();
        let desired = Desired::whole(plan, family, sctp, |chain| {
            let rules = all_encoded(family, &chain.rules);
            let held = &held[chain.table as usize];
            let key = (chain.table, chain.name);
            match held.has(&key.1) {
                false => drop(edit.new.insert(key.clone(), rules)),
                true if !held.is(&key.1, &rules) => drop(edit.changed.insert(key.clone(), rules)),
                true => {}
            }
            wanted.insert(key);
        });
        for (table, held) in Table::BOTH.into_iter().zip(&held) {
            compare(self.owner, (family, table), held, &wanted, &door::jumps(family, table), &mut edit);
        }
        let mut done = self.commit(family, &edit)?;
        tell(family, &edit, &mut done);
        done.and(self.remove_canary(family)?);
        Ok((desired, done))
    }

    /// Reads the tables and writes what differs from these chains and jumps, by table.
    pub fn hold(
        &mut self,
        family: Family,
        chains: BTreeMap<(Table, String), Vec<Encoded>>,
        jumps: &[Vec<Lead>; 2],
    ) -> Result<Done, DoorError> {
        self.make_tables(family)?;
        let held = [self.held(family, Table::Nat)?, self.held(family, Table::Filter)?];
        let wanted = chains.keys().cloned().collect();
        let mut edit = Edit::default();
        for ((table, name), rules) in chains {
            let of_table = &held[table as usize];
            match of_table.has(&name) {
                false => drop(edit.new.insert((table, name), rules)),
                true if !of_table.is(&name, &rules) => drop(edit.changed.insert((table, name), rules)),
                true => {}
            }
        }
        for (table, (held, jumps)) in Table::BOTH.into_iter().zip(held.iter().zip(jumps)) {
            compare(self.owner, (family, table), held, &wanted, jumps, &mut edit);
        }
        let mut done = self.commit(family, &edit)?;
        tell(family, &edit, &mut done);
        Ok(done)
    }

    /// Writes what is different between two plans.
    pub fn step(&mut self, family: Family, changes: &Changes) -> Result<Done, DoorError> {
        let all = |chains: &BTreeMap<(Table, String), Vec<Rule>>| {
            chains.iter().map(|(key, rules)| (key.clone(), all_encoded(family, rules))).collect()
        };
        let remove = changes.remove.clone();
        let edit = Edit { new: all(&changes.new), changed: all(&changes.changed), remove, ..Edit::default() };
        Ok(self.commit(family, &edit)?)
    }

    /// Removes all chains of ours and those of kube-proxy, and the tables and chains of the kernel's own that only we used.
    pub fn cleanup(&mut self, family: Family) -> Result<Done, DoorError> {
        let canary = self.remove_canary(family)?;
        let mut done = self.empty(family)?;
        done.and(canary);
        Ok(done)
    }

    /// Removes all chains of ours, and the tables and chains of the kernel's own that only we used.
    pub fn empty(&mut self, family: Family) -> Result<Done, DoorError> {
        let mut edit = Edit::default();
        for table in Table::BOTH {
            let held = self.held(family, table)?;
            compare(self.owner, (family, table), &held, &BTreeSet::new(), &[], &mut edit);
        }
        let done = self.commit(family, &edit)?;
        for table in Table::BOTH {
            self.unmake_table(family, table)?;
        }
        Ok(done)
    }

    fn send(&mut self, batch: &Batch) -> Result<(), NftError> {
        if !batch.is_empty() {
            self.nft.commit(batch)?;
            self.ours.committed();
        }
        Ok(())
    }

    fn held(&mut self, family: Family, table: Table) -> Result<Held, NftError> {
        let chains = self.nft.chains(proto(family), table.name())?;
        let chains: HashMap<String, ChainInfo> = chains.into_iter().map(|chain| (chain.name.clone(), chain)).collect();
        let mut rules: HashMap<String, Vec<RuleInfo>> = HashMap::new();
        let hooks = Hook::ALL.map(Hook::chain);
        let owner = self.owner;
        let matters = |chain: &str| owner.is_led_to || (owner.is_ours)(chain) || hooks.contains(&chain);
        for chain in chains.keys().filter(|chain| matters(chain)) {
            let of_chain = self.nft.rules_of_chain(proto(family), table.name(), chain)?;
            if !of_chain.is_empty() {
                rules.insert(chain.clone(), of_chain);
            }
        }
        Ok(Held { chains, rules })
    }

    /// Makes tables and chains of the kernel's own where there are none. One that is there keeps its policy.
    fn make_tables(&mut self, family: Family) -> Result<(), NftError> {
        let mut batch = Batch::new();
        for table in Table::BOTH {
            let there = self.nft.chains(proto(family), table.name())?;
            if self.nft.table(proto(family), table.name())?.is_none() {
                batch.add_table(proto(family), table.name(), Some(MADE_BY_US));
            }
            for (hook, kind, priority) in own_chains(table) {
                if there.iter().all(|chain| chain.name != hook.chain()) {
                    let place = HookSpec { kind, hook: hook as u32, priority };
                    let userdata = Some(MADE_BY_US.to_vec());
                    let chain = ChainSpec { name: hook.chain(), hook: Some(place), userdata };
                    batch.add_chain(proto(family), table.name(), &chain);
                }
            }
        }
        self.send(&batch)
    }

    fn unmake_table(&mut self, family: Family, table: Table) -> Result<(), NftError> {
        let held = self.held(family, table)?;
        let mut batch = Batch::new();
        let ours = |chain: &&ChainInfo| {
            chain.userdata == MADE_BY_US && !held.rules.contains_key(&chain.name) && chain.policy == Some(POLICY_ACCEPT)
        };
        let gone: Vec<&str> = held.chains.values().filter(ours).map(|chain| chain.name.as_str()).collect();
        gone.iter().for_each(|chain| batch.del_chain(proto(family), table.name(), chain));
        let info = self.nft.table(proto(family), table.name())?;
        let empty = gone.len() == held.chains.len() && self.nft.sets(proto(family), table.name())?.is_empty();
        if empty && info.is_some_and(|info| info.userdata == MADE_BY_US) {
            batch.del_table(proto(family), table.name());
        }
        self.send(&batch)
    }

    fn remove_canary(&mut self, family: Family) -> Result<Done, NftError> {
        if self.nft.chains(proto(family), MANGLE)?.iter().all(|chain| chain.name != CANARY) {
            return Ok(Done::default());
        }
        let mut batch = Batch::new();
        batch.del_chain(proto(family), MANGLE, CANARY);
        self.send(&batch)?;
        Ok(Done { writes: 1, transactions: 1, ..Done::default() })
    }

    /// New chains go ahead and old ones go after: a packet that is under way while a transaction takes effect may see a
    /// part of before and a part of after, and would find a chain empty that is made or removed in the same transaction.
    fn commit(&mut self, family: Family, edit: &Edit) -> Result<Done, NftError> {
        let proto = proto(family);
        let mut writer = Writer { variant: self, batch: Batch::new(), items: 0, done: Done::default() };
        for (table, chain) in edit.new.keys() {
            writer.batch.add_chain(proto, table.name(), &ChainSpec { name: chain, ..ChainSpec::default() });
            writer.one_of_many()?;
        }
        for ((table, chain), rules) in &edit.new {
            for rule in rules {
                writer.rule(proto, *table, chain, rule);
                writer.one_of_many()?;
            }
        }
        writer.send()?;
        for ((table, chain), rules) in &edit.changed {
            writer.batch.flush_chain(proto, table.name(), chain);
            rules.iter().for_each(|rule| writer.rule(proto, *table, chain, rule));
        }
        for (table, hook, (exprs, protocol), last) in &edit.jumps {
            writer.batch.add_xtables_rule(proto, table.name(), hook.chain(), &exprs.0, *protocol, !last);
        }
        for (table, chain, handle) in &edit.cut {
            writer.batch.del_rule(proto, table.name(), chain, *handle);
        }
        writer.send()?;
        for (table, chain) in edit.remove.iter().chain(&edit.keep) {
            writer.batch.flush_chain(proto, table.name(), chain);
        }
        for (table, chain) in &edit.remove {
            writer.batch.del_chain(proto, table.name(), chain);
            writer.one_of_many()?;
        }
        writer.send()?;
        writer.done.rules = Table::BOTH.map(|table| edit.rules(table));
        Ok(writer.done)
    }
}

/// Gathers transactions.
struct Writer<'n> {
    variant: &'n mut NftVariant,
    batch: Batch,
    items: usize,
    done: Done,
}

impl Writer<'_> {
    fn rule(&mut self, proto: Nfproto, table: Table, chain: &str, (exprs, protocol): &Encoded) {
        self.batch.add_xtables_rule(proto, table.name(), chain, &exprs.0, *protocol, false);
    }

    /// What was added may be cut off here.
    fn one_of_many(&mut self) -> Result<(), NftError> {
        self.items += 1;
        if self.items >= AT_ONCE { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), NftError> {
        self.items = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.variant.send(&batch)?;
        self.done.writes += batch.objects();
        self.done.transactions += 1;
        Ok(())
    }
}
