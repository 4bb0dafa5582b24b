//! Constant rules as `iptables-save` prints them, made typed again. A rule is understood if it prints the same.

use fairlead_plan::{Family, Protocol};

use crate::layout::Set;
use crate::rules::{Chain, Match, Rule, Target, held_rules};
use crate::structure::CHAINS;
use crate::trace::{Entrance, Fault};

/// The chains of ours in a table and where packets enter them.
pub fn table(family: Family, table: &'static str, save: &str) -> Result<(Vec<Chain>, Vec<Entrance>), Fault> {
    const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let (mut chains, mut entrances) = (Vec::new(), Vec::new());
    let ours = || CHAINS.into_iter().filter(|(of, _)| *of == table).map(|(_, name)| name);
    for name in ours().filter(|name| save.lines().any(|line| line.starts_with(&format!(":{name} ")))) {
        let held = held_rules(save).filter(|(chain, _)| *chain == name);
        let rules = held.zip(1..).map(|((_, text), number)| {
            let unknown =
                || format!("rule {number} of the chain {name} in the table {table} is none that fairlead writes");
            rule(family, text).ok_or_else(|| Fault(unknown()))
        });
        chains.push(Chain { name, table, hooks: &[], rules: rules.collect::<Result<_, _>>()? });
    }
    for (hook, text) in held_rules(save) {
        let hook = HOOKS.into_iter().find(|known| *known == hook);
        let chain = ours().find(|name| text.strip_prefix("-j ") == Some(name));
        entrances.extend(hook.zip(chain).map(|(hook, chain)| (table, hook, chain)));
    }
    Ok((chains, entrances))
}

/// A rule without its chain; `None` if it is none that fairlead writes.
fn rule(family: Family, text: &str) -> Option<Rule> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (mut matches, mut rest) = (Vec::new(), words.as_slice());
    let target = loop {
        let (one, taken) = match *rest {
            ["-s", net, ..] => (Match::Source(net.parse().ok()?), 2),
            ["-d", net, ..] => (Match::Destination(net.parse().ok()?), 2),
            ["-i", name, ..] => match name.strip_suffix('+') {
                Some(prefix) => (Match::Interface(prefix.to_owned(), true), 2),
                None => (Match::Interface(name.to_owned(), false), 2),
            },
            ["-p", "icmp" | "ipv6-icmp", ..] => (Match::Icmp, 2),
            ["-p", name, ..] => (Match::Protocol(Protocol::ALL.into_iter().find(|one| one.name() == name)?), 2),
            ["-m", "mark", "!", "--mark", bits, ..] => (mark(bits, true)?, 5),
            ["-m", "mark", "--mark", bits, ..] => (mark(bits, false)?, 4),
            ["-m", "set", "!", "--match-set", name, _, ..] => (Match::InSet(set(family, name)?, true), 6),
            ["-m", "set", "--match-set", name, _, ..] => (Match::InSet(set(family, name)?, false), 5),
            ["-m", "addrtype", "--src-type", "LOCAL", ..] => (Match::SourceIsLocal, 4),
            ["-m", "addrtype", "--dst-type", "LOCAL", ..] => (Match::DestinationIsLocal, 4),
            ["-m", "conntrack", "--ctstate", "ESTABLISHED", "--ctdir", "REPLY", ..] => (Match::Answer, 6),
            ["-m", "conntrack", "--ctstate", "DNAT", ..] => (Match::Translated, 4),
            ["-m", "conntrack", "--ctstate", "NEW", ..] => (Match::New, 4),
            ["-m", "conntrack", "--ctstate", "RELATED", ..] => (Match::Related, 4),
            ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", ..] => (Match::Known, 4),
            _ => break target(family, rest)?,
        };
        matches.push(one);
        rest = &rest[taken..];
    };
    let rule = Rule(matches, target);
    (rule.text(family).trim_start() == text).then_some(rule)
}

fn target(family: Family, words: &[&str]) -> Option<Target> {
    let chain = |wanted: &str| CHAINS.into_iter().map(|(_, name)| name).find(|name| *name == wanted);
    Some(match *words {
        ["-j", "RETURN"] => Target::Return,
        ["-j", "DROP"] => Target::Drop,
        ["-j", "ACCEPT"] => Target::Accept,
        ["-j", "MASQUERADE", "--random-fully"] => Target::Masquerade,
        ["-j", "REJECT", "--reject-with", _] => Target::Reject,
        ["-j", "SET", "--map-set", name, _, "--map-mark"] => Target::MapMark(set(family, name)?),
        ["-j", "MARK", "--set-xmark", bits] => match pair(bits)? {
            (bits, 0) => Target::Flip(bits),
            (value, mask) => Target::Mark(value, mask),
        },
        ["-j", name] => Target::Jump(chain(name)?),
        ["-g", name] => Target::Goto(chain(name)?),
        _ => return None,
    })
}

fn mark(bits: &str, not: bool) -> Option<Match> {
    let (value, mask) = pair(bits)?;
    Some(Match::Mark { value, mask, not })
}

/// Two numbers as in `0x4000/0x4000`.
fn pair(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let (value, mask) = text.split_once('/')?;
    Some((number(value)?, number(mask)?))
}

fn set(family: Family, name: &str) -> Option<Set> {
    Set::ALL.into_iter().find(|set| set.name(family) == name)
}

#[cfg(test)]
mod tests {
    use fairlead_plan::{LocalTraffic, Node};

    use super::*;
    use crate::sample;
    use crate::structure::{self, TABLES};

    /// A table as `iptables-save` prints it.
    fn saved(family: Family, table: &str, chains: &[Chain]) -> String {
        let of_table = || chains.iter().filter(|chain| chain.table == table);
        let mut lines: Vec<String> = of_table().map(|chain| format!(":{} - [0:0]", chain.name)).collect();
        lines.push("-A FORWARD -j SOMEBODY-ELSE".to_owned());
        for chain in of_table() {
            lines.extend(chain.hooks.iter().map(|hook| format!("-A {hook} -j {}", chain.name)));
            lines.extend(chain.rules.iter().map(|rule| format!("-A {}{}", chain.name, rule.text(family))));
        }
        lines.join("\n")
    }

    #[test]
    fn every_rule_is_read_back_as_it_was_written() {
        let ways = [
            LocalTraffic::Unknown,
            LocalTraffic::Interface("cni0".into()),
            LocalTraffic::InterfacePrefix("veth".into()),
            LocalTraffic::Sources(vec![sample::net("10.244.0.0/16"), sample::net("fd00:244::/48")]),
        ];
        for local_traffic in ways {
            let node = Node { local_traffic, ..sample::node() };
            for family in Family::BOTH {
                let chains = structure::chains(family, &node);
                for name in TABLES {
                    let (read, entrances) = table(family, name, &saved(family, name, &chains)).expect("all are known");
                    let written: Vec<Chain> = chains
                        .iter()
                        .filter(|chain| chain.table == name)
                        .map(|chain| Chain { hooks: &[], ..chain.clone() })
                        .collect();
                    for chain in &written {
                        assert!(read.contains(chain), "{family:?}: {chain:?} is not in {read:?}");
                    }
                    assert_eq!(read.len(), written.len());
                    let hooks: usize =
                        chains.iter().filter(|chain| chain.table == name).map(|chain| chain.hooks.len()).sum();
                    assert_eq!(entrances.len(), hooks);
                }
            }
        }
    }

    #[test]
    fn a_rule_that_fairlead_never_writes_is_named() {
        let text =
            ":KUBE-IPVS-SENT - [0:0]\n-A KUBE-IPVS-SENT -j MARK --set-xmark 0x0/0xffffbfff\n-A KUBE-IPVS-SENT -j LOG";
        let fault = table(Family::V4, "mangle", text).expect_err("nobody of us logs");
        let wanted = "rule 2 of the chain KUBE-IPVS-SENT in the table mangle is none that fairlead writes";
        assert_eq!(fault.to_string(), wanted);
    }
}
