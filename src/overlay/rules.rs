//! The rules around the overlay, in a table of our own in each family: pods that leave the cluster get an address of this node,
//! packets of pods are forwarded, and tunnelled packets are taken from peers alone.
//!
//! ```text
//!   what is installed ──> wanted (pure) ──> table: the kernel's minus the wanted = one transaction
//!                                             ▲
//!   guard: others have changed something ─────┘
//! ```
//!
//! The table is one of nf_tables in every mode of the service backend. Its chain that translates sources hangs behind that of the
//! service backend, so that there is one decision for each connection: who was translated for a service does not come here.

mod express;
mod table;
#[cfg(test)]
mod tests;
mod wanted;

use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use fairlead_kernel::nft::{Batch, Nft, NftError, Notice, Ours};
use fairlead_plan::Family;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use self::table::Step;
use self::wanted::Table;
use super::outside::Installed;
use super::settings::Settings;
use crate::guard::{self, Doubt};
use crate::metrics::{Cause, Metrics};
use crate::resolve::PerFamily;

/// The name of our table, in the families `ip` and `ip6`.
pub const TABLE: &str = "fairlead-overlay";

/// How often the generation of the ruleset is looked at although nothing was heard; also the pause after a failure.
const LOOK: Duration = Duration::from_secs(10);
/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// After news of others' changes, time for those that belong together.
const GATHER: Duration = Duration::from_millis(5);

/// Starts the thread that keeps the rules, in the network namespace of the caller. `mark` is the bit of the packet mark by which
/// the service backend says "masquerade". It ends when the overlay does; what the kernel holds stays.
///
/// # Errors
/// If a thread cannot be started.
pub fn start(
    settings: Settings,
    mark: u32,
    installed: watch::Receiver<Installed>,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    let ours = Arc::new(Ours::default());
    let (sender, doubts) = mpsc::unbounded_channel();
    guard::start(|notice: &Notice| notice.table == TABLE, Arc::clone(&ours), sender)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let keeper = Keeper {
        settings,
        mark,
        metrics,
        ours,
        nft: None,
        held: PerFamily::default(),
        generation: 0,
        settled: PerFamily::default(),
        complaint: None,
    };
    let keep = move || runtime.block_on(keeper.keep(installed, doubts));
    thread::Builder::new().name("overlay-rules".into()).spawn(keep)?;
    Ok(())
}

/// Removes our tables, if there are any.
///
/// # Errors
/// If the kernel refuses.
pub fn remove() -> Result<(), NftError> {
    let mut nft = Nft::open()?;
    let mut batch = Batch::new();
    for family in Family::BOTH {
        if nft.table(table::proto(family), TABLE)?.is_some() {
            batch.del_table(table::proto(family), TABLE);
        }
    }
    nft.commit(&batch)
}

struct Keeper {
    settings: Settings,
    mark: u32,
    metrics: Arc<Metrics>,
    /// By which the guard knows our own changes.
    ours: Arc<Ours>,
    nft: Option<Nft>,
    /// What the kernel holds for certain.
    held: PerFamily<Option<Table>>,
    /// Of the ruleset, when it was last compared.
    generation: u32,
    /// Whether it has ever been as wanted: what differs after that is a repair.
    settled: PerFamily<bool>,
    complaint: Option<String>,
}

impl Keeper {
    async fn keep(mut self, mut installed: watch::Receiver<Installed>, mut doubts: mpsc::UnboundedReceiver<Doubt>) {
        loop {
            let now = installed.borrow_and_update().clone();
            let pause = if self.settle(&now) { LOOK } else { AGAIN };
            tokio::select! {
                changed = installed.changed() => if changed.is_err() { return },
                Some(doubt) = doubts.recv() => {
                    tokio::time::sleep_until(Instant::now() + GATHER).await;
                    let mut last = Some(doubt);
                    while let Some(doubt) = last {
                        self.doubt(&doubt);
                        last = doubts.try_recv().ok();
                    }
                }
                () = tokio::time::sleep(pause) => self.look(),
            }
        }
    }

    fn doubt(&mut self, doubt: &Doubt) {
        self.held = PerFamily::default();
        if let Doubt::Deaf(why) = doubt {
            warn!("overlay, rules: changes by others cannot be heard: {why}");
        }
    }

    /// Doubts what the kernel holds if anybody has changed any rules.
    fn look(&mut self) {
        let generation = self.nft.as_mut().and_then(|nft| nft.generation().ok());
        if generation != Some(self.generation) {
            self.held = PerFamily::default();
        }
    }

    /// Makes the kernel hold what it should; says whether it does.
    fn settle(&mut self, installed: &Installed) -> bool {
        match self.write(installed) {
            Ok(()) => {
                if self.complaint.take().is_some() {
                    info!("overlay, rules: all is well again");
                }
                true
            }
            Err(error) => {
                (self.nft, self.held) = (None, PerFamily::default());
                let said = error.to_string();
                if self.complaint.as_ref() != Some(&said) {
                    warn!("overlay, rules: {said}; trying again every {AGAIN:?}");
                    self.metrics.failed(Cause::Overlay);
                    self.complaint = Some(said);
                }
                false
            }
        }
    }

    fn write(&mut self, installed: &Installed) -> Result<(), NftError> {
        for family in Family::BOTH {
            let Some(wanted) = wanted::table(family, &self.settings, self.mark, installed) else { continue };
            if self.held[family].as_ref() == Some(&wanted) {
                continue;
            }
            let known = self.held[family].take().and_then(|held| table::change(family, &held, &wanted));
            let batch = match known {
                Some(batch) => batch,
                None => match table::compare(self.nft()?, family, &wanted)? {
                    Step::Fine => Batch::new(),
                    Step::Create(batch) => self.repaired(family, "it was gone", batch),
                    Step::Repair(batch, what) => self.repaired(family, &what, batch),
                },
            };
            self.nft()?.commit(&batch)?;
            self.metrics.overlay_wrote(usize::try_from(batch.objects()).unwrap_or(usize::MAX));
            self.held[family] = Some(wanted);
            self.settled[family] = true;
        }
        self.generation = self.nft()?.generation()?;
        self.ours.begin(self.generation);
        self.ours.settle();
        Ok(())
    }

    /// What differs is somebody else's doing once it has been right.
    fn repaired(&self, family: Family, what: &str, batch: Batch) -> Batch {
        if self.settled[family] {
            warn!("overlay, rules: repaired table {} {TABLE}: {what}", label(family));
            self.metrics.overlay_repaired("rules", 1);
        }
        batch
    }

    fn nft(&mut self) -> Result<&mut Nft, NftError> {
        let nft = match self.nft.take() {
            Some(nft) => nft,
            None => {
                let nft = Nft::open()?;
                self.ours.opened(nft.port_id());
                nft
            }
        };
        Ok(self.nft.insert(nft))
    }
}

/// How `nft` calls a family.
const fn label(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
