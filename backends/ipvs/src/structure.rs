//! The constant rules: from a packet to its mark, and what happens to marked packets.
//!
//! ```text
//!  PREROUTING, OUTPUT ─> -SERVICES ─> address known? ─> -ADDRESS: mark of the frontend, from its set
//!   (mangle)                │         node port? ─────> -NODE-PORT: the same
//!                           ├─ a frontend ─> -ORIGIN ─> -FROM-POD | -FROM-NODE | -FROM-OUTSIDE: row of the mark
//!                           └─ unallocated ClusterIP: drop
//!  then: rule and route by mark ─> IPVS ─> OUTPUT again ─> -SENT: forget the mark but for masquerade
//!  POSTROUTING (nat) ─> -POSTROUTING: masquerade;  INPUT, FORWARD, OUTPUT (filter) ─> -FILTER: refuse unused ports
//! ```
//!
//! All names begin with `KUBE-IPVS`, so that they are told from those of kube-proxy, which may still be there.

use fairlead_plan::{Family, LocalTraffic, Node, Origin, Protocol};
use ipnet::IpNet;

use crate::layout::Set;
use crate::mark::{Destination, Marks, Row, Tag};
use crate::rules::{Chain, Match, Rule, Target};

/// The tables that hold chains of ours, in the order in which they are written: last the one that leads packets to IPVS.
pub const TABLES: [&str; 3] = ["nat", "filter", "mangle"];

pub const SERVICES: &str = "KUBE-IPVS-SERVICES";
const SENT: &str = "KUBE-IPVS-SENT";
const VIRTUAL: &str = "KUBE-IPVS-ADDRESS";
const NODE_PORT: &str = "KUBE-IPVS-NODE-PORT";
const LEAVING: &str = "KUBE-IPVS-LEAVING";
const ORIGIN: &str = "KUBE-IPVS-ORIGIN";
const POSTROUTING: &str = "KUBE-IPVS-POSTROUTING";
const FILTER: &str = "KUBE-IPVS-FILTER";
const FORWARD: &str = "KUBE-IPVS-FORWARD";

/// Every chain that there can be, with its table.
pub const CHAINS: [(&str, &str); 12] = [
    ("mangle", SERVICES),
    ("mangle", SENT),
    ("mangle", VIRTUAL),
    ("mangle", NODE_PORT),
    ("mangle", LEAVING),
    ("mangle", ORIGIN),
    ("mangle", from(Origin::Pod)),
    ("mangle", from(Origin::Node)),
    ("mangle", from(Origin::Outside)),
    ("nat", POSTROUTING),
    ("filter", FILTER),
    ("filter", FORWARD),
];

/// The chains for one family.
pub fn chains(family: Family, node: &Node) -> Vec<Chain> {
    let marks = Marks::new(node.masquerade_mark);
    let mangle = |name, hooks, rules| Chain { name, table: "mangle", hooks, rules };
    let mut all = vec![
        mangle(SERVICES, &["PREROUTING", "OUTPUT"] as &[_], services(family, node, marks)),
        mangle(SENT, &[], vec![Rule(Vec::new(), Target::Mark(0, !marks.masquerade))]),
        mangle(VIRTUAL, &[], Set::FRONTENDS.map(|set| Rule(Vec::new(), Target::MapMark(set))).into()),
        mangle(NODE_PORT, &[], node_ports()),
        mangle(LEAVING, &[], leaving(marks)),
        mangle(ORIGIN, &[], origin(family, node)),
    ];
    all.extend(Origin::ALL.map(|origin| mangle(from(origin), &[], row(marks, origin))));
    all.push(Chain { name: POSTROUTING, table: "nat", hooks: &["POSTROUTING"], rules: postrouting(marks) });
    let refused = tagged(marks, Tag::Refuse);
    let refuse = vec![Rule(vec![refused], Target::Reject)];
    all.push(Chain { name: FILTER, table: "filter", hooks: &["INPUT", "FORWARD", "OUTPUT"], rules: refuse });
    let accept = vec![Rule(vec![Match::Known], Target::Accept)];
    all.push(Chain { name: FORWARD, table: "filter", hooks: &["FORWARD"], rules: accept });
    all
}

/// The chain of an origin.
const fn from(origin: Origin) -> &'static str {
    match origin {
        Origin::Pod => "KUBE-IPVS-FROM-POD",
        Origin::Node => "KUBE-IPVS-FROM-NODE",
        Origin::Outside => "KUBE-IPVS-FROM-OUTSIDE",
    }
}

fn tagged(marks: Marks, tag: Tag) -> Match {
    let (value, mask) = marks.tag(tag);
    Match::Mark { value, mask, not: false }
}

fn untagged(marks: Marks, tag: Option<Tag>) -> Match {
    let mask = marks.tag_mask();
    Match::Mark { value: tag.map_or(0, |tag| marks.tag(tag).0), mask, not: true }
}

fn services(family: Family, node: &Node, marks: Marks) -> Vec<Rule> {
    let (frontend, _) = marks.tag(Tag::Frontend);
    let mut rules = vec![
        Rule(vec![tagged(marks, Tag::Frontend)], Target::Goto(SENT)),
        Rule(vec![Match::Answer], Target::Return),
        // What another mode, or somebody else's rule, has translated when it began goes on so.
        Rule(vec![Match::Translated], Target::Return),
        Rule(vec![Match::Destination(loopback(family))], Target::Return),
        Rule(Vec::new(), Target::MapMark(Set::Addresses)),
        Rule(vec![untagged(marks, None)], Target::Jump(VIRTUAL)),
    ];
    for net in of(family, &node.node_port_addresses) {
        let mut matches = if net.prefix_len() == 0 { Vec::new() } else { vec![Match::Destination(net)] };
        matches.extend([untagged(marks, Some(Tag::Frontend)), Match::DestinationIsLocal]);
        rules.push(Rule(matches, Target::Jump(NODE_PORT)));
    }
    let (value, mask) = marks.leaving();
    rules.extend([
        Rule(vec![Match::Mark { value, mask, not: false }], Target::Jump(LEAVING)),
        Rule(vec![tagged(marks, Tag::Frontend)], Target::Goto(ORIGIN)),
        // IPVS knows to whom errors about its packets belong.
        Rule(vec![Match::Icmp, Match::Related, untagged(marks, None)], Target::Mark(frontend, u32::MAX)),
        Rule(vec![tagged(marks, Tag::Frontend)], Target::Return),
        Rule(vec![tagged(marks, Tag::Refuse)], Target::Return),
    ]);
    rules.extend(of(family, &node.service_cidrs).map(|net| Rule(vec![Match::Destination(net)], Target::Drop)));
    rules.push(Rule(vec![tagged(marks, Tag::OtherVip)], Target::Mark(0, u32::MAX)));
    rules
}

fn node_ports() -> Vec<Rule> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.map(|protocol| Rule(vec![Match::Protocol(protocol)], Target::MapMark(Set::node_ports(protocol)))).into()
}

/// Of a frontend that is gone the open connections still lead to IPVS; everything else is as if it were not there.
fn leaving(marks: Marks) -> Vec<Rule> {
    let (frontend, _) = marks.tag(Tag::Frontend);
    vec![
        Rule(vec![Match::Known], Target::Mark(frontend, u32::MAX)),
        Rule(vec![Match::Known], Target::Return),
        Rule(Vec::new(), Target::Mark(0, u32::MAX)),
        Rule(Vec::new(), Target::MapMark(Set::Addresses)),
    ]
}

fn origin(family: Family, node: &Node) -> Vec<Rule> {
    let limited = vec![Match::New, Match::InSet(Set::Firewall, false), Match::InSet(Set::SourceCidr, true)];
    let mut rules = vec![Rule(limited, Target::Drop)];
    let pods: Vec<Match> = match &node.local_traffic {
        LocalTraffic::Unknown => Vec::new(),
        LocalTraffic::Sources(nets) => of(family, nets).map(Match::Source).collect(),
        LocalTraffic::Interface(name) => vec![Match::Interface(name.clone(), false)],
        LocalTraffic::InterfacePrefix(prefix) => vec![Match::Interface(prefix.clone(), true)],
    };
    rules.extend(pods.into_iter().map(|pod| Rule(vec![pod], Target::Goto(from(Origin::Pod)))));
    rules.push(Rule(vec![Match::SourceIsLocal], Target::Goto(from(Origin::Node))));
    rules.push(Rule(Vec::new(), Target::Goto(from(Origin::Outside))));
    rules
}

/// Turns the row of an origin into destination bits and the masquerade bit. What IPVS itself would refuse in IPv4 nobody would
/// hear of: it cannot send from an address that the node does not have.
fn row(marks: Marks, origin: Origin) -> Vec<Rule> {
    let leads = |to| {
        let (value, mask) = marks.row_to(origin, to);
        Match::Mark { value, mask, not: false }
    };
    let exactly = |row| {
        let (value, mask) = marks.row(origin, row);
        Match::Mark { value, mask, not: false }
    };
    let (refuse, _) = marks.tag(Tag::Refuse);
    let mut rules = vec![
        Rule(vec![exactly(Row::DROP), Match::New], Target::Drop),
        Rule(vec![exactly(Row::REFUSE), Match::New], Target::Mark(refuse, u32::MAX)),
        Rule(vec![tagged(marks, Tag::Refuse)], Target::Return),
    ];
    for to in [Destination::Second, Destination::Third] {
        let (value, mask) = marks.destination(to);
        rules.push(Rule(vec![leads(to)], Target::Mark(value, mask)));
    }
    let bit = marks.row_masquerade(origin);
    let masquerade = Match::Mark { value: bit, mask: bit, not: false };
    let (none, mask) = marks.row_to(origin, Destination::None);
    let somewhere = Match::Mark { value: none, mask, not: true };
    rules.push(Rule(vec![masquerade, somewhere], Target::Mark(marks.masquerade, marks.masquerade)));
    rules.push(Rule(Vec::new(), Target::Mark(0, marks.rows())));
    rules
}

fn postrouting(marks: Marks) -> Vec<Rule> {
    let bit = marks.masquerade;
    vec![
        Rule(vec![Match::InSet(Set::LoopBack, false)], Target::Masquerade),
        Rule(vec![Match::Mark { value: bit, mask: bit, not: true }], Target::Return),
        Rule(Vec::new(), Target::Flip(bit)),
        Rule(Vec::new(), Target::Masquerade),
    ]
}

fn of(family: Family, nets: &[IpNet]) -> impl Iterator<Item = IpNet> + '_ {
    nets.iter().copied().filter(move |net| Family::of(net.addr()) == family)
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert([127, 0, 0, 0].into(), 8),
        Family::V6 => IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
    }
}
