//! Law of the writes: whatever way leads to a plan, the table ends as if rendered from nothing, and no write of any step
//! deletes what is absent or adds what is there with another meaning, which the kernel would refuse.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_plan::{Family, Plan, Protocol};
use proptest::prelude::*;

use crate::NftBackend;
use crate::diff::{Tables, Writes};
use crate::element::{Bytes, Element};
use crate::rules::{Chain, Datum, Name, Set, Stmt};
use crate::sample;
use crate::whole::Whole;

/// Where an element stands: set, key, end of a range of concatenated keys, whether it ends a plain range.
type Place = (Name, Bytes, Option<Bytes>, bool);

/// A table as the kernel keeps it.
#[derive(Debug, Default, PartialEq)]
struct Model {
    sets: BTreeMap<Name, Set>,
    chains: BTreeMap<Name, Chain>,
    elements: BTreeMap<Place, Datum>,
}

fn place(element: &Element) -> Place {
    (Name::clone(&element.set), element.key, element.key_end, element.range_end)
}

/// The names of sets and chains that a rule needs.
fn needs(chain: &Chain) -> (BTreeSet<&Name>, BTreeSet<&Name>) {
    let (mut sets, mut chains) = (BTreeSet::new(), BTreeSet::new());
    for stmt in chain.rules.iter().flatten() {
        match stmt {
            Stmt::InSet { set, .. } | Stmt::SourceBlockIn { set } => sets.insert(set),
            Stmt::SetPriority { map, .. }
            | Stmt::Remember { map, .. }
            | Stmt::Forget { map }
            | Stmt::Dnat { map, .. }
            | Stmt::Dispatch { map, .. } => sets.insert(map),
            Stmt::Jump(chain) | Stmt::Goto(chain) => chains.insert(chain),
            _ => false,
        };
    }
    (sets, chains)
}

impl Model {
    fn from_nothing(family: Family, plan: &Plan) -> Self {
        let mut tables = Tables::default();
        let whole = Whole::new(family, plan, &mut tables);
        let mut model = Self::default();
        model.apply(&Writes {
            new_sets: whole.sets.clone(),
            new_chains: whole.chains.clone(),
            new_elements: whole.sorted_elements(family, plan, &tables),
            ..Writes::default()
        });
        model
    }

    /// In the order of [`crate::write::writes`].
    fn apply(&mut self, writes: &Writes) {
        for set in &writes.new_sets {
            let old = self.sets.insert(Name::clone(&set.name), set.clone());
            assert!(old.is_none_or(|old| old == *set), "{} is declared otherwise", set.name);
        }
        for chain in &writes.new_chains {
            let old = self.chains.insert(Name::clone(&chain.name), chain.clone());
            assert!(old.is_none(), "the rules of {} would stand there twice", chain.name);
        }
        for chain in &writes.changed_chains {
            let old = self.chains.insert(Name::clone(&chain.name), chain.clone());
            assert!(old.is_some(), "{} is not there", chain.name);
        }
        for chain in writes.new_chains.iter().chain(&writes.changed_chains) {
            let (sets, chains) = needs(chain);
            assert!(sets.into_iter().all(|set| self.sets.contains_key(set)), "{chain:?} needs a set");
            assert!(chains.into_iter().all(|to| self.chains.contains_key(to)), "{chain:?} needs a chain");
        }
        for element in &writes.old_elements {
            assert_eq!(self.elements.remove(&place(element)), Some(element.datum.clone()), "{element:?}");
        }
        for element in &writes.new_elements {
            assert!(self.sets.contains_key(&element.set), "{element:?} has no set");
            if let Datum::Goto(chain) = &element.datum {
                assert!(self.chains.contains_key(chain), "{element:?} has no chain");
            }
            let old = self.elements.insert(place(element), element.datum.clone());
            assert!(old.is_none_or(|old| old == element.datum), "{element:?} has another meaning");
        }
        self.take_away(writes);
    }

    fn take_away(&mut self, writes: &Writes) {
        for chain in &writes.old_chains {
            assert!(self.chains.remove(chain).is_some(), "{chain} is not there");
        }
        for chain in &writes.old_chains {
            let leads_here = self.elements.values().any(|datum| *datum == Datum::Goto(Name::clone(chain)));
            let called = self.chains.values().any(|other| needs(other).1.contains(chain));
            assert!(!leads_here && !called, "{chain} is still in use");
        }
        for set in &writes.old_sets {
            assert!(self.sets.remove(set).is_some(), "{set} is not there");
            assert!(self.chains.values().all(|chain| !needs(chain).0.contains(set)), "{set} is still in use");
            assert!(self.elements.keys().all(|(of, ..)| of != set), "{set} goes with elements that nobody deleted");
        }
    }
}

/// What one step of the backend writes, as one transaction for each family.
fn step(backend: &mut NftBackend, was: &Plan, now: &Plan) -> [Writes; 2] {
    let mut writes = <[Writes; 2]>::default();
    for family in Family::BOTH {
        backend.node(family, was, now, &mut writes[family as usize]);
    }
    for change in was.services.changes(&now.services) {
        let (was, now) = (change.was.map(AsRef::as_ref), change.now.map(AsRef::as_ref));
        backend.tables.change(was, now, &mut writes);
    }
    writes.iter_mut().for_each(Writes::settle);
    writes
}

fn follow(plans: &[Plan]) {
    let (mut backend, start) = (NftBackend::default(), &plans[0]);
    let mut models = Family::BOTH.map(|family| {
        let whole = Whole::new(family, start, &mut backend.tables);
        backend.expect(family, &whole);
        Model::from_nothing(family, start)
    });
    for pair in plans.windows(2) {
        let writes = step(&mut backend, &pair[0], &pair[1]);
        for family in Family::BOTH {
            let model = &mut models[family as usize];
            model.apply(&writes[family as usize]);
            assert_eq!(*model, Model::from_nothing(family, &pair[1]));
            assert_eq!(backend.held(family).elements, model.elements.len() as u64, "the count of elements");
        }
    }
}

#[test]
fn a_plan_to_itself_writes_nothing() {
    let plan = sample::everything();
    let again = sample::everything();
    let mut backend = NftBackend::default();
    assert_eq!(step(&mut backend, &plan, &again), <[Writes; 2]>::default());
}

#[test]
fn every_service_alone_comes_and_goes_without_a_trace() {
    let all = sample::everything();
    let empty = Plan { node: all.node.clone(), ..Plan::default() };
    for service in all.services.iter() {
        let mut one = empty.clone();
        one.services.insert(service.clone());
        follow(&[empty.clone(), one.clone(), all.clone(), one, empty.clone()]);
    }
}

#[test]
fn a_chain_for_a_rare_pool_size_passes_from_one_service_to_another() {
    let with = |first: u16, second: u16| {
        let services = Family::BOTH.into_iter().flat_map(|family| {
            [("first", 1, first), ("second", 2, second)].map(|(name, ip, count)| {
                let endpoints = (1..=count).map(|number| sample::endpoint(family, number, false)).collect();
                sample::service(family, name, ip, Protocol::Tcp, endpoints)
            })
        });
        Plan { node: sample::everything().node, services: services.collect() }
    };
    follow(&[with(40, 2), with(2, 40), with(40, 40), with(40, 3), with(3, 40), with(0, 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn random_steps_end_where_rendering_from_nothing_ends(plans in sample::random::journey(6)) {
        follow(&plans);
    }
}
