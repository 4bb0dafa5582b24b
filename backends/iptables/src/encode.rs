//! From typed rules to what the kernel takes.

use fairlead_kernel::xtables::{self, ConntrackState, EncodedChain, Extension, Ip};
use fairlead_plan::{Family, Protocol};

use crate::rules::{Match, Rule, Target};

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

/// One of each match (`false`) and target (`true`) that any plan without SCTP may need.
pub fn needed(ip: Ip) -> Vec<(bool, Extension)> {
    let any = match ip {
        Ip::V4 => std::net::Ipv4Addr::LOCALHOST.into(),
        Ip::V6 => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    let matches = [
        Match::Comment(String::new()),
        Match::Marked(1),
        Match::FromHere,
        Match::New,
        Match::OneIn(2),
        Match::Remember("list".to_owned()),
    ];
    let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| extension(ip, Some(protocol), &Match::Ports(1, 1)));
    let targets =
        [Target::Mark(1), Target::Masquerade, Target::Dnat(std::net::SocketAddr::new(any, 1)), Target::Reject];
    let targets = targets.iter().filter_map(|one| match target(ip, one) {
        xtables::Target::Extension(extension) => Some((true, extension)),
        _ => None,
    });
    matches.iter().map(|one| extension(ip, None, one)).chain(ports).map(|one| (false, one)).chain(targets).collect()
}

/// What a rule for SCTP needs.
pub fn needed_for_sctp(ip: Ip) -> Extension {
    extension(ip, Some(Protocol::Sctp), &Match::Ports(1, 1))
}

/// How a person calls a match or target.
pub fn words(target: bool, one: &Extension) -> String {
    let kind = if target { "target" } else { "match" };
    format!("the {kind} {} (revision {}; module xt_{})", one.name, one.revision, one.name)
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
