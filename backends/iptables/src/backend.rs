//! The backend: its state, and the step from one plan to the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_kernel::nft::Ours;
use fairlead_kernel::xtables::{Ip, Variant, used_here};
use fairlead_plan::{Backend, Change, Family, FamilyCounts, Plan, Protocol, Report, SyncError};

use crate::desired::{Changes, Desired};
use crate::door::{Done, DoorError};
use crate::encode::{self, Needed, ip};
use crate::figures::Figures;
use crate::legacy::Legacy;
use crate::nft::NftVariant;
use crate::witness::Witness;

/// How long the lock of the legacy variant is waited for, as by kube-proxy.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How many sentences about repairs one report has.
const REPAIRS_TOLD: usize = 8;

/// The iptables backend.
#[derive(Debug)]
pub struct IptablesBackend {
    choice: Option<Variant>,
    patience: Duration,
    door: Option<Door>,
    ours: Arc<Ours>,
    witness: Arc<Witness>,
    figures: Arc<Figures>,
    /// For each family: what the kernel holds, once it does.
    held: [Option<Desired>; 2],
    sctp: [bool; 2],
    /// What the kernel must know.
    needed: fn(Ip) -> Vec<Needed>,
    /// Whether chains of ours or of kube-proxy in the other variant are gone.
    tidy: bool,
    /// Whether this process has ever brought the kernel to a plan: what is missing later was taken away by somebody.
    settled: bool,
}

#[derive(Debug)]
enum Door {
    Legacy(Legacy),
    Nft(NftVariant),
}

impl IptablesBackend {
    /// A backend that has not touched the kernel yet. Without a choice the variant is the one that the host uses at the first
    /// sync. Its sockets will belong to the network namespace of the thread that calls [`Backend::sync`] first.
    #[must_use]
    pub fn new(choice: Option<Variant>) -> Self {
        Self {
            choice,
            patience: LOCK_PATIENCE,
            door: None,
            ours: Arc::default(),
            witness: Arc::default(),
            figures: Arc::default(),
            held: [None, None],
            sctp: [true; 2],
            needed: encode::needed,
            tidy: false,
            settled: false,
        }
    }

    /// Waits so long for the lock of the legacy variant.
    #[must_use]
    pub const fn with_lock_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Needs something else of the kernel.
    #[cfg(test)]
    pub(crate) fn needing(mut self, needed: fn(Ip) -> Vec<Needed>) -> Self {
        self.needed = needed;
        self
    }

    /// What tells, in the nf_tables variant, our own changes from those of others.
    #[must_use]
    pub fn ours(&self) -> Arc<Ours> {
        Arc::clone(&self.ours)
    }

    /// What tells, in the legacy variant, that somebody else changed a table.
    #[must_use]
    pub fn witness(&self) -> Arc<Witness> {
        Arc::clone(&self.witness)
    }

    /// What can be measured.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    fn door(&mut self) -> Result<&mut Door, DoorError> {
        if self.door.is_none() {
            let variant = match self.choice {
                Some(variant) => variant,
                None => used_here()?,
            };
            let door = match variant {
                Variant::Legacy => Door::Legacy(Legacy::new(self.patience, Arc::clone(&self.witness))),
                Variant::Nft => Door::Nft(NftVariant::open(Arc::clone(&self.ours))?),
            };
            self.door = Some(door);
            self.check()?;
            self.figures.uses(variant);
        }
        self.door.as_mut().ok_or_else(|| DoorError::Lacks("no variant was chosen".to_owned()))
    }

    /// Names what the kernel lacks before anything is written.
    fn check(&mut self) -> Result<(), DoorError> {
        for family in Family::BOTH {
            let needed = (self.needed)(ip(family));
            let (lacking, sctp) = match &mut self.door {
                Some(Door::Legacy(door)) => door.lacks(family, &needed)?,
                Some(Door::Nft(door)) => door.lacks(family, &needed)?,
                None => continue,
            };
            if !lacking.is_empty() {
                self.door = None;
                let what = lacking.join(", ");
                return Err(DoorError::Lacks(format!(
                    "the kernel lacks for {} what the iptables mode needs: {what}; load it, or use --mode=nft",
                    family.label()
                )));
            }
            self.sctp[family as usize] = sctp;
        }
        Ok(())
    }

    fn adopt(&mut self, family: Family, now: &Plan) -> Result<Done, DoorError> {
        self.held[family as usize] = None;
        self.door()?;
        let sctp = self.sctp[family as usize];
        let (desired, done) = match self.door()? {
            Door::Legacy(door) => door.adopt(family, now, sctp)?,
            Door::Nft(door) => door.adopt(family, now, sctp)?,
        };
        self.held[family as usize] = Some(desired);
        Ok(done)
    }

    /// From a plan that the kernel holds to the next; `None` if the tables are not as we left them.
    fn step(&mut self, family: Family, changes: &[Change<'_>]) -> Result<Option<Done>, DoorError> {
        let Some(mut desired) = self.held[family as usize].take() else { return Ok(None) };
        let changes: Changes = desired.step(changes);
        let done = if changes.is_empty() {
            Done::default()
        } else {
            match self.door()? {
                Door::Legacy(door) if !door.is_untouched(family)? => return Ok(None),
                Door::Legacy(door) => door.step(family, &changes)?,
                Door::Nft(door) => door.step(family, &changes)?,
            }
        };
        self.held[family as usize] = Some(desired);
        Ok(Some(done))
    }

    fn sync_family(&mut self, family: Family, was: Option<&Plan>, now: &Plan) -> Result<Done, DoorError> {
        if let Some(was) = was.filter(|was| was.node == now.node) {
            let changes: Vec<Change<'_>> = was.services.changes(&now.services).collect();
            let done = self.step(family, &changes).inspect_err(|_| self.figures.failed(family, true))?;
            if let Some(done) = done {
                return Ok(done);
            }
        }
        let mut done = self.adopt(family, now).inspect_err(|_| self.figures.failed(family, false))?;
        if was.is_some_and(|was| was.node != now.node) {
            // What differs is our own doing.
            done.found.clear();
        }
        Ok(done)
    }

    fn warnings(&self, was: Option<&Plan>, now: &Plan) -> Vec<String> {
        let left_out = |family: Family| {
            let sctp = now.services.iter().find(|service| {
                service.key.family == family && service.key.protocol == Protocol::Sctp && !self.sctp[family as usize]
            });
            sctp.filter(|service| was.is_none_or(|was| was.services.get(&service.key).is_none())).map(|service| {
                format!(
                    "{}: not programmed, the kernel lacks the match sctp (module xt_sctp); load it and restart",
                    service.key
                )
            })
        };
        Family::BOTH.into_iter().filter_map(left_out).collect()
    }
}

impl IptablesBackend {
    /// Removes what is left in the variant that is not used, now that the other carries out the plan.
    fn tidy(&mut self) -> Result<(), DoorError> {
        let other = match self.door {
            Some(Door::Legacy(_)) => Variant::Nft,
            _ => Variant::Legacy,
        };
        Family::BOTH.into_iter().try_for_each(|family| self.empty(other, family))
    }

    /// Removes everything of ours from a variant.
    fn empty(&mut self, variant: Variant, family: Family) -> Result<(), DoorError> {
        let done = match variant {
            Variant::Nft => NftVariant::open(Arc::default()).and_then(|mut door| door.cleanup(family)),
            Variant::Legacy => Legacy::new(self.patience, Arc::default()).cleanup(family),
        };
        unsupported(done).map(drop)
    }
}

impl Backend for IptablesBackend {
    fn sync(&mut self, was: Option<&Plan>, now: &Plan) -> Result<Report, SyncError> {
        let mut report = Report::default();
        let was = was.filter(|_| self.settled);
        let start = Instant::now();
        for family in Family::BOTH {
            let done = self.sync_family(family, was, now)?;
            if let Some(held) = &self.held[family as usize] {
                self.figures.synced(family, held.rules(), &done);
            }
            report.writes += done.writes;
            report.transactions += done.transactions;
            if self.settled {
                report.repaired.extend(done.found);
            }
        }
        report.kernel = start.elapsed();
        report.repaired.truncate(REPAIRS_TOLD);
        report.warnings = self.warnings(was, now);
        if !self.tidy && was.is_none() {
            match self.tidy() {
                Ok(()) => self.tidy = true,
                Err(error) => {
                    report.warnings.push(format!("what is left in the other variant cannot be removed: {error}"))
                }
            }
        }
        if let (false, Some(Door::Nft(_))) = (self.settled, &self.door) {
            self.ours.settle();
        }
        self.settled = true;
        let rules = |held: &Option<Desired>| held.as_ref().map_or(0, |held| held.rules().iter().sum());
        report.held = [0, 1].map(|family| FamilyCounts { rules: rules(&self.held[family]), elements: 0 });
        Ok(report)
    }

    fn cleanup(&mut self) -> Result<(), SyncError> {
        self.settled = false;
        self.held = [None, None];
        self.witness.forget();
        for family in Family::BOTH {
            self.empty(Variant::Nft, family)?;
            self.empty(Variant::Legacy, family)?;
        }
        Ok(())
    }
}

/// A kernel without a variant holds nothing of ours in it.
pub fn unsupported(done: Result<Done, DoorError>) -> Result<Done, DoorError> {
    match &done {
        Err(DoorError::Legacy(cause)) if cause.is_unsupported() => Ok(Done::default()),
        Err(DoorError::Nft(cause)) if cause.is_unsupported() => Ok(Done::default()),
        _ => done,
    }
}
