//! A plan as text that `nft -f` loads.

use std::fmt::Write;

use fairlead_plan::{Family, Plan};

use crate::element::{self, Bytes, Element};
use crate::encode::REMEMBERED_CLIENTS;
use crate::layout::TABLE;
use crate::rules::{Chain, Datum, Field, Kind, Set, Stmt, Value};
use crate::whole::Whole;

/// What the nft mode would program for a plan. Loading it twice gives the same as loading it once.
#[must_use]
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    for family in Family::BOTH {
        let (whole, elements) = Whole::with_elements(family, plan);
        let ip = ip(family);
        // Declaring the table first lets the deletion succeed where there is none.
        let _ = writeln!(out, "table {ip} {TABLE}\ndelete table {ip} {TABLE}\ntable {ip} {TABLE} {{");
        for set in &whole.sets {
            self::set(&mut out, family, set, &elements);
        }
        for chain in &whole.chains {
            self::chain(&mut out, family, chain);
        }
        out.push_str("}\n");
    }
    out
}

/// The family as nft writes it, also the prefix of its address fields.
pub const fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn set(out: &mut String, family: Family, set: &Set, elements: &[Element]) {
    let kind = if set.value == Value::None { "set" } else { "map" };
    let _ = writeln!(out, "\t{kind} {} {{\n\t\t{}", set.name, declaration(family, set));
    if set.dynamic {
        let _ = writeln!(out, "\t\tsize {REMEMBERED_CLIENTS}\n\t\tflags dynamic,timeout");
    } else if set.interval {
        let _ = writeln!(out, "\t\tflags interval");
    }
    let mine: Vec<&Element> = elements.iter().filter(|element| element.set == set.name).collect();
    if !mine.is_empty() {
        let lines = if set.interval && set.key.len() == 1 {
            ranges(family, &mine)
        } else {
            mine.iter().map(|element| self::element(family, set, element)).collect()
        };
        let _ = writeln!(out, "\t\telements = {{ {} }}", lines.join(",\n\t\t\t     "));
    }
    out.push_str("\t}\n\n");
}

/// The types of a set as nft declares them.
pub fn declaration(family: Family, set: &Set) -> String {
    let Some(fields) = set.typeof_key else {
        let value = match &set.value {
            Value::None => String::new(),
            Value::Data(kinds) => format!(" : {}", types(family, kinds)),
            Value::Verdict => " : verdict".to_owned(),
        };
        return format!("type {}{value}", types(family, set.key));
    };
    let value = match &set.value {
        Value::Data([Kind::Number]) => key(family, &[Field::Priority]),
        Value::Data(_) => key(family, &[Field::Daddr, Field::Dport]),
        Value::None | Value::Verdict => String::new(),
    };
    format!("typeof {} : {value}", key(family, fields))
}

fn types(family: Family, kinds: &[Kind]) -> String {
    let one = |kind: &Kind| match (kind, family) {
        (Kind::Proto, _) => "inet_proto",
        (Kind::Addr, Family::V4) => "ipv4_addr",
        (Kind::Addr, Family::V6) => "ipv6_addr",
        (Kind::Port, _) => "inet_service",
        (Kind::Index, _) => "mark",
        (Kind::Number, _) => "classid",
    };
    kinds.iter().map(one).collect::<Vec<_>>().join(" . ")
}

/// A key or datum of an element.
pub fn value(family: Family, bytes: &Bytes, kinds: &[Kind]) -> String {
    bytes.parts(family, kinds).iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ")
}

fn element(family: Family, set: &Set, element: &Element) -> String {
    let mut line = match &element.key_end {
        None => value(family, &element.key, set.key),
        Some(end) => {
            let (first, last) = (element.key.parts(family, set.key), end.parts(family, set.key));
            let parts = first.iter().zip(&last);
            let part = |(a, b): (&element::Part, &element::Part)| {
                if a == b { a.to_string() } else { format!("{a}-{b}") }
            };
            parts.map(part).collect::<Vec<_>>().join(" . ")
        }
    };
    match (&element.datum, &set.value) {
        (Datum::Bytes(bytes), Value::Data(kinds)) => {
            let _ = write!(line, " : {}", value(family, bytes, kinds));
        }
        (Datum::Goto(chain), _) => {
            let _ = write!(line, " : goto {chain}");
        }
        (Datum::Drop, _) => line.push_str(" : drop"),
        (Datum::None | Datum::Bytes(_), _) => {}
    }
    line
}

fn ranges(family: Family, elements: &[&Element]) -> Vec<String> {
    let text = |bytes: &Bytes| value(family, bytes, &[Kind::Addr]);
    let range = |(first, last): (Bytes, Bytes)| {
        if first == last { text(&first) } else { format!("{}-{}", text(&first), text(&last)) }
    };
    spans(family, elements).into_iter().map(range).collect()
}

/// Pairs of first key and key behind the end, as first and last keys.
pub fn spans(family: Family, elements: &[&Element]) -> Vec<(Bytes, Bytes)> {
    let mut elements = elements.iter().peekable();
    let mut spans = Vec::new();
    while let Some(first) = elements.next() {
        let last = elements
            .next_if(|element| element.range_end)
            .map_or_else(|| Bytes::from_slice(&vec![0xff; Kind::Addr.padded(family)]), |end| before(&end.key));
        spans.push((first.key, last));
    }
    spans
}

/// The number one less, in network order.
fn before(key: &Bytes) -> Bytes {
    let mut bytes = key.as_slice().to_vec();
    for byte in bytes.iter_mut().rev() {
        let borrow = *byte == 0;
        *byte = byte.wrapping_sub(1);
        if !borrow {
            break;
        }
    }
    Bytes::from_slice(&bytes)
}

fn chain(out: &mut String, family: Family, chain: &Chain) {
    let _ = writeln!(out, "\tchain {} {{", chain.name);
    if let Some(hook) = &chain.hook {
        let (kind, name, priority) = (hook.kind, hook.name, hook.priority);
        let _ = writeln!(out, "\t\ttype {kind} hook {name} priority {priority}; policy accept;");
    }
    for rule in &chain.rules {
        let words: Vec<String> = rule.iter().map(|stmt| self::stmt(family, stmt)).collect();
        let _ = writeln!(out, "\t\t{}", words.join(" "));
    }
    out.push_str("\t}\n\n");
}

fn key(family: Family, fields: &[Field]) -> String {
    let ip = ip(family);
    let one = |field: &Field| match field {
        Field::L4Proto => "meta l4proto".to_owned(),
        Field::Saddr => format!("{ip} saddr"),
        Field::Daddr => format!("{ip} daddr"),
        Field::Sport => "th sport".to_owned(),
        Field::Dport => "th dport".to_owned(),
        Field::Priority => "meta priority".to_owned(),
        Field::Random { modulus, offset: 0 } => format!("numgen random mod {modulus}"),
        Field::Random { modulus, offset } => format!("numgen random mod {modulus} offset {offset}"),
    };
    fields.iter().map(one).collect::<Vec<_>>().join(" . ")
}

/// A traffic-control handle as nft writes it.
pub fn handle(number: u32) -> String {
    format!("{:x}:{:x}", number >> 16, number & 0xffff)
}

/// A statement as it stands in a rule.
pub fn stmt(family: Family, stmt: &Stmt) -> String {
    let ip = ip(family);
    match stmt {
        Stmt::InSet { key, set, negated } => {
            format!("{} {}@{set}", self::key(family, key), if *negated { "!= " } else { "" })
        }
        Stmt::SourceBlockIn { set } => format!("{ip} saddr & {} == @{set}", element::block_mask(family)),
        Stmt::PriorityIs { mask, value } => format!("meta priority & {} == {}", handle(*mask), handle(*value)),
        Stmt::MarkHas(bits) => format!("meta mark & {bits:#010x} == {bits:#010x}"),
        Stmt::CtInvalid => "ct state invalid".to_owned(),
        Stmt::CtDnat => "ct status dnat".to_owned(),
        Stmt::L4Is(protocol) => format!("meta l4proto {protocol}"),
        Stmt::DaddrIn(net) if net.prefix_len() == net.max_prefix_len() => format!("{ip} daddr {}", net.addr()),
        Stmt::DaddrIn(net) => format!("{ip} daddr {net}"),
        Stmt::Iif { name, prefix } => format!("iifname \"{name}{}\"", if *prefix { "*" } else { "" }),
        Stmt::IsLocal(Field::Saddr) => "fib saddr type local".to_owned(),
        Stmt::IsLocal(_) => "fib daddr type local".to_owned(),
        Stmt::SetPriority { key, map } => format!("meta priority set {} map @{map}", self::key(family, key)),
        Stmt::ClearPriority => "meta priority set 0:0".to_owned(),
        Stmt::MarkSet(bits) => format!("meta mark set meta mark | {bits:#010x}"),
        Stmt::MarkFlip(bits) => format!("meta mark set meta mark ^ {bits:#010x}"),
        Stmt::Remember { map, seconds } => format!("update @{map} {{ {ip} saddr timeout {seconds}s : meta priority }}"),
        Stmt::Forget { map } => format!("delete @{map} {{ {ip} saddr : meta priority }}"),
        Stmt::Dnat { key, map } => format!("dnat {ip} to {} map @{map}", self::key(family, key)),
        Stmt::Masquerade => "masquerade fully-random".to_owned(),
        Stmt::RejectReset => "reject with tcp reset".to_owned(),
        Stmt::RejectPort => "reject".to_owned(),
        Stmt::Dispatch { mask, map } => format!("meta priority & {} vmap @{map}", handle(*mask)),
        Stmt::Jump(chain) => format!("jump {chain}"),
        Stmt::Goto(chain) => format!("goto {chain}"),
        Stmt::Return => "return".to_owned(),
        Stmt::Drop => "drop".to_owned(),
    }
}
