//! The numbers by which the kernel knows the nexthop objects of peers. Pure.
//!
//! A number is one of the whole network namespace, whoever makes the object, and routes name it. So it is always the same for
//! the same peer, without a memory that could be lost: a hash of the gateway, which only one peer has, in the upper half of all
//! numbers. The kernel and others who let it choose count up from 1. Two things make a number another one: a peer with the same
//! hash (one of 40 clusters with 5,000 nodes and two families has such a pair), and somebody else who has taken it. Which, is
//! told by the objects themselves when the program starts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The first number that fairlead gives.
const FIRST: u32 = 1 << 31;

/// Whose number is not the first choice, and which numbers cannot be had.
#[derive(Debug, Default)]
pub struct Numbers {
    /// By gateway.
    exceptions: BTreeMap<IpAddr, u32>,
    /// These, and those of objects that others have.
    taken: BTreeSet<u32>,
}

impl Numbers {
    /// The kernel has an object of ours of this number with this gateway: so it stays.
    pub fn remember(&mut self, gateway: IpAddr, number: u32) {
        if choices(gateway).next() != Some(number) {
            self.exceptions.insert(gateway, number);
            self.taken.insert(number);
        }
    }

    /// Somebody else has an object of this number.
    pub fn avoid(&mut self, number: u32) {
        self.taken.insert(number);
        self.exceptions.retain(|_, of| *of != number);
    }

    /// The number of the object with this gateway. `is_free` says whether no other peer has a number.
    pub fn choose(&mut self, gateway: IpAddr, is_free: impl Fn(u32) -> bool) -> u32 {
        if let Some(number) = self.exceptions.get(&gateway) {
            return *number;
        }
        let is_free = |number: &u32| !self.taken.contains(number) && is_free(*number);
        let number = choices(gateway).find(is_free).expect("fewer peers than numbers");
        self.remember(gateway, number);
        number
    }
}

/// All numbers, in the order in which they are tried for a gateway.
fn choices(gateway: IpAddr) -> impl Iterator<Item = u32> {
    // FNV-1a, which no library can change under us.
    const OFFSET: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let hash = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(PRIME);
    let hash = match gateway {
        IpAddr::V4(addr) => addr.octets().iter().fold(OFFSET, hash),
        IpAddr::V6(addr) => addr.octets().iter().fold(OFFSET, hash),
    };
    (0..FIRST).map(move |step| FIRST | hash.wrapping_add(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_number_is_always_the_same_and_of_the_upper_half() {
        for (gateway, wanted) in [("10.244.2.0", 3_876_939_313), ("fd00:244:0:2::", 3_928_779_192)] {
            let number = Numbers::default().choose(addr(gateway), |_| true);
            assert_eq!((number, number >= FIRST), (wanted, true), "{gateway}");
        }
    }

    #[test]
    fn who_cannot_have_the_first_choice_gets_the_next_and_keeps_it() {
        let mut numbers = Numbers::default();
        let first = numbers.choose(addr("10.244.2.0"), |_| true);
        let second = numbers.choose(addr("10.244.2.0"), |number| number != first);
        assert_eq!(second, FIRST | first.wrapping_add(1));
        assert_eq!(numbers.choose(addr("10.244.2.0"), |_| true), second, "although the first is free again");
        numbers.avoid(second);
        numbers.avoid(first);
        assert_eq!(numbers.choose(addr("10.244.2.0"), |_| true), FIRST | first.wrapping_add(2));
    }

    #[test]
    fn what_was_remembered_for_one_is_given_to_no_other() {
        let (a, b) = (addr("10.244.2.0"), addr("10.244.3.0"));
        let of_b = Numbers::default().choose(b, |_| true);
        let mut numbers = Numbers::default();
        numbers.remember(a, of_b);
        assert_ne!(numbers.choose(b, |_| true), of_b);
        assert_eq!(numbers.choose(a, |_| true), of_b);
    }

    #[test]
    fn few_prefixes_of_large_clusters_have_the_same_number() {
        let v4 = (0..5_000u32).map(|number| IpAddr::from((0x0a00_0000 + (number << 8)).to_be_bytes()));
        let v6 = (0..5_000u128).map(|number| IpAddr::from(((0xfd00_0244_0000_0000 + number) << 64).to_be_bytes()));
        let all: Vec<_> = v4.chain(v6).filter_map(|gateway| choices(gateway).next()).collect();
        let different: BTreeSet<_> = all.iter().collect();
        assert!(all.len() - different.len() <= 2, "{} of {}", different.len(), all.len());
    }
}
