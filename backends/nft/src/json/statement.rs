//! Statements of rules.

use std::collections::HashSet;

use fairlead_plan::Family;
use nftables::expr::{
    BinaryOperation, CT, Elem, Expression, Fib, FibFlag, FibResult, Map, Meta, MetaKey, NamedExpression, NgMode,
    Numgen, Payload, PayloadField,
};
use nftables::stmt::{
    JumpTarget, Mangle, Match, NAT, NATFamily, NATFlag, Operator, Reject, RejectType, Set, SetOp, Statement, VerdictMap,
};
use nftables::types::RejectCode;

use super::value::{concat, prefix, string};
use crate::element;
use crate::rules::{Field, Name, Stmt};
use crate::text;

/// One statement; `None` where the crate has none.
pub fn statement(family: Family, stmt: &Stmt) -> Option<Statement<'static>> {
    let target = |chain: &Name| JumpTarget { target: chain.to_string().into() };
    Some(match stmt {
        Stmt::Jump(chain) => Statement::Jump(target(chain)),
        Stmt::Goto(chain) => Statement::Goto(target(chain)),
        Stmt::Return => Statement::Return(None),
        Stmt::Drop => Statement::Drop(None),
        Stmt::RejectReset => Statement::Reject(Some(Reject::new(Some(RejectType::TCPReset), None))),
        Stmt::RejectPort => Statement::Reject(Some(Reject::new(Some(icmp(family)), Some(RejectCode::PortUnreach)))),
        Stmt::Masquerade => Statement::Masquerade(Some(NAT {
            addr: None,
            family: None,
            port: None,
            flags: Some(HashSet::from([NATFlag::FullyRandom])),
        })),
        Stmt::Dnat { key, map } => Statement::DNAT(Some(NAT {
            addr: Some(look_up(family, key, map)),
            family: Some(match family {
                Family::V4 => NATFamily::IP,
                Family::V6 => NATFamily::IP6,
            }),
            port: None,
            flags: None,
        })),
        Stmt::Dispatch { mask, map } => {
            let key = and(meta(MetaKey::Priority), string(text::handle(*mask)));
            Statement::VerdictMap(VerdictMap { key, data: string(format!("@{map}")) })
        }
        Stmt::SetPriority { key, map } => set(MetaKey::Priority, look_up(family, key, map)),
        // How nft calls the priority 0:0.
        Stmt::ClearPriority => set(MetaKey::Priority, string("none")),
        Stmt::MarkSet(bits) => {
            set(MetaKey::Mark, operation(BinaryOperation::OR(vec![meta(MetaKey::Mark), Expression::Number(*bits)])))
        }
        Stmt::MarkFlip(bits) => {
            set(MetaKey::Mark, operation(BinaryOperation::XOR(meta(MetaKey::Mark), Expression::Number(*bits))))
        }
        Stmt::Remember { map, seconds } => remember(family, map, *seconds),
        Stmt::Forget { .. } => return None,
        condition => self::condition(family, condition)?,
    })
}

fn condition(family: Family, stmt: &Stmt) -> Option<Statement<'static>> {
    let (left, op, right) = match stmt {
        Stmt::InSet { key, set, negated } => {
            let op = if *negated { Operator::NEQ } else { Operator::EQ };
            (self::key(family, key), op, string(format!("@{set}")))
        }
        Stmt::SourceBlockIn { set } => {
            let mask = string(element::block_mask(family).to_string());
            (and(field(family, Field::Saddr), mask), Operator::EQ, string(format!("@{set}")))
        }
        Stmt::PriorityIs { mask, value } => {
            let [mask, value] = [mask, value].map(|bits| string(text::handle(*bits)));
            (and(meta(MetaKey::Priority), mask), Operator::EQ, value)
        }
        Stmt::MarkHas(bits) => {
            let bits = Expression::Number(*bits);
            (and(meta(MetaKey::Mark), bits.clone()), Operator::EQ, bits)
        }
        Stmt::CtInvalid => (ct("state"), Operator::IN, string("invalid")),
        Stmt::CtDnat => (ct("status"), Operator::IN, string("dnat")),
        Stmt::L4Is(protocol) => (meta(MetaKey::L4proto), Operator::EQ, string(protocol.name())),
        Stmt::DaddrIn(net) => {
            let whole = net.prefix_len() == net.max_prefix_len();
            let addr = net.network();
            let right = if whole { string(addr.to_string()) } else { prefix(addr, u32::from(net.prefix_len())) };
            (field(family, Field::Daddr), Operator::EQ, right)
        }
        Stmt::Iif { name, prefix } => {
            (meta(MetaKey::Iifname), Operator::EQ, string(format!("{name}{}", if *prefix { "*" } else { "" })))
        }
        Stmt::IsLocal(of) => {
            let flag = if *of == Field::Saddr { FibFlag::Saddr } else { FibFlag::Daddr };
            let fib = Fib { result: FibResult::Type, flags: HashSet::from([flag]) };
            (Expression::Named(NamedExpression::Fib(fib)), Operator::EQ, string("local"))
        }
        _ => return None,
    };
    Some(Statement::Match(Match { left, right, op }))
}

/// Without the number that goes with the client: the crate has a statement for sets only.
fn remember(family: Family, map: &Name, seconds: u32) -> Statement<'static> {
    let val = Box::new(field(family, Field::Saddr));
    let elem = Elem { val, timeout: Some(seconds), expires: None, comment: None, counter: None };
    let elem = Expression::Named(NamedExpression::Elem(elem));
    Statement::Set(Set { op: SetOp::Update, elem, set: format!("@{map}").into() })
}

const fn icmp(family: Family) -> RejectType {
    match family {
        Family::V4 => RejectType::ICMP,
        Family::V6 => RejectType::ICMPv6,
    }
}

fn set(key: MetaKey, value: Expression<'static>) -> Statement<'static> {
    Statement::Mangle(Mangle { key: meta(key), value })
}

fn look_up(family: Family, key: &[Field], map: &Name) -> Expression<'static> {
    let data = string(format!("@{map}"));
    Expression::Named(NamedExpression::Map(Box::new(Map { key: self::key(family, key), data })))
}

fn key(family: Family, fields: &[Field]) -> Expression<'static> {
    concat(fields.iter().map(|field| self::field(family, *field)).collect())
}

fn field(family: Family, field: Field) -> Expression<'static> {
    let payload = |protocol: &'static str, field: &'static str| {
        let field = PayloadField { protocol: protocol.into(), field: field.into() };
        Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
    };
    match field {
        Field::L4Proto => meta(MetaKey::L4proto),
        Field::Saddr => payload(text::ip(family), "saddr"),
        Field::Daddr => payload(text::ip(family), "daddr"),
        Field::Sport => payload("th", "sport"),
        Field::Dport => payload("th", "dport"),
        Field::Priority => meta(MetaKey::Priority),
        Field::Random { modulus, offset } => Expression::Named(NamedExpression::Numgen(Numgen {
            mode: NgMode::Random,
            ng_mod: modulus,
            offset: Some(offset),
        })),
    }
}

const fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn ct(key: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

fn and(left: Expression<'static>, right: Expression<'static>) -> Expression<'static> {
    operation(BinaryOperation::AND(left, right))
}

fn operation(operation: BinaryOperation<'static>) -> Expression<'static> {
    Expression::BinaryOperation(Box::new(operation))
}
