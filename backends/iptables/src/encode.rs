//! From typed rules to what the kernel takes.

use fairlead_kernel::xtables::{self, ConntrackState, EncodedChain, Extension, Ip, words};
use fairlead_plan::{Family, Protocol};

use crate::rules::{Match, Rule, Table, Target};

/// The kernel's name for a family.
pub const fn ip(family: Family) -> Ip {
    match family {
        Family::V4 => Ip::V4,
        Family::V6 => Ip::V6,
    }
}

/// A rule in the kernel's terms, for both variants.
pub fn rule(ip: Ip, rule: &Rule) -> xtables::Rule {
    xtables::Rule {
        source: rule.source,
        destination: rule.destination,
        interface: rule.interface.clone(),
        protocol: rule.protocol.map(Protocol::number),
        matches: rule.matches.iter().map(|one| extension(ip, rule.protocol, one)).collect(),
        target: target(ip, &rule.target),
    }
}

/// Rules in the form of the legacy variant.
pub fn chain(ip: Ip, rules: &[Rule]) -> EncodedChain {
    let mut encoded = EncodedChain::default();
    rules.iter().for_each(|one| encoded.push(ip, &rule(ip, one)));
    encoded
}

/// A match or target that rules need, whatever the plan.
#[derive(Debug, Clone)]
pub struct Needed {
    /// In which tables.
    pub tables: &'static [Table],
    /// Whether it is a target.
    pub target: bool,
    /// One such.
    pub one: Extension,
}

impl Needed {
    /// It in words.
    pub fn words(&self) -> String {
        let tables: Vec<&str> = self.tables.iter().map(|table| table.name()).collect();
        let place = if tables.len() == 1 { "table" } else { "tables" };
        format!("{} for the {place} {}", words(self.target, self.one.name, self.one.revision), tables.join(" and "))
    }
}

/// One of each match and target that any plan without SCTP may need.
pub fn needed(ip: Ip) -> Vec<Needed> {
    const NAT: &[Table] = &[Table::Nat];
    const FILTER: &[Table] = &[Table::Filter];
    const BOTH: &[Table] = &Table::BOTH;
    let any = match ip {
        Ip::V4 => std::net::Ipv4Addr::LOCALHOST.into(),
        Ip::V6 => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    let matched = |tables, protocol, one: &Match| Needed { tables, target: false, one: extension(ip, protocol, one) };
    let done = |tables, one: &Target| match target(ip, one) {
        xtables::Target::Extension(one) => Some(Needed { tables, target: true, one }),
        _ => None,
    };
    let targets = [
        done(NAT, &Target::Mark(1)),
        done(NAT, &Target::Masquerade),
        done(NAT, &Target::Dnat(std::net::SocketAddr::new(any, 1))),
        done(FILTER, &Target::Reject),
    ];
    let matches = [
        matched(BOTH, None, &Match::Comment(String::new())),
        matched(BOTH, None, &Match::Marked(1)),
        matched(BOTH, None, &Match::FromHere),
        matched(FILTER, None, &Match::New),
        matched(NAT, None, &Match::OneIn(2)),
        matched(NAT, None, &Match::Remember("list".to_owned())),
        matched(BOTH, Some(Protocol::Tcp), &Match::Ports(1, 1)),
        matched(BOTH, Some(Protocol::Udp), &Match::Ports(1, 1)),
    ];
    matches.into_iter().chain(targets.into_iter().flatten()).collect()
}

/// What a rule for SCTP needs.
pub fn needed_for_sctp(ip: Ip) -> Extension {
    extension(ip, Some(Protocol::Sctp), &Match::Ports(1, 1))
}

fn extension(ip: Ip, protocol: Option<Protocol>, one: &Match) -> Extension {
    match one {
        Match::Comment(words) => Extension::comment(words),
        Match::Ports(first, last) => match protocol {
            Some(Protocol::Udp) => Extension::udp_ports(*first, *last),
            Some(Protocol::Sctp) => Extension::sctp_ports(*first, *last),
            Some(Protocol::Tcp) | None => Extension::tcp_ports(*first, *last),
        },
        Match::Marked(bits) => Extension::mark_is(*bits, *bits, false),
        Match::NotMarked(bits) => Extension::mark_is(*bits, *bits, true),
        Match::FromHere => Extension::source_is_local(),
        Match::ToHere => Extension::destination_is_local(),
        Match::New => Extension::conntrack(ConntrackState::NEW, false),
        Match::NotTranslated => Extension::conntrack(ConntrackState::DNAT, true),
        Match::Established => Extension::conntrack(ConntrackState::RELATED | ConntrackState::ESTABLISHED, false),
        Match::Invalid => Extension::conntrack(ConntrackState::INVALID, false),
        Match::OneIn(count) => Extension::random(one_in(*count)),
        Match::Remembered { list, seconds } => Extension::recent_check(list, *seconds, ip),
        Match::Remember(list) => Extension::recent_set(list, ip),
    }
}

/// A probability in units of 2^-31, rounded as `iptables --probability` does.
pub fn one_in(count: usize) -> u32 {
    const WHOLE: u64 = 1 << 31;
    let count = (count as u64).max(1);
    u32::try_from((WHOLE + count / 2) / count).unwrap_or(u32::MAX)
}

fn target(ip: Ip, one: &Target) -> xtables::Target {
    xtables::Target::Extension(match one {
        Target::Jump(chain) => return xtables::Target::Jump(chain.clone()),
        Target::Return => return xtables::Target::Return,
        Target::Accept => return xtables::Target::Accept,
        Target::Drop => return xtables::Target::Drop,
        Target::Reject => Extension::reject(ip),
        Target::Reset => Extension::reject_with_reset(ip),
        Target::Mark(bits) => Extension::set_mark(*bits),
        Target::FlipMark(bits) => Extension::flip_mark(*bits),
        Target::Masquerade => Extension::masquerade(ip),
        Target::Dnat(to) => Extension::dnat(*to),
    })
}
