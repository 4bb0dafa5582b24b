//! From a table that was read to one in which something is different.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::entry::{self, Entry};
use super::{Broken, Edit, EncodedChain, HeldChain, Hooks, TableView};
use crate::memory;
use crate::xtables::{Hook, Ip};

/// A rule that was not in the table before.
const NEW: u32 = u32::MAX;

/// Room in front of the entries for what the kernel wants to know of them, `struct ipt_replace`: a table of 100,000 rules
/// has 30 MB, which are not to be copied once more.
pub const HEADER: usize = 96;

/// A table to be given to the kernel.
#[derive(Debug, Default)]
pub struct Built {
    /// [`HEADER`] bytes, then the entries.
    pub bytes: Vec<u8>,
    /// Where its own chains are.
    pub hooks: Hooks,
    /// For each entry the number that it had before, so that what was counted can be given to it again.
    pub before: Vec<Option<u32>>,
}

/// Where in the buffer the offset of a jump must be written, and where it leads.
enum Fix {
    Chain(usize, String),
    /// By its offset in the old table.
    Held(usize, usize),
    /// By the offset of the next rule.
    Next(usize, usize),
}

struct Builder<'v, 'a> {
    view: &'v TableView<'a>,
    /// By offset in the old table: the number of the entry.
    numbers: Vec<(u32, u32)>,
    out: Built,
    fixes: Vec<Fix>,
    /// By name: the offset of the first rule in the new table.
    places: HashMap<String, usize>,
    /// By old offset of the first rule: the name.
    names: HashMap<usize, &'v str>,
}

/// More than what begins and ends a chain takes.
const PER_CHAIN: usize = 400;

/// Makes the new table.
pub fn build(view: &TableView<'_>, edit: &Edit) -> Result<Built, Broken> {
    let kept = foreign_targets(view, edit);
    let size = view.bytes.len() + edit.put.values().map(|chain| chain.bytes.len() + PER_CHAIN).sum::<usize>();
    let mut builder = Builder {
        view,
        numbers: numbers(view)?,
        out: Built { bytes: memory::buffer(HEADER + size), hooks: view.hooks, before: Vec::new() },
        fixes: Vec::new(),
        places: HashMap::new(),
        names: view.chains.iter().map(|chain| (chain.first, &*chain.name)).collect(),
    };
    builder.out.bytes.resize(HEADER, 0);
    for chain in view.chains.iter().filter(|chain| chain.hook.is_some()) {
        builder.own_chain(chain, edit)?;
    }
    for (name, content) in user_chains(view, edit, &kept) {
        builder.user_chain(name, &content)?;
    }
    builder.named("ERROR");
    builder.resolve()
}

enum Content<'e> {
    Held(&'e HeldChain),
    Given(&'e EncodedChain),
    Empty,
}

/// All chains that are nobody's own, sorted: the legacy programs look names up fastest so.
fn user_chains<'e>(view: &'e TableView<'_>, edit: &'e Edit, kept: &BTreeSet<&str>) -> BTreeMap<&'e str, Content<'e>> {
    let held = view.chains.iter().filter(|chain| chain.hook.is_none());
    let mut all: BTreeMap<&str, Content<'_>> = held
        .filter_map(|chain| {
            let name = chain.name.as_str();
            match (edit.remove.contains(name), kept.contains(name)) {
                (false, _) => Some((name, Content::Held(chain))),
                (true, true) => Some((name, Content::Empty)),
                (true, false) => None,
            }
        })
        .collect();
    all.extend(edit.put.iter().map(|(name, chain)| (name.as_str(), Content::Given(chain))));
    all
}

/// Chains to remove that a chain of somebody else leads to.
fn foreign_targets<'v>(view: &'v TableView<'_>, edit: &Edit) -> BTreeSet<&'v str> {
    if edit.remove.is_empty() {
        return BTreeSet::new();
    }
    let goes = |name: &str| edit.remove.contains(name) || edit.put.contains_key(name);
    let stays = view.chains.iter().filter(|chain| chain.hook.is_none() && !goes(&chain.name));
    stays
        .flat_map(|chain| view.rules(chain))
        .filter_map(|rule| rule.jump)
        .filter(|to| edit.remove.contains(*to))
        .collect()
}

fn numbers(view: &TableView<'_>) -> Result<Vec<(u32, u32)>, Broken> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < view.bytes.len() {
        let entry = Entry::at(view.ip, view.bytes, at)?;
        let short = |value: usize| u32::try_from(value).map_err(|_| (at, "a table of more than 4 GiB"));
        all.push((short(at)?, short(all.len())?));
        at = entry.next();
    }
    Ok(all)
}

impl<'v> Builder<'v, '_> {
    /// The offset of the next entry.
    const fn len(&self) -> usize {
        self.out.bytes.len() - HEADER
    }

    const fn ip(&self) -> Ip {
        self.view.ip
    }

    fn own_chain(&mut self, chain: &'v HeldChain, edit: &'v Edit) -> Result<(), Broken> {
        let Some(hook) = chain.hook else { return Ok(()) };
        self.out.hooks.first[hook as usize] = self.offset()?;
        self.places.insert(chain.name.clone(), self.len());
        let mut first = EncodedChain::default();
        edit.jumps.iter().rev().filter(|(at, _)| *at == hook).for_each(|(_, rule)| first.push(self.ip(), rule));
        self.given(&first);
        let mut at = chain.first;
        let mut number = 0;
        while at < chain.end {
            let entry = Entry::at(self.ip(), self.view.bytes, at)?;
            at = entry.next();
            let to_gone = self.view.led_to(&entry).is_some_and(|to| edit.remove.contains(&to.name));
            if !to_gone && !edit.cut.contains(&(hook, number)) {
                self.copy(chain_range(entry))?;
            }
            number += 1;
        }
        let mut last = EncodedChain::default();
        edit.tails.iter().filter(|(at, _)| *at == hook).for_each(|(_, rule)| last.push(self.ip(), rule));
        self.given(&last);
        self.out.hooks.policy[hook as usize] = self.offset()?;
        self.copy(chain.end..chain.behind)
    }

    fn user_chain(&mut self, name: &str, content: &Content<'v>) -> Result<(), Broken> {
        self.named(name);
        self.places.insert(name.to_owned(), self.len());
        match content {
            Content::Held(chain) => self.copy(chain.first..chain.behind),
            Content::Given(chain) => {
                self.given(chain);
                self.end();
                Ok(())
            }
            Content::Empty => {
                self.end();
                Ok(())
            }
        }
    }

    fn offset(&self) -> Result<u32, Broken> {
        let len = self.len();
        u32::try_from(len).map_err(|_| (len, "a table of more than 4 GiB"))
    }

    fn named(&mut self, name: &str) {
        entry::write_name(self.ip(), name, &mut self.out.bytes);
        self.out.before.push(None);
    }

    fn end(&mut self) {
        entry::write_verdict(self.ip(), entry::RETURN, &mut self.out.bytes);
        self.out.before.push(None);
    }

    fn given(&mut self, chain: &EncodedChain) {
        let from = self.out.bytes.len();
        self.out.bytes.extend_from_slice(&chain.bytes);
        self.fixes.extend(chain.jumps.iter().map(|(at, to)| Fix::Chain(from + at, to.clone())));
        self.out.before.extend(std::iter::repeat_n(None, chain.rules as usize));
    }

    /// Copies entries as they are, and remembers which of them lead somewhere.
    fn copy(&mut self, range: std::ops::Range<usize>) -> Result<(), Broken> {
        let moved = self.out.bytes.len();
        let first = self.numbers.partition_point(|(at, _)| (*at as usize) < range.start);
        let mut number = self.numbers.get(first).map_or(NEW, |(_, number)| *number);
        let mut at = range.start;
        while at < range.end {
            let entry = Entry::at(self.ip(), self.view.bytes, at)?;
            if let Some(verdict) = entry.verdict_at() {
                let place = moved + (at - range.start);
                if let Some(to) = entry.jump() {
                    self.fixes.push(Fix::Held(place + verdict, to));
                } else if entry.falls_through() {
                    self.fixes.push(Fix::Next(place + verdict, place + entry.bytes().len() - HEADER));
                }
            }
            self.out.before.push(Some(number));
            number += 1;
            at = entry.next();
        }
        self.out.bytes.extend_from_slice(&self.view.bytes[range]);
        Ok(())
    }

    fn resolve(mut self) -> Result<Built, Broken> {
        for fix in std::mem::take(&mut self.fixes) {
            let (at, to) = match fix {
                Fix::Next(at, to) => (at, Some(to)),
                Fix::Chain(at, name) => (at, self.places.get(&name).copied()),
                Fix::Held(at, held) => (at, self.names.get(&held).and_then(|name| self.places.get(*name)).copied()),
            };
            let to = to.and_then(|to| i32::try_from(to).ok()).ok_or((at, "a jump to a chain that is not there"))?;
            self.out.bytes[at..at + 4].copy_from_slice(&to.to_ne_bytes());
        }
        Ok(self.out)
    }
}

fn chain_range(entry: Entry<'_>) -> std::ops::Range<usize> {
    entry.next() - entry.bytes().len()..entry.next()
}

impl Hook {
    /// Whether a table has it.
    #[must_use]
    pub const fn is_in(self, valid: u32) -> bool {
        valid & 1 << self as u32 != 0
    }
}
