//! Rules and chains as typed values: what is rendered, encoded, printed and interpreted.

use std::net::SocketAddr;

use fairlead_kernel::xtables::{Hook, Interface, Net};
use fairlead_plan::Protocol;
use ipnet::IpNet;

/// The two tables that hold something of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Where destinations and sources are translated.
    Nat,
    /// Where packets are refused, dropped and let through.
    Filter,
}

impl Table {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Nat, Self::Filter];

    /// As after `-t`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where it is.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// In order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain.
    pub fn new(table: Table, name: impl Into<String>, rules: Vec<Rule>) -> Self {
        Self { table, name: name.into(), rules }
    }
}

/// A rule in one of the kernel's own chains that leads to one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    /// Where it is.
    pub table: Table,
    /// In which of the kernel's own chains.
    pub hook: Hook,
    /// The rule.
    pub rule: Rule,
}

/// A rule: it applies to a packet that is as all its parts say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `-s`
    pub source: Option<Net>,
    /// `-d`
    pub destination: Option<Net>,
    /// `-i`
    pub interface: Option<Interface>,
    /// `-p`
    pub protocol: Option<Protocol>,
    /// `-m`, in order.
    pub matches: Vec<Match>,
    /// `-j`
    pub target: Target,
}

/// A match extension.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Match {
    /// Words for people.
    Comment(String),
    /// The destination port of the rule's protocol is one of these, both included.
    Ports(u16, u16),
    /// The mark has these bits.
    Marked(u32),
    /// The mark lacks these bits.
    NotMarked(u32),
    /// The source is an address of this node.
    FromHere,
    /// The destination is an address of this node.
    ToHere,
    /// The first packet of a connection.
    New,
    /// Not of a connection whose destination is translated.
    NotTranslated,
    /// Of an open connection, or one that an open connection announced.
    Established,
    /// Conntrack cannot place it.
    Invalid,
    /// One packet in so many, by chance.
    OneIn(usize),
    /// The source is in this list since at most so many seconds.
    Remembered {
        /// The list.
        list: String,
        /// For how long.
        seconds: u32,
    },
    /// Puts the source into this list.
    Remember(String),
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Goes on in a chain, and then behind this rule.
    Jump(String),
    /// Leaves the chain.
    Return,
    /// Leaves the table.
    Accept,
    /// Drops.
    Drop,
    /// Answers that the port is unreachable.
    Reject,
    /// Answers that the connection is reset.
    Reset,
    /// Sets bits of the mark.
    Mark(u32),
    /// Flips bits of the mark.
    FlipMark(u32),
    /// Translates the source to this node's address.
    Masquerade,
    /// Translates the destination.
    Dnat(SocketAddr),
}

impl Rule {
    /// A rule for every packet.
    pub const fn to(target: Target) -> Self {
        Self { source: None, destination: None, interface: None, protocol: None, matches: Vec::new(), target }
    }

    /// A rule that leads to a chain.
    pub fn jump(chain: impl Into<String>) -> Self {
        Self::to(Target::Jump(chain.into()))
    }

    /// Only from there.
    pub const fn coming_from(mut self, net: IpNet, negated: bool) -> Self {
        self.source = Some(Net { net, negated });
        self
    }

    /// Only to there.
    pub const fn going_to(mut self, net: IpNet) -> Self {
        self.destination = Some(Net { net, negated: false });
        self
    }

    /// Only of this protocol.
    pub const fn of(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Only to this port of this protocol.
    pub fn port(self, protocol: Protocol, port: u16) -> Self {
        self.of(protocol).when(Match::Ports(port, port))
    }

    /// Only if this matches too.
    pub fn when(mut self, one: Match) -> Self {
        self.matches.push(one);
        self
    }

    /// With words for people.
    pub fn says(self, words: impl Into<String>) -> Self {
        self.when(Match::Comment(words.into()))
    }
}

/// The prefix of one address.
pub fn host(addr: std::net::IpAddr) -> IpNet {
    IpNet::from(addr)
}
