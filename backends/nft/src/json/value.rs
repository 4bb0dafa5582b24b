//! Keys, data and elements.

use std::net::IpAddr;

use fairlead_plan::{Family, Protocol};
use nftables::expr::{Expression, NamedExpression, Prefix, Range, Verdict};
use nftables::stmt::JumpTarget;

use crate::element::{Bytes, Element, Part};
use crate::rules::{Datum, Kind, Set, Value};
use crate::text;

/// A string.
pub fn string(text: impl Into<String>) -> Expression<'static> {
    Expression::String(text.into().into())
}

/// Several side by side, or one alone.
pub fn concat(mut parts: Vec<Expression<'static>>) -> Expression<'static> {
    match parts.pop() {
        Some(one) if parts.is_empty() => one,
        last => {
            parts.extend(last);
            Expression::Named(NamedExpression::Concat(parts))
        }
    }
}

/// The elements of one set.
pub fn elements(family: Family, set: &Set, elements: &[&Element]) -> Vec<Expression<'static>> {
    if set.interval && set.key.len() == 1 {
        let bound = |bytes: &Bytes| bytes.parts(family, &[Kind::Addr]);
        return text::spans(family, elements)
            .iter()
            .map(|(first, last)| concat(between(&bound(first), &bound(last))))
            .collect();
    }
    elements.iter().map(|element| self::element(family, set, element)).collect()
}

fn element(family: Family, set: &Set, element: &Element) -> Expression<'static> {
    let first = element.key.parts(family, set.key);
    let last = element.key_end.map_or_else(|| first.clone(), |end| end.parts(family, set.key));
    let key = concat(between(&first, &last));
    match (&element.datum, &set.value) {
        (Datum::Bytes(bytes), Value::Data(kinds)) => {
            let data = bytes.parts(family, kinds);
            Expression::List(vec![key, concat(between(&data, &data))])
        }
        (Datum::Goto(chain), _) => {
            let target = JumpTarget { target: chain.to_string().into() };
            Expression::List(vec![key, Expression::Verdict(Verdict::Goto(target))])
        }
        (Datum::Drop, _) => Expression::List(vec![key, Expression::Verdict(Verdict::Drop)]),
        (Datum::None | Datum::Bytes(_), _) => key,
    }
}

fn between(first: &[Part], last: &[Part]) -> Vec<Expression<'static>> {
    let pairs = first.iter().zip(last);
    pairs
        .map(|(first, last)| match (*first, *last) {
            (first, last) if first == last => part(first),
            (Part::Addr(first), Part::Addr(last)) => addresses(first, last),
            (first, last) => Expression::Range(Box::new(Range { range: [part(first), part(last)] })),
        })
        .collect()
}

fn part(part: Part) -> Expression<'static> {
    const NAMED: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    match part {
        Part::Proto(number) => NAMED
            .into_iter()
            .find(|protocol| protocol.number() == number)
            .map_or(Expression::Number(u32::from(number)), |protocol| string(protocol.name())),
        Part::Port(port) => Expression::Number(u32::from(port)),
        Part::Index(index) => Expression::Number(index),
        Part::Addr(addr) => string(addr.to_string()),
        Part::Number(number) => string(text::handle(number)),
    }
}

/// As a prefix if it is one, as `nft` does.
fn addresses(first: IpAddr, last: IpAddr) -> Expression<'static> {
    let (low, high, bits) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (u128::from(first.to_bits()), u128::from(last.to_bits()), u32::BITS),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits(), last.to_bits(), u128::BITS),
        (first, last) => {
            let range = [string(first.to_string()), string(last.to_string())];
            return Expression::Range(Box::new(Range { range }));
        }
    };
    let free = low ^ high;
    if low & free == 0 && free & free.wrapping_add(1) == 0 {
        let len = bits - (u128::BITS - free.leading_zeros());
        return prefix(first, len);
    }
    Expression::Range(Box::new(Range { range: [string(first.to_string()), string(last.to_string())] }))
}

/// A prefix of so many bits.
pub fn prefix(addr: IpAddr, len: u32) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix { addr: Box::new(string(addr.to_string())), len }))
}
