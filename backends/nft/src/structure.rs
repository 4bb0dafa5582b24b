//! The rules that are the same whatever services there are.

use std::net::IpAddr;

use fairlead_plan::{Family, LocalTraffic, Node, Origin, Pool};
use ipnet::IpNet;

use crate::element::{Bytes, Element};
use crate::layout::{self, Keyspace, NAMES, number};
use crate::rules::{Chain, Datum, Field, Hook, Name, Rule, Stmt};

/// Pools up to this size always have their rules, so that ordinary scaling never touches one: the sizes that four bits hold. They
/// share a chain, since each transaction of anybody costs the kernel a look at every chain there is; and no element leads there,
/// since each new verdict anywhere in a table costs older kernels a walk through all that elements lead to.
pub const READY_COUNTS: u32 = 15;

/// All constant chains of one family, in an order in which every jump leads to a chain named before.
pub fn chains(family: Family, node: &Node) -> Vec<Chain> {
    let mut chains = vec![refuse()];
    chains.extend(pools().map(|(space, pool)| usual(space, pool)));
    chains.extend([Origin::Pod, Origin::Outside].map(|origin| act(node, origin)));
    chains.extend(Origin::ALL.into_iter().flat_map(|origin| from(family, origin)));
    chains.push(frontends(family, node));
    chains.push(services());
    chains.extend(base_chains(node));
    chains
}

/// Every kind of pool.
fn pools() -> impl Iterator<Item = (Keyspace, Pool)> {
    Keyspace::BOTH.into_iter().flat_map(|space| [Pool::Cluster, Pool::Local].map(|pool| (space, pool)))
}

/// The chain that sends a packet to a slot of a pool of one of the usual sizes.
fn usual(space: Keyspace, pool: Pool) -> Chain {
    let rule = |count| {
        let mut rule = vec![Stmt::PriorityIs { mask: !number::MASQUERADE, value: number::spread(space, pool, count) }];
        rule.extend(to_slot(space, pool, count));
        rule
    };
    Chain::regular(layout::usual_chain(space, pool), (1..=READY_COUNTS).map(rule).collect())
}

/// The chain that sends a packet to one of `count` slots, for a size of its own.
pub fn spread(space: Keyspace, pool: Pool, count: u32) -> Chain {
    Chain::regular(layout::spread_chain(space, pool, count), vec![to_slot(space, pool, count).into()])
}

/// The element of `actions` that leads to [`spread`].
pub fn spread_action(space: Keyspace, pool: Pool, count: u32) -> Element {
    let key = Bytes::EMPTY.number(number::spread(space, pool, count));
    Element::verdict(&NAMES.actions, key, Datum::Goto(layout::spread_chain(space, pool, count)))
}

fn to_slot(space: Keyspace, pool: Pool, count: u32) -> [Stmt; 2] {
    let offset = match pool {
        Pool::Cluster => 0,
        Pool::Local => layout::LOCAL_SLOTS,
    };
    let mut key = space.fields();
    key.push(Field::Random { modulus: count, offset });
    [Stmt::ClearPriority, Stmt::Dnat { key, map: Name::clone(NAMES.endpoints(space)) }]
}

/// All these bits of `meta priority` are set.
const fn has(bits: u32) -> Stmt {
    Stmt::PriorityIs { mask: bits, value: bits }
}

fn refuse() -> Chain {
    let reset = vec![Stmt::L4Is(fairlead_plan::Protocol::Tcp), Stmt::RejectReset];
    Chain::regular("refuse", vec![reset, vec![Stmt::RejectPort]])
}

/// The chain that does what a number says, to packets of this origin.
fn act(node: &Node, origin: Origin) -> Chain {
    let usual = pools().map(|(space, pool)| {
        let kind =
            Stmt::PriorityIs { mask: !(number::MASQUERADE | READY_COUNTS), value: number::spread(space, pool, 0) };
        vec![kind, Stmt::Goto(layout::usual_chain(space, pool))]
    });
    let mut rules = vec![vec![has(number::masquerade(origin)), Stmt::MarkSet(node.masquerade_mark)]];
    rules.extend(usual);
    rules.push(vec![Stmt::Dispatch { mask: !number::MASQUERADE, map: Name::clone(&NAMES.actions) }]);
    Chain::regular(act_name(origin), rules)
}

const fn act_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Pod => "act-pod",
        Origin::Node | Origin::Outside => "act",
    }
}

/// The chains in which packets of an origin look for their frontend; the last one is where they begin.
fn from(family: Family, origin: Origin) -> [Chain; 2] {
    let look_up = |space: Keyspace, map: &Name| {
        let found = Stmt::SetPriority { key: space.fields(), map: Name::clone(map) };
        vec![found, Stmt::Goto(act_name(origin).into())]
    };
    let each = |space| [NAMES.frontends(space), NAMES.from(space, origin)].map(|map| look_up(space, map));
    let name = format!("from-{}", layout::origin_name(origin));
    let node_ports = Chain::regular(format!("np-{name}"), each(Keyspace::NodePort).into());
    let mut rules: Vec<Rule> = each(Keyspace::Address).into();
    // A frontend that a transaction takes from the second map to the first while a packet is between the two is in neither for
    // it. Nobody else's node port of that number may have the packet, so it looks again.
    rules.push(look_up(Keyspace::Address, NAMES.frontends(Keyspace::Address)));
    rules.push(vec![Stmt::DaddrIn(loopback(family)), Stmt::Return]);
    rules.push(vec![
        Stmt::InSet { key: vec![Field::Daddr], set: Name::clone(&NAMES.node_port_addresses), negated: false },
        Stmt::IsLocal(Field::Daddr),
        Stmt::Goto(Name::clone(&node_ports.name)),
    ]);
    [node_ports, Chain::regular(name, rules)]
}

fn frontends(family: Family, node: &Node) -> Chain {
    let mut rules = Vec::new();
    rules.extend(from_pod(family, node).map(|matches| vec![matches, Stmt::Goto("from-pod".into())]));
    rules.push(vec![Stmt::IsLocal(Field::Saddr), Stmt::Goto("from-node".into())]);
    rules.push(vec![Stmt::Goto("from-outside".into())]);
    Chain::regular("frontends", rules)
}

/// How a pod's packet is recognised; `None` where there is no detector.
fn from_pod(family: Family, node: &Node) -> Option<Stmt> {
    match &node.local_traffic {
        LocalTraffic::Unknown => None,
        LocalTraffic::Sources(nets) => nets.iter().any(|net| Family::of(net.addr()) == family).then(|| Stmt::InSet {
            key: vec![Field::Saddr],
            set: Name::clone(&NAMES.pod_cidrs),
            negated: false,
        }),
        LocalTraffic::Interface(name) => Some(Stmt::Iif { name: name.clone(), prefix: false }),
        LocalTraffic::InterfacePrefix(name) => Some(Stmt::Iif { name: name.clone(), prefix: true }),
    }
}

fn services() -> Chain {
    let address = Keyspace::Address.fields();
    let from_source = address.iter().copied().chain([Field::Saddr]).collect();
    let daddr = |set: &Name| Stmt::InSet { key: vec![Field::Daddr], set: Name::clone(set), negated: false };
    let restricted = vec![
        Stmt::InSet { key: address, set: Name::clone(&NAMES.restricted), negated: false },
        Stmt::InSet { key: from_source, set: Name::clone(&NAMES.allowed), negated: true },
        Stmt::Drop,
    ];
    // A packet takes several look-ups, and a transaction may take effect between two of them: the first may lead to a
    // slot or a chain that is gone at the second. Such a packet comes back from `frontends` and is looked up again;
    // without that the connection would be refused.
    let frontends = || vec![Stmt::Jump("frontends".into())];
    let rules = vec![
        restricted,
        frontends(),
        frontends(),
        vec![daddr(&NAMES.cluster_ips), Stmt::Goto("refuse".into())],
        vec![daddr(&NAMES.service_cidrs), Stmt::Drop],
    ];
    Chain::regular("services", rules)
}

fn base_chains(node: &Node) -> [Chain; 5] {
    // A sticky service leaves its endpoint's number in the priority, where a queueing discipline would take it for a class.
    let clear = vec![Stmt::CtDnat, has(number::ENDPOINT), Stmt::ClearPriority];
    let masquerade = vec![Stmt::MarkHas(node.masquerade_mark), Stmt::MarkFlip(node.masquerade_mark), Stmt::Masquerade];
    let hairpin = vec![
        Stmt::CtDnat,
        Stmt::InSet { key: vec![Field::Saddr, Field::Daddr], set: Name::clone(&NAMES.hairpin), negated: false },
        Stmt::Masquerade,
    ];
    // An answer that conntrack cannot place would reach the client with the endpoint's address, and the client would
    // reset the connection. Other asymmetric traffic is not ours: only what comes from where endpoints are and from a port on
    // which endpoints listen is dropped. Each endpoint by itself would make this set the largest of all.
    let invalid = vec![
        Stmt::CtInvalid,
        Stmt::SourceBlockIn { set: Name::clone(&NAMES.tcp_blocks) },
        Stmt::InSet { key: vec![Field::L4Proto, Field::Sport], set: Name::clone(&NAMES.tcp_ports), negated: false },
        Stmt::Drop,
    ];
    let services = || vec![vec![Stmt::Jump("services".into())]];
    [
        base("nat-prerouting", "nat", ("prerouting", 0, -100), services()),
        base("nat-output", "nat", ("output", 3, -100), services()),
        base("nat-input", "nat", ("input", 1, 100), vec![clear.clone()]),
        base("nat-postrouting", "nat", ("postrouting", 4, 100), vec![clear, masquerade, hairpin]),
        base("filter-prerouting", "filter", ("prerouting", 0, -150), vec![invalid]),
    ]
}

fn base(name: &str, kind: &'static str, hook: (&'static str, u32, i32), rules: Vec<Rule>) -> Chain {
    let (hook, number, priority) = hook;
    Chain { name: name.into(), hook: Some(Hook { kind, name: hook, number, priority }), rules }
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8)),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128)),
    }
}

/// Elements of the constant sets that come from the node's own facts, without the service prefixes.
pub fn node_elements(family: Family, node: &Node) -> Vec<Element> {
    let mut elements = ranges(family, &NAMES.node_port_addresses, &node.node_port_addresses);
    if let LocalTraffic::Sources(nets) = &node.local_traffic {
        elements.extend(ranges(family, &NAMES.pod_cidrs, nets));
    }
    elements
}

/// Elements that drop what is addressed to no service. In a cold start they come last, or services that are not yet
/// programmed would be dropped.
pub fn service_cidr_elements(family: Family, node: &Node) -> Vec<Element> {
    ranges(family, &NAMES.service_cidrs, &node.service_cidrs)
}

/// Prefixes as a set of ranges holds them: the first address, and the first one behind the end. Overlapping and adjacent
/// prefixes become one range.
fn ranges(family: Family, set: &Name, nets: &[IpNet]) -> Vec<Element> {
    let number = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u128::from(u32::from(addr)),
        IpAddr::V6(addr) => u128::from(addr),
    };
    let mut spans: Vec<(u128, u128)> = nets
        .iter()
        .filter(|net| Family::of(net.addr()) == family)
        .map(|net| (number(net.network()), number(net.broadcast())))
        .collect();
    spans.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in spans {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged.into_iter().flat_map(|(first, last)| range(family, set, first, last)).collect()
}

fn range(family: Family, set: &Name, first: u128, last: u128) -> Vec<Element> {
    let highest = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    let addr = |number: u128| match family {
        Family::V4 => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        Family::V6 => IpAddr::V6(number.into()),
    };
    let mut elements = vec![Element::member(set, Bytes::EMPTY.addr(addr(first)))];
    if last < highest {
        elements.push(Element { range_end: true, ..Element::member(set, Bytes::EMPTY.addr(addr(last + 1))) });
    }
    elements
}
