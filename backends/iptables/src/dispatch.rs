//! Finding the rule for a packet's destination among thousands without asking one after the other: a tree of chains by the
//! digits of address, protocol and port. Pure.
//!
//! Few rules stand in one chain, as in kube-proxy. More are shared out to chains by the next digit in which they differ, so
//! a packet passes a few dozen rules however many services there are.

use std::net::IpAddr;

use fairlead_plan::Protocol;
use ipnet::IpNet;

use crate::name;
use crate::rules::{Chain, Match, Rule, Table};

/// So many rules stand in one chain.
pub const IN_ONE_CHAIN: usize = 16;
/// So many rules are not worth a chain of their own.
const NOT_WORTH_A_CHAIN: usize = 3;
/// So deep the tree is at most: nf_tables follows 16 jumps, and ten are spent outside the tree.
const DEEPEST: usize = 6;

/// What a packet is asked for. Sorted so that equal beginnings stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The destination address; `None` for any, as for node ports.
    pub ip: Option<IpAddr>,
    /// The protocol and the port; `None` for any. In one tree all have one, or none has.
    pub port: Option<(Protocol, u16)>,
}

/// The digits of a place: four bits of the address each, the protocol, four bits of the port each.
const PORT_DIGITS: usize = 4;
const BITS: usize = 4;

impl Place {
    fn address_digits(&self) -> usize {
        match self.ip {
            None => 0,
            Some(IpAddr::V4(_)) => 8,
            Some(IpAddr::V6(_)) => 32,
        }
    }

    fn digits(&self) -> usize {
        self.address_digits() + 1 + PORT_DIGITS
    }

    fn digit(&self, number: usize) -> u16 {
        let address = self.address_digits();
        if number < address {
            let shift = |digits: usize| (digits - 1 - number) * BITS;
            let value = match self.ip {
                Some(IpAddr::V4(ip)) => u128::from(u32::from(ip)) >> shift(8),
                Some(IpAddr::V6(ip)) => u128::from(ip) >> shift(32),
                None => 0,
            };
            return (value & 0xf) as u16;
        }
        match self.port {
            None => 0,
            Some((protocol, _)) if number == address => protocol.number().into(),
            Some((_, port)) => port >> ((PORT_DIGITS - (number - address)) * BITS) & 0xf,
        }
    }

    /// What the first `known` digits say.
    fn known(&self, known: usize) -> Known {
        let address = self.address_digits();
        let in_address = known.min(address);
        let bits = u8::try_from(in_address * BITS).unwrap_or(u8::MAX);
        let net = self.ip.filter(|_| in_address > 0).and_then(|ip| IpNet::new(ip, bits).ok()).map(|net| net.trunc());
        let Some((protocol, port)) = self.port else { return Known { net, protocol: None, ports: None } };
        let in_port = known.saturating_sub(address + 1);
        let span = 1_u32 << ((PORT_DIGITS - in_port) * BITS);
        let first = u32::from(port) / span * span;
        let ports = (first as u16, (first + span - 1) as u16);
        Known { net, protocol: (known > address).then_some(protocol), ports: (in_port > 0).then_some(ports) }
    }
}

/// What a branch of the tree asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    net: Option<IpNet>,
    protocol: Option<Protocol>,
    ports: Option<(u16, u16)>,
}

impl Known {
    /// A rule for what it asks for, without what is known already.
    fn rule(&self, before: &Self, chain: &str) -> Rule {
        let mut rule = Rule::jump(chain);
        if let Some(net) = self.net.filter(|_| self.net != before.net) {
            rule = rule.to_net(net);
        }
        if let Some(protocol) = self.protocol.filter(|_| (self.protocol, self.ports) != (before.protocol, before.ports))
        {
            rule = rule.of(protocol);
        }
        if let Some((first, last)) = self.ports.filter(|_| self.ports != before.ports) {
            rule = rule.when(Match::Ports(first, last));
        }
        rule
    }

    fn chain(&self, beginning: &str) -> String {
        let mut place = self.net.map(|net| net.to_string()).unwrap_or_default();
        let parts = [
            self.protocol.map(|protocol| protocol.name().to_owned()),
            self.ports.map(|(first, last)| format!("{first}-{last}")),
        ];
        for part in parts.into_iter().flatten() {
            let slash = if place.is_empty() { "" } else { "/" };
            place = format!("{place}{slash}{part}");
        }
        name::branch(beginning, &place)
    }
}

/// The rules of the root for all these places, in order, and the chains below it, whose names begin so.
pub fn tree<T>(
    table: Table,
    beginning: &str,
    sorted: &[(Place, T)],
    leaf: &dyn Fn(&T) -> Rule,
) -> (Vec<Rule>, Vec<Chain>) {
    let mut below = Vec::new();
    let start = Known { net: None, protocol: None, ports: None };
    let rules = Grower { table, beginning, leaf }.branch(sorted, &start, 0, &mut below);
    (rules, below)
}

struct Grower<'g, T> {
    table: Table,
    beginning: &'g str,
    leaf: &'g dyn Fn(&T) -> Rule,
}

impl<T> Grower<'_, T> {
    fn branch(&self, sorted: &[(Place, T)], known: &Known, depth: usize, below: &mut Vec<Chain>) -> Vec<Rule> {
        let one_by_one = |group: &[(Place, T)]| group.iter().map(|(_, item)| (self.leaf)(item)).collect::<Vec<_>>();
        let Some(at) = first_difference(sorted).filter(|_| sorted.len() > IN_ONE_CHAIN && depth < DEEPEST) else {
            return one_by_one(sorted);
        };
        let mut rules = Vec::new();
        for group in sorted.chunk_by(|(a, _), (b, _)| a.digit(at) == b.digit(at)) {
            match (group, first_difference(group)) {
                ([(place, _), ..], Some(common)) if group.len() > NOT_WORTH_A_CHAIN => {
                    let here = place.known(common);
                    let name = here.chain(self.beginning);
                    rules.push(here.rule(known, &name));
                    let content = self.branch(group, &here, depth + 1, below);
                    below.push(Chain::new(self.table, name, content));
                }
                _ => rules.extend(one_by_one(group)),
            }
        }
        rules
    }
}

/// The first digit in which some differ: the first and the last one differ most.
fn first_difference<T>(sorted: &[(Place, T)]) -> Option<usize> {
    let ((first, _), (last, _)) = (sorted.first()?, sorted.last()?);
    (0..first.digits().min(last.digits())).find(|digit| first.digit(*digit) != last.digit(*digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Target, host};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn leaf(place: &Place) -> Rule {
        let rule = Rule::to(Target::Accept);
        let rule = if let Some(ip) = place.ip { rule.to_net(host(ip)) } else { rule };
        match place.port {
            Some((protocol, port)) => rule.port(protocol, port),
            None => rule,
        }
    }

    fn applies(rule: &Rule, place: &Place) -> bool {
        let net = rule.destination.is_none_or(|net| place.ip.is_some_and(|ip| net.net.contains(&ip)));
        let Some((protocol, port)) = place.port else { return net };
        let ports = rule.matches.iter().all(|one| matches!(one, Match::Ports(a, b) if (*a..=*b).contains(&port)));
        net && rule.protocol.is_none_or(|wanted| wanted == protocol) && ports
    }

    /// Every rule that a packet passes, and whether it was accepted.
    fn walk(rules: &[Rule], chains: &BTreeMap<&str, &Chain>, place: &Place, passed: &mut usize, depth: usize) -> bool {
        assert!(depth <= DEEPEST, "too deep");
        for rule in rules {
            *passed += 1;
            if applies(rule, place) {
                let found = match &rule.target {
                    Target::Jump(name) => walk(&chains[name.as_str()].rules, chains, place, passed, depth + 1),
                    _ => true,
                };
                if found {
                    return true;
                }
            }
        }
        false
    }

    fn check(places: &BTreeSet<Place>, others: &[Place], most: usize) {
        let sorted: Vec<(Place, Place)> = places.iter().map(|place| (*place, *place)).collect();
        let (root, below) = tree(Table::Nat, name::CLUSTER, &sorted, &leaf);
        let chains: BTreeMap<&str, &Chain> = below.iter().map(|chain| (chain.name.as_str(), chain)).collect();
        assert_eq!(chains.len(), below.len(), "names are unique");
        assert!(chains.keys().all(|name| name.len() <= 28 && name::is_ours(name)), "{:?}", chains.keys());
        for place in places.iter().chain(others) {
            let mut passed = 0;
            assert_eq!(walk(&root, &chains, place, &mut passed, 0), places.contains(place), "{place:?}");
            assert!(passed <= most, "{place:?} passes {passed} rules");
        }
    }

    fn ports(ip: Option<IpAddr>, ports: impl Iterator<Item = u16>) -> impl Iterator<Item = Place> {
        ports.map(move |port| Place { ip, port: Some((Protocol::Tcp, port)) })
    }

    #[test]
    fn among_ten_thousand_places_a_packet_passes_a_few_dozen_rules() {
        let address = |number: u32| Some(IpAddr::from(std::net::Ipv4Addr::from(0x0a60_0000 + number * 7)));
        check(&(0..10_000).flat_map(|number| ports(address(number), 80..81)).collect(), &[], 100);
        let address = |number: u128| Some(IpAddr::from(std::net::Ipv6Addr::from((0xfd00_0096_u128 << 96) + number)));
        check(&(0..10_000).flat_map(|number| ports(address(number), 80..81)).collect(), &[], 100);
        check(&ports(None, 30_000..32_768).collect(), &[], 100);
        check(&ports(address(1), 1_000..4_000).collect(), &[], 100);
    }

    #[test]
    fn few_places_stand_in_one_chain_as_in_kube_proxy() {
        let sorted: Vec<_> = ports(None, 30_000..30_016).map(|place| (place, place)).collect();
        let (root, below) = tree(Table::Nat, name::CLUSTER, &sorted, &leaf);
        assert_eq!((root.len(), below.len()), (16, 0));
    }

    fn any_place() -> impl Strategy<Value = Place> {
        let ip = prop_oneof![
            Just(None),
            (0_u32..600).prop_map(|low| Some(IpAddr::from(std::net::Ipv4Addr::from(0x0a60_0000 + low)))),
        ];
        let protocol = proptest::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        (ip, protocol, 0_u16..40).prop_map(|(ip, protocol, port)| Place { ip, port: Some((protocol, port * 1_000)) })
    }

    proptest! {
        #[test]
        fn every_place_is_found_and_nothing_else(
            all in proptest::collection::btree_set(any_place(), 0..300),
            others in proptest::collection::vec(any_place(), 20),
        ) {
            for with_address in [true, false] {
                let fits = |place: &&Place| place.ip.is_some() == with_address;
                let others: Vec<Place> = others.iter().filter(fits).copied().collect();
                check(&all.iter().filter(fits).copied().collect(), &others, usize::MAX);
            }
        }
    }
}
