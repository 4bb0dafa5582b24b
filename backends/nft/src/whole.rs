//! Everything the table of one family must hold for a plan: what `render` prints and what a start compares the kernel with.

use fairlead_plan::{Family, Plan};

use crate::diff::{Shared, Tables};
use crate::element::{Bytes, Element};
use crate::layout::{self, NAMES, number};
use crate::render;
use crate::rules::{Chain, Datum, Name, Set};
use crate::structure;

/// The table of one family without the elements of services, which [`Whole::each_element`] hands out one service at a
/// time: at 100,000 endpoints they should not all be in memory twice.
#[derive(Debug, Default)]
pub struct Whole {
    /// Sets and maps.
    pub sets: Vec<Set>,
    /// Chains; every jump leads to a chain that stands before.
    pub chains: Vec<Chain>,
    /// Elements that lead to chains, and facts about the node.
    pub constant: Vec<Element>,
}

impl Whole {
    /// For one family of a plan. Notes in `tables` what services share.
    pub fn new(family: Family, plan: &Plan, tables: &mut Tables) -> Self {
        let (mut sets, mut sticky) = (layout::sets(), Vec::new());
        for service in plan.services.iter().filter(|service| service.key.family == family) {
            let objects = render::service(service);
            tables.note(family, &objects);
            sets.extend(objects.sets);
            sticky.extend(objects.chains);
        }
        let shared = tables.shared(family);
        let mut chains = counted_chains(shared);
        chains.extend(sticky);
        chains.extend(structure::chains(family, &plan.node));
        let constant = constant_elements(family, plan, shared);
        Self { sets, chains, constant }
    }

    /// The same with all its elements, sorted, for small plans and for people.
    pub fn with_elements(family: Family, plan: &Plan) -> (Self, Vec<Element>) {
        let mut tables = Tables::default();
        let whole = Self::new(family, plan, &mut tables);
        let elements = whole.sorted_elements(family, plan, &tables);
        (whole, elements)
    }

    /// Every element of services.
    pub fn each_element(family: Family, plan: &Plan, tables: &Tables, mut each: impl FnMut(&Element)) {
        for service in plan.services.iter().filter(|service| service.key.family == family) {
            render::service(service).elements.iter().for_each(&mut each);
        }
        tables.shared(family).elements().for_each(|element| each(&element));
    }

    /// Everything in the order in which people should read it.
    pub fn sorted_elements(&self, family: Family, plan: &Plan, tables: &Tables) -> Vec<Element> {
        let mut all = self.constant.clone();
        Self::each_element(family, plan, tables, |element| all.push(element.clone()));
        all.sort_unstable();
        all
    }
}

fn counted_chains(shared: &Shared) -> Vec<Chain> {
    let mut counts: Vec<_> = shared.counts().collect();
    counts.sort_unstable();
    counts.into_iter().map(|(space, pool, count)| structure::spread(space, pool, count)).collect()
}

/// Elements that do not depend on which services there are, with those for pool sizes in use, sorted.
fn constant_elements(family: Family, plan: &Plan, shared: &Shared) -> Vec<Element> {
    let mut elements = first_elements(family, plan);
    elements.extend(shared.counts().map(|(space, pool, count)| structure::spread_action(space, pool, count)));
    elements.extend(structure::service_cidr_elements(family, &plan.node));
    elements.sort_unstable();
    elements
}

/// What must be there before the first service.
pub fn first_elements(family: Family, plan: &Plan) -> Vec<Element> {
    let action = |number, datum| Element::verdict(&NAMES.actions, Bytes::EMPTY.number(number), datum);
    let mut elements =
        vec![action(number::REFUSE, Datum::Goto(Name::from("refuse"))), action(number::DROP, Datum::Drop)];
    elements.extend(structure::node_elements(family, &plan.node));
    elements
}
