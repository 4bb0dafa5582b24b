//! The same rules in the tables of iptables. Pure.
//!
//! ```text
//! nat     POSTROUTING ─> FAIRLEAD-POSTRTG: masquerade what pods send out of the cluster
//! filter  FORWARD ─────> FAIRLEAD-FWD: accept packets of pods
//!         INPUT ───────> FAIRLEAD-PEERS: drop tunnelled packets of strangers
//! ```
//!
//! The names are like flannel's, but not the same: where flanneld runs and fairlead leaves the overlay to it, nobody shall take
//! the chains of one for those of the other.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fairlead_iptables::{ASIDE, Chains, Position};
use fairlead_kernel::xtables::{CHAIN_NAME_MAX, Extension, Hook, Ip, Net, Rule, Target};
use fairlead_plan::Family;
use ipnet::IpNet;

use super::around::{Around, Filter};

const POSTROUTING: &str = "FAIRLEAD-POSTRTG";
const FORWARD: &str = "FAIRLEAD-FWD";
const PEERS: &str = "FAIRLEAD-PEERS";
/// How the names of branches of [`PEERS`] begin.
const BRANCH: &str = "FAIRLEAD-P-";
/// `IPPROTO_UDP`
const UDP: u8 = 17;
/// So many peers stand in one chain where there are no sets.
const IN_ONE_CHAIN: usize = 16;
/// Bits of an address by which more of them are shared out.
const DIGIT: u8 = 4;

/// How rules tell many addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By sets of these numbers, in no more time for thousands of peers than for one.
    Sets {
        /// Of the prefixes of the cluster.
        cluster: Option<u16>,
        /// Of peers.
        peers: Option<u16>,
    },
    /// By rules, where the kernel has no ipset.
    Rules,
}

/// The kernel's name for a family.
pub const fn ip(family: Family) -> Ip {
    match family {
        Family::V4 => Ip::V4,
        Family::V6 => Ip::V6,
    }
}

/// The chains that say this.
#[must_use]
pub fn chains(around: &Around, by: By) -> Chains {
    debug_assert!([POSTROUTING, FORWARD, PEERS, BRANCH].iter().all(|name| name.starts_with(ASIDE)), "names of ours");
    let mut chains = Chains::default();
    if let Some(cluster) = &around.cluster {
        chains.filter(FORWARD, forward(cluster, by));
        chains.filter_jump(Hook::Forward, Position::Last, says(jump(FORWARD), "fairlead forward"));
        if let Some(pods) = around.masqueraded {
            chains.nat(POSTROUTING, postrouting(around, pods, cluster, by));
            chains.nat_jump(Hook::Postrouting, Position::Last, says(jump(POSTROUTING), "fairlead masq"));
        }
    }
    if let Some(filter) = &around.filter {
        match by {
            By::Sets { peers: Some(set), .. } => {
                chains.filter(PEERS, vec![when(to(Target::Drop), Extension::in_set(set, true, true))]);
            }
            By::Sets { peers: None, .. } | By::Rules => branch(&mut chains, PEERS, &filter.peers),
        }
        chains.filter_jump(Hook::Input, Position::First, tunnelled(filter));
    }
    chains
}

fn to(target: Target) -> Rule {
    Rule { source: None, destination: None, interface: None, protocol: None, matches: Vec::new(), target }
}

fn jump(chain: &str) -> Rule {
    to(Target::Jump(chain.to_owned()))
}

fn when(mut rule: Rule, one: Extension) -> Rule {
    rule.matches.push(one);
    rule
}

fn says(rule: Rule, words: &str) -> Rule {
    when(rule, Extension::comment(words))
}

fn from(net: IpNet, target: Target) -> Rule {
    Rule { source: Some(Net { net, negated: false }), ..to(target) }
}

fn towards(net: IpNet, target: Target) -> Rule {
    Rule { destination: Some(Net { net, negated: false }), ..to(target) }
}

/// Whoever reaches the tunnel's port could send packets in the name of any pod.
fn tunnelled(filter: &Filter) -> Rule {
    let mut rule = Rule { protocol: Some(UDP), ..jump(PEERS) };
    rule.matches.push(Extension::udp_ports(filter.port, filter.port));
    says(rule, "fairlead tunnel")
}

/// At the end of `FORWARD`: who has something against a packet has said so before, but for the policy.
fn forward(cluster: &[IpNet], by: By) -> Vec<Rule> {
    match by {
        By::Sets { cluster: Some(set), .. } => {
            [true, false].map(|source| when(to(Target::Accept), Extension::in_set(set, source, false))).into()
        }
        By::Sets { cluster: None, .. } | By::Rules => {
            let sources = cluster.iter().map(|net| from(*net, Target::Accept));
            sources.chain(cluster.iter().map(|net| towards(*net, Target::Accept))).collect()
        }
    }
}

/// At the end of `POSTROUTING`: a connection whose source the service backend has decided about does not come here. What only
/// carries its mark is left alone too, or the tunnel would translate it a second time.
fn postrouting(around: &Around, pods: IpNet, cluster: &[IpNet], by: By) -> Vec<Rule> {
    let leave = || to(Target::Return);
    let stranger = Rule { source: Some(Net { net: pods, negated: true }), ..leave() };
    let mut rules = vec![stranger, when(leave(), Extension::mark_is(around.mark, around.mark, false))];
    match by {
        By::Sets { cluster: Some(set), .. } => rules.push(when(leave(), Extension::in_set(set, false, false))),
        By::Sets { cluster: None, .. } | By::Rules => {
            rules.extend(cluster.iter().map(|net| towards(*net, Target::Return)));
        }
    }
    rules.push(towards(multicast(around.family), Target::Return));
    rules.push(when(leave(), Extension::destination_is_local()));
    rules.push(to(Target::Extension(Extension::masquerade(ip(around.family)))));
    rules
}

fn multicast(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        Family::V6 => IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    }
}

/// A chain that drops packets that come from none of these addresses, sorted. Many are shared out to chains by the next digit
/// in which they differ: a tunnelled packet passes a few dozen rules, not thousands.
fn branch(chains: &mut Chains, name: &str, peers: &[IpAddr]) {
    let mut rules = Vec::new();
    let leave = |peer: &IpAddr| from(IpNet::from(*peer), Target::Return);
    if peers.len() <= IN_ONE_CHAIN {
        rules.extend(peers.iter().map(leave));
    } else {
        let bits = shared(peers) + DIGIT;
        let net =
            |peer: &IpAddr| IpNet::new(*peer, bits.min(IpNet::from(*peer).max_prefix_len())).map(|net| net.trunc());
        for group in peers.chunk_by(|a, b| net(a) == net(b)) {
            match (group, net(&group[0])) {
                ([_, _, ..], Ok(net)) => {
                    let below = branch_name(net);
                    branch(chains, &below, group);
                    rules.push(from(net, Target::Jump(below)));
                    // Who comes back is a peer.
                    rules.push(from(net, Target::Return));
                }
                _ => rules.extend(group.iter().map(leave)),
            }
        }
    }
    rules.push(to(Target::Drop));
    chains.filter(name, rules);
}

fn branch_name(net: IpNet) -> String {
    let name = format!("{BRANCH}{net}");
    if name.len() <= CHAIN_NAME_MAX {
        return name;
    }
    let mut hasher = DefaultHasher::new();
    net.hash(&mut hasher);
    format!("{BRANCH}{:016x}", hasher.finish())
}

/// How many bits all of these have in common, sorted and of one family.
fn shared(peers: &[IpAddr]) -> u8 {
    let alike = match (peers.first(), peers.last()) {
        (Some(IpAddr::V4(a)), Some(IpAddr::V4(b))) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (Some(IpAddr::V6(a)), Some(IpAddr::V6(b))) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    u8::try_from(alike).unwrap_or(0)
}
