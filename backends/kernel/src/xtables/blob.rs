//! A table of the legacy variant as the bytes that the kernel takes and gives. Pure.
//!
//! A table is one piece of memory. First come the kernel's own chains, each ended by its policy; then everybody's, each
//! begun by an entry with the target `ERROR` that holds the name and ended by an unconditional return; then one `ERROR`
//! more. An entry is a header, matches, a target; a jump is a target that holds the offset of the first rule of a chain.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::{Hook, Ip, Rule};
use entry::{Entry, Shape};

pub(super) mod build;
pub(super) mod entry;

/// What the kernel says of a table besides its entries: where its own chains begin and where their policies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hooks {
    /// Bits of the hooks that the table has.
    pub valid: u32,
    /// By hook: the offset of the first entry.
    pub first: [u32; 5],
    /// By hook: the offset of the policy.
    pub policy: [u32; 5],
}

/// A table that was read.
#[derive(Debug)]
pub struct TableView<'a> {
    pub(super) ip: Ip,
    pub(super) bytes: &'a [u8],
    pub(super) hooks: Hooks,
    /// In the order of their places.
    pub(super) chains: Vec<HeldChain>,
    by_name: HashMap<String, usize>,
}

/// A chain in a table that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldChain {
    /// Its name.
    pub name: String,
    /// Which of the kernel's own it is.
    pub hook: Option<Hook>,
    /// Offset of the first rule.
    pub(super) first: usize,
    /// Offset of the policy or the final return.
    pub(super) end: usize,
    /// Offset behind that.
    pub(super) behind: usize,
}

/// A rule in a table that was read.
#[derive(Debug, Clone, Copy)]
pub struct HeldRule<'a> {
    pub(super) entry: Entry<'a>,
    /// The chain it leads to.
    pub jump: Option<&'a str>,
}

/// What shall be different in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Chains to make or to fill anew.
    pub put: BTreeMap<String, Arc<EncodedChain>>,
    /// Chains to remove, and rules of the kernel's own chains that lead there. A chain that a foreign one leads to stays,
    /// empty.
    pub remove: BTreeSet<String>,
    /// Rules for the top of the kernel's own chains, the last one uppermost.
    pub jumps: Vec<(Hook, Rule)>,
    /// Rules for the end of the kernel's own chains, in order.
    pub tails: Vec<(Hook, Rule)>,
    /// Rules to take out of the kernel's own chains, by their numbers from 0.
    pub cut: BTreeSet<(Hook, usize)>,
}

/// Rules as the kernel takes them, but for the places that jumps lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedChain {
    bytes: Vec<u8>,
    /// Where an offset must be written, and the chain that it leads to.
    jumps: Vec<(usize, String)>,
    rules: u32,
}

impl EncodedChain {
    /// Appends a rule.
    pub fn push(&mut self, ip: Ip, rule: &Rule) {
        let from = self.bytes.len();
        self.rules += 1;
        if let Some(chain) = entry::write(ip, rule, &mut self.bytes)
            && let Ok(written) = Entry::at(ip, &self.bytes, from)
            && let Some(verdict) = written.verdict_at()
        {
            self.jumps.push((from + verdict, chain.to_owned()));
        }
    }

    /// How many rules.
    #[must_use]
    pub const fn rules(&self) -> u32 {
        self.rules
    }

    /// A number that is equal for chains of equal rules, as [`TableView::fingerprint`] gives it.
    #[must_use]
    pub fn fingerprint(&self, ip: Ip) -> u64 {
        let mut sum = Sum::default();
        let mut jumps = self.jumps.iter().peekable();
        let mut at = 0;
        while let Ok(entry) = Entry::at(ip, &self.bytes, at) {
            at = entry.next();
            sum.add(entry, jumps.next_if(|(place, _)| *place < at).map(|(_, chain)| chain.as_str()));
        }
        sum.finish()
    }
}

impl Edit {
    /// Nothing shall be different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty()
            && self.remove.is_empty()
            && self.jumps.is_empty()
            && self.tails.is_empty()
            && self.cut.is_empty()
    }
}

/// A place that cannot be understood, and why.
pub(super) type Broken = (usize, &'static str);

impl<'a> TableView<'a> {
    pub(super) fn read(ip: Ip, bytes: &'a [u8], hooks: Hooks) -> Result<Self, Broken> {
        let mut chains = own_chains(ip, bytes, hooks)?;
        let mut at = chains.last().map_or(0, |last| last.behind);
        let mut open: Option<(String, usize)> = None;
        let mut before = at;
        while at < bytes.len() {
            let entry = Entry::at(ip, bytes, at)?;
            if let Some(name) = entry.chain_name() {
                if let Some((name, first)) = open.take() {
                    chains.push(HeldChain { name, hook: None, first, end: before, behind: at });
                }
                open = Some((name.to_owned(), entry.next()));
            }
            before = at;
            at = entry.next();
        }
        let by_name = chains.iter().enumerate().map(|(number, chain)| (chain.name.clone(), number)).collect();
        Ok(Self { ip, bytes, hooks, chains, by_name })
    }

    /// Its chains.
    #[must_use]
    pub fn chains(&self) -> &[HeldChain] {
        &self.chains
    }

    /// The chain of that name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&HeldChain> {
        self.by_name.get(name).map(|number| &self.chains[*number])
    }

    /// The rules of a chain.
    pub fn rules(&self, chain: &HeldChain) -> impl Iterator<Item = HeldRule<'_>> {
        let mut at = chain.first;
        let end = chain.end;
        std::iter::from_fn(move || {
            let entry = (at < end).then(|| Entry::at(self.ip, self.bytes, at).ok()).flatten()?;
            at = entry.next();
            Some(HeldRule { entry, jump: self.led_to(&entry).map(|chain| &*chain.name) })
        })
    }

    /// A number that is equal for chains of equal rules, whatever has been counted.
    #[must_use]
    pub fn fingerprint(&self, chain: &HeldChain) -> u64 {
        self.fingerprint_where(chain, |_| true)
    }

    /// The same for those of its rules that `counts`.
    #[must_use]
    pub fn fingerprint_where(&self, chain: &HeldChain, counts: impl Fn(&HeldRule<'_>) -> bool) -> u64 {
        let mut sum = Sum::default();
        for rule in self.rules(chain).filter(counts) {
            sum.add(rule.entry, rule.jump);
        }
        sum.finish()
    }

    /// The chain that an entry jumps to.
    pub(super) fn led_to(&self, entry: &Entry<'_>) -> Option<&HeldChain> {
        let to = entry.jump()?;
        let number = self.chains.partition_point(|chain| chain.first < to);
        self.chains.get(number).filter(|chain| chain.first == to)
    }
}

#[derive(Default)]
struct Sum {
    hasher: DefaultHasher,
}

impl Sum {
    fn add(&mut self, entry: Entry<'_>, jump: Option<&str>) {
        entry.hash_content(jump.is_some(), &mut self.hasher);
        jump.hash(&mut self.hasher);
    }

    fn finish(self) -> u64 {
        self.hasher.finish()
    }
}

fn own_chains(ip: Ip, bytes: &[u8], hooks: Hooks) -> Result<Vec<HeldChain>, Broken> {
    let mut chains = Vec::new();
    for hook in Hook::ALL.into_iter().filter(|hook| hooks.valid & 1 << *hook as u32 != 0) {
        let (first, end) = (hooks.first[hook as usize] as usize, hooks.policy[hook as usize] as usize);
        let behind = Entry::at(ip, bytes, end)?.next();
        chains.push(HeldChain { name: hook.chain().to_owned(), hook: Some(hook), first, end, behind });
    }
    chains.sort_by_key(|chain| chain.first);
    Ok(chains)
}

impl HeldRule<'_> {
    /// How many packets have matched it since it was made.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.entry.packets()
    }

    /// Whether it is this rule.
    #[must_use]
    pub fn is(&self, ip: Ip, rule: &Rule) -> bool {
        let mut bytes = Vec::new();
        let jump = entry::write(ip, rule, &mut bytes);
        let content = |entry: Entry<'_>, jump: Option<&str>| {
            let mut sum = Sum::default();
            sum.add(entry, jump);
            sum.finish()
        };
        Entry::at(ip, &bytes, 0).is_ok_and(|wanted| content(wanted, jump) == content(self.entry, self.jump))
    }
}

/// How large the entries of a family are.
pub(super) const fn shape(ip: Ip) -> Shape {
    match ip {
        Ip::V4 => Shape { header: 112, cache: 84, flags: 82, proto: 80 },
        Ip::V6 => Shape { header: 168, cache: 136, flags: 131, proto: 128 },
    }
}
