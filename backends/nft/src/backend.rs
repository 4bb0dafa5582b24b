//! The backend: its state, and the step from one plan to the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use fairlead_kernel::nft::{Batch, Nft, NftError, Ours};
use fairlead_plan::{Backend, Change, Family, FamilyCounts, Plan, Pool, Report, Service, SyncError};

use crate::diff::{self, Tables, Writes};
use crate::layout::{LOCAL_SLOTS, NAMES, TABLE};
use crate::rules::{Chain, Name};
use crate::write::{self, nfproto};
use crate::{moves, structure};

/// How many elements one transaction of a cold start carries: 10 to 20 ms in which other users of nf_tables wait.
pub const BATCH: usize = 4_000;

/// So many frontends and endpoints of changed services are rendered and written in half a millisecond.
const PROMPT: usize = 400;

/// The nft backend.
#[derive(Debug, Default)]
pub struct NftBackend {
    nft: Option<Nft>,
    ours: Arc<Ours>,
    pub(crate) tables: Tables,
    pub(crate) rules: [RuleCounts; 2],
    /// Constant elements: of `actions` and of the node.
    pub(crate) constant: [u64; 2],
    /// Whether this process has ever brought the kernel to a plan: what is missing later was taken away by somebody.
    pub(crate) settled: bool,
}

/// How many rules the chains of a table have. Asked for at each change, so the sum is kept.
#[derive(Debug, Default)]
pub struct RuleCounts {
    chains: HashMap<Name, u64>,
    sum: u64,
}

impl RuleCounts {
    /// Of these chains and no others.
    pub fn of(chains: &[Chain]) -> Self {
        let mut counts = Self::default();
        chains.iter().for_each(|chain| counts.set(chain));
        counts
    }

    /// Of all chains together.
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    fn set(&mut self, chain: &Chain) {
        let rules = chain.rules.len() as u64;
        self.sum += rules;
        self.sum -= self.chains.insert(Name::clone(&chain.name), rules).unwrap_or_default();
    }

    fn remove(&mut self, chain: &Name) {
        self.sum -= self.chains.remove(chain).unwrap_or_default();
    }
}

impl NftBackend {
    /// A backend that has not touched the kernel yet. Its socket will belong to the network namespace of the thread that
    /// calls [`Backend::sync`] first.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What tells our own changes from those of others.
    #[must_use]
    pub fn ours(&self) -> Arc<Ours> {
        Arc::clone(&self.ours)
    }

    /// From here on our transactions are counted.
    pub(crate) fn begin(&mut self) -> Result<(), NftError> {
        let generation = self.nft()?.generation()?;
        self.ours.begin(generation);
        Ok(())
    }

    /// The kernel holds a plan.
    pub(crate) fn settle(&mut self) {
        self.settled = true;
        self.ours.settle();
    }

    pub(crate) fn nft(&mut self) -> Result<&mut Nft, NftError> {
        if self.nft.is_none() {
            let nft = Nft::open()?;
            self.ours.opened(nft.port_id());
            self.nft = Some(nft);
        }
        self.nft.as_mut().ok_or(NftError::Interrupted)
    }

    /// Sends the writes of both families as one transaction, and forgets them. New chains go ahead in one of their own:
    /// a packet that is under way while a transaction takes effect goes by the rules of before and the elements of
    /// after, and would find a new chain empty.
    pub(crate) fn commit(&mut self, writes: &mut [Writes; 2], report: &mut Report) -> Result<(), NftError> {
        writes.iter_mut().for_each(Writes::settle);
        let mut ahead = [writes[0].take_ahead(), writes[1].take_ahead()];
        self.write(&mut ahead, report)?;
        self.write(writes, report)
    }

    pub(crate) fn write(&mut self, writes: &mut [Writes; 2], report: &mut Report) -> Result<(), NftError> {
        let mut batch = Batch::new();
        for family in Family::BOTH {
            let writes = std::mem::take(&mut writes[family as usize]);
            self.count_rules(family, &writes);
            write::writes(&mut batch, family, &writes);
        }
        self.send(&batch, report)
    }

    pub(crate) fn send(&mut self, batch: &Batch, report: &mut Report) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        self.nft()?.commit(batch)?;
        self.ours.committed();
        report.kernel += start.elapsed();
        report.writes += batch.objects();
        report.transactions += 1;
        Ok(())
    }

    pub(crate) fn count_rules(&mut self, family: Family, writes: &Writes) {
        let rules = &mut self.rules[family as usize];
        for chain in writes.new_chains.iter().chain(&writes.changed_chains) {
            rules.set(chain);
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
    pub(crate) fn node(&mut self, family: Family, was: &Plan, now: &Plan, writes: &mut Writes) {
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

    pub(crate) fn held(&self, family: Family) -> FamilyCounts {
        FamilyCounts {
            rules: self.rules[family as usize].sum(),
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

    fn is_prompt(&self, was: &Plan, now: &Plan) -> bool {
        let size = |service: Option<&Arc<Service>>| {
            service.map_or(0, |service| service.frontends.len() + service.endpoints().count())
        };
        let changes = was.services.changes(&now.services).take(PROMPT);
        was.node == now.node && changes.map(|Change { was, now }| size(was) + size(now)).sum::<usize>() <= PROMPT
    }

    fn cleanup(&mut self) -> Result<(), SyncError> {
        // The kernel empties one chain after the other: a packet under way could find that of the frontends empty and that
        // of refusals not yet, although another mode, which has taken over, has an endpoint for it.
        let (mut first, mut batch) = (Batch::new(), Batch::new());
        for family in Family::BOTH {
            let proto = nfproto(family);
            if self.nft().and_then(|nft| nft.table(proto, TABLE)).map_err(refused)?.is_none() {
                continue;
            }
            let sets = self.nft().and_then(|nft| nft.sets(proto, TABLE)).map_err(refused)?;
            for refusing in [&NAMES.cluster_ips, &NAMES.service_cidrs] {
                if sets.iter().any(|set| *set.name == **refusing) {
                    first.flush_set(proto, TABLE, refusing);
                }
            }
            batch.del_table(proto, TABLE);
        }
        self.settled = false;
        self.send(&first, &mut Report::default()).map_err(refused)?;
        self.send(&batch, &mut Report::default()).map_err(refused)
    }
}

/// Takes away the tables of kube-proxy's nftables mode. Where a backend of ours is at work they have no say any more: a packet is
/// translated before it comes to them.
///
/// # Errors
/// As the kernel says.
pub fn remove_kube_proxy() -> Result<(), SyncError> {
    const TABLE: &str = "kube-proxy";
    let mut nft = Nft::open().map_err(refused)?;
    let mut batch = Batch::new();
    for proto in Family::BOTH.map(nfproto) {
        if nft.table(proto, TABLE).map_err(refused)?.is_some() {
            batch.del_table(proto, TABLE);
        }
    }
    if batch.is_empty() { Ok(()) } else { nft.commit(&batch).map_err(refused) }
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

pub fn too_many(service: &Service) -> Option<String> {
    let most = [Pool::Cluster, Pool::Local].map(|pool| service.pools.get(pool).len()).into_iter().max()?;
    (most > LOCAL_SLOTS as usize).then(|| {
        format!("{}: only the first {LOCAL_SLOTS} of its {most} endpoints are used; split the Service", service.key)
    })
}
