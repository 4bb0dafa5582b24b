//! Law of the changes: whatever way leads to a plan, the chains end as if rendered from nothing, and no step makes a chain that
//! is there, or changes or removes one that is not.

use fairlead_plan::{Change, Family, Plan};
use proptest::prelude::*;

use crate::desired::{Chains, Desired};
use crate::rules::{Chain, Table};
use crate::sample;

fn whole(plan: &Plan, family: Family) -> (Desired, Chains) {
    let mut chains = Chains::new();
    let desired = Desired::whole(plan, family, true, |Chain { table, name, rules }| {
        assert!(chains.insert((table, name.clone()), rules).is_none(), "{name} comes twice");
    });
    (desired, chains)
}

fn count(chains: &Chains) -> [u64; 2] {
    Table::BOTH.map(|table| {
        let of_chains: usize = chains.iter().filter(|((of, _), _)| *of == table).map(|(_, rules)| rules.len()).sum();
        let jumps = crate::structure::jumps().iter().filter(|jump| jump.table == table).count();
        (of_chains + jumps) as u64
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_way_to_a_plan_ends_in_the_same_chains(plans in sample::random::journey(5)) {
        for family in Family::BOTH {
            let (mut desired, mut chains) = whole(&plans[0], family);
            for (was, now) in plans.iter().zip(&plans[1..]).map(|(was, now)| (was, Plan { node: was.node.clone(), ..now.clone() })) {
                let all: Vec<Change<'_>> = was.services.changes(&now.services).collect();
                let changes = desired.step(&all);
                for (key, rules) in changes.new {
                    prop_assert!(chains.insert(key.clone(), rules).is_none(), "{:?} was there", key);
                }
                for (key, rules) in changes.changed {
                    prop_assert!(chains.insert(key.clone(), rules).is_some(), "{:?} was not there", key);
                }
                for key in changes.remove {
                    prop_assert!(chains.remove(&key).is_some(), "{:?} was not there", key);
                }
                prop_assert_eq!(desired.rules(), count(&chains));
                // The node of a journey changes too; a backend then starts from nothing.
                let (fresh, wanted) = whole(&Plan { node: plans[0].node.clone(), ..now.clone() }, family);
                prop_assert_eq!(&chains, &wanted);
                prop_assert_eq!(fresh.rules(), desired.rules());
            }
        }
    }
}
