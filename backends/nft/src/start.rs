//! Starts, repairs and doubts: from whatever the kernel holds to a plan.

use fairlead_kernel::nft::{Batch, NftError};
use fairlead_plan::{Family, Origin, Plan, Report};

use crate::adopt::{self, Adoption};
use crate::backend::{BATCH, NftBackend, RuleCounts, too_many};
use crate::diff::{Tables, Writes};
use crate::element::Element;
use crate::layout::{self, Keyspace, NAMES, TABLE};
use crate::rules::Name;
use crate::structure;
use crate::whole::{self, Whole};
use crate::write::{self, nfproto};

/// How many sentences about repairs one report has.
const REPAIRS_TOLD: usize = 8;

impl NftBackend {
    /// From whatever the kernel holds to a plan.
    pub fn adopt(&mut self, now: &Plan, report: &mut Report) -> Result<(), NftError> {
        self.begin()?;
        self.tables = Tables::default();
        report.warnings.extend(now.services.iter().filter_map(|service| too_many(service)));
        let mut fresh = Vec::new();
        for family in Family::BOTH {
            if self.nft()?.table(nfproto(family), TABLE)?.is_none() {
                self.told(report, || format!("the table {} {TABLE} was gone", name(family)));
                fresh.push(family);
                continue;
            }
            let whole = Whole::new(family, now, &mut self.tables);
            self.expect(family, &whole);
            let tables = std::mem::take(&mut self.tables);
            let compared = self.nft().and_then(|nft| adopt::compare(nft, family, now, &whole, &tables));
            self.tables = tables;
            match compared? {
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
        self.fill(&fresh, now, report)?;
        self.witness()?;
        self.settle();
        Ok(())
    }

    pub(crate) fn expect(&mut self, family: Family, whole: &Whole) {
        self.rules[family as usize] = RuleCounts::of(&whole.chains);
        let counted = self.tables.shared(family).counts().count();
        self.constant[family as usize] = (whole.constant.len() - counted) as u64;
    }

    fn told(&self, report: &mut Report, sentence: impl FnOnce() -> String) {
        if self.settled && report.repaired.len() < REPAIRS_TOLD {
            report.repaired.push(sentence());
        }
    }

    fn tell_repairs(&self, family: Family, writes: &Writes, report: &mut Report) {
        let (table, count) = (format!("{} {TABLE}", name(family)), |elements: &[Element]| {
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
    fn fill(&mut self, families: &[Family], now: &Plan, report: &mut Report) -> Result<(), NftError> {
        if families.is_empty() {
            return Ok(());
        }
        self.lay_out(families, now, report)?;
        let mut services: Vec<_> =
            now.services.iter().filter(|service| families.contains(&service.key.family)).collect();
        services.sort_by(|a, b| (a.priority, &a.key).cmp(&(b.priority, &b.key)));
        let (mut writes, mut last) = <([Writes; 2], [Writes; 2])>::default();
        for service in services {
            self.tables.change(None, Some(service), &mut writes);
            if writes.iter().map(Writes::elements).sum::<usize>() >= BATCH {
                hold_back(&mut writes, &mut last);
                self.commit(&mut writes, report)?;
            }
        }
        hold_back(&mut writes, &mut last);
        self.commit(&mut writes, report)?;
        for family in families {
            let nobodys = structure::service_cidr_elements(*family, &now.node);
            self.constant[*family as usize] += nobodys.len() as u64;
            last[*family as usize].new_elements.extend(nobodys);
        }
        self.commit(&mut last, report)
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
            self.rules[*family as usize] = RuleCounts::default();
            self.count_rules(*family, &first);
            self.constant[*family as usize] = first.new_elements.len() as u64;
            write::writes(&mut batch, *family, &first);
        }
        self.send(&batch, report)
    }

    /// An acknowledgement is no proof: counts the rules that the kernel holds.
    fn witness(&mut self) -> Result<(), NftError> {
        for family in Family::BOTH {
            let wanted: u64 = self.rules[family as usize].sum();
            let held = self.nft()?.rules(nfproto(family), TABLE)?.len() as u64;
            if held != wanted {
                return Err(NftError::Interrupted);
            }
        }
        Ok(())
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

/// What refuses unused ports goes in behind all frontends: a packet that found none of them yet would be refused, although
/// another mode, from which this one takes over, has an endpoint for it.
fn hold_back(writes: &mut [Writes; 2], last: &mut [Writes; 2]) {
    for (writes, last) in writes.iter_mut().zip(last) {
        let (refusing, others) =
            std::mem::take(&mut writes.new_elements).into_iter().partition(|element| element.set == NAMES.cluster_ips);
        writes.new_elements = others;
        last.new_elements.extend::<Vec<Element>>(refusing);
    }
}

/// Endpoints before the frontends that lead to them, sources before what they alone may use, and drops last.
fn fill_order(set: &Name) -> u8 {
    let names = &*NAMES;
    let is_frontends = |space| {
        *set == *names.frontends(space) || Origin::ALL.into_iter().any(|origin| *set == *names.from(space, origin))
    };
    if *set == names.service_cidrs {
        4
    } else if *set == names.cluster_ips {
        3
    } else if Keyspace::BOTH.into_iter().any(is_frontends) {
        2
    } else {
        u8::from(*set == names.restricted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_somewhere_is_filled_after_what_it_leads_to() {
        let order = |name: &str| fill_order(&Name::from(name));
        let steps: [&[&str]; 5] = [
            &["endpoints", "np-endpoints", "allowed", "endpoints-cluster-from-x/frontends/tcp/http"],
            &["restricted"],
            &["frontends", "np-frontends", "from-pod", "np-from-outside"],
            &["cluster-ips"],
            &["service-cidrs"],
        ];
        for (step, names) in (0..).zip(steps) {
            assert!(names.iter().all(|name| order(name) == step), "{names:?}");
        }
    }
}
