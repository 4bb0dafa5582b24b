//! The sets of ipset by which rules of iptables tell the cluster and its peers.

use std::collections::BTreeSet;

use fairlead_kernel::ipset::{Ipset, IpsetError, SetBatch, SetEntry, SetKind, SetSpec};
use fairlead_kernel::xtables::set_index;
use fairlead_plan::Family;
use ipnet::IpNet;

use super::around::Around;
use super::chains::By;
use super::holder::RulesError;

/// One of our sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Cluster,
    Peers,
}

impl Set {
    const BOTH: [Self; 2] = [Self::Cluster, Self::Peers];

    const fn spec(self, family: Family) -> SetSpec<'static> {
        let (name, kind) = match (self, family) {
            (Self::Cluster, Family::V4) => ("FAIRLEAD-CLUSTER", SetKind::Net),
            (Self::Cluster, Family::V6) => ("FAIRLEAD-6-CLUSTER", SetKind::Net),
            (Self::Peers, Family::V4) => ("FAIRLEAD-PEERS", SetKind::Ip),
            (Self::Peers, Family::V6) => ("FAIRLEAD-6-PEERS", SetKind::Ip),
        };
        SetSpec { name, kind, v6: matches!(family, Family::V6), marks: false }
    }

    /// What is in it; `None` if it is not needed.
    fn entries(self, around: &Around) -> Option<BTreeSet<SetEntry>> {
        match self {
            Self::Cluster => {
                let nets = around.cluster.as_ref()?.iter().flat_map(|net| halves(*net));
                let entry = |net: IpNet| SetEntry {
                    ip: Some(net.network()),
                    prefix: Some(net.prefix_len()),
                    ..SetEntry::default()
                };
                Some(nets.map(entry).collect())
            }
            Self::Peers => {
                let peers = around.filter.as_ref()?.peers.iter();
                Some(peers.map(|peer| SetEntry { ip: Some(*peer), ..SetEntry::default() }).collect())
            }
        }
    }

    /// How many entries that are.
    fn count(self, around: &Around) -> Option<usize> {
        match self {
            Self::Cluster => Some(around.cluster.as_ref()?.iter().map(|net| halves(*net).len()).sum()),
            Self::Peers => Some(around.filter.as_ref()?.peers.len()),
        }
    }
}

/// ipset has no prefix of no bits; two halves stand for everything.
fn halves(net: IpNet) -> Vec<IpNet> {
    if net.prefix_len() > 0 {
        return vec![net];
    }
    net.subnets(1).map_or_else(|_| vec![net], Iterator::collect)
}

/// What [`Sets::fill`] did.
#[derive(Debug, Default)]
pub struct Filled {
    /// Entries and sets written.
    pub writes: u64,
    /// What was found different, in words.
    pub found: Vec<String>,
}

/// The sets in the kernel.
#[derive(Debug)]
pub struct Sets {
    ipset: Ipset,
}

impl Sets {
    /// Opens the connection; `None` if the kernel has no ipset.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn open() -> Result<Option<Self>, IpsetError> {
        match Ipset::open() {
            Ok(ipset) => Ok(Some(Self { ipset })),
            Err(error) if error.is_unsupported() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Names of ours that sets of another make have. Nothing may lead to them when they are destroyed.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub fn misfits(&mut self, family: Family) -> Result<Vec<&'static str>, IpsetError> {
        let held = self.ipset.sets()?;
        let specs = Set::BOTH.map(|set| set.spec(family));
        let other = |spec: &SetSpec<'_>| {
            let named = held.iter().find(|held| held.name == spec.name);
            named.is_some_and(|held| (held.kind, held.v6, held.marks) != (Some(spec.kind), spec.v6, spec.marks))
        };
        Ok(specs.into_iter().filter(other).map(|spec| spec.name).collect())
    }

    /// Destroys sets.
    ///
    /// # Errors
    /// If a rule uses one.
    pub fn destroy(&mut self, names: &[&str]) -> Result<(), IpsetError> {
        let mut batch = SetBatch::new();
        names.iter().for_each(|name| batch.destroy(name));
        self.ipset.send(&batch)
    }

    /// Reads the sets and makes them what they should be, full before anything leads to them.
    ///
    /// # Errors
    /// If the kernel cannot be read or refuses.
    pub fn fill(&mut self, around: &Around) -> Result<Filled, IpsetError> {
        let (held, mut batch, mut filled) = (self.ipset.sets()?, SetBatch::new(), Filled::default());
        for set in Set::BOTH {
            let spec = set.spec(around.family);
            let Some(wanted) = set.entries(around) else { continue };
            let entries: BTreeSet<SetEntry> = if held.iter().any(|held| held.name == spec.name) {
                self.ipset.entries(spec.name)?.into_iter().collect()
            } else {
                batch.create(&spec);
                filled.found.push(format!("the set {} was missing", spec.name));
                BTreeSet::new()
            };
            let changed = step(&mut batch, spec.name, &entries, &wanted);
            if changed > 0 {
                filled.found.push(format!("{changed} entries of the set {}", spec.name));
            }
        }
        filled.writes = batch.objects();
        self.ipset.send(&batch)?;
        Ok(filled)
    }

    /// From what the sets hold to what they should, without reading. They must be the same sets. Says how much was written.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn change(&mut self, was: &Around, now: &Around) -> Result<u64, IpsetError> {
        let mut batch = SetBatch::new();
        let changed = Set::BOTH.into_iter().filter(|set| *set == Set::Peers || was.cluster != now.cluster);
        for set in changed {
            if let (Some(was), Some(wanted)) = (set.entries(was), set.entries(now)) {
                step(&mut batch, set.spec(now.family).name, &was, &wanted);
            }
        }
        self.ipset.send(&batch)?;
        Ok(batch.objects())
    }

    /// By which numbers rules name the sets that are needed.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn numbers(around: &Around) -> Result<By, RulesError> {
        let number = |set: Set, needed: bool| match needed {
            true => set_index(set.spec(around.family).name),
            false => Ok(None),
        };
        let cluster = number(Set::Cluster, around.cluster.is_some())?;
        Ok(By::Sets { cluster, peers: number(Set::Peers, around.filter.is_some())? })
    }

    /// Whether each set has as many entries as it should.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub fn look_right(&mut self, around: &[&Around]) -> Result<bool, IpsetError> {
        let held = self.ipset.sets()?;
        let right = |around: &&Around, set: Set| {
            let name = set.spec(around.family).name;
            let there = held.iter().find(|held| held.name == name).map(|held| held.elements as usize);
            there == set.count(around)
        };
        Ok(around.iter().all(|around| Set::BOTH.into_iter().all(|set| right(around, set))))
    }

    /// Destroys sets of a family that are not needed, or all. No rule uses them any more.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn tidy(&mut self, family: Family, needed: Option<&Around>) -> Result<(), IpsetError> {
        let held = self.ipset.sets()?;
        let idle = Set::BOTH.into_iter().filter(|set| needed.is_none_or(|around| set.entries(around).is_none()));
        let names = idle.map(|set| set.spec(family).name).filter(|name| held.iter().any(|held| held.name == *name));
        self.destroy(&names.collect::<Vec<_>>())
    }
}

fn step(batch: &mut SetBatch, set: &str, held: &BTreeSet<SetEntry>, wanted: &BTreeSet<SetEntry>) -> usize {
    let missing: Vec<SetEntry> = wanted.difference(held).copied().collect();
    let extra: Vec<SetEntry> = held.difference(wanted).copied().collect();
    batch.add(set, &missing);
    batch.delete(set, &extra);
    missing.len() + extra.len()
}
