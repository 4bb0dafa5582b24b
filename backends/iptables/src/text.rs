//! A plan's rules as text that `iptables-restore` and `ip6tables-restore` load and `iptables-save` shows.

use std::collections::BTreeMap;
use std::fmt::Write;

use fairlead_plan::{Family, Plan};
use ipnet::IpNet;

use crate::desired::Desired;
use crate::encode::one_in;
use crate::rules::{Chain, Match, Rule, Table, Target};
use crate::structure;

/// The rules of both families, each headed by a comment that says which program loads them.
#[must_use]
pub fn text(plan: &Plan) -> String {
    let program = |family| match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    };
    let part = |family| format!("# for {} --noflush\n{}", program(family), family_text(plan, family));
    Family::BOTH.map(part).join("\n")
}

/// The rules of one family.
#[must_use]
pub fn family_text(plan: &Plan, family: Family) -> String {
    let mut chains: BTreeMap<(Table, String), Vec<Rule>> = BTreeMap::new();
    Desired::whole(plan, family, true, |Chain { table, name, rules }| drop(chains.insert((table, name), rules)));
    let mut out = String::new();
    for table in Table::BOTH {
        let of_table = || chains.iter().filter(|((of, _), _)| *of == table).map(|((_, name), rules)| (name, rules));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "*{}", table.name());
        for (name, _) in of_table() {
            let _ = writeln!(out, ":{name} - [0:0]");
        }
        for jump in structure::jumps().into_iter().filter(|jump| jump.table == table) {
            let _ = writeln!(out, "-I {} {}", jump.hook.chain(), line(&jump.rule, family));
        }
        for (name, rules) in of_table() {
            for rule in rules {
                let _ = writeln!(out, "-A {name} {}", line(rule, family));
            }
        }
        out.push_str("COMMIT\n");
    }
    out
}

/// A rule as `iptables` takes it, without its chain.
pub fn line(rule: &Rule, family: Family) -> String {
    let mut words: Vec<String> = Vec::new();
    let not = |negated: bool| if negated { "! " } else { "" };
    let nets = [("-s", &rule.source), ("-d", &rule.destination)];
    for (flag, net) in nets {
        words.extend(net.map(|net| format!("{}{flag} {}", not(net.negated), prefix(net.net))));
    }
    if let Some(interface) = &rule.interface {
        let plus = if interface.prefix { "+" } else { "" };
        words.push(format!("{}-i {}{plus}", not(interface.negated), interface.name));
    }
    words.extend(rule.protocol.map(|protocol| format!("-p {protocol}")));
    words.extend(rule.matches.iter().map(|one| matched(one, rule, family)));
    words.push(target(&rule.target));
    words.join(" ")
}

fn prefix(net: IpNet) -> String {
    net.to_string()
}

fn matched(one: &Match, rule: &Rule, family: Family) -> String {
    /// What `iptables --probability` is rounded to.
    const WHOLE: f64 = (1_u32 << 31) as f64;
    match one {
        Match::Comment(words) => format!("-m comment --comment \"{words}\""),
        Match::Ports(first, last) => {
            let protocol = rule.protocol.map_or("tcp", fairlead_plan::Protocol::name);
            let ports = if first == last { first.to_string() } else { format!("{first}:{last}") };
            format!("-m {protocol} --dport {ports}")
        }
        Match::Marked(bits) => format!("-m mark --mark {bits:#x}/{bits:#x}"),
        Match::NotMarked(bits) => format!("-m mark ! --mark {bits:#x}/{bits:#x}"),
        Match::FromHere => "-m addrtype --src-type LOCAL".to_owned(),
        Match::ToHere => "-m addrtype --dst-type LOCAL".to_owned(),
        Match::New => "-m conntrack --ctstate NEW".to_owned(),
        Match::NotTranslated => "-m conntrack ! --ctstate DNAT".to_owned(),
        Match::Established => "-m conntrack --ctstate RELATED,ESTABLISHED".to_owned(),
        Match::Invalid => "-m conntrack --ctstate INVALID".to_owned(),
        Match::OneIn(count) => {
            format!("-m statistic --mode random --probability {:.11}", f64::from(one_in(*count)) / WHOLE)
        }
        Match::Remembered { list, seconds } => {
            format!("-m recent --rcheck --seconds {seconds} --reap --name {list} --mask {} --rsource", mask(family))
        }
        Match::Remember(list) => format!("-m recent --set --name {list} --mask {} --rsource", mask(family)),
    }
}

const fn mask(family: Family) -> &'static str {
    match family {
        Family::V4 => "255.255.255.255",
        Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    }
}

fn target(target: &Target) -> String {
    match target {
        Target::Jump(chain) => format!("-j {chain}"),
        Target::Return => "-j RETURN".to_owned(),
        Target::Accept => "-j ACCEPT".to_owned(),
        Target::Drop => "-j DROP".to_owned(),
        Target::Reject => "-j REJECT".to_owned(),
        Target::Reset => "-j REJECT --reject-with tcp-reset".to_owned(),
        Target::Mark(bits) => format!("-j MARK --or-mark {bits:#x}"),
        Target::FlipMark(bits) => format!("-j MARK --xor-mark {bits:#x}"),
        Target::Masquerade => "-j MASQUERADE --random-fully".to_owned(),
        Target::Dnat(to) => format!("-j DNAT --to-destination {to}"),
    }
}
