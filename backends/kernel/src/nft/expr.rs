use std::hash::{DefaultHasher, Hash, Hasher};

use super::uapi::*;
use crate::netlink::{Attribute, attributes, be_u64, close, put, text};

/// Appends expressions, the instructions of a rule, in the very form in which the kernel shows them in a dump;
/// [`Exprs::matches`] tells whether a rule is still the one that was built.
///
/// Registers: 1 to 4 have 16 bytes each, 8 to 23 name the same room in pieces of 4; where both can name a place, the
/// kernel shows the former, and so does this writer. Data in registers is in network order except where the kernel
/// computes with it (marks, interface indexes, numbers of `numgen` and `jhash`: host order).
///
/// A name or value that exceeds netlink's lengths makes the list exceed them too, and
/// [`Nft::commit`](super::Nft::commit) refuses the rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exprs(pub Vec<u8>);

impl Exprs {
    /// No expressions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Loads packet metadata (`NFT_META_*`: 3 mark, 4 iif, 6 iifname, 15 nfproto, 16 l4proto, ...).
    pub fn meta_load(&mut self, key: u32, dreg: u32) -> &mut Self {
        self.add("meta", |e| e.u32(NFTA_META_KEY, key).reg(NFTA_META_DREG, dreg))
    }

    /// Sets packet metadata from a register.
    pub fn meta_set(&mut self, key: u32, sreg: u32) -> &mut Self {
        self.add("meta", |e| e.u32(NFTA_META_KEY, key).reg(NFTA_META_SREG, sreg))
    }

    /// Loads `len` bytes of the packet; `base` 1 is the network header, 2 the transport header.
    pub fn payload(&mut self, base: u32, offset: u32, len: u32, dreg: u32) -> &mut Self {
        self.add("payload", |e| {
            e.reg(NFTA_PAYLOAD_DREG, dreg).u32(NFTA_PAYLOAD_BASE, base);
            e.u32(NFTA_PAYLOAD_OFFSET, offset).u32(NFTA_PAYLOAD_LEN, len)
        })
    }

    /// Loads conntrack data (`NFT_CT_*`: 0 state, 2 status, 3 mark, 10 protocol, 12 proto-dst, 20 destination IPv4,
    /// ...); `dir` 0 is the original direction, 1 the reply.
    pub fn ct_load(&mut self, key: u32, dreg: u32, dir: Option<u8>) -> &mut Self {
        self.add("ct", |e| {
            e.reg(NFTA_CT_DREG, dreg).u32(NFTA_CT_KEY, key);
            if let Some(dir) = dir { e.bytes(NFTA_CT_DIRECTION, &[dir]) } else { e }
        })
    }

    /// Goes on only if the register compares so with `data`: 0 equal, 1 not equal, 2 less, 3 less or equal, 4
    /// greater, 5 greater or equal.
    pub fn cmp(&mut self, op: u32, sreg: u32, data: &[u8]) -> &mut Self {
        self.add("cmp", |e| e.reg(NFTA_CMP_SREG, sreg).u32(NFTA_CMP_OP, op).value(NFTA_CMP_DATA, data))
    }

    /// `dreg = (sreg & mask) ^ xor` over `len` bytes.
    pub fn bitwise(&mut self, sreg: u32, dreg: u32, len: u32, mask: &[u8], xor: &[u8]) -> &mut Self {
        self.add("bitwise", |e| {
            e.reg(NFTA_BITWISE_SREG, sreg).reg(NFTA_BITWISE_DREG, dreg).u32(NFTA_BITWISE_LEN, len);
            e.u32(NFTA_BITWISE_OP, NFT_BITWISE_MASK_XOR).value(NFTA_BITWISE_MASK, mask).value(NFTA_BITWISE_XOR, xor)
        })
    }

    /// Looks the key at `sreg` up; a map's value goes to `dreg` (0 for a verdict map). Not found ends the rule, or with
    /// `inverted` found does. `set_id` names a set added in the same batch; the name alone does too.
    pub fn lookup(
        &mut self,
        set: &str,
        set_id: Option<u32>,
        sreg: u32,
        dreg: Option<u32>,
        inverted: bool,
    ) -> &mut Self {
        self.add("lookup", |e| {
            e.text(NFTA_LOOKUP_SET, set).reg(NFTA_LOOKUP_SREG, sreg);
            e.reg_if(NFTA_LOOKUP_DREG, dreg).u32_if(NFTA_LOOKUP_SET_ID, set_id);
            e.u32(NFTA_LOOKUP_FLAGS, if inverted { NFT_LOOKUP_F_INV } else { 0 })
        })
    }

    /// Puts constant bytes into a register.
    pub fn immediate(&mut self, dreg: u32, data: &[u8]) -> &mut Self {
        self.add("immediate", |e| e.reg(NFTA_IMMEDIATE_DREG, dreg).value(NFTA_IMMEDIATE_DATA, data))
    }

    /// Ends the rule: 1 accept, 0 drop, -3 jump, -4 goto, -5 return.
    pub fn verdict(&mut self, code: i32, chain: Option<&str>) -> &mut Self {
        self.add("immediate", |e| {
            e.u32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            e.nest(NFTA_IMMEDIATE_DATA, |e| {
                e.nest(NFTA_DATA_VERDICT, |e| {
                    e.bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
                    if let Some(chain) = chain { e.text(NFTA_VERDICT_CHAIN, chain) } else { e }
                })
            })
        })
    }

    /// A random number from `offset` to `offset + modulus - 1`, in host order. The kernel refuses modulus 0.
    pub fn numgen_random(&mut self, dreg: u32, modulus: u32, offset: u32) -> &mut Self {
        self.add("numgen", |e| {
            e.reg(NFTA_NG_DREG, dreg).u32(NFTA_NG_MODULUS, modulus);
            e.u32(NFTA_NG_TYPE, NFT_NG_RANDOM).u32(NFTA_NG_OFFSET, offset)
        })
    }

    /// Jenkins hash of `len` bytes modulo `modulus` plus `offset`, in host order. Without a seed the kernel picks one.
    pub fn jhash(&mut self, sreg: u32, len: u32, dreg: u32, modulus: u32, seed: Option<u32>, offset: u32) -> &mut Self {
        self.add("hash", |e| {
            e.reg(NFTA_HASH_SREG, sreg).reg(NFTA_HASH_DREG, dreg).u32(NFTA_HASH_LEN, len);
            e.u32(NFTA_HASH_MODULUS, modulus);
            e.u32_if(NFTA_HASH_SEED, seed).u32_if(NFTA_HASH_OFFSET, (offset != 0).then_some(offset));
            e.u32(NFTA_HASH_TYPE, NFT_HASH_JENKINS)
        })
    }

    /// Writes an element from the packet path: `op` 0 add, 1 update (renews the timeout only), 2 delete (kernel 5.5).
    /// A map needs `sreg_data` for every operation.
    pub fn dynset(
        &mut self,
        set: &str,
        op: u32,
        sreg_key: u32,
        sreg_data: Option<u32>,
        timeout_ms: Option<u64>,
    ) -> &mut Self {
        self.add("dynset", |e| {
            e.reg(NFTA_DYNSET_SREG_KEY, sreg_key);
            e.reg_if(NFTA_DYNSET_SREG_DATA, sreg_data);
            e.u32(NFTA_DYNSET_OP, op).text(NFTA_DYNSET_SET_NAME, set);
            if let Some(timeout) = timeout_ms {
                e.bytes(NFTA_DYNSET_TIMEOUT, &timeout.to_be_bytes());
            }
            e.u32(NFTA_DYNSET_FLAGS, 0)
        })
    }

    /// Translates the source (`kind` 0) or destination (1) to what the registers hold. A missing maximum is the
    /// minimum.
    #[expect(clippy::too_many_arguments, reason = "one per attribute of the kernel's expression")]
    pub fn nat(
        &mut self,
        kind: u32,
        family: u32,
        reg_addr_min: u32,
        reg_addr_max: Option<u32>,
        reg_proto_min: Option<u32>,
        reg_proto_max: Option<u32>,
        flags: Option<u32>,
    ) -> &mut Self {
        self.add("nat", |e| {
            e.u32(NFTA_NAT_TYPE, kind).u32(NFTA_NAT_FAMILY, family);
            e.reg(NFTA_NAT_REG_ADDR_MIN, reg_addr_min);
            e.reg(NFTA_NAT_REG_ADDR_MAX, reg_addr_max.unwrap_or(reg_addr_min));
            if let Some(min) = reg_proto_min {
                e.reg(NFTA_NAT_REG_PROTO_MIN, min).reg(NFTA_NAT_REG_PROTO_MAX, reg_proto_max.unwrap_or(min));
            }
            // The kernel itself sets "addresses given" (1) and "ports given" (2) and shows them.
            let implied = 1 | if reg_proto_min.is_some() { 2 } else { 0 };
            e.u32(NFTA_NAT_FLAGS, flags.unwrap_or(0) | implied)
        })
    }

    /// Translates the source to the outgoing interface's address. Flags: 4 random, 0x10 fully random, 8 persistent.
    pub fn masq(&mut self, flags: Option<u32>) -> &mut Self {
        self.add("masq", |e| e.u32_if(NFTA_MASQ_FLAGS, flags.filter(|flags| *flags != 0)))
    }

    /// Refuses with an answer: `kind` 0 ICMP of the table's family, 1 TCP reset, 2 ICMP of either family; `code` is
    /// the ICMP code or `NFT_REJECT_ICMPX_*`. A reset has no code.
    pub fn reject(&mut self, kind: u32, code: u8) -> &mut Self {
        const TCP_RESET: u32 = 1;
        self.add("reject", |e| {
            e.u32(NFTA_REJECT_TYPE, kind);
            if kind == TCP_RESET { e } else { e.bytes(NFTA_REJECT_ICMP_CODE, &[code]) }
        })
    }

    /// Asks the routing table: `result` 1 interface, 2 its name, 3 address type; flags 1 source, 2 destination, 4
    /// mark, 8 iif, 16 oif, 32 only whether it exists.
    pub fn fib(&mut self, result: u32, flags: u32, dreg: u32) -> &mut Self {
        self.add("fib", |e| e.reg(NFTA_FIB_DREG, dreg).u32(NFTA_FIB_RESULT, result).u32(NFTA_FIB_FLAGS, flags))
    }

    /// Counts packets and bytes from zero.
    pub fn counter(&mut self) -> &mut Self {
        self.add("counter", |e| {
            e.bytes(NFTA_COUNTER_BYTES, &0u64.to_be_bytes()).bytes(NFTA_COUNTER_PACKETS, &0u64.to_be_bytes())
        })
    }

    /// A match of xtables with its data, padded to 8 bytes (`nft_compat`).
    pub fn xt_match(&mut self, name: &str, revision: u8, data: &[u8]) -> &mut Self {
        self.xt("match", name, revision, data)
    }

    /// A target of xtables with its data, padded to 8 bytes (`nft_compat`).
    pub fn xt_target(&mut self, name: &str, revision: u8, data: &[u8]) -> &mut Self {
        self.xt("target", name, revision, data)
    }

    fn xt(&mut self, kind: &str, name: &str, revision: u8, data: &[u8]) -> &mut Self {
        self.add(kind, |e| e.text(NFTA_XT_NAME, name).u32(NFTA_XT_REVISION, revision.into()).bytes(NFTA_XT_INFO, data))
    }

    /// Whether a dumped rule ([`RuleInfo::expressions`](super::RuleInfo)) is this one. What packets change (counters)
    /// and what the kernel shows differently from what it takes (an absent `dynset` timeout, the number of a set)
    /// does not matter.
    #[must_use]
    pub fn matches(&self, dumped: &[u8]) -> bool {
        self.0 == dumped || attributes(&self.0).map(Shown::of).eq(attributes(dumped).map(Shown::of))
    }

    /// The chain that a dumped rule jumps or goes to.
    #[must_use]
    pub fn leads_to(expressions: &[u8]) -> Option<&str> {
        attributes(expressions).find_map(|item| {
            let list = item.nested();
            if list.clone().get(NFTA_EXPR_NAME) != Some(b"immediate\0") {
                return None;
            }
            let data = attributes(attributes(list.get(NFTA_EXPR_DATA)?).get(NFTA_IMMEDIATE_DATA)?);
            attributes(data.get(NFTA_DATA_VERDICT)?).get(NFTA_VERDICT_CHAIN).and_then(text)
        })
    }

    /// How many packets a dumped rule with a counter has counted.
    #[must_use]
    pub fn packets(expressions: &[u8]) -> Option<u64> {
        attributes(expressions).find_map(|item| {
            let list = item.nested();
            if list.clone().get(NFTA_EXPR_NAME) != Some(b"counter\0") {
                return None;
            }
            attributes(list.get(NFTA_EXPR_DATA)?).get(NFTA_COUNTER_PACKETS).and_then(be_u64)
        })
    }

    /// A number that is equal for rules that [`Exprs::matches`] takes for the same.
    #[must_use]
    pub fn fingerprint(expressions: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        for item in attributes(expressions) {
            let shown = Shown::of(item);
            (shown.name, shown.content).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.nest(NFTA_LIST_ELEM, |e| e.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, fill))
    }

    fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        // Too long is found by the rule that encloses the list: it cannot fit then either.
        let _ = put(&mut self.0, kind, payload);
        self
    }

    fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn reg(&mut self, kind: u16, register: u32) -> &mut Self {
        self.u32(kind, canonical(register))
    }

    fn reg_if(&mut self, kind: u16, register: Option<u32>) -> &mut Self {
        if let Some(register) = register { self.reg(kind, register) } else { self }
    }

    fn u32_if(&mut self, kind: u16, value: Option<u32>) -> &mut Self {
        if let Some(value) = value { self.u32(kind, value) } else { self }
    }

    fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.nest(kind, |e| {
            e.0.extend_from_slice(value.as_bytes());
            e.0.push(0);
            e
        })
    }

    fn value(&mut self, kind: u16, data: &[u8]) -> &mut Self {
        self.nest(kind, |e| e.bytes(NFTA_DATA_VALUE, data))
    }

    /// Without the "nested" bit, as the kernel's dumps of expressions are.
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        let at = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let _ = close(&mut self.0, at);
        self
    }
}

/// An expression less what differs between writing and showing.
#[derive(PartialEq, Eq)]
struct Shown<'a> {
    name: &'a [u8],
    content: Vec<(u16, &'a [u8])>,
}

impl<'a> Shown<'a> {
    fn of(item: Attribute<'a>) -> Self {
        let name = item.nested().get(NFTA_EXPR_NAME).unwrap_or_default();
        let content = attributes(item.nested().get(NFTA_EXPR_DATA).unwrap_or_default());
        let matters = |attribute: &Attribute<'_>| match (name, attribute.kind) {
            (b"counter\0", _) | (b"lookup\0", NFTA_LOOKUP_SET_ID) => false,
            (b"dynset\0", NFTA_DYNSET_TIMEOUT) => attribute.payload.iter().any(|byte| *byte != 0),
            _ => true,
        };
        Self { name, content: content.filter(matters).map(|attribute| (attribute.kind, attribute.payload)).collect() }
    }
}

/// The name that the kernel's dumps give a register: 16-byte registers where a 4-byte one starts at the same place.
fn canonical(register: u32) -> u32 {
    const FIRST_SMALL: u32 = 8;
    const SMALL_PER_LARGE: u32 = 4;
    match register.checked_sub(FIRST_SMALL) {
        Some(small) if small.is_multiple_of(SMALL_PER_LARGE) => small / SMALL_PER_LARGE + 1,
        _ => register,
    }
}
