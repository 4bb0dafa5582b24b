//! A plan as JSON, for programs that want to look at what would be programmed.
//!
//! The shape is that of `libnftables-json`, made with the types of the `nftables` crate, so that a program can read it with
//! them: `add` commands for tables, sets, chains, rules and elements, in an order in which nothing is named before it is there.
//! Values and statements are written as `nft -j list ruleset` writes them. Those types cannot say all; where they fall short,
//! the comment of the set or rule says it in nft's own words:
//!
//! - The types `classid` (numbers in `meta priority`), `integer` (slots of a pool) and `verdict` are not among them (nor is
//!   the listing of `nft` readable with them for that reason). All three are declared as `mark`, with the true declaration
//!   as comment; the elements are written as what they are: `1000:3`, `2`, `goto`.
//! - A statement that puts an element into a map, or takes one out, is not among them. A rule that remembers a client
//!   shows an `update` of the map's keys, without the number; a rule that forgets one shows no statement. Both have their
//!   full text as comment. (`nft` 1.0.6 itself prints such statements as text.)
//! - `drop` in a map of verdicts is the string `drop`, not an object.
//!
//! It is not meant to be loaded: `nft` 1.0.6 takes no map to address and port as JSON, and no release takes a `mark` for a
//! priority. What loads is [`crate::text()`].

mod statement;
#[cfg(test)]
mod tests;
mod value;

use std::collections::HashSet;

use fairlead_plan::{Family, Plan};
use nftables::schema::{self, NfCmd, NfListObject, NfObject, Nftables, SetFlag, SetType, SetTypeValue};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use crate::element::Element;
use crate::encode::REMEMBERED_CLIENTS;
use crate::layout::TABLE;
use crate::rules::{Chain, Kind, Rule, Set, Stmt, Value};
use crate::text;
use crate::whole::Whole;

/// What the nft mode would program for a plan, to be read.
///
/// # Errors
/// None that a plan could cause: the types always have a JSON form.
pub fn json(plan: &Plan) -> serde_json::Result<String> {
    let mut objects = Vec::new();
    for family in Family::BOTH {
        table(family, plan, &mut objects);
    }
    let mut document = serde_json::to_value(Nftables { objects: objects.into() })?;
    sort_flags(&mut document);
    serde_json::to_string_pretty(&document)
}

fn table(family: Family, plan: &Plan, objects: &mut Vec<NfObject<'static>>) {
    let (whole, elements) = Whole::with_elements(family, plan);
    let mut add = |object| objects.push(NfObject::CmdObject(NfCmd::Add(object)));
    add(NfListObject::Table(schema::Table { family: nf_family(family), name: TABLE.into(), handle: None }));
    whole.sets.iter().for_each(|set| add(declaration(family, set)));
    whole.chains.iter().for_each(|chain| add(NfListObject::Chain(self::chain(family, chain))));
    for chain in &whole.chains {
        chain.rules.iter().for_each(|rule| add(NfListObject::Rule(self::rule(family, chain, rule))));
    }
    for set in &whole.sets {
        let mine: Vec<&Element> = elements.iter().filter(|element| element.set == set.name).collect();
        if mine.is_empty() {
            continue;
        }
        add(NfListObject::Element(schema::Element {
            family: nf_family(family),
            table: TABLE.into(),
            name: set.name.to_string().into(),
            elem: value::elements(family, set, &mine).into(),
        }));
    }
}

const fn nf_family(family: Family) -> NfFamily {
    match family {
        Family::V4 => NfFamily::IP,
        Family::V6 => NfFamily::IP6,
    }
}

fn declaration(family: Family, set: &Set) -> NfListObject<'static> {
    let flags = [(set.interval, SetFlag::Interval), (set.dynamic, SetFlag::Dynamic), (set.dynamic, SetFlag::Timeout)];
    let flags: HashSet<SetFlag> = flags.into_iter().filter_map(|(wanted, flag)| wanted.then_some(flag)).collect();
    let flags = Some(flags).filter(|flags| !flags.is_empty());
    let (table, name) = (TABLE.into(), set.name.to_string().into());
    let (set_type, said) = (types(family, set.key), is_said(set));
    let comment = (!said).then(|| text::declaration(family, set).into());
    let size = set.dynamic.then_some(REMEMBERED_CLIENTS);
    let map = match &set.value {
        Value::None => {
            let family = nf_family(family);
            let set = schema::Set { family, table, name, set_type, flags, size, comment, ..schema::Set::default() };
            return NfListObject::Set(Box::new(set));
        }
        Value::Data(kinds) => types(family, kinds),
        Value::Verdict => SetTypeValue::Single(SetType::Mark),
    };
    let family = nf_family(family);
    let map = schema::Map { family, table, name, set_type, map, flags, size, comment, ..schema::Map::default() };
    NfListObject::Map(Box::new(map))
}

/// Whether the crate has a name for every type of the declaration.
fn is_said(set: &Set) -> bool {
    let named = |kinds: &[Kind]| kinds.iter().all(|kind| !matches!(kind, Kind::Index | Kind::Number));
    named(set.key)
        && match &set.value {
            Value::None => true,
            Value::Data(kinds) => named(kinds),
            Value::Verdict => false,
        }
}

fn types(family: Family, kinds: &[Kind]) -> SetTypeValue<'static> {
    let one = |kind: &Kind| match (kind, family) {
        (Kind::Proto, _) => SetType::InetProto,
        (Kind::Addr, Family::V4) => SetType::Ipv4Addr,
        (Kind::Addr, Family::V6) => SetType::Ipv6Addr,
        (Kind::Port, _) => SetType::InetService,
        (Kind::Index | Kind::Number, _) => SetType::Mark,
    };
    match kinds {
        [kind] => SetTypeValue::Single(one(kind)),
        kinds => SetTypeValue::Concatenated(kinds.iter().map(one).collect()),
    }
}

fn chain(family: Family, chain: &Chain) -> schema::Chain<'static> {
    let hook = chain.hook.as_ref();
    schema::Chain {
        family: nf_family(family),
        table: TABLE.into(),
        name: chain.name.to_string().into(),
        _type: hook.map(|hook| if hook.kind == "nat" { NfChainType::NAT } else { NfChainType::Filter }),
        hook: hook.map(|hook| match hook.name {
            "prerouting" => NfHook::Prerouting,
            "input" => NfHook::Input,
            "output" => NfHook::Output,
            _ => NfHook::Postrouting,
        }),
        prio: hook.map(|hook| hook.priority),
        policy: hook.map(|_| NfChainPolicy::Accept),
        ..schema::Chain::default()
    }
}

fn rule(family: Family, chain: &Chain, rule: &Rule) -> schema::Rule<'static> {
    let is_said = |stmt: &Stmt| !matches!(stmt, Stmt::Remember { .. } | Stmt::Forget { .. });
    let words = || rule.iter().map(|stmt| text::stmt(family, stmt)).collect::<Vec<_>>().join(" ");
    schema::Rule {
        family: nf_family(family),
        table: TABLE.into(),
        chain: chain.name.to_string().into(),
        expr: rule.iter().filter_map(|stmt| statement::statement(family, stmt)).collect(),
        comment: (!rule.iter().all(is_said)).then(|| words().into()),
        ..schema::Rule::default()
    }
}

/// The crate keeps flags in no order; the same plan shall give the same text.
fn sort_flags(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(values) => values.iter_mut().for_each(sort_flags),
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_array_mut().filter(|_| name == "flags") {
                    Some(flags) => flags.sort_by(|a, b| a.as_str().cmp(&b.as_str())),
                    None => sort_flags(value),
                }
            }
        }
        _ => {}
    }
}
