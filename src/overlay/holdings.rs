//! Who has what in the kernel: each thing once, found by its key and by its peer. Made small for thousands of peers: what a
//! peer has follows from how it is reached, so that the tables hold numbers alone. Pure.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use hashbrown::HashTable;
use ipnet::IpNet;

use super::desired::{Key, Object, Value};
use super::peers::PeerId;
use super::reach::Reach;

/// A number of a peer that has something; given again when it has nothing any more.
type Number = u32;

/// One thing that a peer has: the peer's number, and which of its things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// A peer has three things at most.
    const BITS: u32 = 2;

    fn new(number: Number, at: usize) -> Self {
        Self(number << Self::BITS | u32::try_from(at).expect("one of three"))
    }

    const fn number(self) -> Number {
        self.0 >> Self::BITS
    }

    const fn at(self) -> usize {
        (self.0 & ((1 << Self::BITS) - 1)) as usize
    }

    /// Different for all places, and small.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A peer and what it has.
#[derive(Debug)]
struct Holding {
    peer: PeerId,
    reach: Reach,
    /// Whether it is a node, and not an external tunnel end.
    is_node: bool,
}

/// What all peers have.
#[derive(Debug, Default)]
pub struct Holdings {
    owners: HashTable<Place>,
    numbers: HashTable<Number>,
    holdings: Vec<Option<Holding>>,
    free: Vec<Number>,
    hasher: RandomState,
}

fn holding(holdings: &[Option<Holding>], number: Number) -> Option<&Holding> {
    holdings.get(number as usize)?.as_ref()
}

fn object(holdings: &[Option<Holding>], place: Place) -> Option<Object> {
    holding(holdings, place.number())?.reach.objects().nth(place.at())
}

fn is_at(holdings: &[Option<Holding>], place: Place, key: &Key) -> bool {
    object(holdings, place).is_some_and(|(of, _)| of == *key)
}

impl Holdings {
    /// Where a key is.
    pub fn place(&self, key: &Key) -> Option<Place> {
        self.owners.find(self.hasher.hash_one(key), |place| is_at(&self.holdings, *place, key)).copied()
    }

    /// What a key should be, and for whom.
    pub fn get(&self, key: &Key) -> Option<(Value, &PeerId)> {
        let place = self.place(key)?;
        let holding = holding(&self.holdings, place.number())?;
        holding.reach.objects().nth(place.at()).map(|(_, value)| (value, &holding.peer))
    }

    /// Makes room for so many peers at once: a list that grows takes half as much again.
    pub fn expect(&mut self, peers: usize) {
        self.holdings.reserve_exact(peers.saturating_sub(self.holdings.len()));
    }

    /// Gives back the room for more than there is. The tables of numbers stay: theirs is small.
    pub fn fit(&mut self) {
        self.holdings.shrink_to_fit();
    }

    /// Everything and where it is, in no order.
    pub fn wanted(&self) -> impl Iterator<Item = (Place, Object, &PeerId)> {
        let all = self.holdings.iter().zip(0..).filter_map(|(holding, number)| Some((holding.as_ref()?, number)));
        all.flat_map(|(holding, number)| {
            let objects = holding.reach.objects().enumerate();
            objects.map(move |(at, object)| (Place::new(number, at), object, &holding.peer))
        })
    }

    /// The prefixes of all peers, in no order.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.holdings.iter().flatten().map(|holding| holding.reach.pods)
    }

    /// Where tunnels to peers that are nodes end, or the nodes themselves, in no order.
    pub fn ends(&self) -> impl Iterator<Item = IpAddr> {
        self.holdings.iter().flatten().filter(|holding| holding.is_node).map(|holding| holding.reach.end())
    }

    /// How a peer is reached.
    pub fn of(&self, peer: &PeerId) -> Option<Reach> {
        holding(&self.holdings, self.number(peer)?).map(|holding| holding.reach)
    }

    fn number(&self, peer: &PeerId) -> Option<Number> {
        let is_of = |number: &Number| holding(&self.holdings, *number).is_some_and(|holding| holding.peer == *peer);
        self.numbers.find(self.hasher.hash_one(peer), is_of).copied()
    }

    /// A peer that has nothing gets what it is reached by, which nobody has.
    pub fn put(&mut self, peer: &PeerId, reach: Reach, is_node: bool) {
        let holding = Some(Holding { peer: peer.clone(), reach, is_node });
        let number = match self.free.pop() {
            Some(number) => {
                self.holdings[number as usize] = holding;
                number
            }
            None => {
                self.holdings.push(holding);
                Number::try_from(self.holdings.len() - 1).expect("fewer nodes than addresses of IPv4")
            }
        };
        let Self { owners, numbers, holdings, hasher, .. } = self;
        for (at, (key, _)) in reach.objects().enumerate() {
            let hash_of = |place: &Place| object(holdings, *place).map_or(0, |(key, _)| hasher.hash_one(key));
            owners.insert_unique(hasher.hash_one(key), Place::new(number, at), hash_of);
        }
        let hash_of =
            |number: &Number| holdings[*number as usize].as_ref().map_or(0, |holding| hasher.hash_one(&holding.peer));
        numbers.insert_unique(hasher.hash_one(peer), number, hash_of);
    }

    /// Takes everything from a peer; `None` if it has nothing.
    pub fn take(&mut self, peer: &PeerId) -> Option<Reach> {
        let number = self.number(peer)?;
        let Self { owners, numbers, holdings, hasher, .. } = self;
        if let Ok(entry) = numbers.find_entry(hasher.hash_one(peer), |of| *of == number) {
            entry.remove();
        }
        let reach = holding(holdings, number)?.reach;
        for (at, (key, _)) in reach.objects().enumerate() {
            if let Ok(entry) = owners.find_entry(hasher.hash_one(key), |place| *place == Place::new(number, at)) {
                entry.remove();
            }
        }
        self.holdings[number as usize] = None;
        self.free.push(number);
        Some(reach)
    }
}
