//! Rules as the kernel shows them, taken apart again: the counterpart of [`Exprs`](super::Exprs).

use super::uapi::*;
use crate::netlink::{Attribute, Attributes, attributes, be_u32, be_u64, text};

/// One expression of a dumped rule ([`RuleInfo::expressions`](super::RuleInfo)). What an expression has beside this is left
/// out: whoever needs to be sure writes the rule that he understood again and asks [`Exprs::matches`](super::Exprs::matches).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the attributes of the kernel's expressions, as the writer of the same name documents them"
)]
pub enum Expr<'a> {
    /// [`Exprs::meta_load`](super::Exprs::meta_load)
    MetaLoad { key: u32, dreg: u32 },
    /// [`Exprs::meta_set`](super::Exprs::meta_set)
    MetaSet { key: u32 },
    /// [`Exprs::payload`](super::Exprs::payload)
    Payload { base: u32, offset: u32, len: u32 },
    /// [`Exprs::ct_load`](super::Exprs::ct_load)
    CtLoad { key: u32 },
    /// [`Exprs::cmp`](super::Exprs::cmp)
    Cmp { op: u32, data: &'a [u8] },
    /// [`Exprs::bitwise`](super::Exprs::bitwise)
    Bitwise { mask: &'a [u8], xor: &'a [u8] },
    /// [`Exprs::lookup`](super::Exprs::lookup)
    Lookup { set: &'a str, dreg: Option<u32>, inverted: bool },
    /// [`Exprs::immediate`](super::Exprs::immediate)
    Immediate { data: &'a [u8] },
    /// [`Exprs::verdict`](super::Exprs::verdict)
    Verdict { code: i32, chain: Option<&'a str> },
    /// [`Exprs::numgen_random`](super::Exprs::numgen_random)
    Random { modulus: u32, offset: u32 },
    /// [`Exprs::dynset`](super::Exprs::dynset)
    Dynset { set: &'a str, op: u32, timeout_ms: u64 },
    /// [`Exprs::nat`](super::Exprs::nat)
    Nat { kind: u32 },
    /// [`Exprs::masq`](super::Exprs::masq)
    Masquerade,
    /// [`Exprs::reject`](super::Exprs::reject)
    Reject { kind: u32 },
    /// [`Exprs::fib`](super::Exprs::fib)
    Fib { flags: u32 },
    /// [`Exprs::xt_match`](super::Exprs::xt_match)
    XtMatch { name: &'a str, revision: u32, data: &'a [u8] },
    /// [`Exprs::xt_target`](super::Exprs::xt_target)
    XtTarget { name: &'a str, revision: u32, data: &'a [u8] },
    /// [`Exprs::counter`](super::Exprs::counter)
    Counter,
    /// Anything else, by the kernel's name.
    Other(&'a str),
}

impl<'a> Expr<'a> {
    /// The expressions of a rule, in order.
    #[must_use]
    pub fn all(expressions: &'a [u8]) -> Vec<Self> {
        attributes(expressions).map(Self::of).collect()
    }

    fn of(item: Attribute<'a>) -> Self {
        let name = item.nested().get(NFTA_EXPR_NAME).and_then(text).unwrap_or_default();
        Self::known(name, &attributes(item.nested().get(NFTA_EXPR_DATA).unwrap_or_default()))
            .unwrap_or(Self::Other(name))
    }

    /// `None` if an attribute is missing without which it means nothing.
    fn known(name: &str, list: &Attributes<'a>) -> Option<Self> {
        let number = |kind| list.clone().get(kind).and_then(be_u32);
        let name_of = |kind| list.clone().get(kind).and_then(text);
        let bytes = |kind| list.clone().get(kind).and_then(|data| attributes(data).get(NFTA_DATA_VALUE));
        Some(match name {
            "meta" => {
                let key = number(NFTA_META_KEY)?;
                number(NFTA_META_DREG).map_or(Self::MetaSet { key }, |dreg| Self::MetaLoad { key, dreg })
            }
            "payload" => Self::Payload {
                base: number(NFTA_PAYLOAD_BASE)?,
                offset: number(NFTA_PAYLOAD_OFFSET)?,
                len: number(NFTA_PAYLOAD_LEN)?,
            },
            "ct" => Self::CtLoad { key: number(NFTA_CT_KEY)? },
            "cmp" => Self::Cmp { op: number(NFTA_CMP_OP)?, data: bytes(NFTA_CMP_DATA)? },
            "bitwise" => Self::Bitwise { mask: bytes(NFTA_BITWISE_MASK)?, xor: bytes(NFTA_BITWISE_XOR)? },
            "lookup" => Self::Lookup {
                set: name_of(NFTA_LOOKUP_SET)?,
                dreg: number(NFTA_LOOKUP_DREG),
                inverted: number(NFTA_LOOKUP_FLAGS).unwrap_or(0) & NFT_LOOKUP_F_INV != 0,
            },
            "immediate" => Self::immediate(list)?,
            "numgen" => Self::Random { modulus: number(NFTA_NG_MODULUS)?, offset: number(NFTA_NG_OFFSET).unwrap_or(0) },
            "dynset" => Self::Dynset {
                set: name_of(NFTA_DYNSET_SET_NAME)?,
                op: number(NFTA_DYNSET_OP)?,
                timeout_ms: list.clone().get(NFTA_DYNSET_TIMEOUT).and_then(be_u64).unwrap_or(0),
            },
            "nat" => Self::Nat { kind: number(NFTA_NAT_TYPE)? },
            "masq" => Self::Masquerade,
            "reject" => Self::Reject { kind: number(NFTA_REJECT_TYPE)? },
            "fib" => Self::Fib { flags: number(NFTA_FIB_FLAGS)? },
            "match" | "target" => {
                let (called, revision) = (name_of(NFTA_XT_NAME)?, number(NFTA_XT_REVISION)?);
                let data = list.clone().get(NFTA_XT_INFO)?;
                if name == "match" {
                    Self::XtMatch { name: called, revision, data }
                } else {
                    Self::XtTarget { name: called, revision, data }
                }
            }
            "counter" => Self::Counter,
            _ => return None,
        })
    }

    fn immediate(list: &Attributes<'a>) -> Option<Self> {
        let data = attributes(list.clone().get(NFTA_IMMEDIATE_DATA)?);
        if let Some(data) = data.clone().get(NFTA_DATA_VALUE) {
            return Some(Self::Immediate { data });
        }
        let verdict = attributes(data.get(NFTA_DATA_VERDICT)?);
        let code = verdict.clone().get(NFTA_VERDICT_CODE).and_then(be_u32)?.cast_signed();
        Some(Self::Verdict { code, chain: verdict.get(NFTA_VERDICT_CHAIN).and_then(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Exprs;
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut exprs = Exprs::new();
        exprs.meta_load(16, 1).payload(1, 16, 4, 9).numgen_random(10, 3, 32_768);
        exprs.lookup("endpoints", None, 1, Some(1), false).meta_set(2, 1).lookup("allowed", None, 1, None, true);
        exprs.bitwise(1, 1, 4, &[1; 4], &[2; 4]).cmp(1, 1, &[7]).immediate(1, &[0; 4]).verdict(-4, Some("act"));
        exprs.dynset("memory", 1, 1, Some(2), Some(5_000)).masq(Some(16)).reject(1, 0).fib(3, 2, 1).counter();
        exprs.xt_match("comment", 0, b"words\0\0\0").verdict(0, None).jhash(1, 4, 1, 2, None, 0);
        let found = Expr::all(&exprs.0);
        assert_eq!(
            found,
            [
                Expr::MetaLoad { key: 16, dreg: 1 },
                Expr::Payload { base: 1, offset: 16, len: 4 },
                Expr::Random { modulus: 3, offset: 32_768 },
                Expr::Lookup { set: "endpoints", dreg: Some(1), inverted: false },
                Expr::MetaSet { key: 2 },
                Expr::Lookup { set: "allowed", dreg: None, inverted: true },
                Expr::Bitwise { mask: &[1; 4], xor: &[2; 4] },
                Expr::Cmp { op: 1, data: &[7] },
                Expr::Immediate { data: &[0; 4] },
                Expr::Verdict { code: -4, chain: Some("act") },
                Expr::Dynset { set: "memory", op: 1, timeout_ms: 5_000 },
                Expr::Masquerade,
                Expr::Reject { kind: 1 },
                Expr::Fib { flags: 2 },
                Expr::Counter,
                Expr::XtMatch { name: "comment", revision: 0, data: b"words\0\0\0" },
                Expr::Verdict { code: 0, chain: None },
                Expr::Other("hash"),
            ]
        );
        for len in 0..exprs.0.len() {
            let cut = Expr::all(&exprs.0[..len]);
            assert!(found.starts_with(&cut), "cut at {len}: {cut:?}");
        }
    }
}
