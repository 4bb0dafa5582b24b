//! From what the kernel shows back to typed rules: the counterpart of [`crate::encode`]. A rule counts as understood if it comes
//! out the same when it is written again.

use fairlead_kernel::xtables::{self, ConntrackState, Extension, Ip, Meaning};
use fairlead_plan::Protocol;

use crate::encode;
use crate::rules::{Match, Rule, Target};

/// What `-m statistic` calls certain.
const WHOLE: u64 = 1 << 31;

/// The rule; `None` if it is none that fairlead writes.
pub fn rule(ip: Ip, held: &xtables::Rule) -> Option<Rule> {
    let protocol = match held.protocol {
        Some(number) => Some(Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)?),
        None => None,
    };
    let rule = Rule {
        source: held.source,
        destination: held.destination,
        interface: held.interface.clone(),
        protocol,
        matches: held.matches.iter().map(|one| matched(ip, one)).collect::<Option<_>>()?,
        target: target(ip, &held.target)?,
    };
    (encode::rule(ip, &rule) == *held).then_some(rule)
}

fn matched(ip: Ip, one: &Extension) -> Option<Match> {
    Some(match one.meaning(ip)? {
        Meaning::Comment(words) => Match::Comment(words),
        Meaning::Ports(first, last) => Match::Ports(first, last),
        Meaning::Marked(bits, false) => Match::Marked(bits),
        Meaning::Marked(bits, true) => Match::NotMarked(bits),
        Meaning::SourceIsLocal => Match::FromHere,
        Meaning::DestinationIsLocal => Match::ToHere,
        Meaning::Conntrack(ConntrackState::NEW, false) => Match::New,
        Meaning::Conntrack(ConntrackState::DNAT, true) => Match::NotTranslated,
        Meaning::Conntrack(ConntrackState::INVALID, false) => Match::Invalid,
        Meaning::Conntrack(..) => Match::Established,
        Meaning::Random(threshold) => {
            let threshold = u64::from(threshold).max(1);
            Match::OneIn(usize::try_from((WHOLE + threshold / 2) / threshold).ok()?)
        }
        Meaning::RecentCheck(list, seconds) => Match::Remembered { list, seconds },
        Meaning::RecentSet(list) => Match::Remember(list),
        _ => return None,
    })
}

fn target(ip: Ip, target: &xtables::Target) -> Option<Target> {
    let one = match target {
        xtables::Target::Jump(chain) => return Some(Target::Jump(chain.clone())),
        xtables::Target::Return => return Some(Target::Return),
        xtables::Target::Accept => return Some(Target::Accept),
        xtables::Target::Drop => return Some(Target::Drop),
        xtables::Target::Extension(one) => one,
    };
    Some(match one.meaning(ip)? {
        Meaning::SetMark(bits) => Target::Mark(bits),
        Meaning::FlipMark(bits) => Target::FlipMark(bits),
        Meaning::Masquerade => Target::Masquerade,
        Meaning::Dnat(to) => Target::Dnat(to),
        Meaning::Reject => Target::Reject,
        Meaning::RejectWithReset => Target::Reset,
        _ => return None,
    })
}
