//! Who holds the rules around the overlay in the kernel: a table of nf_tables of our own, or the tables of iptables.

use std::sync::Arc;

use fairlead_iptables::{Aside, DoorError};
use fairlead_kernel::ipset::IpsetError;
use fairlead_kernel::nft::{Nft, NftError, Ours};
use fairlead_kernel::xtables::{Variant, XtablesError};
use fairlead_plan::Family;
use tracing::{debug, info};

use super::around::Around;
use super::chains::{By, chains};
use super::in_table::InTable;
use super::sets::Sets;
use super::{Listen, Place, remove_sets, remove_table};
use crate::resolve::PerFamily;

/// Why the kernel was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// nf_tables.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The tables of iptables.
    #[error(transparent)]
    Tables(#[from] DoorError),
    /// The sets that rules of iptables name.
    #[error(transparent)]
    Sets(#[from] IpsetError),
    /// The numbers of these sets.
    #[error(transparent)]
    Numbers(#[from] XtablesError),
}

/// What was done.
#[derive(Debug, Default)]
pub struct Held {
    /// Objects written.
    pub writes: u64,
    /// What was found different from what we had left, in words.
    pub repaired: Vec<String>,
}

/// The rules in one place.
pub enum Holder {
    Table(InTable),
    Chains(InChains),
}

impl Holder {
    pub fn new(place: Place, ours: Arc<Ours>, listen: Listen) -> Self {
        match place {
            Place::Table => Self::Table(InTable::new(ours, listen)),
            Place::Chains(choice) => Self::Chains(InChains::new(choice, ours, listen)),
        }
    }

    /// Whether the kernel announces whatever others change of it.
    pub const fn is_announced(&self) -> bool {
        matches!(self, Self::Table(_))
    }

    /// Makes the kernel hold this.
    pub fn hold(&mut self, around: &Arc<Around>) -> Result<Held, RulesError> {
        match self {
            Self::Table(table) => Ok(table.hold(around)?),
            Self::Chains(chains) => chains.hold(around),
        }
    }

    /// All that was to be held is.
    pub fn end(&mut self) -> Result<(), RulesError> {
        match self {
            Self::Table(table) => Ok(table.end()?),
            Self::Chains(chains) => chains.end(),
        }
    }

    /// The kernel may hold anything.
    pub fn doubt(&mut self) {
        match self {
            Self::Table(table) => table.doubt(),
            Self::Chains(chains) => chains.held = PerFamily::default(),
        }
    }

    /// Something failed: opens everything anew.
    pub fn reopen(&mut self) {
        self.doubt();
        match self {
            Self::Table(table) => table.close(),
            Self::Chains(chains) => (chains.aside, chains.sets, chains.nft) = (None, None, None),
        }
    }

    /// Doubts what the kernel holds if it looks changed; `all` looks at everything.
    pub fn look(&mut self, all: bool) -> Result<(), RulesError> {
        match self {
            Self::Table(table) if all => table.look(),
            Self::Table(_) => {}
            Self::Chains(chains) => chains.look(all)?,
        }
        Ok(())
    }

    /// Removes what other places hold of a family, now that this one does.
    pub fn tidy(&mut self, family: Family) -> Result<(), RulesError> {
        let others: &[Variant] = match self {
            Self::Table(_) => &[Variant::Nft, Variant::Legacy],
            Self::Chains(chains) => match chains.aside.as_ref().map(Aside::variant) {
                Some(Variant::Nft) => &[Variant::Legacy],
                Some(Variant::Legacy) => &[Variant::Nft],
                None => return Ok(()),
            },
        };
        others.iter().try_for_each(|variant| Aside::remove(*variant, family))?;
        match self {
            Self::Table(_) => remove_sets(family),
            Self::Chains(_) => Ok(remove_table(family)?),
        }
    }
}

/// In the tables of iptables.
pub struct InChains {
    choice: Option<Variant>,
    ours: Arc<Ours>,
    listen: Listen,
    aside: Option<Aside>,
    /// `Some(None)`: the kernel has no ipset.
    sets: Option<Option<Sets>>,
    /// By which it is seen whether anybody has changed rules of the nf_tables variant.
    nft: Option<Nft>,
    generation: u32,
    /// Whether the kernel was read or written since.
    touched: bool,
    held: PerFamily<Option<Arc<Around>>>,
}

impl InChains {
    fn new(choice: Option<Variant>, ours: Arc<Ours>, listen: Listen) -> Self {
        Self {
            choice,
            ours,
            listen,
            aside: None,
            sets: None,
            nft: None,
            generation: 0,
            touched: false,
            held: PerFamily::default(),
        }
    }

    fn hold(&mut self, around: &Arc<Around>) -> Result<Held, RulesError> {
        let family = around.family;
        let was = self.held[family].take();
        if was.as_ref() == Some(around) {
            self.held[family] = was;
            return Ok(Held::default());
        }
        let by_sets = self.open(family)?;
        self.touched = true;
        let mut held = match was {
            Some(was) if by_sets && is_same_but_for_entries(&was, around) => self.change(&was, around)?,
            was => {
                let mut held = self.write(around, by_sets)?;
                if was.is_some() {
                    // What differs is our own doing.
                    held.repaired.clear();
                }
                held
            }
        };
        held.repaired.dedup();
        self.held[family] = Some(Arc::clone(around));
        Ok(held)
    }

    /// Opens what is not open; says whether rules tell peers by sets.
    fn open(&mut self, family: Family) -> Result<bool, RulesError> {
        if self.aside.is_none() {
            let aside = Aside::open(self.choice, Arc::clone(&self.ours))?;
            info!(variant = ?aside.variant(), "overlay: the rules around it are in the tables of iptables");
            self.aside = Some(aside);
        }
        if self.sets.is_none() {
            let sets = Sets::open()?;
            if sets.is_none() {
                info!("overlay, rules: the kernel has no ipset; each peer has a rule of its own");
            }
            self.sets = Some(sets);
        }
        /// The revision of the match that the rules use.
        const REVISION: u8 = 4;
        match (&mut self.aside, &self.sets) {
            (Some(aside), Some(Some(_))) => Ok(aside.knows(family, false, "set", REVISION)?),
            _ => Ok(false),
        }
    }

    fn change(&mut self, was: &Around, now: &Around) -> Result<Held, RulesError> {
        let sets = self.sets.as_mut().and_then(Option::as_mut);
        let writes = sets.map_or(Ok(0), |sets| sets.change(was, now))?;
        Ok(Held { writes, repaired: Vec::new() })
    }

    fn write(&mut self, around: &Around, by_sets: bool) -> Result<Held, RulesError> {
        let family = around.family;
        let mut held = Held::default();
        let Some(aside) = &mut self.aside else { return Ok(held) };
        let mut by = By::Rules;
        let sets = self.sets.as_mut().and_then(Option::as_mut).filter(|_| by_sets);
        if let Some(sets) = sets {
            let misfits = sets.misfits(family)?;
            if !misfits.is_empty() {
                aside.hold(family, &Default::default())?;
                sets.destroy(&misfits)?;
            }
            let filled = sets.fill(around)?;
            (held.writes, held.repaired) = (filled.writes, filled.found);
            by = Sets::numbers(around)?;
        }
        let (writes, found) = aside.hold(family, &chains(around, by))?;
        held.writes += writes;
        held.repaired.extend(found);
        if let Some(sets) = self.sets.as_mut().and_then(Option::as_mut) {
            sets.tidy(family, Some(around).filter(|_| by_sets))?;
        }
        Ok(held)
    }

    fn end(&mut self) -> Result<(), RulesError> {
        let touched = std::mem::take(&mut self.touched);
        if touched && self.aside.as_ref().is_some_and(|aside| aside.variant() == Variant::Nft) {
            self.generation = nft(&mut self.nft)?.generation()?;
            self.ours.begin(self.generation);
            self.ours.settle();
            self.listen.start();
        }
        Ok(())
    }

    fn look(&mut self, all: bool) -> Result<(), RulesError> {
        let around: Vec<&Around> = Family::BOTH.iter().filter_map(|family| self.held[*family].as_deref()).collect();
        if around.is_empty() {
            return Ok(());
        }
        let sets_right = match self.sets.as_mut().and_then(Option::as_mut) {
            Some(sets) => sets.look_right(&around)?,
            None => true,
        };
        let rules_right = match &self.aside {
            Some(aside) if aside.variant() == Variant::Legacy => aside.is_as_left(all)?,
            _ => !all || nft(&mut self.nft)?.generation()? == self.generation,
        };
        // Of sets nothing is announced; what is in them is read once in a while.
        if all || !sets_right || !rules_right {
            debug!(sets_right, rules_right, "overlay, rules: they are read");
            self.held = PerFamily::default();
        }
        Ok(())
    }
}

fn nft(open: &mut Option<Nft>) -> Result<&mut Nft, NftError> {
    let nft = match open.take() {
        Some(nft) => nft,
        None => Nft::open()?,
    };
    Ok(open.insert(nft))
}

/// Whether the rules stay as they are, and only what is in the sets changes.
fn is_same_but_for_entries(was: &Around, now: &Around) -> bool {
    let port = |around: &Around| around.filter.as_ref().map(|filter| filter.port);
    (was.mark, was.masqueraded, was.cluster.is_some(), port(was))
        == (now.mark, now.masqueraded, now.cluster.is_some(), port(now))
}

#[cfg(test)]
mod tests;
