//! The rules around the overlay: pods that leave the cluster get an address of this node, packets of pods are forwarded, and
//! tunnelled packets are taken from peers alone.
//!
//! ```text
//!   what is installed ──> around (pure) ──> in_table: a table of nf_tables of our own, in mode nftables
//!                                      └──> holder:   chains in the tables of iptables, in modes iptables and ipvs
//!                                             ▲
//!   guard: others have changed something ─────┘
//! ```
//!
//! Wherever they are, the rule that translates sources stands behind those of the service backend, so that there is one decision
//! for each connection: who was translated for a service does not come here. After a change of mode the rules are put where
//! they belong now, and only then taken from where they were.

mod around;
mod chains;
mod express;
mod holder;
mod in_table;
mod sets;
mod table;
#[cfg(test)]
mod tests;
mod wanted;

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use fairlead_iptables::Aside;
use fairlead_kernel::nft::{Batch, Nft, NftError, Notice, Ours};
use fairlead_kernel::xtables::Variant;
use fairlead_plan::Family;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use self::around::{Around, around};
use self::holder::Holder;
pub use self::holder::RulesError;
use self::sets::Sets;
use super::outside::Installed;
use super::settings::Settings;
use crate::config::Mode;
use crate::guard::{self, Doubt};
use crate::metrics::{Cause, Metrics};
use crate::resolve::PerFamily;

/// The name of our table, in the families `ip` and `ip6`.
pub const TABLE: &str = "fairlead-overlay";

/// How often everything is looked at although nothing was heard.
const LOOK: Duration = Duration::from_secs(10);
/// How often what nobody announces changes of is looked at: sets, and the sizes of tables.
const GLANCE: Duration = Duration::from_millis(500);
/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// After news of others' changes, time for those that belong together.
const GATHER: Duration = Duration::from_millis(5);

/// Where the rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a table of nf_tables of our own.
    Table,
    /// In the tables of this variant of iptables, or of the one that the host uses.
    Chains(Option<Variant>),
}

impl Place {
    /// Where those of the service backend are too.
    #[must_use]
    pub const fn of(mode: Mode) -> Self {
        match mode {
            Mode::Nft => Self::Table,
            Mode::Iptables(variant) => Self::Chains(variant),
            Mode::Ipvs => Self::Chains(None),
        }
    }
}

/// Starts the thread that keeps the rules, in the network namespace of the caller. `mark` is the bit of the packet mark by which
/// the service backend says "masquerade". It ends when the overlay does; what the kernel holds stays.
///
/// # Errors
/// If a thread cannot be started.
pub fn start(
    settings: Settings,
    place: Place,
    mark: u32,
    installed: watch::Receiver<Installed>,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    let ours = Arc::new(Ours::default());
    let (sender, doubts) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let listen = Listen { ours: Arc::clone(&ours), doubts: sender, started: false };
    let keeper = Keeper {
        settings,
        mark,
        metrics,
        holder: Holder::new(place, ours, listen),
        settled: PerFamily::default(),
        untidy: PerFamily { v4: true, v6: true },
        wanted: PerFamily::default(),
        complaint: None,
        whole: Instant::now() + LOOK,
    };
    let keep = move || runtime.block_on(keeper.keep(installed, doubts));
    thread::Builder::new().name("overlay-rules".into()).spawn(keep)?;
    Ok(())
}

/// Removes our rules, wherever there are any.
///
/// # Errors
/// If the kernel refuses.
pub fn remove() -> Result<(), RulesError> {
    for family in Family::BOTH {
        match remove_table(family) {
            Err(error) if !error.is_unsupported() => return Err(error.into()),
            _ => {}
        }
        Aside::remove(Variant::Nft, family)?;
        Aside::remove(Variant::Legacy, family)?;
        remove_sets(family)?;
    }
    Ok(())
}

fn remove_table(family: Family) -> Result<(), NftError> {
    let mut nft = Nft::open()?;
    let mut batch = Batch::new();
    if nft.table(table::proto(family), TABLE)?.is_some() {
        batch.del_table(table::proto(family), TABLE);
    }
    nft.commit(&batch)
}

fn remove_sets(family: Family) -> Result<(), RulesError> {
    match Sets::open()? {
        Some(mut sets) => Ok(sets.tidy(family, None)?),
        None => Ok(()),
    }
}

/// The thread that hears of others' changes of nf_tables, once there is something to be changed.
pub struct Listen {
    ours: Arc<Ours>,
    doubts: mpsc::UnboundedSender<Doubt>,
    started: bool,
}

impl Listen {
    /// Starts it, if it was not.
    fn start(&mut self) {
        if self.started {
            return;
        }
        let concerns = |notice: &Notice| notice.table == TABLE || Aside::concerns(notice);
        match guard::start(concerns, Arc::clone(&self.ours), self.doubts.clone()) {
            Ok(()) => self.started = true,
            Err(error) => warn!("overlay, rules: changes by others cannot be heard: {error}"),
        }
    }
}

struct Keeper {
    settings: Settings,
    mark: u32,
    metrics: Arc<Metrics>,
    holder: Holder,
    /// Whether it has ever been as wanted: what differs after that is a repair.
    settled: PerFamily<bool>,
    /// Whether other places may hold something that an earlier mode has left.
    untidy: PerFamily<bool>,
    wanted: PerFamily<Option<Arc<Around>>>,
    complaint: Option<String>,
    /// When everything is looked at next.
    whole: Instant,
}

impl Keeper {
    async fn keep(mut self, mut installed: watch::Receiver<Installed>, mut doubts: mpsc::UnboundedReceiver<Doubt>) {
        loop {
            if installed.has_changed().unwrap_or_default() {
                self.decide(&installed.borrow_and_update().clone());
            }
            let pause = self.settle();
            tokio::select! {
                changed = installed.changed() => match changed {
                    // It stays to be seen at the top.
                    Ok(()) => installed.mark_changed(),
                    Err(_) => return,
                },
                Some(doubt) = doubts.recv() => {
                    tokio::time::sleep(GATHER).await;
                    let mut last = Some(doubt);
                    while let Some(doubt) = last {
                        self.doubt(&doubt);
                        last = doubts.try_recv().ok();
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn doubt(&mut self, doubt: &Doubt) {
        self.holder.doubt();
        if let Doubt::Deaf(why) = doubt {
            warn!("overlay, rules: changes by others cannot be heard: {why}");
        }
    }

    fn decide(&mut self, installed: &Installed) {
        for family in Family::BOTH {
            let now = around(family, &self.settings, self.mark, installed);
            // What the overlay has no more in a family stays as it is.
            if now.is_some() && now.as_ref() != self.wanted[family].as_deref() {
                self.wanted[family] = now.map(Arc::new);
            }
        }
    }

    /// Makes the kernel hold what it should; says when to look again.
    fn settle(&mut self) -> Duration {
        match self.look().and_then(|()| self.write()) {
            Ok(()) => {
                if self.complaint.take().is_some() {
                    info!("overlay, rules: all is well again");
                }
                if self.holder.is_announced() { self.whole.saturating_duration_since(Instant::now()) } else { GLANCE }
            }
            Err(error) => {
                self.holder.reopen();
                let said = error.to_string();
                if self.complaint.as_ref() != Some(&said) {
                    warn!("overlay, rules: {said}; trying again every {AGAIN:?}");
                    self.metrics.failed(Cause::Overlay);
                    self.complaint = Some(said);
                }
                AGAIN
            }
        }
    }

    fn look(&mut self) -> Result<(), RulesError> {
        let all = Instant::now() >= self.whole;
        if all {
            self.whole = Instant::now() + LOOK;
        }
        self.holder.look(all)
    }

    fn write(&mut self) -> Result<(), RulesError> {
        for family in Family::BOTH {
            let Some(around) = self.wanted[family].clone() else { continue };
            let held = self.holder.hold(&around)?;
            self.metrics.overlay_wrote(usize::try_from(held.writes).unwrap_or(usize::MAX));
            if self.settled[family] && !held.repaired.is_empty() {
                // What differs is somebody else's doing once it has been right.
                warn!("overlay, rules: repaired: {}", held.repaired.join("; "));
                self.metrics.overlay_repaired("rules", 1);
            }
            self.settled[family] = true;
            if self.untidy[family] {
                self.holder.tidy(family)?;
                self.untidy[family] = false;
            }
        }
        self.holder.end()
    }
}
