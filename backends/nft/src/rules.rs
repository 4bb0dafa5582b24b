//! Rules as values: the few kinds of statement that fairlead's tables are made of.
//!
//! Three writers and one reader work on them: [`crate::encode`] makes the kernel's expressions, [`crate::text()`] and
//! [`crate::json()`] make listings, [`crate::trace()`] answers for a packet. Only shapes that `nft` 1.0.6 can print are
//! here: the result of a map look-up may go into `meta priority` or into `dnat`, never straight into another look-up,
//! because that makes `nft list ruleset` abort.

use std::sync::Arc;

use fairlead_plan::Protocol;
use ipnet::IpNet;

use crate::element::Bytes;

/// A name of a chain, set or map.
pub type Name = Arc<str>;

/// A field of a packet, or a number about it, of which keys are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Transport protocol (`meta l4proto`).
    L4Proto,
    /// Source address.
    Saddr,
    /// Destination address.
    Daddr,
    /// Source port (`th sport`).
    Sport,
    /// Destination port (`th dport`).
    Dport,
    /// `skb->priority`: the scratch register between two look-ups. The packet mark belongs to others.
    Priority,
    /// A new random number in `offset..offset + modulus`.
    Random {
        /// How many values.
        modulus: u32,
        /// The first value.
        offset: u32,
    },
}

/// What sort of value a field or datum is: decides its size, its type number and how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IP protocol number, one byte.
    Proto,
    /// Address of the table's family, network order.
    Addr,
    /// Port, two bytes, network order.
    Port,
    /// Position in a pool, host order.
    Index,
    /// Traffic-control handle, host order, printed `major:minor` in hexadecimal.
    Number,
}

/// One statement of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Stmt {
    /// Goes on if the key is in the set (or is not).
    InSet { key: Vec<Field>, set: Name, negated: bool },
    /// Goes on if the block of 256 addresses that the source belongs to is in the set ([`Bytes::block`]).
    SourceBlockIn { set: Name },
    /// Goes on if these bits of `meta priority` are this.
    PriorityIs { mask: u32, value: u32 },
    /// Goes on if this bit of the packet mark is set.
    MarkHas(u32),
    /// Goes on if the packet belongs to no connection that conntrack understands.
    CtInvalid,
    /// Goes on if the connection's destination is translated.
    CtDnat,
    /// Goes on if the transport protocol is this one.
    L4Is(Protocol),
    /// Goes on if the destination is in this prefix.
    DaddrIn(IpNet),
    /// Goes on if the packet came in through the interface of this name, or of a name that begins so.
    Iif { name: String, prefix: bool },
    /// Goes on if the source ([`Field::Saddr`]) or destination is an address of this node.
    IsLocal(Field),
    /// Looks the key up and puts the number found into `meta priority`; a miss ends the rule.
    SetPriority { key: Vec<Field>, map: Name },
    /// Puts a constant into `meta priority`.
    ClearPriority,
    /// Sets a bit of the packet mark.
    MarkSet(u32),
    /// Flips a bit of the packet mark.
    MarkFlip(u32),
    /// Remembers `meta priority` for the source address, or renews its time if the address is known.
    Remember { map: Name, seconds: u32 },
    /// Forgets the source address.
    Forget { map: Name },
    /// Translates the destination to what the map says; a miss ends the rule.
    Dnat { key: Vec<Field>, map: Name },
    /// Translates the source to an address of this node, with a random port.
    Masquerade,
    /// Answers with a TCP reset.
    RejectReset,
    /// Answers with ICMP port unreachable.
    RejectPort,
    /// Does what the map says about these bits of `meta priority`; a miss ends the rule.
    Dispatch { mask: u32, map: Name },
    /// Calls a chain.
    Jump(Name),
    /// Goes to a chain and does not come back to this one.
    Goto(Name),
    /// Back to the caller.
    Return,
    /// No answer.
    Drop,
}

/// A rule: its statements from left to right.
pub type Rule = Vec<Stmt>;

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// Name of the hook.
    pub name: &'static str,
    /// Number of the hook (`enum nf_inet_hooks`).
    pub number: u32,
    /// Priority among chains of the hook; lower is earlier.
    pub priority: i32,
}

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Unique in the table.
    pub name: Name,
    /// `None` for a chain that others jump to.
    pub hook: Option<Hook>,
    /// In order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain without a hook.
    pub fn regular(name: impl Into<Name>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), hook: None, rules }
    }
}

/// What a map maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing: it is a set.
    None,
    /// Data of these kinds.
    Data(&'static [Kind]),
    /// A verdict.
    Verdict,
}

/// Declaration of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Unique in the table.
    pub name: Name,
    /// The parts of its key.
    pub key: &'static [Kind],
    /// The same as fields, where `nft` must print `typeof`: a number of no fixed type, or a value that `dnat` takes.
    pub typeof_key: Option<&'static [Field]>,
    /// What it maps to.
    pub value: Value,
    /// Whether keys are ranges.
    pub interval: bool,
    /// Whether packets add elements, which time out.
    pub dynamic: bool,
}

impl Set {
    /// A set or map of exact keys that only fairlead fills.
    pub fn new(name: impl Into<Name>, key: &'static [Kind], value: Value) -> Self {
        Self { name: name.into(), key, typeof_key: None, value, interval: false, dynamic: false }
    }

    /// The same, printed as `typeof` these fields.
    pub const fn type_of(mut self, fields: &'static [Field]) -> Self {
        self.typeof_key = Some(fields);
        self
    }

    /// The same with ranges as keys.
    pub const fn intervals(mut self) -> Self {
        self.interval = true;
        self
    }

    /// The same, filled by packets.
    pub const fn filled_by_packets(mut self) -> Self {
        self.dynamic = true;
        self
    }
}

/// What an element of a map maps to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// Element of a set.
    None,
    /// Data in the kernel's encoding.
    Bytes(Bytes),
    /// `goto` this chain.
    Goto(Name),
    /// `drop`.
    Drop,
}
