//! What kube-proxy's ipvs mode has in the kernel besides what has the names of ours.

use std::collections::BTreeSet;

use fairlead_kernel::ipset::SetBatch;
use fairlead_kernel::restore;
use fairlead_plan::{Family, Report};

use crate::doors::{Doors, SPARE, Saved};
use crate::error::Error;
use crate::layout::{self, kube_proxys_sets};
use crate::{rules, structure};

/// Its chains, with their tables, that no other of its modes has.
const CHAINS: [(&str, &str); 6] = [
    ("nat", "KUBE-NODE-PORT"),
    ("nat", "KUBE-LOAD-BALANCER"),
    ("filter", "KUBE-NODE-PORT"),
    ("filter", "KUBE-SOURCE-RANGES-FIREWALL"),
    ("filter", "KUBE-IPVS-FILTER"),
    ("filter", "KUBE-IPVS-OUT-FILTER"),
];

impl Doors {
    /// Removes the chains of kube-proxy's ipvs mode, what leads to them, what asks for its sets, and the sets that are not ours.
    pub fn remove_kube_proxys(&mut self, saved: &Saved, report: &mut Report) -> Result<(), Error> {
        let there: BTreeSet<String> = self.ipset.sets()?.into_iter().map(|set| set.name).collect();
        let unused: Vec<String> = kube_proxys_sets().into_iter().filter(|name| there.contains(name)).collect();
        Self::remove_rules(saved, true)?;
        let mut batch = SetBatch::new();
        unused.iter().for_each(|name| batch.destroy(name));
        self.send_sets(&batch, report)
    }

    /// Removes rules that ask for sets of this mode, and its chains with what leads to them, of kube-proxy and of ours; of ours
    /// not if they are `kept`.
    pub fn remove_rules(saved: &Saved, kept: bool) -> Result<(), Error> {
        let others = kube_proxys_sets();
        let mut sets: Vec<&str> = layout::sets().collect();
        sets.extend(others.iter().map(String::as_str));
        for (family, tables) in saved {
            let mut input = String::new();
            for (table, save) in structure::TABLES.into_iter().zip(tables) {
                let of_table = |all: &[(&str, &'static str)]| -> Vec<&'static str> {
                    all.iter().filter(|(of, _)| *of == table).map(|(_, name)| *name).collect()
                };
                let (mut gone, mut keep) = (of_table(&CHAINS), of_table(&structure::CHAINS));
                gone.retain(|name| !keep.contains(name));
                if !kept {
                    gone.append(&mut keep);
                }
                input += &rules::removal(table, &gone, &keep, &sets, save).unwrap_or_default();
            }
            if !input.is_empty() {
                restore::restore(*family == Family::V6, &input)?;
            }
        }
        Ok(())
    }

    /// The names of all sets of this mode that are there, of kube-proxy and of ours.
    pub fn all_sets(&mut self) -> Result<Vec<String>, Error> {
        let ours = layout::sets().chain([SPARE]).map(str::to_owned);
        let all: BTreeSet<String> = ours.chain(kube_proxys_sets()).collect();
        Ok(self.ipset.sets()?.into_iter().map(|set| set.name).filter(|name| all.contains(name)).collect())
    }
}
