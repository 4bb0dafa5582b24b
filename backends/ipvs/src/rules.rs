//! Constant rules, typed: what the tracer follows and what the text for `iptables-restore` is made of.

use std::fmt::Write as _;

use fairlead_plan::Family;
use ipnet::IpNet;

use crate::layout::Set;

/// What a rule asks about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The source is in it.
    Source(IpNet),
    /// The destination is in it.
    Destination(IpNet),
    /// It came in by the interface of this name, or of a name that begins so.
    Interface(String, bool),
    /// It is ICMP of the family.
    Icmp,
    /// It is of the protocol with this name.
    Protocol(fairlead_plan::Protocol),
    /// These bits are, or are not, so.
    Mark {
        /// How.
        value: u32,
        /// Which.
        mask: u32,
        /// They must be otherwise.
        not: bool,
    },
    /// An entry of the set is about it, or none is.
    InSet(Set, bool),
    /// The source is an address of this node.
    SourceIsLocal,
    /// The destination is an address of this node.
    DestinationIsLocal,
    /// It begins a connection.
    New,
    /// It belongs to a connection.
    Known,
    /// It is an error about a connection.
    Related,
    /// It is an answer of a connection.
    Answer,
    /// It belongs to a connection whose destination a rule has translated.
    Translated,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Leaves the chain.
    Return,
    /// No answer.
    Drop,
    /// Nothing else looks at it in this table.
    Accept,
    /// Goes through another chain.
    Jump(&'static str),
    /// Goes on in another chain for good.
    Goto(&'static str),
    /// Changes the bits of the mask to these.
    Mark(u32, u32),
    /// Flips these bits.
    Flip(u32),
    /// Takes the mark from the entry of the set that is about it, if there is one.
    MapMark(Set),
    /// The endpoint shall see an address of this node.
    Masquerade,
    /// Tells the sender that nobody is there.
    Reject,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule(pub Vec<Match>, pub Target);

/// A chain, and the chains of the kernel that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Its table.
    pub table: &'static str,
    /// Where packets come from.
    pub hooks: &'static [&'static str],
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// How a set is asked about a packet.
fn directions(set: Set) -> &'static str {
    match set {
        Set::SourceCidr | Set::LoopBack => "dst,dst,src",
        Set::NodePortSctp | Set::Firewall | Set::ClusterIp | Set::ExternalIp | Set::LoadBalancer => "dst,dst",
        Set::NodePortTcp | Set::NodePortUdp | Set::Addresses => "dst",
    }
}

impl Rule {
    /// As `iptables-save` prints it, behind the name of the chain.
    pub fn text(&self, family: Family) -> String {
        let mut text = String::new();
        for part in self.0.iter().map(|one| one.text(family)).chain([self.1.text(family)]) {
            // Writing to a string does not fail.
            let _ = write!(text, " {part}");
        }
        text
    }
}

impl Match {
    fn text(&self, family: Family) -> String {
        let not = |not: bool| if not { "! " } else { "" };
        match self {
            Self::Source(net) => format!("-s {net}"),
            Self::Destination(net) => format!("-d {net}"),
            Self::Interface(name, false) => format!("-i {name}"),
            Self::Interface(name, true) => format!("-i {name}+"),
            Self::Icmp if family == Family::V6 => "-p ipv6-icmp".to_owned(),
            Self::Icmp => "-p icmp".to_owned(),
            Self::Protocol(protocol) => format!("-p {protocol}"),
            Self::Mark { value, mask, not: negated } => format!("-m mark {}--mark {value:#x}/{mask:#x}", not(*negated)),
            Self::InSet(set, negated) => {
                format!("-m set {}--match-set {} {}", not(*negated), set.name(family), directions(*set))
            }
            Self::SourceIsLocal => "-m addrtype --src-type LOCAL".to_owned(),
            Self::DestinationIsLocal => "-m addrtype --dst-type LOCAL".to_owned(),
            Self::New => "-m conntrack --ctstate NEW".to_owned(),
            Self::Known => "-m conntrack --ctstate RELATED,ESTABLISHED".to_owned(),
            Self::Related => "-m conntrack --ctstate RELATED".to_owned(),
            Self::Answer => "-m conntrack --ctstate ESTABLISHED --ctdir REPLY".to_owned(),
            Self::Translated => "-m conntrack --ctstate DNAT".to_owned(),
        }
    }
}

impl Target {
    fn text(&self, family: Family) -> String {
        match self {
            Self::Return => "-j RETURN".to_owned(),
            Self::Drop => "-j DROP".to_owned(),
            Self::Accept => "-j ACCEPT".to_owned(),
            Self::Jump(chain) => format!("-j {chain}"),
            Self::Goto(chain) => format!("-g {chain}"),
            Self::Mark(value, mask) => format!("-j MARK --set-xmark {value:#x}/{mask:#x}"),
            Self::Flip(bits) => format!("-j MARK --set-xmark {bits:#x}/0x0"),
            Self::MapMark(set) => {
                format!("-j SET --map-set {} {} --map-mark", set.name(family), directions(*set))
            }
            Self::Masquerade => "-j MASQUERADE --random-fully".to_owned(),
            Self::Reject if family == Family::V6 => "-j REJECT --reject-with icmp6-port-unreachable".to_owned(),
            Self::Reject => "-j REJECT --reject-with icmp-port-unreachable".to_owned(),
        }
    }
}

/// The rules of a table as `iptables-save` printed them: chain and the rest of the line.
pub fn held_rules(save: &str) -> impl Iterator<Item = (&str, &str)> {
    save.lines().filter_map(|line| line.strip_prefix("-A ")?.split_once(' '))
}

/// What `iptables-restore` must read so that a table has our chains as they should be, and how many rules that writes;
/// `None` if it has.
pub fn restoration(family: Family, table: &str, chains: &[Chain], save: &str) -> Option<(String, u64)> {
    let (mut heads, mut body, mut count) = (String::new(), String::new(), 0);
    for chain in chains.iter().filter(|chain| chain.table == table) {
        let declared = save.lines().any(|line| line.starts_with(&format!(":{} ", chain.name)));
        let held: Vec<&str> = held_rules(save).filter(|(name, _)| *name == chain.name).map(|(_, rule)| rule).collect();
        let wanted: Vec<String> = chain.rules.iter().map(|rule| rule.text(family).trim_start().to_owned()).collect();
        if !declared || held != wanted {
            heads += &format!(":{} - [0:0]\n", chain.name);
            wanted.iter().for_each(|rule| body += &format!("-A {} {rule}\n", chain.name));
            count += wanted.len() as u64;
        }
        let jump = format!("-j {}", chain.name);
        for hook in chain.hooks {
            if !held_rules(save).any(|(name, rule)| name == *hook && rule == jump) {
                body += &format!("-I {hook} 1 {jump}\n");
                count += 1;
            }
        }
    }
    (!heads.is_empty() || !body.is_empty()).then(|| (format!("*{table}\n{heads}{body}COMMIT\n"), count))
}

/// What `iptables-restore` must read so that nothing is left in a table of the chains `gone`, of what leads to them, and of
/// what asks for one of the `sets`; `None` if nothing is there. Of the chains `kept` all stays, and what leads to them as fairlead
/// writes it.
pub fn removal(table: &str, gone: &[&str], kept: &[&str], sets: &[&str], save: &str) -> Option<String> {
    let declared: Vec<&str> = save
        .lines()
        .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
        .filter(|name| gone.contains(name))
        .collect();
    let mut all = String::new();
    for (chain, rule) in held_rules(save).filter(|(chain, _)| !gone.contains(chain) && !kept.contains(chain)) {
        let named = Named::in_rule(rule);
        let asks = named.sets.iter().any(|set| sets.contains(set));
        let leads = named.target.is_some_and(|target| {
            gone.contains(&target) || kept.contains(&target) && rule.strip_prefix("-j ") != Some(target)
        });
        if asks || leads {
            all += &format!("-D {chain} {rule}\n");
        }
    }
    for command in ["-F", "-X"] {
        declared.iter().for_each(|name| all += &format!("{command} {name}\n"));
    }
    (!all.is_empty()).then(|| format!("*{table}\n{all}COMMIT\n"))
}

/// What a rule names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named<'a> {
    /// Where it leads.
    target: Option<&'a str>,
    /// Which sets it asks for.
    sets: Vec<&'a str>,
}

impl<'a> Named<'a> {
    /// Reads a rule as `iptables-save` prints it. What stands in a comment is no option.
    fn in_rule(rule: &'a str) -> Self {
        let (mut named, mut before) = (Self::default(), "");
        for word in words(rule) {
            match before {
                "-j" | "-g" => named.target = Some(word),
                "--match-set" | "--map-set" | "--add-set" | "--del-set" => named.sets.push(word),
                _ => {}
            }
            before = word;
        }
        named
    }
}

/// The words of a rule; what stands in quotation marks is one.
fn words(rule: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    rule.split(move |letter| {
        quoted ^= letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        letter == ' ' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"*filter
:INPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-NODE-PORT - [0:0]
-A INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER
-A INPUT -j KUBE-IPVS-FILTER
-A INPUT -m comment --comment "not \"-j KUBE-NODE-PORT\" but" -j ACCEPT
-A KUBE-FORWARD -m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-NODE-PORT
-A KUBE-FORWARD -m set ! --match-set OTHER src -g KUBE-NODE-PORT
-A KUBE-FORWARD -m comment --comment KUBE-NODE-PORT -j ACCEPT
-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN
-A KUBE-NODE-PORT -m set --match-set KUBE-HEALTH-CHECK-NODE-PORT dst -j ACCEPT
COMMIT
"#;

    #[test]
    fn what_leads_to_a_chain_goes_with_it_whatever_else_the_rule_says() {
        let gone = ["KUBE-IPVS-FILTER", "KUBE-NODE-PORT"];
        let text = removal("filter", &gone, &[], &["KUBE-LOAD-BALANCER"], SAVED).expect("there is something");
        let wanted = r#"*filter
-D INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER
-D INPUT -j KUBE-IPVS-FILTER
-D KUBE-FORWARD -m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-NODE-PORT
-D KUBE-FORWARD -m set ! --match-set OTHER src -g KUBE-NODE-PORT
-F KUBE-IPVS-FILTER
-F KUBE-NODE-PORT
-X KUBE-IPVS-FILTER
-X KUBE-NODE-PORT
COMMIT
"#;
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_chain_that_is_taken_over_keeps_only_the_jump_of_ours() {
        let text = removal("filter", &["KUBE-NODE-PORT"], &["KUBE-IPVS-FILTER"], &["OTHER"], SAVED);
        let text = text.expect("there is something");
        assert!(text.contains("access filter"), "{text}");
        assert!(!text.contains("-D INPUT -j") && !text.contains("-F KUBE-IPVS-FILTER"), "{text}");
        assert!(!text.contains("-D KUBE-IPVS-FILTER"), "{text}");
    }

    #[test]
    fn where_nothing_is_left_nothing_is_written() {
        assert_eq!(removal("filter", &["KUBE-SOURCE-RANGES-FIREWALL"], &["INPUT"], &[], ":INPUT ACCEPT [0:0]"), None);
    }
}
