//! The rules in a table of nf_tables of our own.

use std::sync::Arc;

use fairlead_kernel::nft::{Batch, Nft, NftError, Ours};
use fairlead_plan::Family;

use super::around::Around;
use super::holder::Held;
use super::table::{self, Step};
use super::wanted;
use super::{Listen, TABLE};
use crate::resolve::PerFamily;

/// What is known of the table of each family.
pub struct InTable {
    /// By which the guard knows our own changes.
    ours: Arc<Ours>,
    listen: Listen,
    nft: Option<Nft>,
    /// What the kernel holds for certain.
    held: PerFamily<Option<Arc<Around>>>,
    /// Whether the kernel was read or written since [`InTable::end`].
    touched: bool,
    /// Of the ruleset, when it was last compared.
    generation: u32,
}

impl InTable {
    pub fn new(ours: Arc<Ours>, listen: Listen) -> Self {
        Self { ours, listen, nft: None, held: PerFamily::default(), touched: false, generation: 0 }
    }

    /// Makes the kernel hold this.
    pub fn hold(&mut self, around: &Arc<Around>) -> Result<Held, NftError> {
        let family = around.family;
        if self.held[family].as_ref().is_some_and(|held| held == around) {
            return Ok(Held::default());
        }
        self.touched = true;
        let known = self.held[family].take().and_then(|held| change(&held, around));
        let mut repaired = Vec::new();
        let batch = match known {
            Some(batch) => batch,
            None => match table::compare(self.nft()?, family, &wanted::table(around))? {
                Step::Fine => Batch::new(),
                Step::Create(batch) => {
                    repaired.push(format!("table {} {TABLE}: it was gone", label(family)));
                    batch
                }
                Step::Repair(batch, what) => {
                    repaired.push(format!("table {} {TABLE}: {what}", label(family)));
                    batch
                }
            },
        };
        self.nft()?.commit(&batch)?;
        self.held[family] = Some(Arc::clone(around));
        Ok(Held { writes: batch.objects(), repaired })
    }

    /// The kernel holds all that it should.
    pub fn end(&mut self) -> Result<(), NftError> {
        if !std::mem::take(&mut self.touched) {
            return Ok(());
        }
        self.generation = self.nft()?.generation()?;
        self.ours.begin(self.generation);
        self.ours.settle();
        self.listen.start();
        Ok(())
    }

    /// The kernel may hold anything.
    pub fn doubt(&mut self) {
        self.held = PerFamily::default();
    }

    /// The socket may be of no use any more.
    pub fn close(&mut self) {
        self.nft = None;
    }

    /// Doubts what the kernel holds if anybody has changed any rules.
    pub fn look(&mut self) {
        let generation = self.nft.as_mut().and_then(|nft| nft.generation().ok());
        if generation != Some(self.generation) {
            self.doubt();
        }
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

/// The way from what the kernel holds to what it should; `None` if only a comparison finds it.
fn change(held: &Around, wanted: &Around) -> Option<Batch> {
    match (&held.filter, &wanted.filter) {
        // Mostly it is a peer that comes or goes.
        (Some(was), Some(now)) if held.is_same_but_for_peers(wanted) => {
            Some(table::change_of_peers(held.family, &was.peers, &now.peers))
        }
        _ => table::change(held.family, &wanted::table(held), &wanted::table(wanted)),
    }
}

/// How `nft` calls a family.
const fn label(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
