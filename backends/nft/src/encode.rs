//! From typed rules and declarations to what the kernel takes.
//!
//! Registers are used as `nft` itself uses them: keys and results begin at register 1, a datum to remember stands in
//! register 2. `nft` can print only what it could have written.

use fairlead_kernel::nft::{ChainSpec, Exprs, HookSpec, SetSpec};
use fairlead_plan::Family;

use crate::element::{self, Bytes};
use crate::rules::{Chain, Field, Kind, Rule, Set, Stmt, Value};

/// Numbers of `linux/netfilter/nf_tables.h` and its neighbours.
pub mod uapi {
    pub const REG_VERDICT: u32 = 0;
    pub const REG_1: u32 = 1;
    pub const REG_2: u32 = 2;
    pub const REG32_00: u32 = 8;
    pub const META_PRIORITY: u32 = 2;
    pub const META_MARK: u32 = 3;
    pub const META_IIFNAME: u32 = 6;
    pub const META_L4PROTO: u32 = 16;
    pub const CT_STATE: u32 = 0;
    pub const CT_STATUS: u32 = 2;
    pub const CT_STATE_INVALID: u32 = 1;
    pub const IPS_DST_NAT: u32 = 1 << 5;
    pub const NETWORK: u32 = 1;
    pub const TRANSPORT: u32 = 2;
    pub const CMP_EQ: u32 = 0;
    pub const CMP_NEQ: u32 = 1;
    pub const DYNSET_UPDATE: u32 = 1;
    pub const DYNSET_DELETE: u32 = 2;
    pub const NAT_DNAT: u32 = 1;
    /// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`
    pub const NAT_ADDR_AND_PORT: u32 = 3;
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
    pub const NAT_FULLY_RANDOM: u32 = 1 << 4;
    pub const FIB_ADDRTYPE: u32 = 3;
    pub const FIB_SADDR: u32 = 1;
    pub const FIB_DADDR: u32 = 2;
    pub const RTN_LOCAL: u32 = 2;
    pub const REJECT_ICMP: u32 = 0;
    pub const REJECT_RESET: u32 = 1;
    pub const VERDICT_DROP: i32 = 0;
    pub const VERDICT_JUMP: i32 = -3;
    pub const VERDICT_GOTO: i32 = -4;
    pub const VERDICT_RETURN: i32 = -5;
    pub const SET_INTERVAL: u32 = 0x4;
    pub const SET_TIMEOUT: u32 = 0x10;
    pub const SET_DYNAMIC: u32 = 0x20;
    pub const SET_CONCAT: u32 = 0x80;
    pub const IFNAMSIZ: usize = 16;
}
/// nft's number for "a verdict".
pub const VERDICT_TYPE: u32 = 0xffff_ff00;
use uapi::{REG_1, REG_2, REG_VERDICT};

/// How many clients one service with affinity remembers at most: what `nft` takes when nothing is said.
pub const REMEMBERED_CLIENTS: u32 = 65_535;

/// The expressions of a rule.
pub fn rule(family: Family, rule: &Rule) -> Exprs {
    let mut out = Writer { family, exprs: Exprs::default() };
    for stmt in rule {
        out.stmt(stmt);
    }
    out.exprs
}

struct Writer {
    family: Family,
    exprs: Exprs,
}

impl Writer {
    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::InSet { .. }
            | Stmt::SourceBlockIn { .. }
            | Stmt::PriorityIs { .. }
            | Stmt::MarkHas(_)
            | Stmt::CtInvalid
            | Stmt::CtDnat
            | Stmt::L4Is(_)
            | Stmt::DaddrIn(_)
            | Stmt::Iif { .. }
            | Stmt::IsLocal(_) => self.condition(stmt),
            Stmt::SetPriority { .. }
            | Stmt::ClearPriority
            | Stmt::MarkSet(_)
            | Stmt::MarkFlip(_)
            | Stmt::Remember { .. }
            | Stmt::Forget { .. } => self.memory(stmt),
            Stmt::Dnat { key, map } => self.dnat(key, map),
            Stmt::Masquerade => {
                self.exprs.masq(Some(uapi::NAT_FULLY_RANDOM));
            }
            Stmt::RejectReset => {
                self.exprs.reject(uapi::REJECT_RESET, 0);
            }
            Stmt::RejectPort => {
                self.exprs.reject(uapi::REJECT_ICMP, port_unreachable(self.family));
            }
            Stmt::Dispatch { mask, map } => {
                self.masked(Field::Priority, *mask);
                self.exprs.lookup(map, None, REG_1, Some(REG_VERDICT), false);
            }
            Stmt::Jump(chain) => {
                self.exprs.verdict(uapi::VERDICT_JUMP, Some(chain));
            }
            Stmt::Goto(chain) => {
                self.exprs.verdict(uapi::VERDICT_GOTO, Some(chain));
            }
            Stmt::Return => {
                self.exprs.verdict(uapi::VERDICT_RETURN, None);
            }
            Stmt::Drop => {
                self.exprs.verdict(uapi::VERDICT_DROP, None);
            }
        }
    }

    fn condition(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::InSet { key, set, negated } => {
                self.key(key);
                self.exprs.lookup(set, None, REG_1, None, *negated);
            }
            Stmt::SourceBlockIn { set } => {
                let mask = Bytes::EMPTY.addr(element::block_mask(self.family));
                let (_, length) = address(self.family, Field::Saddr);
                self.key(&[Field::Saddr]);
                self.exprs.bitwise(REG_1, REG_1, length, mask.as_slice(), &[0; 16][..mask.as_slice().len()]);
                self.exprs.lookup(set, None, REG_1, None, false);
            }
            Stmt::PriorityIs { mask, value } => {
                self.masked(Field::Priority, *mask);
                self.exprs.cmp(uapi::CMP_EQ, REG_1, &value.to_ne_bytes());
            }
            Stmt::MarkHas(bits) => {
                self.exprs.meta_load(uapi::META_MARK, REG_1);
                self.exprs.bitwise(REG_1, REG_1, 4, &bits.to_ne_bytes(), &[0; 4]);
                self.exprs.cmp(uapi::CMP_EQ, REG_1, &bits.to_ne_bytes());
            }
            Stmt::CtInvalid => self.ct_has(uapi::CT_STATE, uapi::CT_STATE_INVALID),
            Stmt::CtDnat => self.ct_has(uapi::CT_STATUS, uapi::IPS_DST_NAT),
            Stmt::L4Is(protocol) => {
                self.exprs.meta_load(uapi::META_L4PROTO, REG_1);
                self.exprs.cmp(uapi::CMP_EQ, REG_1, &[protocol.number()]);
            }
            Stmt::DaddrIn(net) => self.daddr_in(net),
            Stmt::Iif { name, prefix } => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(if *prefix { bytes.len() } else { uapi::IFNAMSIZ }, 0);
                self.exprs.meta_load(uapi::META_IIFNAME, REG_1);
                self.exprs.cmp(uapi::CMP_EQ, REG_1, &bytes);
            }
            Stmt::IsLocal(field) => {
                let of = if *field == Field::Saddr { uapi::FIB_SADDR } else { uapi::FIB_DADDR };
                self.exprs.fib(uapi::FIB_ADDRTYPE, of, REG_1);
                self.exprs.cmp(uapi::CMP_EQ, REG_1, &uapi::RTN_LOCAL.to_ne_bytes());
            }
            _ => {}
        }
    }

    fn memory(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::SetPriority { key, map } => {
                self.key(key);
                self.exprs.lookup(map, None, REG_1, Some(REG_1), false);
                self.exprs.meta_set(uapi::META_PRIORITY, REG_1);
            }
            Stmt::ClearPriority => {
                self.exprs.immediate(REG_1, &[0; 4]);
                self.exprs.meta_set(uapi::META_PRIORITY, REG_1);
            }
            Stmt::MarkSet(bits) => self.mark(!bits, *bits),
            Stmt::MarkFlip(bits) => self.mark(u32::MAX, *bits),
            Stmt::Remember { map, seconds } => {
                self.client();
                let timeout = u64::from(*seconds) * 1000;
                self.exprs.dynset(map, uapi::DYNSET_UPDATE, REG_1, Some(REG_2), Some(timeout));
            }
            Stmt::Forget { map } => {
                self.client();
                self.exprs.dynset(map, uapi::DYNSET_DELETE, REG_1, Some(REG_2), None);
            }
            _ => {}
        }
    }

    fn client(&mut self) {
        self.key(&[Field::Saddr]);
        self.exprs.meta_load(uapi::META_PRIORITY, REG_2);
    }

    fn mark(&mut self, mask: u32, xor: u32) {
        self.exprs.meta_load(uapi::META_MARK, REG_1);
        self.exprs.bitwise(REG_1, REG_1, 4, &mask.to_ne_bytes(), &xor.to_ne_bytes());
        self.exprs.meta_set(uapi::META_MARK, REG_1);
    }

    fn masked(&mut self, field: Field, mask: u32) {
        self.key(&[field]);
        self.exprs.bitwise(REG_1, REG_1, 4, &mask.to_ne_bytes(), &[0; 4]);
    }

    fn ct_has(&mut self, key: u32, bits: u32) {
        self.exprs.ct_load(key, REG_1, None);
        self.exprs.bitwise(REG_1, REG_1, 4, &bits.to_ne_bytes(), &[0; 4]);
        self.exprs.cmp(uapi::CMP_NEQ, REG_1, &[0; 4]);
    }

    /// Prefixes of whole bytes only, which need no mask: loopback is all that is asked for.
    fn daddr_in(&mut self, net: &ipnet::IpNet) {
        let (offset, _) = address(self.family, Field::Daddr);
        let network = match net.network() {
            std::net::IpAddr::V4(addr) => addr.octets().to_vec(),
            std::net::IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        let length = net.prefix_len() / 8;
        self.exprs.payload(uapi::NETWORK, offset, u32::from(length), REG_1);
        self.exprs.cmp(uapi::CMP_EQ, REG_1, &network[..usize::from(length)]);
    }

    fn dnat(&mut self, key: &[Field], map: &str) {
        self.key(key);
        self.exprs.lookup(map, None, REG_1, Some(REG_1), false);
        let port = register(Kind::Addr.padded(self.family));
        let family = match self.family {
            Family::V4 => 2,
            Family::V6 => 10,
        };
        let flags = Some(uapi::NAT_ADDR_AND_PORT);
        self.exprs.nat(uapi::NAT_DNAT, family, REG_1, Some(REG_1), Some(port), Some(port), flags);
    }

    /// Loads the parts of a key side by side, from register 1 on.
    fn key(&mut self, fields: &[Field]) {
        let mut at = 0;
        for field in fields {
            let to = register(at);
            match field {
                Field::L4Proto => {
                    self.exprs.meta_load(uapi::META_L4PROTO, to);
                }
                Field::Priority => {
                    self.exprs.meta_load(uapi::META_PRIORITY, to);
                }
                Field::Saddr | Field::Daddr => {
                    let (offset, length) = address(self.family, *field);
                    self.exprs.payload(uapi::NETWORK, offset, length, to);
                }
                Field::Sport => {
                    self.exprs.payload(uapi::TRANSPORT, 0, 2, to);
                }
                Field::Dport => {
                    self.exprs.payload(uapi::TRANSPORT, 2, 2, to);
                }
                Field::Random { modulus, offset } => {
                    self.exprs.numgen_random(to, *modulus, *offset);
                }
            }
            at += field.kind().padded(self.family);
        }
    }
}

impl Field {
    /// What sort of value it is.
    pub const fn kind(self) -> Kind {
        match self {
            Self::L4Proto => Kind::Proto,
            Self::Saddr | Self::Daddr => Kind::Addr,
            Self::Sport | Self::Dport => Kind::Port,
            Self::Priority => Kind::Number,
            Self::Random { .. } => Kind::Index,
        }
    }
}

/// The register that holds the byte `at` of a key: whole 16-byte registers have numbers of their own.
fn register(at: usize) -> u32 {
    let word = u32::try_from(at / 4).unwrap_or_default();
    if word.is_multiple_of(4) { REG_1 + word / 4 } else { uapi::REG32_00 + word }
}

/// Where an address stands in the header, and how long it is.
pub const fn address(family: Family, field: Field) -> (u32, u32) {
    match (family, field) {
        (Family::V4, Field::Saddr) => (12, 4),
        (Family::V4, _) => (16, 4),
        (Family::V6, Field::Saddr) => (8, 16),
        (Family::V6, _) => (24, 16),
    }
}

const fn port_unreachable(family: Family) -> u8 {
    match family {
        Family::V4 => 3,
        Family::V6 => 4,
    }
}

/// A chain without its rules.
pub fn chain(chain: &Chain) -> ChainSpec<'_> {
    let hook = chain.hook.map(|hook| HookSpec { kind: hook.kind, hook: hook.number, priority: hook.priority });
    ChainSpec { name: &chain.name, hook, userdata: None }
}

/// A declaration.
pub fn set(family: Family, set: &Set) -> SetSpec<'_> {
    let concatenated = set.interval && set.key.len() > 1;
    let flags = [
        (set.interval, uapi::SET_INTERVAL),
        (concatenated, uapi::SET_CONCAT),
        (set.dynamic, uapi::SET_DYNAMIC | uapi::SET_TIMEOUT),
    ];
    let flags = flags.iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag).sum();
    let length = |kinds: &[Kind]| match kinds {
        [one] => one.size(family),
        many => many.iter().map(|kind| kind.padded(family)).sum(),
    };
    let length = |kinds| u32::try_from(length(kinds)).unwrap_or_default();
    let field_lens =
        if concatenated { set.key.iter().map(|kind| length(std::slice::from_ref(kind))).collect() } else { Vec::new() };
    SetSpec {
        name: &set.name,
        key_type: type_number(family, set.key),
        key_len: length(set.key),
        data: match &set.value {
            Value::None => None,
            Value::Data(kinds) => Some((type_number(family, kinds), length(kinds))),
            Value::Verdict => Some((VERDICT_TYPE, 16)),
        },
        flags,
        field_lens,
        size: set.dynamic.then_some(REMEMBERED_CLIENTS),
        timeout_ms: None,
        userdata: crate::type_of::userdata(family, set),
    }
}

/// nft's number of a type; those of a concatenation stand side by side in six bits each.
pub fn type_number(family: Family, kinds: &[Kind]) -> u32 {
    let one = |kind: &Kind| match (kind, family) {
        (Kind::Index, _) => 4,
        (Kind::Addr, Family::V4) => 7,
        (Kind::Addr, Family::V6) => 8,
        (Kind::Proto, _) => 12,
        (Kind::Port, _) => 13,
        (Kind::Number, _) => 23,
    };
    kinds.iter().fold(0, |number, kind| number << 6 | one(kind))
}
