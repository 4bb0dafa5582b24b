//! Which changes of one step must not be torn apart.
//!
//! A step of many changes is several transactions. An address that passes from one service to another is deleted by one
//! change and added by another, perhaps a transaction earlier: the kernel would refuse the second meaning of the key, or,
//! where both services mean the same, take it for the one that is there and then delete it.

use std::collections::BTreeSet;

use fairlead_plan::{Change, Family, FrontendAddr, Protocol, Service};

/// What only one service can have.
type Claim = (Protocol, Family, FrontendAddr);

fn claims(service: &Service) -> impl Iterator<Item = Claim> + '_ {
    let (protocol, family) = (service.key.protocol, service.key.family);
    service.frontends.iter().map(move |frontend| (protocol, family, frontend.addr()))
}

/// The claims of one state of a service that the other state does not have.
fn only<'a>(this: Option<&'a Service>, other: Option<&'a Service>) -> impl Iterator<Item = Claim> + 'a {
    let theirs = move |claim: &Claim| other.is_some_and(|other| claims(other).any(|theirs| theirs == *claim));
    this.into_iter().flat_map(claims).filter(move |claim| !theirs(claim))
}

/// The same changes, those first that pass addresses on, and how many these are: they belong into one transaction.
pub fn together<'a>(changes: impl Iterator<Item = Change<'a>>) -> (Vec<Change<'a>>, usize) {
    let changes: Vec<Change<'a>> = changes.collect();
    // It takes two to pass an address on, and nearly every step is one change.
    if changes.len() < 2 {
        return (changes, 0);
    }
    let given = |change: &Change<'a>| only(change.was.map(AsRef::as_ref), change.now.map(AsRef::as_ref));
    let taken = |change: &Change<'a>| only(change.now.map(AsRef::as_ref), change.was.map(AsRef::as_ref));
    let all_given: BTreeSet<Claim> = changes.iter().flat_map(given).collect();
    let moved: BTreeSet<Claim> = changes.iter().flat_map(taken).filter(|claim| all_given.contains(claim)).collect();
    let passes_on = |change: &Change<'a>| given(change).chain(taken(change)).any(|claim| moved.contains(&claim));
    let (mut first, rest): (Vec<_>, Vec<_>) = changes.into_iter().partition(passes_on);
    let count = first.len();
    first.extend(rest);
    (first, count)
}

#[cfg(test)]
mod tests {
    use fairlead_plan::{Family, Plan, Protocol};

    use super::together;
    use crate::sample;

    #[test]
    fn services_that_pass_an_address_on_come_first_and_together() {
        let plan = |ips: [u16; 5]| {
            let services = Family::BOTH.into_iter().flat_map(|family| {
                ips.iter().zip(["a", "b", "c", "d", "e"]).filter(|(ip, _)| **ip != 0).map(move |(ip, name)| {
                    sample::service(family, name, *ip, Protocol::Tcp, vec![sample::endpoint(family, *ip, false)])
                })
            });
            Plan { services: services.collect(), ..Plan::default() }
        };
        // b goes and d, which is new, gets its address; a and c exchange theirs; e takes one that was free.
        let (was, now) = (plan([1, 2, 3, 0, 5]), plan([3, 0, 1, 2, 6]));
        let (changes, count) = together(was.services.changes(&now.services));
        let name = |change: &fairlead_plan::Change<'_>| {
            change.was.or(change.now).map(|service| service.key.name.to_string()).unwrap_or_default()
        };
        let (mut first, rest) = (changes[..count].iter().map(name).collect::<Vec<_>>(), &changes[count..]);
        first.sort();
        assert_eq!(first, ["a", "a", "b", "b", "c", "c", "d", "d"]);
        assert_eq!(rest.iter().map(name).collect::<Vec<_>>(), ["e", "e"]);
    }
}
