//! A packet on its way through chains, in all the ways that chance leaves open.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fairlead_kernel::xtables::Hook;
use fairlead_plan::{Family, Packet, Protocol};

use super::applies::{Answer, applies};
use super::{DEEPEST, Fault, Rules};
use crate::rules::{Rule, Table, Target};
use crate::text;

/// How a packet leaves a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// As it came, with this mark.
    Accepted(u32),
    /// Nobody answers.
    Dropped,
    /// The sender is told.
    Rejected,
    /// With another destination, and this mark.
    Translated(SocketAddr, u32),
    /// With another source.
    Masqueraded,
}

/// Shares of packets that are alike, by mark.
type Marks = BTreeMap<u32, f64>;

/// Where packets are after a chain: ended, or behind the rule that led there with this mark.
#[derive(Debug, Default)]
struct Walk {
    ends: BTreeMap<End, f64>,
    behind: Marks,
}

/// A packet, and the rules that applied to it.
pub struct Walker<'a> {
    rules: &'a Rules,
    packet: &'a Packet,
    /// One line for each rule that applied, in order.
    pub steps: Vec<String>,
}

/// A place in a chain.
#[derive(Clone, Copy)]
struct Place<'a> {
    table: Table,
    chain: &'a str,
    depth: usize,
}

impl<'a> Walker<'a> {
    /// A packet that has just arrived.
    pub const fn new(rules: &'a Rules, packet: &'a Packet) -> Self {
        Self { rules, packet, steps: Vec::new() }
    }

    /// One of the kernel's own chains, whose policy is to accept.
    pub fn hook(&mut self, table: Table, hook: Hook, mark: u32) -> Result<BTreeMap<End, f64>, Fault> {
        let jumps = self.rules.jumps.get(&(table, hook)).map(Vec::as_slice).unwrap_or_default();
        let place = Place { table, chain: hook.chain(), depth: 0 };
        let walk = self.all(place, jumps.iter().map(|(number, rule)| (*number, rule)), mark)?;
        let mut ends = walk.ends;
        walk.behind.into_iter().for_each(|(mark, share)| add(&mut ends, End::Accepted(mark), share));
        Ok(ends)
    }

    fn all<'r>(
        &mut self,
        place: Place<'_>,
        rules: impl Iterator<Item = (usize, &'r Rule)>,
        mark: u32,
    ) -> Result<Walk, Fault> {
        let mut walk = Walk::default();
        let mut marks = Marks::from([(mark, 1.0)]);
        for (number, rule) in rules {
            let mut next = Marks::new();
            for (mark, share) in marks {
                let applying = match applies(self.rules, rule, self.packet, mark) {
                    Answer::No => {
                        add(&mut next, mark, share);
                        continue;
                    }
                    Answer::Yes => share,
                    Answer::Either(part) => {
                        add(&mut next, mark, share * (1.0 - part));
                        share * part
                    }
                };
                let family = Family::of(self.packet.destination.ip());
                let line = text::line(rule, family);
                self.steps.push(format!("{} {} {number}: {line}", place.table.name(), place.chain));
                self.act(place, rule, (mark, applying), &mut walk, &mut next)?;
            }
            marks = next;
        }
        marks.into_iter().for_each(|(mark, share)| add(&mut walk.behind, mark, share));
        Ok(walk)
    }

    fn act(
        &mut self,
        place: Place<'_>,
        rule: &Rule,
        (mark, share): (u32, f64),
        walk: &mut Walk,
        next: &mut Marks,
    ) -> Result<(), Fault> {
        let end = match &rule.target {
            Target::Mark(bits) => {
                add(next, mark | bits, share);
                return Ok(());
            }
            Target::FlipMark(bits) => {
                add(next, mark ^ bits, share);
                return Ok(());
            }
            Target::Return => {
                add(&mut walk.behind, mark, share);
                return Ok(());
            }
            Target::Jump(chain) => {
                let inner = self.chain(place, chain, mark)?;
                inner.ends.into_iter().for_each(|(end, part)| add(&mut walk.ends, end, share * part));
                inner.behind.into_iter().for_each(|(mark, part)| add(next, mark, share * part));
                return Ok(());
            }
            Target::Accept => End::Accepted(mark),
            Target::Drop => End::Dropped,
            Target::Reject => End::Rejected,
            Target::Reset if self.packet.protocol == Protocol::Tcp => End::Rejected,
            Target::Reset => return Err(Fault::Contradiction(format!("a reset for {}", self.packet.protocol))),
            Target::Masquerade => End::Masqueraded,
            Target::Dnat(to) => End::Translated(*to, mark),
        };
        add(&mut walk.ends, end, share);
        Ok(())
    }

    fn chain(&mut self, from: Place<'_>, chain: &str, mark: u32) -> Result<Walk, Fault> {
        let rules = self.rules.chains.get(&(from.table, chain.to_owned()));
        let rules = rules.ok_or_else(|| Fault::Missing(chain.to_owned()))?;
        if from.depth == DEEPEST {
            return Err(Fault::TooDeep(chain.to_owned()));
        }
        self.all(Place { chain, depth: from.depth + 1, ..from }, (1..).zip(rules), mark)
    }
}

fn add<K: Ord>(to: &mut BTreeMap<K, f64>, key: K, share: f64) {
    *to.entry(key).or_insert(0.0) += share;
}
