//! Carries out a plan with nf_tables, every service and every endpoint a data element.
//!
//! One table `fairlead` for each of the families `ip` and `ip6`. Its rules are constant ([`structure`]); what changes is
//! elements of its maps, so a change costs the kernel the same whether there are 100 services or 50,000. fairlead speaks
//! nf_tables over netlink; no `nft` program is needed, but `nft list ruleset` shows our tables rightly and its output loads
//! back.
//!
//! ```text
//!  packet ─> nat-prerouting, nat-output ─> services ─> frontends ─> from-pod | from-node | from-outside
//!                                             │            map: frontend -> number ─> act ─> actions: number -> chain
//!                                             │                                               └─> cluster-3: dnat to endpoints[frontend, random slot]
//!                                             └─ unused port of a ClusterIP: refuse; unallocated ClusterIP: drop
//!          ─> nat-postrouting: masquerade what is marked, and an endpoint that reaches itself
//! ```
//!
//! One service change: [`diff::Tables::change`] renders the old and the new service ([`render`]), subtracts, and
//! [`write`] makes one netlink transaction of it. [`Tracer`] follows a packet through rules and elements without a kernel.
#![forbid(unsafe_code)]

mod adopt;
mod diff;
mod element;
mod encode;
mod flat;
mod json;
#[cfg(test)]
mod law;
mod layout;
mod moves;
mod render;
mod rules;
#[cfg(test)]
#[path = "../tests/sample/mod.rs"]
mod sample;
mod sticky;
mod structure;
mod text;
mod trace;
mod type_of;
mod whole;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use fairlead_kernel::nft::{Batch, Nft, NftError};
use fairlead_plan::{Backend, Change, Family, FamilyCounts, Plan, Pool, Report, Service, SyncError};

use adopt::Adoption;
use diff::{Tables, Writes};
use layout::LOCAL_SLOTS;
use rules::Name;
use whole::Whole;
use write::nfproto;

pub use json::json;
pub use layout::TABLE;
pub use text::text;
pub use trace::{End, Fault, Path, Tracer, trace};

/// How many elements one transaction of a cold start carries: 20 to 40 ms in which other users of nf_tables wait.
const BATCH: usize = 8_000;
/// How many sentences about repairs one report has.
const REPAIRS_TOLD: usize = 8;

/// The nft backend.
#[derive(Debug, Default)]
pub struct NftBackend {
    nft: Option<Nft>,
    port: Arc<AtomicU32>,
    tables: Tables,
    rules: [HashMap<Name, u64>; 2],
    /// Constant elements: of `actions` and of the node.
    constant: [u64; 2],
    /// Whether this process has ever brought the kernel to a plan: what is missing later was taken away by somebody.
    settled: bool,
}

impl NftBackend {
    /// A backend that has not touched the kernel yet. Its socket will belong to the network namespace of the thread that
    /// calls [`Backend::sync`] first.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The port id of our netlink socket, 0 before the first sync: what tells our own notifications from those about
    /// other people's changes.
    #[must_use]
    pub fn port(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.port)
    }

    fn nft(&mut self) -> Result<&mut Nft, NftError> {
        if self.nft.is_none() {
            let nft = Nft::open()?;
            self.port.store(nft.port_id(), Ordering::Release);
            self.nft = Some(nft);
        }
        self.nft.as_mut().ok_or(NftError::Interrupted)
    }

    /// Sends the writes of both families as one transaction, and forgets them. New chains go ahead in one of their own:
    /// a packet that is under way while a transaction takes effect goes by the rules of before and the elements of
    /// after, and would find a new chain empty.
    fn commit(&mut self, writes: &mut [Writes; 2], report: &mut Report) -> Result<(), NftError> {
        writes.iter_mut().for_each(Writes::settle);
        let mut ahead = [writes[0].take_ahead(), writes[1].take_ahead()];
        self.write(&mut ahead, report)?;
        self.write(writes, report)
    }

    fn write(&mut self, writes: &mut [Writes; 2], report: &mut Report) -> Result<(), NftError> {
        let mut batch = Batch::new();
        for family in Family::BOTH {
            let writes = std::mem::take(&mut writes[family as usize]);
            self.count_rules(family, &writes);
            write::writes(&mut batch, family, &writes);
        }
        self.send(&batch, report)
    }

    fn send(&mut self, batch: &Batch, report: &mut Report) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        self.nft()?.commit(batch)?;
        report.kernel += start.elapsed();
        report.writes += batch.objects();
        report.transactions += 1;
        Ok(())
    }

    fn count_rules(&mut self, family: Family, writes: &Writes) {
        let rules = &mut self.rules[family as usize];
        for chain in writes.new_chains.iter().chain(&writes.changed_chains) {
            rules.insert(Name::clone(&chain.name), chain.rules.len() as u64);
        }
        for chain in &writes.old_chains {
            rules.remove(chain);
        }
    }

    /// From a plan that the kernel holds to the next.
    fn step(&mut self, was: &Plan, now: &Plan, report: &mut Report) -> Result<(), NftError> {
        let mut writes = <[Writes; 2]>::default();
        if was.node != now.node {
            for family in Family::BOTH {
                self.node(family, was, now, &mut writes[family as usize]);
            }
        }
        let (changes, together) = moves::together(was.services.changes(&now.services));
        for (Change { was, now }, number) in changes.into_iter().zip(1..) {
            self.tables.change(was.map(Arc::as_ref), now.map(Arc::as_ref), &mut writes);
            report.warnings.extend(now.and_then(|service| too_many(service)));
            if number >= together && writes.iter().map(Writes::elements).sum::<usize>() >= BATCH {
                self.commit(&mut writes, report)?;
            }
        }
        self.commit(&mut writes, report)
    }

    /// Another node means other constant rules and elements, but the same shape.
    fn node(&mut self, family: Family, was: &Plan, now: &Plan, writes: &mut Writes) {
        let (old, new) = (structure::chains(family, &was.node), structure::chains(family, &now.node));
        writes.changed_chains.extend(new.into_iter().filter(|chain| !old.contains(chain)));
        let elements = |plan: &Plan| {
            let mut all = structure::node_elements(family, &plan.node);
            all.extend(structure::service_cidr_elements(family, &plan.node));
            all.sort_unstable();
            all
        };
        let (old, new) = (elements(was), elements(now));
        self.constant[family as usize] = self.constant[family as usize] + new.len() as u64 - old.len() as u64;
        diff::elements(&old, &new, writes);
    }

    /// From whatever the kernel holds to a plan.
    fn adopt(&mut self, now: &Plan, report: &mut Report) -> Result<(), NftError> {
        self.tables = Tables::default();
        report.warnings.extend(now.services.iter().filter_map(|service| too_many(service)));
        let mut fresh = Vec::new();
        for family in Family::BOTH {
            let whole = Whole::new(family, now, &mut self.tables);
            self.expect(family, &whole);
            let tables = std::mem::take(&mut self.tables);
            let compared = self.nft().and_then(|nft| adopt::compare(nft, family, now, &whole, &tables));
            self.tables = tables;
            match compared? {
                Adoption::Missing => {
                    self.told(report, || format!("the table {} {TABLE} was gone", name(family)));
                    fresh.push((family, whole));
                }
                Adoption::Foreign(reason) => {
                    self.told(report, || format!("the table {} {TABLE} was replaced: {reason}", name(family)));
                    self.replace(family, now, &whole, report)?;
                }
                Adoption::Differs(writes) => {
                    self.tell_repairs(family, &writes, report);
                    self.mend(family, writes, report)?;
                }
            }
        }
        self.fill(fresh, now, report)?;
        self.witness()?;
        self.settled = true;
        Ok(())
    }

    fn expect(&mut self, family: Family, whole: &Whole) {
        self.rules[family as usize] =
            whole.chains.iter().map(|chain| (Name::clone(&chain.name), chain.rules.len() as u64)).collect();
        let counted = self.tables.shared(family).counts().count();
        self.constant[family as usize] = (whole.constant.len() - counted) as u64;
    }

    fn told(&self, report: &mut Report, sentence: impl FnOnce() -> String) {
        if self.settled && report.repaired.len() < REPAIRS_TOLD {
            report.repaired.push(sentence());
        }
    }

    fn tell_repairs(&self, family: Family, writes: &Writes, report: &mut Report) {
        let (table, count) = (format!("{} {TABLE}", name(family)), |elements: &[element::Element]| {
            let mut sets: Vec<&str> = elements.iter().map(|element| &*element.set).collect();
            sets.sort_unstable();
            sets.chunk_by(|a, b| a == b)
                .map(|same| format!("{} of {}", same.len(), same[0]))
                .collect::<Vec<_>>()
                .join(", ")
        });
        let names = |names: Vec<&Name>| names.iter().map(|name| &***name).collect::<Vec<&str>>().join(", ");
        let sentences = [
            ("sets missing", names(writes.new_sets.iter().map(|set| &set.name).collect())),
            ("chains missing", names(writes.new_chains.iter().map(|chain| &chain.name).collect())),
            ("rules changed", names(writes.changed_chains.iter().map(|chain| &chain.name).collect())),
            ("elements missing", count(&writes.new_elements)),
            ("foreign elements", count(&writes.old_elements)),
            ("foreign chains", names(writes.old_chains.iter().collect())),
        ];
        for (what, which) in sentences.into_iter().filter(|(_, which)| !which.is_empty()) {
            self.told(report, || format!("{what} in {table}: {which}"));
        }
    }

    /// Brings a table that is ours to the plan. Mere additions, as after a cold start that was cut off, go in bounded
    /// transactions, endpoints first; anything else is one, so that no packet sees half of it.
    fn mend(&mut self, family: Family, mut writes: Writes, report: &mut Report) -> Result<(), NftError> {
        let mut later = Vec::new();
        if writes.old_elements.is_empty() && writes.new_elements.len() > BATCH {
            later = std::mem::take(&mut writes.new_elements);
            later.sort_by_key(|element| fill_order(&element.set));
        }
        self.commit(&mut pair(family, writes), report)?;
        for part in later.chunks(BATCH) {
            self.commit(&mut pair(family, Writes { new_elements: part.to_vec(), ..Writes::default() }), report)?;
        }
        Ok(())
    }

    /// Replaces the whole table in one transaction.
    fn replace(&mut self, family: Family, now: &Plan, whole: &Whole, report: &mut Report) -> Result<(), NftError> {
        let mut batch = Batch::new();
        batch.del_table(nfproto(family), TABLE);
        batch.add_table(nfproto(family), TABLE, None);
        let all = Writes {
            new_sets: whole.sets.clone(),
            new_chains: whole.chains.clone(),
            new_elements: whole.sorted_elements(family, now, &self.tables),
            ..Writes::default()
        };
        write::writes(&mut batch, family, &all);
        self.send(&batch, report)
    }

    /// A cold start: the constant structure and the services that all others need first, then the rest in bounded
    /// transactions, and last the rule that drops what belongs to no service.
    fn fill(&mut self, fresh: Vec<(Family, Whole)>, now: &Plan, report: &mut Report) -> Result<(), NftError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let families: Vec<Family> = fresh.iter().map(|(family, _)| *family).collect();
        self.lay_out(&families, now, report)?;
        drop(fresh);
        let mut services: Vec<_> =
            now.services.iter().filter(|service| families.contains(&service.key.family)).collect();
        services.sort_by(|a, b| (a.priority, &a.key).cmp(&(b.priority, &b.key)));
        let mut tables = Tables::default();
        let mut writes = <[Writes; 2]>::default();
        for service in services {
            tables.change(None, Some(service), &mut writes);
            if writes.iter().map(Writes::elements).sum::<usize>() >= BATCH {
                self.commit(&mut writes, report)?;
            }
        }
        for family in families {
            writes[family as usize].new_elements.extend(structure::service_cidr_elements(family, &now.node));
        }
        self.commit(&mut writes, report)
    }

    fn lay_out(&mut self, families: &[Family], now: &Plan, report: &mut Report) -> Result<(), NftError> {
        let mut batch = Batch::new();
        for family in families {
            batch.add_table(nfproto(*family), TABLE, None);
            let first = Writes {
                new_sets: layout::sets(),
                new_chains: structure::chains(*family, &now.node),
                new_elements: whole::first_elements(*family, now),
                ..Writes::default()
            };
            write::writes(&mut batch, *family, &first);
        }
        self.send(&batch, report)
    }

    /// An acknowledgement is no proof: counts the rules that the kernel holds.
    fn witness(&mut self) -> Result<(), NftError> {
        for family in Family::BOTH {
            let wanted: u64 = self.rules[family as usize].values().sum();
            let held = self.nft()?.rules(nfproto(family), TABLE)?.len() as u64;
            if held != wanted {
                return Err(NftError::Interrupted);
            }
        }
        Ok(())
    }

    fn held(&self, family: Family) -> FamilyCounts {
        FamilyCounts {
            rules: self.rules[family as usize].values().sum(),
            elements: self.constant[family as usize] + self.tables.elements(family),
        }
    }
}

impl Backend for NftBackend {
    fn sync(&mut self, was: Option<&Plan>, now: &Plan) -> Result<Report, SyncError> {
        let mut report = Report::default();
        let was = was.filter(|_| self.settled);
        let done = match was {
            Some(was) => self.step(was, now, &mut report),
            None => self.adopt(now, &mut report),
        };
        done.map_err(refused)?;
        report.held = Family::BOTH.map(|family| self.held(family));
        Ok(report)
    }

    fn cleanup(&mut self) -> Result<(), SyncError> {
        let mut batch = Batch::new();
        for family in Family::BOTH {
            if self.nft().and_then(|nft| nft.table(nfproto(family), TABLE)).map_err(refused)?.is_some() {
                batch.del_table(nfproto(family), TABLE);
            }
        }
        self.settled = false;
        self.send(&batch, &mut Report::default()).map_err(refused)
    }
}

fn refused(error: NftError) -> SyncError {
    if error.is_unsupported() {
        SyncError::Unsupported(format!(
            "the kernel cannot carry out the nft mode ({error}): it needs nf_tables with nat, masq, reject, fib, numgen and \
             sets (Linux 5.13 or newer)"
        ))
    } else {
        SyncError::Failed(Box::new(error))
    }
}

const fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn pair(family: Family, writes: Writes) -> [Writes; 2] {
    let mut both = <[Writes; 2]>::default();
    both[family as usize] = writes;
    both
}

/// Endpoints before the frontends that lead to them, and drops last.
fn fill_order(set: &str) -> u8 {
    match set {
        "service-cidrs" => 3,
        "cluster-ips" => 2,
        set if set.contains("from-") => 1,
        _ => 0,
    }
}

fn too_many(service: &Service) -> Option<String> {
    let most = [Pool::Cluster, Pool::Local].map(|pool| service.pools.get(pool).len()).into_iter().max()?;
    (most > LOCAL_SLOTS as usize).then(|| {
        format!("{}: only the first {LOCAL_SLOTS} of its {most} endpoints are used; split the Service", service.key)
    })
}
