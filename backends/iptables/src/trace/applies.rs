//! Whether a rule applies.

use fairlead_kernel::xtables::{Interface, Net};
use fairlead_plan::Packet;

use super::Rules;
use crate::rules::{Match, Rule};

/// How often a rule applies to packets alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// Always.
    Yes,
    /// Never.
    No,
    /// To this share of them, by chance; 0 where packets before decide and are not known.
    Either(f64),
}

/// Whether a rule applies to the first packet of a connection that has not been translated.
pub fn applies(rules: &Rules, rule: &Rule, packet: &Packet, mark: u32) -> Answer {
    if !header(rule, packet) {
        return Answer::No;
    }
    let mut answer = Answer::Yes;
    for one in &rule.matches {
        let matches = match one {
            Match::OneIn(count) => {
                #[expect(clippy::cast_precision_loss, reason = "a share is for people")]
                let share = 1.0 / (*count).max(1) as f64;
                answer = Answer::Either(share);
                true
            }
            Match::Remembered { list, .. } => match &rules.remembered {
                Some(lists) => lists.get(list).is_some_and(|list| list.contains(&packet.source)),
                None => {
                    answer = Answer::Either(0.0);
                    true
                }
            },
            Match::Comment(_) | Match::Remember(_) | Match::New | Match::NotTranslated => true,
            Match::Ports(first, last) => (*first..=*last).contains(&packet.destination.port()),
            Match::Marked(bits) => mark & bits == *bits,
            Match::NotMarked(bits) => mark & bits != *bits,
            Match::FromHere => packet.source_is_local,
            Match::ToHere => packet.destination_is_local,
            Match::Established | Match::Invalid => false,
        };
        if !matches {
            return Answer::No;
        }
    }
    answer
}

fn header(rule: &Rule, packet: &Packet) -> bool {
    let net = |net: &Option<Net>, addr| net.is_none_or(|net| net.net.contains(&addr) != net.negated);
    let interface = |wanted: &Interface| {
        let name = packet.interface.as_deref().unwrap_or_default();
        let same = if wanted.prefix { name.starts_with(&wanted.name) } else { name == wanted.name };
        same != wanted.negated
    };
    net(&rule.source, packet.source)
        && net(&rule.destination, packet.destination.ip())
        && rule.interface.as_ref().is_none_or(interface)
        && rule.protocol.is_none_or(|protocol| protocol == packet.protocol)
}
