//! Numbers for the addresses that have several servers. Marks are made of them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use fairlead_plan::{Family, Protocol};

type Place = (Protocol, SocketAddr);

/// Who has which number. A number follows from its address, but for the rare case that another one has it.
#[derive(Debug, Default)]
pub struct Numbers {
    of: HashMap<Place, u16>,
    taken: HashSet<(Family, u16)>,
}

impl Numbers {
    /// The number of an address; it gets one if it has none.
    pub fn give(&mut self, protocol: Protocol, addr: SocketAddr) -> u16 {
        let place = (protocol, addr);
        if let Some(number) = self.of.get(&place) {
            return *number;
        }
        let family = Family::of(addr.ip());
        let first = hash(protocol, addr);
        // With all 65,535 taken the first choice is shared, which `is_full` warns of.
        let free = (0..u16::MAX)
            .map(|step| first.wrapping_add(step))
            .find(|number| *number != 0 && !self.taken.contains(&(family, *number)));
        let number = free.unwrap_or(first.max(1));
        self.note(protocol, addr, number);
        number
    }

    /// Takes note of a number that an address has in the kernel.
    pub fn note(&mut self, protocol: Protocol, addr: SocketAddr, number: u16) {
        if self.taken.insert((Family::of(addr.ip()), number)) {
            self.of.insert((protocol, addr), number);
        }
    }

    /// Takes the number of an address back.
    pub fn take_back(&mut self, protocol: Protocol, addr: SocketAddr) {
        if let Some(number) = self.of.remove(&(protocol, addr)) {
            self.taken.remove(&(Family::of(addr.ip()), number));
        }
    }
}

/// FNV-1a, the same in every version of this program.
fn hash(protocol: Protocol, addr: SocketAddr) -> u16 {
    const BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let octets = match addr.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let bytes = octets.into_iter().chain(addr.port().to_be_bytes()).chain([protocol.number()]);
    let all = bytes.fold(BASIS, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME));
    (all ^ (all >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(host: u16) -> SocketAddr {
        let [high, low] = host.to_be_bytes();
        ([10, 1, high, low], 80).into()
    }

    #[test]
    fn numbers_differ_and_stay_and_come_back() {
        let mut numbers = Numbers::default();
        let given: Vec<u16> = (0..5_000).map(|host| numbers.give(Protocol::Tcp, addr(host))).collect();
        let different: HashSet<u16> = given.iter().copied().collect();
        assert_eq!(different.len(), given.len());
        assert!(!different.contains(&0));
        assert!((0..5_000).all(|host| numbers.give(Protocol::Tcp, addr(host)) == given[usize::from(host)]));
        numbers.take_back(Protocol::Tcp, addr(7));
        assert_eq!(numbers.give(Protocol::Tcp, addr(7)), given[7]);
    }

    #[test]
    fn a_number_in_the_kernel_is_kept_and_nobody_else_gets_it() {
        let mut numbers = Numbers::default();
        let wanted = Numbers::default().give(Protocol::Tcp, addr(1));
        numbers.note(Protocol::Udp, addr(2), wanted);
        assert_ne!(numbers.give(Protocol::Tcp, addr(1)), wanted);
        assert_eq!(numbers.give(Protocol::Udp, addr(2)), wanted);
    }
}
