//! Entries of sets: where a frontend is found.

use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use fairlead_kernel::ipset::SetEntry;
use fairlead_plan::{Family, Protocol};
use ipnet::IpNet;

use crate::layout::Set;

/// An entry of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The family of the set.
    pub family: Family,
    /// Which set.
    pub set: Set,
    /// What is in it, without the mark.
    pub key: SetEntry,
}

/// By what tells nearly all entries apart: a start counts one for each service, and hashing all fields is what that would take.
impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.key.ip, self.key.port).hash(state);
    }
}

impl Entry {
    /// The address of the frontend that it leads to; node ports have none.
    pub fn address(&self) -> Option<(Protocol, SocketAddr)> {
        let (ip, port) = (self.key.ip?, self.key.port?);
        Set::FRONTENDS.contains(&self.set).then_some(())?;
        Some((self.key.protocol.and_then(protocol)?, SocketAddr::new(ip, port)))
    }
}

/// The entries of a node port: one, or one for each half of all addresses.
pub fn node_port(family: Family, protocol: Protocol, port: u16) -> Vec<Entry> {
    let everywhere = match family {
        Family::V4 => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    let key = |half: IpNet| at_node(protocol, SocketAddr::new(half.network(), port));
    let mut keys: Vec<SetEntry> = halves(everywhere).into_iter().map(key).collect();
    keys.dedup();
    keys.into_iter().map(|key| Entry { family, set: Set::node_ports(protocol), key }).collect()
}

/// What is looked for in the set of a protocol's node ports. Sets of ports know no SCTP, so its ports stand with the half of all
/// addresses that has this one; the addresses of the node may come and go.
pub fn at_node(protocol: Protocol, addr: SocketAddr) -> SetEntry {
    const HALF: u8 = 1;
    if protocol != Protocol::Sctp {
        return SetEntry { port: Some(addr.port()), ..SetEntry::default() };
    }
    let half = IpNet::new_assert(addr.ip(), HALF).network();
    SetEntry { prefix: Some(HALF), ..place(protocol, SocketAddr::new(half, addr.port())) }
}

/// An address and port as sets have them.
pub fn place(protocol: Protocol, addr: SocketAddr) -> SetEntry {
    SetEntry { ip: Some(addr.ip()), protocol: Some(protocol.number()), port: Some(addr.port()), ..SetEntry::default() }
}

/// Sets cannot hold the prefix of length 0.
pub fn halves(net: IpNet) -> Vec<IpNet> {
    if net.prefix_len() > 0 {
        return vec![net];
    }
    net.subnets(1).map(Iterator::collect).unwrap_or_default()
}

/// The protocol of a number.
pub fn protocol(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_node_port_has_one_entry_that_is_about_each_address() {
        let addresses = ["10.0.0.1", "192.168.50.1", "::1", "fd00:50::1"].map(|text| text.parse().expect("an address"));
        for (family, protocol) in Family::BOTH.into_iter().flat_map(|one| Protocol::ALL.map(|other| (one, other))) {
            let entries = node_port(family, protocol, 30_000);
            assert_eq!(entries.len(), if protocol == Protocol::Sctp { 2 } else { 1 });
            assert!(entries.iter().all(|entry| entry.set == Set::node_ports(protocol) && entry.address().is_none()));
            for ip in addresses.into_iter().filter(|ip: &IpAddr| Family::of(*ip) == family) {
                let key = at_node(protocol, SocketAddr::new(ip, 30_000));
                assert_eq!(entries.iter().filter(|entry| entry.key == key).count(), 1, "{ip} {protocol}");
            }
        }
    }
}
