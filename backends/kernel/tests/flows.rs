//! Tracked UDP flows and local addresses, each test in a network namespace of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;

use fairlead_kernel::address::{interface_names, local_addresses};
use fairlead_kernel::conntrack::{Conntrack, Flow};
use fairlead_kernel::netns::Netns;
use fairlead_kernel::nft::{Batch, ChainSpec, Exprs, HookSpec, Nfproto, Nft};

const OUTPUT: u32 = 3;
const DNAT_PRIORITY: i32 = -100;
const STATUS_DNAT: u32 = 0x20;
const SERVICE_PORT: u16 = 5300;

struct Family {
    proto: Nfproto,
    number: u8,
    loopback: IpAddr,
    /// Length of an address and offset of the destination in the header.
    len: u32,
    daddr: u32,
}

const FAMILIES: [Family; 2] = [
    Family {
        proto: Nfproto::Ipv4,
        number: libc::AF_INET as u8,
        loopback: IpAddr::V4(Ipv4Addr::LOCALHOST),
        len: 4,
        daddr: 16,
    },
    Family {
        proto: Nfproto::Ipv6,
        number: libc::AF_INET6 as u8,
        loopback: IpAddr::V6(Ipv6Addr::LOCALHOST),
        len: 16,
        daddr: 24,
    },
];

fn in_namespace(work: impl FnOnce() + Send) {
    let namespace = Netns::create().expect("the tests run as root");
    let run = || {
        ip("link set lo up");
        work();
    };
    namespace.run(run).expect("the namespace was just made");
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {words}");
}

/// Sends everything for the service port to the server's port, as a service would; this also starts connection
/// tracking.
fn translate(family: &Family, server: u16) {
    let octets = match family.loopback {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut exprs = Exprs::new();
    exprs.meta_load(16, 1).cmp(0, 1, &[17]).payload(2, 2, 2, 1).cmp(0, 1, &SERVICE_PORT.to_be_bytes());
    exprs.payload(1, family.daddr, family.len, 1).cmp(0, 1, &octets);
    exprs.immediate(1, &octets).immediate(2, &server.to_be_bytes());
    exprs.nat(1, u32::from(family.number), 1, None, Some(2), None, None);
    let mut batch = Batch::new();
    batch.add_table(family.proto, "fairlead", None);
    let hook = Some(HookSpec { kind: "nat", hook: OUTPUT, priority: DNAT_PRIORITY });
    batch.add_chain(family.proto, "fairlead", &ChainSpec { name: "output", hook, userdata: None });
    batch.add_rule(family.proto, "fairlead", "output", &exprs.0, None);
    Nft::open().expect("nf_tables").commit(&batch).expect("a good batch");
}

/// Sends one datagram from each of `count` clients to the service; returns their addresses.
fn send(family: &Family, server: &UdpSocket, count: usize) -> Vec<SocketAddr> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = UdpSocket::bind((family.loopback, 0)).expect("a free port");
        client.send_to(b"?", (family.loopback, SERVICE_PORT)).expect("loopback is up");
        let (_, from) = server.recv_from(&mut [0; 8]).expect("translated to the server");
        clients.push(from);
    }
    clients
}

fn flows(conntrack: &mut Conntrack, family: &Family) -> Vec<Flow> {
    let mut flows = Vec::new();
    conntrack.udp_flows(family.loopback.is_ipv6(), &mut |flow| flows.push(*flow)).expect("conntrack lists");
    flows
}

#[test]
fn udp_flows_are_listed_with_their_translation_and_deleted_one_by_one() {
    for family in &FAMILIES {
        in_namespace(|| {
            let server = UdpSocket::bind((family.loopback, 0)).expect("a free port");
            let port = server.local_addr().expect("it is bound").port();
            translate(family, port);
            let clients = send(family, &server, 3);
            let mut conntrack = Conntrack::open().expect("conntrack");
            let mut found = flows(&mut conntrack, family);
            found.sort_by_key(|flow| clients.iter().position(|client| client.port() == flow.original.sport));
            assert_eq!(found.len(), 3);
            assert_eq!(Conntrack::count().expect("conntrack is loaded"), 3);
            for (flow, client) in found.iter().zip(&clients) {
                assert_eq!((flow.protocol, flow.zone, flow.mark), (17, 0, 0));
                assert_eq!((flow.original.src, flow.original.sport), (client.ip(), client.port()));
                assert_eq!((flow.original.dst, flow.original.dport), (family.loopback, SERVICE_PORT));
                assert_eq!((flow.reply.src, flow.reply.sport), (family.loopback, port));
                assert_eq!(flow.reply.dport, client.port());
                assert_ne!(flow.status & STATUS_DNAT, 0);
            }
            assert!(conntrack.delete(&found[1]).expect("conntrack deletes"));
            assert!(!conntrack.delete(&found[1]).expect("being gone is no error"));
            let left = flows(&mut conntrack, family);
            assert_eq!(left.len(), 2);
            assert!(!left.contains(&found[1]));
            let other = if family.len == 4 { &FAMILIES[1] } else { &FAMILIES[0] };
            assert!(flows(&mut conntrack, other).is_empty());
        });
    }
}

#[test]
fn a_flow_that_began_anew_is_not_deleted_in_place_of_the_old_one() {
    for family in &FAMILIES {
        in_namespace(|| {
            let server = UdpSocket::bind((family.loopback, 0)).expect("a free port");
            translate(family, server.local_addr().expect("it is bound").port());
            send(family, &server, 1);
            let mut conntrack = Conntrack::open().expect("conntrack");
            let mut flow = flows(&mut conntrack, family)[0];
            flow.id ^= 1;
            assert!(!conntrack.delete(&flow).expect("another number is no error"));
            flow.id ^= 1;
            flow.zone = 7;
            assert!(!conntrack.delete(&flow).expect("another zone is no error"));
            assert_eq!(flows(&mut conntrack, family).len(), 1);
        });
    }
}

#[test]
fn thousands_of_flows_are_deleted_together_and_the_gone_ones_are_not_counted() {
    for family in &FAMILIES {
        in_namespace(|| {
            let server = UdpSocket::bind((family.loopback, 0)).expect("a free port");
            translate(family, server.local_addr().expect("it is bound").port());
            // A client that closed its port leaves the flow behind, so one socket at a time is enough.
            for port in 20_000..23_000u16 {
                let client = UdpSocket::bind((family.loopback, port)).expect("nobody else is in this namespace");
                client.send_to(b"?", (family.loopback, SERVICE_PORT)).expect("loopback is up");
                server.recv_from(&mut [0; 8]).expect("translated to the server");
            }
            let mut conntrack = Conntrack::open().expect("conntrack");
            let all = flows(&mut conntrack, family);
            assert_eq!(all.len(), 3000);
            for gone in &all[..500] {
                assert!(conntrack.delete(gone).expect("conntrack deletes"));
            }
            let started = std::time::Instant::now();
            assert_eq!(conntrack.delete_all(&all).expect("conntrack deletes"), 2500);
            println!("{:?}: 3000 deletions in {:?}", family.proto, started.elapsed());
            assert!(flows(&mut conntrack, family).is_empty());
        });
    }
}

#[test]
fn local_addresses_of_both_families_come_with_interface_and_prefix() {
    in_namespace(|| {
        ip("link add east type veth peer name west");
        ip("addr add 192.0.2.7/25 dev east");
        ip("addr add 2001:db8::7/64 dev east nodad");
        ip("addr add 198.51.100.1 peer 198.51.100.2/30 dev west");
        let names = interface_names().expect("rtnetlink");
        let index = |name: &str| names.iter().find(|(_, found)| found == name).expect("the interface").0;
        let mut found = local_addresses().expect("rtnetlink");
        found.sort();
        let mut wanted: Vec<(u32, IpAddr, u8)> = [
            ("lo", "127.0.0.1", 8),
            ("lo", "::1", 128),
            ("east", "192.0.2.7", 25),
            ("east", "2001:db8::7", 64),
            ("west", "198.51.100.1", 30),
        ]
        .map(|(name, address, prefix)| (index(name), address.parse().expect("an address"), prefix))
        .to_vec();
        wanted.sort();
        assert_eq!(found, wanted);
    });
}
