//! Sets on the real kernel, looked at with the `ipset` program too.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

use fairlead_kernel::ipset::{Ipset, IpsetError, SetBatch, SetEntry, SetKind, SetSpec};
use fairlead_kernel::netns::Netns;

/// Runs a test in a namespace of its own, once for each family.
fn each(test: impl Fn(bool, &mut Ipset) + Sync) {
    for v6 in [false, true] {
        Netns::create().unwrap().run(|| test(v6, &mut Ipset::open().unwrap())).unwrap();
    }
}

fn ip(v6: bool, host: u32) -> IpAddr {
    if v6 {
        std::net::Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(host)).into()
    } else {
        std::net::Ipv4Addr::from(0x0a60_0000 + host).into()
    }
}

fn frontend(v6: bool, host: u32, mark: u32) -> SetEntry {
    SetEntry { ip: Some(ip(v6, host)), protocol: Some(6), port: Some(443), mark: Some(mark), ..SetEntry::default() }
}

/// A port of SCTP at one half of all addresses.
fn half(v6: bool, upper: bool, mark: u32) -> SetEntry {
    const SCTP: u8 = 132;
    let first = match (v6, upper) {
        (false, false) => IpAddr::from([0; 4]),
        (false, true) => IpAddr::from([128, 0, 0, 0]),
        (true, false) => IpAddr::from([0; 16]),
        (true, true) => IpAddr::from([0x8000, 0, 0, 0, 0, 0, 0, 0]),
    };
    SetEntry {
        ip: Some(first),
        prefix: Some(1),
        protocol: Some(SCTP),
        port: Some(30_000),
        mark: Some(mark),
        ..SetEntry::default()
    }
}

fn spec(name: &str, kind: SetKind, v6: bool) -> SetSpec<'_> {
    SetSpec { name, kind, v6, marks: true }
}

fn make(ipset: &mut Ipset, sets: &[SetSpec<'_>]) {
    let mut batch = SetBatch::new();
    sets.iter().for_each(|set| batch.create(set));
    ipset.send(&batch).unwrap();
}

fn shown() -> String {
    String::from_utf8(Command::new("ipset").arg("save").output().unwrap().stdout).unwrap()
}

fn sorted(entries: Vec<SetEntry>) -> BTreeSet<SetEntry> {
    entries.into_iter().collect()
}

#[test]
fn every_kind_of_set_holds_what_was_put_in_and_shows_it_to_others() {
    each(|v6, ipset| {
        let net = SetEntry { second: Some(ip(v6, 0x100)), prefix: Some(24), mark: None, ..frontend(v6, 1, 0) };
        let hairpin = SetEntry { second: Some(ip(v6, 1)), mark: None, ..frontend(v6, 1, 0) };
        let length = if v6 { 120 } else { 24 };
        let prefix = SetEntry { ip: Some(ip(v6, 0x100)), prefix: Some(length), ..SetEntry::default() };
        let cases = [
            (SetKind::Ip, SetEntry { ip: Some(ip(v6, 1)), mark: Some(7), ..SetEntry::default() }),
            (SetKind::IpPort, frontend(v6, 1, 0x6000_4001)),
            (SetKind::IpPortIp, hairpin),
            (SetKind::IpPortNet, SetEntry { prefix: Some(if v6 { 120 } else { 24 }), ..net }),
            (SetKind::Net, prefix),
            (SetKind::NetPort, half(v6, true, 8)),
            (SetKind::Port, SetEntry { port: Some(30_080), mark: Some(9), ..SetEntry::default() }),
        ];
        for (kind, entry) in cases {
            let name = kind.name().replace([':', ','], "-");
            let set = SetSpec { marks: entry.mark.is_some(), ..spec(&name, kind, v6) };
            make(ipset, &[set]);
            let mut batch = SetBatch::new();
            batch.add(&name, &[entry]);
            ipset.send(&batch).unwrap();
            assert_eq!(ipset.entries(&name).unwrap(), [entry], "{kind:?}");
            let held = ipset.sets().unwrap().into_iter().find(|held| held.name == name).unwrap();
            assert_eq!((held.kind, held.marks), (Some(kind), set.marks));
            assert_eq!(held.v6, v6 && kind != SetKind::Port);
        }
        let text = shown();
        let address = ip(v6, 1);
        assert!(text.contains(&format!("add hash-ip-port {address},tcp:443 skbmark 0x60004001")), "{text}");
        assert!(text.contains("add bitmap-port 30080 skbmark 0x9"), "{text}");
        assert!(text.contains(&format!("add hash-ip-port-ip {address},tcp:443,{address}")), "{text}");
        let upper = if v6 { "8000::/1" } else { "128.0.0.0/1" };
        assert!(text.contains(&format!("add hash-net-port {upper},sctp:30000 skbmark 0x8")), "{text}");
    });
}

#[test]
fn two_halves_hold_a_port_at_every_address_and_are_overwritten_in_place() {
    let holds =
        |set: &str, what: &str| Command::new("ipset").args(["-q", "test", set, what]).status().unwrap().success();
    each(|v6, ipset| {
        make(ipset, &[spec("halves", SetKind::NetPort, v6)]);
        for mark in [1, 1, 2] {
            let mut batch = SetBatch::new();
            batch.add("halves", &[half(v6, false, mark), half(v6, true, mark)]);
            ipset.send(&batch).unwrap();
            let wanted = [half(v6, false, mark), half(v6, true, mark)];
            assert_eq!(sorted(ipset.entries("halves").unwrap()), wanted.into());
        }
        let everywhere = match v6 {
            false => ["10.0.0.1", "127.255.255.255", "128.0.0.1", "255.255.255.254"],
            true => ["::1", "7fff:ffff::1", "8000::1", "fd00::1"],
        };
        for address in everywhere {
            assert!(holds("halves", &format!("{address},sctp:30000")), "{address}");
            assert!(!holds("halves", &format!("{address},sctp:30001")), "{address}");
            assert!(!holds("halves", &format!("{address},tcp:30000")), "{address}");
        }
        let mut batch = SetBatch::new();
        batch.delete("halves", &[half(v6, false, 2).key()]);
        ipset.send(&batch).unwrap();
        assert_eq!(ipset.entries("halves").unwrap(), [half(v6, true, 2)]);
        assert!(!holds("halves", &format!("{},sctp:30000", everywhere[0])));
    });
}

#[test]
fn ten_thousand_entries_go_in_and_out_and_none_is_lost() {
    each(|v6, ipset| {
        make(ipset, &[spec("many", SetKind::IpPort, v6)]);
        let entries: Vec<_> = (1..=10_000).map(|host| frontend(v6, host, host)).collect();
        let mut batch = SetBatch::new();
        batch.add("many", &entries);
        assert_eq!(batch.objects(), 10_000);
        ipset.send(&batch).unwrap();
        assert_eq!(sorted(ipset.entries("many").unwrap()), entries.iter().copied().collect());
        let mut batch = SetBatch::new();
        batch.delete("many", &entries[..9_999]);
        ipset.send(&batch).unwrap();
        assert_eq!(ipset.entries("many").unwrap(), entries[9_999..]);
    });
}

#[test]
fn an_entry_is_overwritten_in_place_and_both_changes_may_be_repeated() {
    each(|v6, ipset| {
        make(ipset, &[spec("set", SetKind::IpPort, v6)]);
        for mark in [1, 1, 2] {
            let mut batch = SetBatch::new();
            batch.add("set", &[frontend(v6, 1, mark)]);
            ipset.send(&batch).unwrap();
            assert_eq!(ipset.entries("set").unwrap(), [frontend(v6, 1, mark)]);
        }
        for _ in 0..2 {
            let mut batch = SetBatch::new();
            batch.delete("set", &[frontend(v6, 1, 2).key()]);
            ipset.send(&batch).unwrap();
            assert_eq!(ipset.entries("set").unwrap(), []);
        }
    });
}

#[test]
fn sets_change_places_and_are_emptied_and_destroyed() {
    each(|v6, ipset| {
        make(ipset, &[spec("one", SetKind::IpPort, v6), SetSpec { marks: false, ..spec("two", SetKind::IpPort, v6) }]);
        let mut batch = SetBatch::new();
        batch.add("one", &[frontend(v6, 1, 5)]);
        batch.swap("one", "two");
        ipset.send(&batch).unwrap();
        assert_eq!(ipset.entries("two").unwrap(), [frontend(v6, 1, 5)]);
        let mut batch = SetBatch::new();
        batch.flush("two");
        batch.destroy("one");
        ipset.send(&batch).unwrap();
        let held: Vec<_> = ipset.sets().unwrap().into_iter().map(|set| set.name).collect();
        assert_eq!(held, ["two"]);
        assert_eq!(ipset.entries("two").unwrap(), []);
    });
}

#[test]
fn a_refusal_names_the_set_and_stops_nothing_else() {
    each(|v6, ipset| {
        make(ipset, &[spec("there", SetKind::IpPort, v6)]);
        let mut batch = SetBatch::new();
        batch.add("missing", &[frontend(v6, 1, 1)]);
        batch.add("there", &[frontend(v6, 1, 1)]);
        batch.create(&spec("there", SetKind::Ip, v6));
        let error = ipset.send(&batch).unwrap_err();
        assert!(matches!(&error, IpsetError::Refused { errno: libc::ENOENT, .. }), "{error:?}");
        assert_eq!(error.to_string(), "ipset: cannot put entries into the set missing: there is no such set");
        assert_eq!(ipset.entries("there").unwrap().len(), 1);
        assert!(ipset.entries("missing").is_err());
    });
}
