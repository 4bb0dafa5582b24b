//! Follows a packet through rules: those of a plan, without a kernel, or those that the kernel holds.
//!
//! What is random goes both ways, and so does what depends on packets before if it is not known, so the answer is the set of
//! everything that can happen.

mod applies;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fairlead_kernel::xtables::{Hook, Variant};
use fairlead_plan::{Branch, Family, Followed, Packet, Plan, Protocol, Verdict};

use crate::desired::{Chains, Desired};
use crate::held::{self, HeldError};
use crate::rules::{Chain, Match, Rule, Table, host};
use crate::structure;
use walk::{End, Walker};

/// More jumps into one another than nf_tables follows.
const DEEPEST: usize = 16;

/// A rule with its number in its chain, from 1.
pub(crate) type Numbered = (usize, Rule);

/// The rules of one family.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Chains of ours.
    pub chains: Chains,
    /// What of the kernel's own chains leads to them.
    pub jumps: BTreeMap<(Table, Hook), Vec<Numbered>>,
    /// Who is in the lists of `-m recent`; `None` if that is not known.
    pub remembered: Option<BTreeMap<String, BTreeSet<IpAddr>>>,
}

/// Rules to follow packets through.
#[derive(Debug)]
pub struct Tracer {
    rules: [Rules; 2],
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
    /// A rule of the kernel that this program never writes.
    #[error("rule {number} of the chain {chain} in the {table} is none that fairlead writes")]
    Unknown {
        /// As people call the table.
        table: String,
        /// The chain.
        chain: String,
        /// Its number, from 1.
        number: usize,
    },
}

impl Tracer {
    /// For a plan, in both families.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let rules = Family::BOTH.map(|family| {
            let mut rules = Rules::default();
            Desired::whole(plan, family, true, |chain| {
                drop(rules.chains.insert((chain.table, chain.name), chain.rules))
            });
            // Each is put in front of those before it.
            for jump in structure::jumps().into_iter().rev() {
                let of_hook = rules.jumps.entry((jump.table, jump.hook)).or_default();
                of_hook.push((of_hook.len() + 1, jump.rule));
            }
            rules
        });
        Self { rules }
    }

    /// What the kernel holds in this network namespace, in a variant, with the clients that it remembers. Rules of others in the
    /// kernel's own chains are passed over.
    ///
    /// # Errors
    /// If the kernel cannot be read, or if somebody has put a rule into our chains that fairlead never writes.
    pub fn held(variant: Variant) -> Result<Self, HeldError> {
        let [v4, v6] = Family::BOTH.map(|family| held::read(variant, family));
        Ok(Self { rules: [v4?, v6?] })
    }

    /// Whether there is a chain of ours in this family.
    #[must_use]
    pub fn is_there(&self, family: Family) -> bool {
        !self.rules[family as usize].chains.is_empty()
    }

    /// The ports that rules ask for at an address, without node ports.
    #[must_use]
    pub fn ports(&self, addr: IpAddr) -> BTreeSet<(Protocol, u16)> {
        let here = |rule: &&Rule| rule.destination.is_some_and(|net| net.net == host(addr) && !net.negated);
        let port = |rule: &Rule| {
            let port = rule.matches.iter().find_map(|one| match one {
                Match::Ports(first, last) if first == last => Some(*first),
                _ => None,
            });
            rule.protocol.zip(port)
        };
        let chains = &self.rules[Family::of(addr) as usize].chains;
        chains.values().flatten().filter(here).filter_map(port).collect()
    }

    /// What happens to a packet.
    ///
    /// # Errors
    /// If the rules cannot be followed.
    pub fn verdict(&self, packet: &Packet) -> Result<Verdict, Fault> {
        self.follow(packet).map(|followed| followed.verdict)
    }

    /// Where a packet goes, by which rules, and how probably.
    ///
    /// # Errors
    /// If the rules cannot be followed.
    pub fn follow(&self, packet: &Packet) -> Result<Followed, Fault> {
        let first = if packet.interface.is_some() { Hook::Prerouting } else { Hook::Output };
        let mut walker = self.walker(packet);
        let (mut branches, mut others) = (Vec::new(), BTreeMap::new());
        for (end, share) in walker.hook(Table::Nat, first, 0)? {
            match end {
                End::Translated(to, mark) => branches.push(self.translated(packet, to, mark, share)?),
                End::Accepted(mark) => {
                    for (end, part) in filtered(&mut walker, packet, mark)? {
                        *others.entry(end).or_insert(0.0) += share * part;
                    }
                }
                End::Dropped | End::Rejected | End::Masqueraded => *others.entry(end).or_insert(0.0) += share,
            }
        }
        let verdict = verdict(&branches, &others)?;
        let none = |share: &f64| Branch { endpoint: None, share: *share, masqueraded: false, steps: Vec::new() };
        branches.extend(others.values().map(none));
        Ok(Followed { steps: walker.steps, branches, verdict })
    }

    fn walker<'a>(&'a self, packet: &'a Packet) -> Walker<'a> {
        Walker::new(&self.rules[Family::of(packet.destination.ip()) as usize], packet)
    }

    /// The rest of the way to an endpoint.
    fn translated(&self, packet: &Packet, to: SocketAddr, mark: u32, share: f64) -> Result<Branch, Fault> {
        let mut walker = self.walker(packet);
        let masqueraded = walker.hook(Table::Nat, Hook::Postrouting, mark)?.contains_key(&End::Masqueraded);
        Ok(Branch { endpoint: Some(to), share, masqueraded, steps: walker.steps })
    }
}

fn verdict(branches: &[Branch], others: &BTreeMap<End, f64>) -> Result<Verdict, Fault> {
    let of = |wanted: fn(&Branch) -> bool| -> BTreeSet<SocketAddr> {
        branches.iter().filter(|branch| wanted(branch)).filter_map(|branch| branch.endpoint).collect()
    };
    let endpoints = of(|_| true);
    match (endpoints.is_empty(), others.len(), others.first_key_value()) {
        (false, 0, _) => Ok(Verdict::Forward { endpoints, masqueraded: of(|branch| branch.masqueraded) }),
        (true, 1, Some((End::Rejected, _))) => Ok(Verdict::Reject),
        (true, 1, Some((End::Dropped, _))) => Ok(Verdict::Drop),
        (true, 1, Some((End::Accepted(_), _))) => Ok(Verdict::Pass),
        _ => Err(Fault::Contradiction(format!("{endpoints:?} and {:?}", others.keys()))),
    }
}

/// What the table filter does with a packet that was not translated.
fn filtered(walker: &mut Walker<'_>, packet: &Packet, mark: u32) -> Result<BTreeMap<End, f64>, Fault> {
    let hooks: &[Hook] = match (packet.interface.is_some(), packet.destination_is_local) {
        (true, true) => &[Hook::Input],
        (true, false) => &[Hook::Forward],
        (false, true) => &[Hook::Output, Hook::Input],
        (false, false) => &[Hook::Output],
    };
    let mut ends = BTreeMap::from([(End::Accepted(mark), 1.0)]);
    for hook in hooks {
        let mut next = BTreeMap::new();
        for (end, share) in ends {
            match end {
                End::Accepted(mark) => {
                    for (end, part) in walker.hook(Table::Filter, *hook, mark)? {
                        *next.entry(end).or_insert(0.0) += share * part;
                    }
                }
                end => *next.entry(end).or_insert(0.0) += share,
            }
        }
        ends = next;
    }
    Ok(ends)
}

/// What a plan's rules do with a packet.
///
/// # Errors
/// If the rules cannot be followed.
pub fn trace(plan: &Plan, packet: &Packet) -> Result<Verdict, Fault> {
    Tracer::new(plan).verdict(packet)
}

/// Chains as they are found.
impl Extend<Chain> for Rules {
    fn extend<T: IntoIterator<Item = Chain>>(&mut self, chains: T) {
        self.chains.extend(chains.into_iter().map(|chain| ((chain.table, chain.name), chain.rules)));
    }
}
