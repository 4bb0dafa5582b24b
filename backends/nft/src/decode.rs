//! From what the kernel shows back to typed rules and declarations: the counterpart of [`crate::encode`].
//!
//! Nothing here decides whether a rule was understood: it is written again, and must come out as the kernel shows it.

use std::net::IpAddr;

use fairlead_kernel::nft::{ChainInfo, Expr, SetInfo};
use fairlead_plan::{Family, Protocol};
use ipnet::IpNet;

use crate::encode::{self, uapi};
use crate::layout::ENDPOINT;
use crate::rules::{Field, Hook, Kind, Name, Rule, Set, Stmt, Value};

/// Reads a rule; `None` if it is none that fairlead writes.
pub fn rule(family: Family, held: &[u8]) -> Option<Rule> {
    let exprs = Expr::all(held);
    let (mut rule, mut rest) = (Rule::new(), exprs.as_slice());
    while !rest.is_empty() {
        let (stmt, taken) = fixed(family, rest).or_else(|| keyed(family, rest))?;
        rule.push(stmt);
        rest = &rest[taken..];
    }
    encode::rule(family, &rule).matches(held).then_some(rule)
}

/// A statement of a shape of its own, and how many expressions it has.
fn fixed(family: Family, exprs: &[Expr<'_>]) -> Option<(Stmt, usize)> {
    const PRIORITY: u32 = uapi::META_PRIORITY;
    const MARK: u32 = uapi::META_MARK;
    Some(match *exprs {
        [
            Expr::MetaLoad { key: PRIORITY, .. },
            Expr::Bitwise { mask, .. },
            Expr::Lookup { set, dreg: Some(_), .. },
            ..,
        ] => (Stmt::Dispatch { mask: word(mask)?, map: set.into() }, 3),
        [Expr::MetaLoad { key: PRIORITY, .. }, Expr::Bitwise { mask, .. }, Expr::Cmp { data, .. }, ..] => {
            (Stmt::PriorityIs { mask: word(mask)?, value: word(data)? }, 3)
        }
        [Expr::MetaLoad { key: MARK, .. }, Expr::Bitwise { mask, .. }, Expr::Cmp { .. }, ..] => {
            (Stmt::MarkHas(word(mask)?), 3)
        }
        [Expr::MetaLoad { key: MARK, .. }, Expr::Bitwise { mask, xor }, Expr::MetaSet { .. }, ..] => {
            let bits = word(xor)?;
            (if word(mask)? == u32::MAX { Stmt::MarkFlip(bits) } else { Stmt::MarkSet(bits) }, 3)
        }
        [Expr::CtLoad { key }, Expr::Bitwise { .. }, Expr::Cmp { .. }, ..] => {
            (if key == uapi::CT_STATE { Stmt::CtInvalid } else { Stmt::CtDnat }, 3)
        }
        [Expr::Payload { .. }, Expr::Bitwise { .. }, Expr::Lookup { set, .. }, ..] => {
            (Stmt::SourceBlockIn { set: set.into() }, 3)
        }
        [Expr::MetaLoad { key: uapi::META_L4PROTO, .. }, Expr::Cmp { data: [number], .. }, ..] => {
            (Stmt::L4Is(Protocol::ALL.into_iter().find(|protocol| protocol.number() == *number)?), 2)
        }
        [Expr::MetaLoad { key: uapi::META_IIFNAME, .. }, Expr::Cmp { data, .. }, ..] => {
            let prefix = data.len() < uapi::IFNAMSIZ;
            let name = std::str::from_utf8(data).ok()?.trim_end_matches('\0').to_owned();
            (Stmt::Iif { name, prefix }, 2)
        }
        [Expr::Payload { .. }, Expr::Cmp { data, .. }, ..] => (Stmt::DaddrIn(prefix(family, data)?), 2),
        [Expr::Fib { flags }, Expr::Cmp { .. }, ..] => {
            (Stmt::IsLocal(if flags == uapi::FIB_SADDR { Field::Saddr } else { Field::Daddr }), 2)
        }
        [Expr::Immediate { .. }, Expr::MetaSet { .. }, ..] => (Stmt::ClearPriority, 2),
        [Expr::Masquerade, ..] => (Stmt::Masquerade, 1),
        [Expr::Reject { kind }, ..] => {
            (if kind == uapi::REJECT_RESET { Stmt::RejectReset } else { Stmt::RejectPort }, 1)
        }
        [Expr::Verdict { code, chain }, ..] => (verdict(code, chain)?, 1),
        _ => return None,
    })
}

fn verdict(code: i32, chain: Option<&str>) -> Option<Stmt> {
    Some(match (code, chain) {
        (uapi::VERDICT_DROP, _) => Stmt::Drop,
        (uapi::VERDICT_RETURN, _) => Stmt::Return,
        (uapi::VERDICT_JUMP, Some(chain)) => Stmt::Jump(chain.into()),
        (uapi::VERDICT_GOTO, Some(chain)) => Stmt::Goto(chain.into()),
        _ => return None,
    })
}

/// A statement that begins with a key.
fn keyed(family: Family, exprs: &[Expr<'_>]) -> Option<(Stmt, usize)> {
    let mut key: Vec<Field> = exprs.iter().map_while(|expr| field(family, expr)).collect();
    let behind = &exprs[key.len()..];
    let before = key.len();
    let (stmt, taken) = match *behind {
        [Expr::Lookup { set, dreg: Some(_), .. }, Expr::MetaSet { .. }, ..] => {
            (Stmt::SetPriority { key, map: set.into() }, 2)
        }
        [Expr::Lookup { set, dreg: Some(_), .. }, Expr::Nat { .. }, ..] => (Stmt::Dnat { key, map: set.into() }, 2),
        [Expr::Lookup { set, dreg: None, inverted }, ..] => {
            (Stmt::InSet { key, set: set.into(), negated: inverted }, 1)
        }
        // The value to remember is loaded behind the key.
        [Expr::Dynset { set, op, timeout_ms }, ..] if key.pop() == Some(Field::Priority) => {
            let (map, seconds) = (Name::from(set), u32::try_from(timeout_ms / 1000).ok()?);
            (if op == uapi::DYNSET_DELETE { Stmt::Forget { map } } else { Stmt::Remember { map, seconds } }, 1)
        }
        _ => return None,
    };
    Some((stmt, before + taken))
}

fn field(family: Family, expr: &Expr<'_>) -> Option<Field> {
    Some(match *expr {
        Expr::MetaLoad { key: uapi::META_L4PROTO, .. } => Field::L4Proto,
        Expr::MetaLoad { key: uapi::META_PRIORITY, .. } => Field::Priority,
        Expr::Payload { base: uapi::TRANSPORT, offset: 0, .. } => Field::Sport,
        Expr::Payload { base: uapi::TRANSPORT, .. } => Field::Dport,
        Expr::Payload { offset, .. } if offset == encode::address(family, Field::Saddr).0 => Field::Saddr,
        Expr::Payload { .. } => Field::Daddr,
        Expr::Random { modulus, offset } => Field::Random { modulus, offset },
        _ => return None,
    })
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// The prefix of whole bytes that a comparison asks for.
fn prefix(family: Family, bytes: &[u8]) -> Option<IpNet> {
    let length = u8::try_from(bytes.len() * 8).ok()?;
    let mut octets = [0; 16];
    octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let addr: IpAddr = match family {
        Family::V4 => <[u8; 4]>::try_from(&octets[..4]).ok()?.into(),
        Family::V6 => octets.into(),
    };
    IpNet::new(addr, length).ok()
}

/// Where a chain hangs: `Ok(None)` if packets only come by jumps, `Err` if at a hook that fairlead does not use.
pub fn hook(info: &ChainInfo) -> Result<Option<Hook>, ()> {
    const KINDS: [&str; 2] = ["nat", "filter"];
    const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];
    let Some(held) = info.hook else { return Ok(None) };
    let kind = KINDS.into_iter().find(|kind| info.kind.as_deref() == Some(kind)).ok_or(())?;
    let name = usize::try_from(held.num).ok().and_then(|number| HOOKS.get(number).copied()).ok_or(())?;
    Ok(Some(Hook { kind, name, number: held.num, priority: held.priority }))
}

/// Reads a declaration; `None` if it is none that fairlead makes.
pub fn set(family: Family, info: &SetInfo) -> Option<Set> {
    use Kind::{Addr, Index, Number, Port, Proto};
    const KEYS: [&[Kind]; 9] = [
        &[Addr],
        &[Proto, Port],
        &[Proto, Addr, Port],
        &[Proto, Port, Index],
        &[Proto, Addr, Port, Index],
        &[Proto, Addr, Port, Addr],
        &[Addr, Addr],
        &[Number],
        &[Index],
    ];
    const VALUES: [&[Kind]; 2] = [&[Number], ENDPOINT];
    let is = |kinds: &&[Kind], number: u32| encode::type_number(family, kinds) == number;
    let key = KEYS.into_iter().find(|kinds| is(kinds, info.key_type))?;
    let value = match info.data_type {
        None => Value::None,
        Some(encode::VERDICT_TYPE) => Value::Verdict,
        Some(number) => Value::Data(VALUES.into_iter().find(|kinds| is(kinds, number))?),
    };
    let mut set = Set::new(info.name.as_str(), key, value);
    set.interval = info.flags & uapi::SET_INTERVAL != 0;
    set.dynamic = info.flags & uapi::SET_DYNAMIC != 0;
    Some(set)
}
