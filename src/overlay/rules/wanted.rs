//! What our table of nf_tables should hold. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_kernel::nft::{Exprs, HookSpec};
use fairlead_plan::Family;
use ipnet::IpNet;

use super::around::Around;
use super::express::{self, Side};

/// The set of the prefixes of this node's pods.
pub const PODS: &str = "pods";
/// The set of all that pods reach with their own address.
pub const CLUSTER: &str = "cluster";
/// The set of the addresses from which tunnelled packets are taken.
pub const PEERS: &str = "peers";

/// A key of a set: its bytes, and whether it is the first one behind a range.
pub type Member = (Box<[u8]>, bool);

/// A set of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Unique in the table.
    pub name: &'static str,
    /// Whether its keys are ranges.
    pub ranges: bool,
    /// What is in it.
    pub members: BTreeSet<Member>,
}

/// A chain at a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Unique in the table.
    pub name: &'static str,
    /// Where it hangs.
    pub hook: HookSpec<'static>,
    /// In order.
    pub rules: Vec<Exprs>,
}

/// Everything in the table of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Named by rules.
    pub sets: Vec<Set>,
    /// In the order of their creation.
    pub chains: Vec<Chain>,
}

/// The table that says this.
#[must_use]
pub fn table(around: &Around) -> Table {
    let family = around.family;
    let mut table = Table { sets: Vec::new(), chains: Vec::new() };
    if let Some(cluster) = &around.cluster {
        table.sets.push(Set { name: CLUSTER, ranges: true, members: ranges(family, cluster.iter().copied()) });
        table.chains.push(forward(family));
        if let Some(pods) = around.masqueraded {
            table.sets.push(Set { name: PODS, ranges: true, members: ranges(family, [pods]) });
            table.chains.push(postrouting(family, around.mark));
        }
    }
    if let Some(filter) = &around.filter {
        let members = filter.peers.iter().map(|end| (octets(*end), false)).collect();
        table.sets.push(Set { name: PEERS, ranges: false, members });
        table.chains.push(input(family, filter.port));
    }
    table
}

/// Others may drop what our chain accepts: in nf_tables a packet must pass every table.
fn forward(family: Family) -> Chain {
    let rules = [Side::Source, Side::Destination].map(|side| {
        let mut rule = Exprs::new();
        express::in_set(&mut rule, family, side, CLUSTER, false);
        express::accept(&mut rule);
        rule
    });
    Chain { name: "forward", hook: HookSpec { kind: "filter", hook: 2, priority: 0 }, rules: rules.into() }
}

/// Behind the service backend's own chain, which is at 100 in every mode: a connection whose source it has decided about does
/// not come here any more. What only carries its mark is left alone too, or the tunnel would translate it a second time.
fn postrouting(family: Family, mark: u32) -> Chain {
    let mut rule = Exprs::new();
    express::in_set(&mut rule, family, Side::Source, PODS, false);
    express::in_set(&mut rule, family, Side::Destination, CLUSTER, true);
    express::not_multicast(&mut rule, family);
    express::not_to_this_node(&mut rule);
    express::not_marked(&mut rule, mark);
    express::masquerade(&mut rule);
    Chain { name: "postrouting", hook: HookSpec { kind: "nat", hook: 4, priority: 101 }, rules: vec![rule] }
}

/// Whoever reaches the tunnel's port could send packets in the name of any pod.
fn input(family: Family, port: u16) -> Chain {
    let mut rule = Exprs::new();
    express::udp_to(&mut rule, port);
    express::in_set(&mut rule, family, Side::Source, PEERS, true);
    express::count_and_drop(&mut rule);
    Chain { name: "input", hook: HookSpec { kind: "filter", hook: 1, priority: 0 }, rules: vec![rule] }
}

/// An address as a key.
pub fn octets(addr: IpAddr) -> Box<[u8]> {
    match addr {
        IpAddr::V4(addr) => addr.octets().into(),
        IpAddr::V6(addr) => addr.octets().into(),
    }
}

/// Prefixes as a set of ranges holds them: the first address, and the first one behind the end. Overlapping and adjacent
/// prefixes are one range.
fn ranges(family: Family, nets: impl IntoIterator<Item = IpNet>) -> BTreeSet<Member> {
    let number = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let (size, highest) = match family {
        Family::V4 => (4, u128::from(u32::MAX)),
        Family::V6 => (16, u128::MAX),
    };
    let key = |number: u128| Box::from(&number.to_be_bytes()[16 - size..]);
    let mut spans: Vec<_> = nets.into_iter().map(|net| (number(net.network()), number(net.broadcast()))).collect();
    spans.sort_unstable();
    let mut members = BTreeSet::new();
    let mut open: Option<(u128, u128)> = None;
    for (first, last) in spans {
        match &mut open {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => {
                members.extend(open.map(|(_, end)| (key(end + 1), true)));
                members.insert((key(first), false));
                open = Some((first, last));
            }
        }
    }
    members.extend(open.filter(|(_, end)| *end < highest).map(|(_, end)| (key(end + 1), true)));
    members
}
