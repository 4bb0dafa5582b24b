//! All other nodes, and who of them gets what only one can have. Pure; a change costs what changed.
//!
//! Two nodes may claim one prefix of pods, one next hop or one device address: a node that was replaced while the old
//! object still exists, or a mistake. The one of the better [`Rank`] has it, the other is no peer in that family until it
//! is free, and the operator is told. The outcome is the same in whatever order Nodes are heard of.

mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_plan::Family;
use ipnet::IpNet;

use self::round::Round;
use super::desired::{self, Apart, Key, Local, Object, Value};
use super::facts::{Facts, Rank};
use super::holdings::{Holdings, Place};
use super::numbers::Numbers;
use super::reach::{By, Reach};
use super::settings::Settings;
use crate::resolve::{Note, PerFamily};

/// Nodes that are decided about at a time, where all are.
const AT_ONCE: usize = 256;

/// A node in a family, or an external tunnel end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    /// The name of the node, or the prefix behind an external tunnel end.
    pub name: Arc<str>,
    /// Of the pods.
    pub family: Family,
}

/// What must be written after a change, and what is to be said.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// What is new or different, in the order of writing for each peer.
    pub set: Vec<Key>,
    /// What is no longer wanted, with what it was.
    pub remove: Vec<Object>,
    /// What the operator should know.
    pub notes: Vec<Note>,
}

/// The state.
#[derive(Debug, Default)]
pub struct Peers {
    nodes: BTreeMap<Arc<str>, Node>,
    holdings: Holdings,
    numbers: Numbers,
    /// Peers that lost something to another, by rank.
    losers: BTreeSet<(Rank, Family)>,
    troubles: BTreeMap<PeerId, (&'static str, String)>,
    counts: PerFamily<usize>,
    round: u32,
    /// How often something was decided.
    decisions: u64,
}

#[derive(Debug)]
struct Node {
    facts: Arc<Facts>,
    round: u32,
}

impl Peers {
    /// Gives back the room for more peers than there are.
    pub fn fit(&mut self) {
        self.holdings.fit();
    }

    /// What is wanted and where it is kept, with the peer for which it is, in no order.
    pub fn wanted(&self) -> impl Iterator<Item = (Place, Object, &PeerId)> {
        self.holdings.wanted()
    }

    /// Where a key is kept; `None` if it is not wanted.
    #[must_use]
    pub fn place(&self, key: &Key) -> Option<Place> {
        self.holdings.place(key)
    }

    /// What a key should be.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<(Value, &PeerId)> {
        self.holdings.get(key)
    }

    /// What a peer has.
    pub fn keys(&self, peer: &PeerId) -> impl Iterator<Item = Key> {
        self.holdings.of(peer).into_iter().flat_map(Reach::objects).map(|(key, _)| key)
    }

    /// A number that is another one after everything that may have changed who is a peer, or why not.
    #[must_use]
    pub const fn decisions(&self) -> u64 {
        self.decisions
    }

    /// How many peers there are.
    #[must_use]
    pub const fn counts(&self) -> PerFamily<usize> {
        self.counts
    }

    /// Where the tunnels of all peers end, in order.
    pub fn ends(&self) -> impl Iterator<Item = IpAddr> {
        let mut ends = Vec::with_capacity(self.counts.v4 + self.counts.v6);
        ends.extend(self.holdings.ends());
        ends.sort_unstable();
        ends.dedup();
        ends.into_iter()
    }

    /// The prefixes of peers that are not inside one of these, in order.
    #[must_use]
    pub fn prefixes_outside(&self, networks: PerFamily<Option<IpNet>>) -> Vec<IpNet> {
        let inside = |net: &IpNet| networks[Family::of(net.addr())].is_some_and(|network| network.contains(net));
        let mut outside: Vec<_> = self.holdings.prefixes().filter(|net| !inside(net)).collect();
        outside.sort_unstable();
        outside
    }

    /// What is known about the node of a peer.
    #[must_use]
    pub fn facts(&self, name: &str) -> Option<&Arc<Facts>> {
        self.nodes.get(name).map(|node| &node.facts)
    }

    /// Why nodes that take part are no peers, by the reason of the Event.
    pub fn troubles(&self) -> impl Iterator<Item = (&PeerId, &'static str, &str)> {
        self.troubles.iter().map(|(peer, (reason, text))| (peer, *reason, text.as_str()))
    }

    /// The kernel has a nexthop object of ours of this number with this gateway. Before anything is decided.
    pub fn remember(&mut self, gateway: IpAddr, number: u32) {
        self.numbers.remember(gateway, number);
    }

    /// Somebody else has the nexthop object of this number: the peer that wanted it gets another. A comparison must follow.
    pub fn avoid(&mut self, number: u32) {
        self.numbers.avoid(number);
        let Some(peer) = self.holdings.get(&Key::Hop(number)).map(|(_, peer)| peer.clone()) else { return };
        if let Some(reach) = self.holdings.take(&peer) {
            let reach = self.numbered(reach);
            self.holdings.put(&peer, reach, self.nodes.contains_key(&peer.name));
        }
    }

    /// A complete list of nodes begins.
    pub fn begin_list(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// It is complete: nodes that it did not name are gone.
    pub fn end_list(&mut self, settings: &Settings, local: &Local) -> Difference {
        let stale = self.nodes.iter().filter(|(_, node)| node.round != self.round);
        let stale: Vec<_> = stale.map(|(name, _)| Arc::clone(name)).collect();
        for name in &stale {
            self.nodes.remove(name);
        }
        self.update(settings, local, stale)
    }

    /// A node is there or has changed.
    pub fn apply(&mut self, settings: &Settings, local: &Local, facts: Arc<Facts>) -> Difference {
        let name = Arc::clone(&facts.name);
        let round = self.round;
        let was = self.nodes.insert(Arc::clone(&name), Node { facts: Arc::clone(&facts), round });
        match was {
            Some(was) if was.facts == facts => Difference::default(),
            was => {
                let was = was.map(|was| was.facts.rank.clone()).filter(|rank| *rank != facts.rank);
                was.into_iter().for_each(|rank| self.forget_loss(&rank));
                self.update(settings, local, [name])
            }
        }
    }

    /// A node is gone.
    pub fn delete(&mut self, settings: &Settings, local: &Local, name: &str) -> Difference {
        match self.nodes.remove(name) {
            Some(node) => self.update(settings, local, [Arc::clone(&node.facts.name)]),
            None => Difference::default(),
        }
    }

    /// This node has changed: everything is decided again. What the kernel should hold may differ in all; a comparison
    /// must follow.
    pub fn redecide(&mut self, settings: &Settings, local: &Local) -> Vec<Note> {
        let external = settings.external.iter().map(|vtep| Arc::from(vtep.cidr.to_string()));
        let all: Vec<_> = self.nodes.keys().cloned().chain(external).collect();
        let mut round = Round::new(settings, local, false);
        for name in &all {
            for family in Family::BOTH {
                self.release(&PeerId { name: Arc::clone(name), family }, &mut round);
            }
        }
        self.holdings.expect(all.len() * local.families().count());
        // In portions: to decide about thousands at once takes more room than they have themselves. The order does not matter.
        let decide = |names: &[Arc<str>]| self.decide(Round::new(settings, local, false), names.iter().cloned()).notes;
        all.chunks(AT_ONCE).flat_map(decide).collect()
    }

    fn forget_loss(&mut self, rank: &Rank) {
        for family in Family::BOTH {
            self.losers.remove(&(rank.clone(), family));
        }
    }

    fn update(&mut self, settings: &Settings, local: &Local, names: impl IntoIterator<Item = Arc<str>>) -> Difference {
        self.decide(Round::new(settings, local, true), names)
    }

    fn decide(&mut self, mut round: Round<'_>, names: impl IntoIterator<Item = Arc<str>>) -> Difference {
        let settings = round.settings;
        self.decisions += 1;
        let mut queue = std::mem::take(&mut self.losers);
        for name in names {
            for family in Family::BOTH {
                let peer = PeerId { name: Arc::clone(&name), family };
                self.release(&peer, &mut round);
                round.decided.insert(peer.clone(), None);
                if let Some(rank) = self.rank(settings, &peer) {
                    queue.insert((rank, family));
                }
            }
        }
        while let Some((rank, family)) = queue.pop_first() {
            let peer = PeerId { name: Arc::clone(rank.name()), family };
            let trouble = match self.reach(&round, &peer) {
                Err(Apart::Silent) => None,
                Err(Apart::Trouble(reason, text)) => Some((reason, text)),
                Ok(reach) => {
                    let reach = self.numbered(reach);
                    match self.better_owner(settings, &rank, &peer, reach) {
                        Some((owner, key)) => {
                            self.losers.insert((rank, family));
                            Some((Note::OVERLAY_CONFLICT, lost(&owner, key)))
                        }
                        None => {
                            self.seize(&rank, &peer, reach, &mut queue, &mut round);
                            None
                        }
                    }
                }
            };
            round.decided.insert(peer, trouble);
        }
        self.difference(round)
    }

    fn rank(&self, settings: &Settings, peer: &PeerId) -> Option<Rank> {
        match self.nodes.get(&peer.name) {
            Some(node) => Some(node.facts.rank.clone()),
            None => {
                let vtep = settings.external.iter().find(|vtep| *vtep.cidr.to_string() == *peer.name);
                vtep.map(|_| Rank::first(&peer.name))
            }
        }
    }

    fn reach(&self, round: &Round<'_>, peer: &PeerId) -> Result<Reach, Apart> {
        match self.nodes.get(&peer.name) {
            Some(node) => desired::reach(round.settings, round.local, &node.facts, peer.family),
            None => {
                let of_peer = |vtep: &&super::settings::ExternalVtep| {
                    *vtep.cidr.to_string() == *peer.name && Family::of(vtep.cidr.addr()) == peer.family
                };
                let vtep = round.settings.external.iter().find(of_peer).ok_or(Apart::Silent)?;
                desired::external_reach(round.settings, round.local, vtep).ok_or(Apart::Silent)
            }
        }
    }

    /// With the number of its nexthop object, if that is its way.
    fn numbered(&mut self, mut reach: Reach) -> Reach {
        let gateway = reach.base();
        if let By::Packed { hop, .. } = &mut reach.by {
            // Who has the same gateway wants the same object; which of the two gets it is decided as with everything else.
            let is_free = |number| match self.holdings.get(&Key::Hop(number)) {
                Some((Value::Packed { gateway: of, .. }, _)) => of == gateway,
                _ => true,
            };
            *hop = self.numbers.choose(gateway, is_free);
        }
        reach
    }

    /// Another peer of better rank that has one of these.
    fn better_owner(&self, settings: &Settings, rank: &Rank, peer: &PeerId, reach: Reach) -> Option<(PeerId, Key)> {
        // The route first: its prefix says most.
        reach.objects().rev().find_map(|(key, _)| {
            let (_, owner) = self.holdings.get(&key).filter(|(_, owner)| *owner != peer)?;
            let stronger = self.rank(settings, owner).is_some_and(|of_owner| of_owner < *rank);
            stronger.then(|| (owner.clone(), key))
        })
    }

    /// Takes these, from weaker peers if need be; those try again, and so do all that could have lost to them.
    fn seize(
        &mut self,
        rank: &Rank,
        peer: &PeerId,
        reach: Reach,
        queue: &mut BTreeSet<(Rank, Family)>,
        round: &mut Round<'_>,
    ) {
        for (key, _) in reach.objects() {
            let Some((_, owner)) = self.holdings.get(&key) else { continue };
            let owner = owner.clone();
            self.release(&owner, round);
            if owner != *peer
                && let Some(of_owner) = self.rank(round.settings, &owner)
            {
                queue.insert((of_owner, owner.family));
                let freed: Vec<_> = self.losers.iter().filter(|(loser, _)| loser > rank).cloned().collect();
                for loser in freed {
                    self.losers.remove(&loser);
                    queue.insert(loser);
                }
            }
        }
        for (key, _) in reach.objects() {
            round.was(key, None);
        }
        self.holdings.put(peer, reach, self.nodes.contains_key(&peer.name));
        self.counts[peer.family] += 1;
    }

    /// Gives up what a peer has, and remembers what it was.
    fn release(&mut self, peer: &PeerId, round: &mut Round<'_>) {
        let Some(reach) = self.holdings.take(peer) else { return };
        self.counts[peer.family] -= 1;
        for (key, value) in reach.objects() {
            round.was(key, Some(value));
        }
    }

    fn difference(&mut self, round: Round<'_>) -> Difference {
        let mut difference = Difference::default();
        for (key, was) in round.before {
            match (was, self.holdings.get(&key)) {
                (Some(was), Some((now, _))) if was == now => {}
                (_, Some(_)) => difference.set.push(key),
                (Some(was), None) => difference.remove.push((key, was)),
                (None, None) => {}
            }
        }
        // Neighbours before forwarding entries and nexthop objects before routes, and the other way round.
        difference.set.sort_unstable();
        difference.remove.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key));
        for (peer, trouble) in round.decided {
            let Some(trouble) = trouble else {
                self.troubles.remove(&peer);
                continue;
            };
            if self.troubles.get(&peer) != Some(&trouble) {
                let note = self.nodes.get(&peer.name).map(|node| node.facts.note(trouble.0, trouble.1.clone()));
                difference.notes.extend(note);
                self.troubles.insert(peer, trouble);
            }
        }
        difference
    }
}

fn lost(owner: &PeerId, key: Key) -> String {
    let what = match key {
        Key::Route(net) => format!("its prefix {net} belongs"),
        Key::Neighbour(_, addr) => format!("the address {addr} of its device belongs"),
        Key::Forwarding(_, mac) => format!("the Ethernet address {mac} of its device belongs"),
        Key::Hop(number) => format!("the nexthop object {number} belongs"),
    };
    format!(
        "{what} to {}, which is Ready or older; its pods are not reached from here until that one is gone",
        owner.name
    )
}
