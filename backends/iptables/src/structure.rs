//! The chains that are there whatever services there are, and the jumps to them.

use std::net::{Ipv4Addr, Ipv6Addr};

use fairlead_kernel::xtables::Hook;
use fairlead_plan::{Family, Node};
use ipnet::IpNet;

use crate::name;
use crate::origin::Origins;
use crate::rules::{Chain, Jump, Match, Rule, Table, Target};

/// Rules of a constant chain, in front of and behind what services put between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// In front.
    pub head: Vec<Rule>,
    /// Behind.
    pub tail: Vec<Rule>,
}

/// Chains into which services put rules.
pub fn frame(family: Family, node: &Node, table: Table, chain: &str) -> Frame {
    match (table, chain) {
        (Table::Nat, name::SERVICES) => Frame { head: Vec::new(), tail: to_node_ports(family, node) },
        (_, name::NODE_PORTS) => {
            Frame { head: vec![Rule::to(Target::Return).to_net(loopback(family))], tail: Vec::new() }
        }
        (Table::Filter, name::SERVICES) => {
            // What a service claims as such comes before node ports, and these before what nobody claims.
            let mut tail = vec![Rule::jump(name::EXTERNAL_SERVICES), Rule::jump(name::CLUSTER_IPS)];
            tail.extend(unallocated(family, node));
            Frame { head: vec![Rule::jump(name::FIREWALL)], tail }
        }
        (Table::Filter, name::EXTERNAL_SERVICES) => Frame { head: Vec::new(), tail: to_node_ports(family, node) },
        _ => Frame::default(),
    }
}

/// Chains that are the same whatever services there are.
pub fn constant(family: Family, node: &Node) -> Vec<Chain> {
    let mark = node.masquerade_mark;
    let origins = Origins::new(family, node);
    let mut chains = vec![
        Chain::new(Table::Nat, name::MARK_MASQ, vec![Rule::to(Target::Mark(mark))]),
        Chain::new(Table::Nat, name::POSTROUTING, postrouting(mark)),
        Chain::new(Table::Filter, name::FORWARD, forward(mark)),
        Chain::new(Table::Filter, name::REJECT, reject()),
    ];
    if origins.pods.len() > 1 {
        let mut rules: Vec<Rule> = origins.pods.iter().map(|from| from.on(Rule::to(Target::Return), false)).collect();
        rules.push(Rule::jump(name::MARK_MASQ));
        chains.push(Chain::new(Table::Nat, name::MARK_NOT_POD, rules));
    }
    chains
}

/// How packets get to our chains. What is translated already is not asked again.
pub fn jumps() -> Vec<Jump> {
    let portals = || Rule::jump(name::SERVICES).says("kubernetes service portals");
    let untranslated =
        || Rule::jump(name::SERVICES).when(Match::New).when(Match::NotTranslated).says("kubernetes service portals");
    let jump = |table, hook, rule| Jump { table, hook, rule };
    vec![
        jump(Table::Nat, Hook::Prerouting, portals()),
        jump(Table::Nat, Hook::Output, portals()),
        jump(Table::Nat, Hook::Postrouting, Rule::jump(name::POSTROUTING).says("kubernetes postrouting rules")),
        jump(Table::Filter, Hook::Input, untranslated()),
        jump(Table::Filter, Hook::Output, untranslated()),
        jump(Table::Filter, Hook::Forward, untranslated()),
        jump(Table::Filter, Hook::Forward, Rule::jump(name::FORWARD).says("kubernetes forwarding rules")),
    ]
}

fn to_node_ports(family: Family, node: &Node) -> Vec<Rule> {
    let nets = node.node_port_addresses.iter().filter(|net| Family::of(net.addr()) == family);
    let last = |net: &IpNet| {
        let rule = Rule::jump(name::NODE_PORTS).when(Match::ToHere);
        let rule = rule.says("kubernetes service nodeports; NOTE: this must be the last rule in this chain");
        if net.prefix_len() == 0 { rule } else { rule.to_net(*net) }
    };
    nets.map(last).collect()
}

fn unallocated(family: Family, node: &Node) -> Vec<Rule> {
    let nets = node.service_cidrs.iter().filter(|net| Family::of(net.addr()) == family);
    nets.map(|net| Rule::to(Target::Drop).to_net(*net).says("belongs to no service")).collect()
}

fn postrouting(mark: u32) -> Vec<Rule> {
    vec![
        Rule::to(Target::Return).when(Match::NotMarked(mark)),
        // A packet that enters the stack once more, as in a tunnel, is not masqueraded twice.
        Rule::to(Target::FlipMark(mark)),
        Rule::to(Target::Masquerade).says("kubernetes service traffic requiring SNAT"),
    ]
}

fn forward(mark: u32) -> Vec<Rule> {
    vec![
        // An answer that conntrack cannot place would reach the client with the endpoint's address, and the client would
        // reset the connection.
        Rule::to(Target::Drop).when(Match::Invalid),
        Rule::to(Target::Accept).when(Match::Marked(mark)).says("kubernetes forwarding rules"),
        Rule::to(Target::Accept).when(Match::Established).says("kubernetes forwarding conntrack rule"),
    ]
}

fn reject() -> Vec<Rule> {
    vec![Rule::to(Target::Reset).of(fairlead_plan::Protocol::Tcp), Rule::to(Target::Reject)]
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    }
}
