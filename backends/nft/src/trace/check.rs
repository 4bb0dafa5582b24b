//! What the kernel checks before it takes a table.

use std::collections::BTreeSet;

use super::Fault;
use super::table::Table;
use crate::layout::ENDPOINT;
use crate::rules::{Chain, Datum, Field, Hook, Kind, Name, Stmt, Value};

/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;
/// The longest name of a chain or set (`NFT_NAME_MAXLEN`), with its final zero.
const LONGEST_NAME: usize = 256;
/// The longest name of an interface (`IFNAMSIZ`), with its final zero.
const LONGEST_INTERFACE: usize = 16;

/// Refuses what the kernel would refuse.
pub fn table(table: &Table) -> Result<(), Fault> {
    for name in table.names() {
        if name.len() >= LONGEST_NAME {
            return Err(table.fault(&format!("the name {name} is too long")));
        }
    }
    for chain in table.chains.values() {
        for (number, stmt) in
            chain.rules.iter().zip(1..).flat_map(|(rule, number)| rule.iter().map(move |s| (number, s)))
        {
            self::stmt(table, stmt).map_err(|fault| Fault(format!("{fault} (chain {}, rule {number})", chain.name)))?;
        }
    }
    for chain in table.chains.values() {
        if let Some(hook) = &chain.hook {
            reached(table, chain, hook, &mut Vec::new(), &mut BTreeSet::new())?;
        }
    }
    Ok(())
}

fn stmt(table: &Table, stmt: &Stmt) -> Result<(), Fault> {
    match stmt {
        Stmt::InSet { key, set, .. } => look_up(table, key, set, &Value::None, false),
        Stmt::SourceBlockIn { set } => look_up(table, &[Field::Saddr], set, &Value::None, false),
        Stmt::SetPriority { key, map } => {
            let dynamic = table.contents(map)?.set.dynamic;
            look_up(table, key, map, &Value::Data(&[Kind::Number]), dynamic)
        }
        Stmt::Dnat { key, map } => look_up(table, key, map, &Value::Data(ENDPOINT), false),
        Stmt::Dispatch { map, .. } => {
            look_up(table, &[Field::Priority], map, &Value::Verdict, false)?;
            targets(table, map)?.iter().try_for_each(|chain| table.chain(chain).map(drop))
        }
        Stmt::Remember { map, .. } | Stmt::Forget { map } => {
            look_up(table, &[Field::Saddr], map, &Value::Data(&[Kind::Number]), true)
        }
        Stmt::Jump(chain) | Stmt::Goto(chain) => table.chain(chain).map(drop),
        Stmt::Iif { name, .. } if name.is_empty() || name.len() >= LONGEST_INTERFACE => {
            Err(table.fault(&format!("no interface can be called \"{name}\"")))
        }
        Stmt::DaddrIn(net) if net.prefix_len() % 8 != 0 => {
            Err(table.fault(&format!("{net} is compared by whole bytes only")))
        }
        Stmt::IsLocal(field) if !matches!(field, Field::Saddr | Field::Daddr) => {
            Err(table.fault(&format!("{field:?} is no address")))
        }
        _ => Ok(()),
    }
}

/// The key must be made of what the set is keyed by, and the set must lead to what the statement takes.
fn look_up(table: &Table, key: &[Field], set: &Name, value: &Value, dynamic: bool) -> Result<(), Fault> {
    let contents = table.contents(set)?;
    let kinds: Vec<Kind> = key.iter().map(|field| field.kind()).collect();
    if kinds != contents.set.key {
        return Err(table.fault(&format!("{set} is keyed by {:?}, not by {kinds:?}", contents.set.key)));
    }
    if contents.set.value != *value || contents.set.dynamic != dynamic {
        return Err(table.fault(&format!("{set} is used as what it is not: {:?}", contents.set)));
    }
    if key.iter().any(|field| matches!(field, Field::Random { modulus: 0, .. })) {
        return Err(table.fault("a random number out of none"));
    }
    Ok(())
}

/// The chains that a verdict map leads to.
fn targets(table: &Table, map: &Name) -> Result<Vec<Name>, Fault> {
    let goto = |datum: &Datum| match datum {
        Datum::Goto(chain) => Some(Name::clone(chain)),
        Datum::None | Datum::Bytes(_) | Datum::Drop => None,
    };
    Ok(table.contents(map)?.data().filter_map(goto).collect())
}

/// Goes wherever packets of a hook can come: no circle, not too deep, and no statement that the hook does not allow.
fn reached(
    table: &Table,
    chain: &Chain,
    hook: &Hook,
    callers: &mut Vec<Name>,
    done: &mut BTreeSet<(Name, usize)>,
) -> Result<(), Fault> {
    if callers.contains(&chain.name) {
        return Err(table.fault(&format!("the chain {} comes back to itself", chain.name)));
    }
    if callers.len() >= DEEPEST {
        return Err(table.fault(&format!("{} chains above the chain {}", callers.len(), chain.name)));
    }
    if !done.insert((Name::clone(&chain.name), callers.len())) {
        return Ok(());
    }
    callers.push(Name::clone(&chain.name));
    for stmt in chain.rules.iter().flatten() {
        allowed(table, stmt, chain, hook)?;
        let to = match stmt {
            Stmt::Jump(to) | Stmt::Goto(to) => vec![Name::clone(to)],
            Stmt::Dispatch { map, .. } => targets(table, map)?,
            _ => Vec::new(),
        };
        for to in to {
            reached(table, table.chain(&to)?, hook, callers, done)?;
        }
    }
    callers.pop();
    Ok(())
}

fn allowed(table: &Table, stmt: &Stmt, chain: &Chain, hook: &Hook) -> Result<(), Fault> {
    let allowed = match stmt {
        Stmt::Dnat { .. } => hook.kind == "nat" && matches!(hook.name, "prerouting" | "output"),
        Stmt::Masquerade => hook.kind == "nat" && hook.name == "postrouting",
        Stmt::RejectPort | Stmt::RejectReset => hook.name != "postrouting",
        Stmt::Iif { .. } => hook.name != "postrouting",
        _ => true,
    };
    if allowed {
        return Ok(());
    }
    Err(table.fault(&format!("{stmt:?} in the chain {}, where packets come from {}", chain.name, hook.name)))
}
