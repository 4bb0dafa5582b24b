//! Chains in the kernel's own tables, thousands of peers, with ipset and without.
#![expect(clippy::disallowed_methods, reason = "packets are sent to see whether they arrive")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use fairlead_kernel::netns::Netns;
use fairlead_kernel::route::{Rtnl, Write};
use ipnet::IpNet;
use tokio::sync::mpsc;

use super::super::around::Filter;
use super::*;

const PORT: u16 = 8472;
/// As many as Kubernetes supports nodes.
const PEERS: u32 = 5000;
/// Peers and strangers that are tried.
const TRIED: u32 = 8;

/// Every fifth address: between two peers there are strangers.
fn address(family: Family, number: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + 5 * number).into(),
        Family::V6 => {
            let first = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0);
            Ipv6Addr::from_bits(first.to_bits() + u128::from(5 * number)).into()
        }
    }
}

fn stranger(family: Family, number: u32) -> IpAddr {
    match address(family, number) {
        IpAddr::V4(addr) => Ipv4Addr::from_bits(addr.to_bits() + 1).into(),
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() + 1).into(),
    }
}

fn tried() -> impl Iterator<Item = u32> {
    (0..TRIED).map(|number| number * (PEERS - 1) / (TRIED - 1))
}

/// Lets the loopback interface carry packets, and gives it the addresses of IPv6 that are tried.
fn furnish() {
    let mut kernel = Rtnl::open().expect("a socket");
    let lo = kernel.links().expect("the interfaces").into_iter().find(|link| link.name == "lo").expect("a loopback");
    let mut writes = vec![Write::Up(lo.index)];
    let sources = tried().flat_map(|number| [address(Family::V6, number), stranger(Family::V6, number)]);
    writes.extend(sources.map(|source| Write::AddAddress(lo.index, IpNet::from(source))));
    assert!(kernel.write(&writes).expect("it is written").is_empty());
}

fn around(family: Family, peers: impl Iterator<Item = u32>) -> Arc<Around> {
    let peers = peers.map(|number| address(family, number)).collect();
    let filter = Some(Filter { port: PORT, peers });
    Arc::new(Around { family, cluster: None, masqueraded: None, filter, mark: 1 << 14 })
}

fn chains_of(variant: Variant, with_ipset: bool) -> InChains {
    let (doubts, _) = mpsc::unbounded_channel();
    let ours = Arc::new(Ours::default());
    let listen = Listen { ours: Arc::clone(&ours), doubts, started: true };
    let mut chains = InChains::new(Some(variant), ours, listen);
    if !with_ipset {
        chains.sets = Some(None);
    }
    chains
}

/// Sends from each stranger, then from each peer: the first that arrives must be of a peer.
fn only_peers_arrive(family: Family) {
    let here = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let ear = UdpSocket::bind(SocketAddr::new(here, PORT)).expect("the port is free");
    ear.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    let send = |from: IpAddr| {
        let mouth = UdpSocket::bind((from, 0)).unwrap_or_else(|error| panic!("{from}: {error}"));
        mouth.send_to(b"?", (here, PORT)).expect("it is sent");
    };
    tried().for_each(|number| send(stranger(family, number)));
    for number in tried() {
        send(address(family, number));
        let (_, source) = ear.recv_from(&mut [0; 8]).unwrap_or_else(|error| panic!("peer {number}: {error}"));
        assert_eq!(source.ip(), address(family, number));
    }
}

fn holds_thousands(variant: Variant, with_ipset: bool) {
    let namespace = Netns::create().expect("a network namespace");
    let work = || {
        furnish();
        let mut chains = chains_of(variant, with_ipset);
        for family in Family::BOTH {
            let all = around(family, 0..PEERS);
            assert!(chains.hold(&all).expect("it is written").writes > u64::from(PEERS));
            only_peers_arrive(family);
            chains.held[family] = None;
            let again = chains.hold(&all).expect("it is read");
            assert_eq!((again.writes, again.repaired), (0, Vec::new()), "it is as it should be");
            let fewer = around(family, 1..PEERS);
            let one_less = chains.hold(&fewer).expect("it is written").writes;
            // A set loses an entry; of rules, those of one chain and of its branches at most.
            assert!(one_less == 1 || !with_ipset && one_less < 100, "{one_less}");
        }
        chains.look(true).expect("it is read");
        Family::BOTH.into_iter().try_for_each(|family| Aside::remove(variant, family)).expect("they are removed");
        Family::BOTH.into_iter().try_for_each(remove_sets).expect("they are destroyed");
    };
    namespace.run(work).expect("the namespace can be entered");
}

#[test]
fn the_legacy_variant_tells_thousands_of_peers_by_a_set() {
    holds_thousands(Variant::Legacy, true);
}

#[test]
fn the_legacy_variant_tells_thousands_of_peers_by_a_tree_of_rules_without_ipset() {
    holds_thousands(Variant::Legacy, false);
}

#[test]
fn the_nf_tables_variant_tells_thousands_of_peers_by_a_set() {
    holds_thousands(Variant::Nft, true);
}

#[test]
fn the_nf_tables_variant_tells_thousands_of_peers_by_a_tree_of_rules_without_ipset() {
    holds_thousands(Variant::Nft, false);
}
