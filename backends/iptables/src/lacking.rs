//! A kernel that lacks a match or target: which one, for which table, in one sentence, and nothing is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use fairlead_kernel::xtables::{self, Ip, Variant};
use fairlead_plan::{Backend, Family, Protocol, SyncError};

use crate::desired::Desired;
use crate::encode::{self, Needed, ip};
use crate::{IptablesBackend, structure};
use crate::{namespace, sample};

/// A revision that no kernel has.
const UNKNOWN: u8 = 200;

fn unknown(ip: Ip, name: &str) -> Vec<Needed> {
    let mut needed = encode::needed(ip);
    needed.iter_mut().filter(|needed| needed.one.name == name).for_each(|needed| needed.one.revision = UNKNOWN);
    needed
}

#[test]
fn what_the_kernel_lacks_is_named_with_its_tables_and_nothing_is_written() {
    /// What is needed, and what of it is missing in words.
    type Case = (fn(Ip) -> Vec<Needed>, &'static str);
    const CASES: [Case; 3] = [
        (|ip| unknown(ip, "recent"), "the match recent (revision 200; module xt_recent) for the table nat"),
        (|ip| unknown(ip, "REJECT"), "the target REJECT (revision 200; module xt_REJECT) for the table filter"),
        (|ip| unknown(ip, "mark"), "the match mark (revision 200; module xt_mark) for the tables nat and filter"),
    ];
    for variant in [Variant::Legacy, Variant::Nft] {
        for (needed, words) in CASES {
            namespace::alone(|| {
                let mut backend = IptablesBackend::new(Some(variant)).needing(needed);
                let error = backend.sync(None, &sample::everything()).expect_err("the kernel lacks it");
                assert!(matches!(error, SyncError::Unsupported(_)), "{error:?}");
                let said = error.to_string();
                assert!(said.contains(words) && said.contains("IPv4") && said.contains("--mode=nft"), "{said}");
                assert_eq!(said.matches("the match").count() + said.matches("the target").count(), 1, "{said}");
                for family in Family::BOTH {
                    let held = ["nat", "filter"].map(|table| namespace::save(variant, family, table)).concat();
                    assert!(!held.contains("KUBE-"), "{held}");
                }
            });
        }
    }
}

/// What is asked for at the start must be what rules are made of, or a kernel would refuse one of them later.
#[test]
fn all_matches_and_targets_of_rules_are_asked_for_at_the_start_each_for_its_tables() {
    let mut plan = sample::everything();
    for family in Family::BOTH {
        // Refused, so that the table filter asks for its port too.
        plan.services.insert(Arc::new(sample::service(family, "silent", 9, Protocol::Udp, Vec::new())));
        let mut used = BTreeSet::new();
        let mut add = |table: crate::rules::Table, rule: &crate::rules::Rule| {
            let sctp = rule.protocol == Some(Protocol::Sctp);
            let rule = encode::rule(ip(family), rule);
            let matches = rule.matches.iter().filter(|one| !(sctp && one.name == "sctp"));
            used.extend(matches.map(|one| (table, false, one.name, one.revision)));
            if let xtables::Target::Extension(one) = &rule.target {
                used.insert((table, true, one.name, one.revision));
            }
        };
        Desired::whole(&plan, family, true, |chain| chain.rules.iter().for_each(|rule| add(chain.table, rule)));
        structure::jumps().iter().for_each(|jump| add(jump.table, &jump.rule));
        let needed = encode::needed(ip(family));
        let asked = needed.iter().flat_map(|needed| {
            needed.tables.iter().map(|table| (*table, needed.target, needed.one.name, needed.one.revision))
        });
        assert_eq!(asked.collect::<BTreeSet<_>>(), used);
    }
}
