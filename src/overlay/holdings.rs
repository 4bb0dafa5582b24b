//! Who has what in the kernel: each thing once, found by its key and by its peer. Made small for thousands of peers. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::desired::{Key, Object, Value};
use super::peers::PeerId;

/// A number of a peer that has something; given again when it has nothing any more.
type Number = u32;

/// A peer and what it has.
#[derive(Debug)]
struct Holding {
    peer: PeerId,
    objects: Box<[Object]>,
    end: Option<IpAddr>,
}

/// What all peers have. Trees and not hash tables: these are half empty after they have grown.
#[derive(Debug, Default)]
pub struct Holdings {
    owners: BTreeMap<Key, Number>,
    numbers: BTreeMap<PeerId, Number>,
    holdings: Vec<Option<Holding>>,
    free: Vec<Number>,
}

impl Holdings {
    fn at(&self, number: Number) -> Option<&Holding> {
        self.holdings.get(number as usize)?.as_ref()
    }

    fn value(&self, key: &Key, number: Number) -> Option<(Value, &PeerId)> {
        let holding = self.at(number)?;
        holding.objects.iter().find(|(of, _)| of == key).map(|(_, value)| (*value, &holding.peer))
    }

    /// What a key should be, and for whom.
    pub fn get(&self, key: &Key) -> Option<(Value, &PeerId)> {
        self.value(key, *self.owners.get(key)?)
    }

    /// Everything, in the order of keys.
    pub fn wanted(&self) -> impl Iterator<Item = (Key, Value, &PeerId)> {
        self.owners.iter().filter_map(|(key, number)| {
            let (value, peer) = self.value(key, *number)?;
            Some((*key, value, peer))
        })
    }

    /// The prefixes to which there are routes, in order.
    pub fn routes(&self) -> impl Iterator<Item = IpNet> {
        let first = Key::Route(IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        self.owners.range(first..).filter_map(|(key, _)| if let Key::Route(net) = key { Some(*net) } else { None })
    }

    /// Where tunnels to peers end, in no order.
    pub fn ends(&self) -> impl Iterator<Item = IpAddr> {
        self.holdings.iter().flatten().filter_map(|holding| holding.end)
    }

    /// Each peer and what it has.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &[Object])> {
        self.holdings.iter().flatten().map(|holding| (&holding.peer, &*holding.objects))
    }

    /// What a peer has.
    pub fn of(&self, peer: &PeerId) -> &[Object] {
        let holding = self.numbers.get(peer).and_then(|number| self.at(*number));
        holding.map(|holding| &*holding.objects).unwrap_or_default()
    }

    /// A peer that has nothing gets these, which nobody has. `end` is where tunnels to it end, if it is a node.
    pub fn put(&mut self, peer: &PeerId, objects: &[Object], end: Option<IpAddr>) {
        let holding = Some(Holding { peer: peer.clone(), objects: objects.into(), end });
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
        self.owners.extend(objects.iter().map(|(key, _)| (*key, number)));
        self.numbers.insert(peer.clone(), number);
    }

    /// Takes everything from a peer; `None` if it has nothing.
    pub fn take(&mut self, peer: &PeerId) -> Option<Box<[Object]>> {
        let number = self.numbers.remove(peer)?;
        let holding = self.holdings.get_mut(number as usize)?.take()?;
        self.free.push(number);
        for (key, _) in &holding.objects {
            self.owners.remove(key);
        }
        Some(holding.objects)
    }
}
