//! Follows a packet through the rules without a kernel.
//!
//! What is random, and what depends on packets before, goes both ways, so the answer is the set of everything that can happen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use fairlead_kernel::xtables::{Hook, Interface, Net};
use fairlead_plan::{Family, Packet, Plan, Protocol, Verdict};

use crate::desired::{Chains, Desired};
use crate::rules::{Chain, Match, Rule, Table, Target};
use crate::structure;

/// More jumps into one another than nf_tables follows.
const DEEPEST: usize = 16;

/// The rules of a plan, to follow packets through.
#[derive(Debug)]
pub struct Tracer {
    chains: [Chains; 2],
}

/// Why a packet cannot be followed: the kernel would not take the rules, or they contradict one another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A jump to a chain that is not there.
    #[error("a rule leads to {0}, which is not there")]
    Missing(String),
    /// Jumps into one another.
    #[error("more than {DEEPEST} jumps into one another, at {0}")]
    TooDeep(String),
    /// Some packets are translated and others alike are not.
    #[error("alike packets end differently: {0}")]
    Contradiction(String),
}

/// How a packet leaves a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// As it came, with this mark.
    Accepted(u32),
    Dropped,
    Rejected,
    /// With another destination, and this mark.
    Translated(SocketAddr, u32),
    Masqueraded,
}

/// Where packets are after a chain: ended, or behind the rule that led there with this mark.
#[derive(Debug, Default)]
struct Walk {
    ends: BTreeSet<End>,
    behind: BTreeSet<u32>,
}

impl Tracer {
    /// For a plan, in both families.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let chains = Family::BOTH.map(|family| {
            let mut chains = BTreeMap::new();
            Desired::whole(plan, family, true, |Chain { table, name, rules }| {
                drop(chains.insert((table, name), rules))
            });
            chains
        });
        Self { chains }
    }

    /// What happens to a packet.
    ///
    /// # Errors
    /// If the rules cannot be followed.
    pub fn verdict(&self, packet: &Packet) -> Result<Verdict, Fault> {
        let first = if packet.interface.is_some() { Hook::Prerouting } else { Hook::Output };
        let mut endpoints = BTreeSet::new();
        let mut masqueraded = BTreeSet::new();
        let mut others = BTreeSet::new();
        for end in self.hook(packet, Table::Nat, first, 0)? {
            match end {
                End::Translated(to, mark) => {
                    endpoints.insert(to);
                    let after = self.hook(packet, Table::Nat, Hook::Postrouting, mark)?;
                    masqueraded.extend(after.contains(&End::Masqueraded).then_some(to));
                }
                End::Accepted(mark) => others.extend(self.filtered(packet, mark)?),
                End::Dropped | End::Rejected | End::Masqueraded => drop(others.insert(end)),
            }
        }
        match (endpoints.is_empty(), others.len(), others.first()) {
            (false, 0, _) => Ok(Verdict::Forward { endpoints, masqueraded }),
            (true, 1, Some(End::Rejected)) => Ok(Verdict::Reject),
            (true, 1, Some(End::Dropped)) => Ok(Verdict::Drop),
            (true, 1, Some(End::Accepted(_))) => Ok(Verdict::Pass),
            _ => Err(Fault::Contradiction(format!("{endpoints:?} and {others:?}"))),
        }
    }

    /// What the table filter does with a packet that was not translated.
    fn filtered(&self, packet: &Packet, mark: u32) -> Result<BTreeSet<End>, Fault> {
        let hooks: &[Hook] = match (packet.interface.is_some(), packet.destination_is_local) {
            (true, true) => &[Hook::Input],
            (true, false) => &[Hook::Forward],
            (false, true) => &[Hook::Output, Hook::Input],
            (false, false) => &[Hook::Output],
        };
        let mut ends = BTreeSet::from([End::Accepted(mark)]);
        for hook in hooks {
            let mut next = BTreeSet::new();
            for end in ends {
                match end {
                    End::Accepted(mark) => next.extend(self.hook(packet, Table::Filter, *hook, mark)?),
                    end => drop(next.insert(end)),
                }
            }
            ends = next;
        }
        Ok(ends)
    }

    /// One of the kernel's own chains, whose policy is to accept.
    fn hook(&self, packet: &Packet, table: Table, hook: Hook, mark: u32) -> Result<BTreeSet<End>, Fault> {
        // Each is put in front of those before it.
        let jumps = structure::jumps().into_iter().rev().filter(|jump| jump.table == table && jump.hook == hook);
        let rules: Vec<Rule> = jumps.map(|jump| jump.rule).collect();
        let walk = self.rules(packet, table, &rules, mark, 0)?;
        Ok(walk.ends.into_iter().chain(walk.behind.into_iter().map(End::Accepted)).collect())
    }

    fn rules(&self, packet: &Packet, table: Table, rules: &[Rule], mark: u32, depth: usize) -> Result<Walk, Fault> {
        let mut walk = Walk::default();
        let mut marks = BTreeSet::from([mark]);
        for rule in rules {
            let mut next = BTreeSet::new();
            for mark in marks {
                let answer = applies(rule, packet, mark);
                if answer != Answer::Yes {
                    next.insert(mark);
                }
                if answer != Answer::No {
                    self.act(packet, table, rule, mark, depth, &mut walk, &mut next)?;
                }
            }
            marks = next;
        }
        walk.behind.extend(marks);
        Ok(walk)
    }

    #[expect(clippy::too_many_arguments, reason = "the state of a walk")]
    fn act(
        &self,
        packet: &Packet,
        table: Table,
        rule: &Rule,
        mark: u32,
        depth: usize,
        walk: &mut Walk,
        next: &mut BTreeSet<u32>,
    ) -> Result<(), Fault> {
        let end = match &rule.target {
            Target::Mark(bits) => {
                next.insert(mark | bits);
                return Ok(());
            }
            Target::FlipMark(bits) => {
                next.insert(mark ^ bits);
                return Ok(());
            }
            Target::Return => {
                walk.behind.insert(mark);
                return Ok(());
            }
            Target::Jump(chain) => {
                let family = Family::of(packet.destination.ip());
                let rules = self.chains[family as usize].get(&(table, chain.clone()));
                let rules = rules.ok_or_else(|| Fault::Missing(chain.clone()))?;
                if depth == DEEPEST {
                    return Err(Fault::TooDeep(chain.clone()));
                }
                let inner = self.rules(packet, table, rules, mark, depth + 1)?;
                walk.ends.extend(inner.ends);
                next.extend(inner.behind);
                return Ok(());
            }
            Target::Accept => End::Accepted(mark),
            Target::Drop => End::Dropped,
            Target::Reject => End::Rejected,
            Target::Reset if packet.protocol == Protocol::Tcp => End::Rejected,
            Target::Reset => return Err(Fault::Contradiction(format!("a reset for {}", packet.protocol))),
            Target::Masquerade => End::Masqueraded,
            Target::Dnat(to) => End::Translated(*to, mark),
        };
        walk.ends.insert(end);
        Ok(())
    }
}

/// What a plan's rules do with a packet.
///
/// # Errors
/// If the rules cannot be followed.
pub fn trace(plan: &Plan, packet: &Packet) -> Result<Verdict, Fault> {
    Tracer::new(plan).verdict(packet)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// By chance, or by what was before.
    Either,
}

/// Whether a rule applies to the first packet of a connection that has not been translated.
fn applies(rule: &Rule, packet: &Packet, mark: u32) -> Answer {
    let net = |net: &Option<Net>, addr| net.is_none_or(|net| net.net.contains(&addr) != net.negated);
    let interface = |wanted: &Interface| {
        let name = packet.interface.as_deref().unwrap_or_default();
        let same = if wanted.prefix { name.starts_with(&wanted.name) } else { name == wanted.name };
        same != wanted.negated
    };
    let header = net(&rule.source, packet.source)
        && net(&rule.destination, packet.destination.ip())
        && rule.interface.as_ref().is_none_or(interface)
        && rule.protocol.is_none_or(|protocol| protocol == packet.protocol);
    if !header {
        return Answer::No;
    }
    let mut answer = Answer::Yes;
    for one in &rule.matches {
        let matches = match one {
            Match::OneIn(_) | Match::Remembered { .. } => {
                answer = Answer::Either;
                true
            }
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
