//! Numbers for the entries of addresses that have several servers. Marks are made of them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use fairlead_plan::Family;

use crate::entry::Entry;

/// Who has which number. A number follows from its entry, but for the rare case that another one has it.
#[derive(Debug, Default)]
pub struct Numbers {
    of: HashMap<Entry, u16>,
    taken: HashSet<(Family, u16)>,
}

impl Numbers {
    /// The number of an entry, if it has one.
    pub fn of(&self, entry: &Entry) -> Option<u16> {
        self.of.get(entry).copied()
    }

    /// The number of an entry; it gets one if it has none. `None` if all 65,535 of the family are taken.
    pub fn give(&mut self, entry: &Entry) -> Option<u16> {
        if let Some(number) = self.of(entry) {
            return Some(number);
        }
        let first = hash(entry);
        let free = (0..=u16::MAX)
            .map(|step| first.wrapping_add(step))
            .find(|number| *number != 0 && !self.taken.contains(&(entry.family, *number)))?;
        self.note(*entry, free);
        Some(free)
    }

    /// Takes note of a number that an entry has in the kernel.
    pub fn note(&mut self, entry: Entry, number: u16) {
        if self.taken.insert((entry.family, number)) {
            self.of.insert(entry, number);
        }
    }

    /// Takes the number of an entry back.
    pub fn take_back(&mut self, entry: &Entry) {
        if let Some(number) = self.of.remove(entry) {
            self.taken.remove(&(entry.family, number));
        }
    }
}

/// FNV-1a: the same after a restart. Another version may come to others, because what the kernel holds is noted before any is given.
fn hash(entry: &Entry) -> u16 {
    const BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let octets = match entry.key.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let port = entry.key.port.unwrap_or_default().to_be_bytes();
    let bytes = octets.into_iter().chain(port).chain(entry.key.protocol).chain([entry.set as u8]);
    let all = bytes.fold(BASIS, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME));
    (all ^ (all >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use fairlead_plan::Protocol;

    use super::*;
    use crate::entry::place;
    use crate::layout::Set;

    fn at(protocol: Protocol, addr: SocketAddr) -> Entry {
        Entry { family: Family::of(addr.ip()), set: Set::ClusterIp, key: place(protocol, addr) }
    }

    fn tcp(host: u16) -> Entry {
        let [high, low] = host.to_be_bytes();
        at(Protocol::Tcp, ([10, 1, high, low], 80).into())
    }

    #[test]
    fn numbers_differ_and_stay_and_come_back() {
        let mut numbers = Numbers::default();
        let given: Vec<u16> = (0..5_000).filter_map(|host| numbers.give(&tcp(host))).collect();
        let different: HashSet<u16> = given.iter().copied().collect();
        assert_eq!((given.len(), different.len()), (5_000, 5_000));
        assert!(!different.contains(&0));
        assert!((0..5_000).all(|host| numbers.of(&tcp(host)) == Some(given[usize::from(host)])));
        numbers.take_back(&tcp(7));
        assert_eq!(numbers.of(&tcp(7)), None);
        assert_eq!(numbers.give(&tcp(7)), Some(given[7]));
    }

    #[test]
    fn a_number_in_the_kernel_is_kept_and_nobody_else_gets_it() {
        let mut numbers = Numbers::default();
        let wanted = Numbers::default().give(&tcp(1)).unwrap();
        let other = at(Protocol::Udp, ([10, 1, 0, 2], 80).into());
        numbers.note(other, wanted);
        assert_ne!(numbers.give(&tcp(1)), Some(wanted));
        assert_eq!(numbers.give(&other), Some(wanted));
    }

    #[test]
    fn one_address_in_two_sets_has_two_numbers() {
        let mut numbers = Numbers::default();
        let external = Entry { set: Set::ExternalIp, ..tcp(1) };
        let (first, second) = (numbers.give(&tcp(1)), numbers.give(&external));
        assert_ne!(first, second);
        numbers.take_back(&tcp(1));
        assert_eq!(numbers.of(&external), second, "what one gives back the other keeps");
    }

    #[test]
    fn when_all_are_taken_nobody_gets_one_of_another() {
        let mut numbers = Numbers::default();
        (1..=u16::MAX).for_each(|number| numbers.note(tcp(number), number));
        let late = at(Protocol::Udp, ([10, 1, 0, 1], 80).into());
        assert_eq!(numbers.give(&late), None);
        let six = at(Protocol::Udp, "[fd00::1]:80".parse().unwrap());
        assert!(numbers.give(&six).is_some(), "the other family has its own");
        numbers.take_back(&tcp(9));
        assert_eq!(numbers.give(&late), Some(9));
    }
}
