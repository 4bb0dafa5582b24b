//! Sets and maps against the running kernel, each test in a network namespace of its own.

use std::time::Instant;

use fairlead_kernel::netns::Netns;
use fairlead_kernel::nft::{Batch, ChainSpec, Data, DataRef, Element, Nfproto, Nft, NftError, SetSpec};

const TABLE: &str = "fairlead";
const FAMILIES: [(Nfproto, u32, u32); 2] = [(Nfproto::Ipv4, 7, 4), (Nfproto::Ipv6, 8, 16)];
const VERDICT: (u32, u32) = (0xffff_ff00, 16);

fn in_namespace(work: impl FnOnce(&mut Nft) + Send) {
    let namespace = Netns::create().expect("the tests run as root");
    namespace.run(|| work(&mut Nft::open().expect("nf_tables"))).expect("the namespace was just made");
}

/// A map from address to address, as a batch that makes it.
fn address_map(family: Nfproto, kind: u32, len: u32, size: Option<u32>) -> Batch {
    let mut batch = Batch::new();
    batch.add_table(family, TABLE, Some(b"owner"));
    let set =
        SetSpec { name: "pod", key_type: kind, key_len: len, data: Some((kind, len)), size, ..SetSpec::default() };
    batch.add_set(family, TABLE, &set);
    batch
}

fn address(len: u32, number: u32) -> Vec<u8> {
    let mut bytes = vec![0; len as usize - 4];
    bytes.extend(number.to_be_bytes());
    bytes
}

#[test]
fn a_hundred_thousand_elements_are_written_in_one_transaction_and_all_come_back() {
    const COUNT: u32 = 100_000;
    for (family, kind, len) in FAMILIES {
        in_namespace(|nft| {
            let mut batch = address_map(family, kind, len, Some(1 << 18));
            let started = Instant::now();
            for number in 0..COUNT {
                let (key, value) = (address(len, number), address(len, number ^ 0xffff));
                let data = Some(Data::Value(&value));
                batch.add_element(family, TABLE, "pod", &Element { key: &key, data, ..Element::default() });
            }
            assert_eq!(batch.objects(), u64::from(COUNT) + 2);
            let encoded = started.elapsed();
            nft.commit(&batch).unwrap();
            let committed = started.elapsed();
            let mut seen = vec![false; COUNT as usize];
            nft.elements(family, TABLE, "pod", &mut |element| {
                let number = u32::from_be_bytes(*element.key.last_chunk().unwrap());
                assert_eq!(element.data, Some(DataRef::Value(&address(len, number ^ 0xffff))));
                assert!(!std::mem::replace(&mut seen[number as usize], true), "{number} twice");
            })
            .unwrap();
            assert!(seen.iter().all(|seen| *seen));
            let dumped = started.elapsed();
            let mut single = Vec::new();
            for number in COUNT..COUNT + 200 {
                let key = address(len, number);
                let started = Instant::now();
                let mut batch = Batch::new();
                let data = Some(Data::Value(&key));
                batch.add_element(family, TABLE, "pod", &Element { key: &key, data, ..Element::default() });
                nft.commit(&batch).unwrap();
                single.push(started.elapsed());
            }
            single.sort();
            println!(
                "{family:?}: {} bytes, encode {encoded:?}, commit {:?}, dump {:?}, one element {:?} [{:?}..{:?}]",
                batch.len_bytes(),
                committed - encoded,
                dumped - committed,
                single[100],
                single[0],
                single[199]
            );
        });
    }
}

#[test]
fn an_error_names_the_one_element_among_thousands_that_was_refused() {
    for (family, kind, len) in FAMILIES {
        in_namespace(|nft| {
            let mut batch = address_map(family, kind, len, None);
            let add = |batch: &mut Batch, number: u32, value: u32| {
                let (key, value) = (address(len, number), address(len, value));
                let data = Some(Data::Value(&value));
                batch.add_element(family, TABLE, "pod", &Element { key: &key, data, ..Element::default() });
            };
            add(&mut batch, 0x2345, 1);
            nft.commit(&batch).unwrap();
            let mut batch = Batch::new();
            for number in 0..0x3000 {
                add(&mut batch, number, if number == 0x2345 { 2 } else { 1 });
            }
            let error = nft.commit(&batch).unwrap_err();
            assert_eq!(error.errno(), Some(libc::EEXIST));
            let text = error.to_string();
            let name = if family == Nfproto::Ipv4 { "ip" } else { "ip6" };
            assert!(text.contains(&format!("2345 to set pod of table {name} fairlead")), "{text}");
            let mut count = 0;
            nft.elements(family, TABLE, "pod", &mut |_| count += 1).unwrap();
            assert_eq!(count, 1, "nothing of a refused transaction stays");
        });
    }
}

#[test]
fn a_value_is_changed_by_deleting_and_adding_in_one_transaction() {
    for (family, kind, len) in FAMILIES {
        in_namespace(|nft| {
            let mut batch = address_map(family, kind, len, Some(16));
            let (key, old, new) = (address(len, 1), address(len, 2), address(len, 3));
            let with = |value| Element { key: &key, data: Some(Data::Value(value)), ..Element::default() };
            batch.add_element(family, TABLE, "pod", &with(&old));
            nft.commit(&batch).unwrap();
            let mut batch = Batch::new();
            batch.del_element(family, TABLE, "pod", &Element { key: &key, ..Element::default() });
            batch.add_element(family, TABLE, "pod", &with(&new));
            nft.commit(&batch).unwrap();
            let mut values = Vec::new();
            nft.elements(family, TABLE, "pod", &mut |element| {
                let Some(DataRef::Value(value)) = element.data else { panic!("no value") };
                values.push(value.to_vec());
            })
            .unwrap();
            assert_eq!(values, [&new[..]]);
        });
    }
}

#[test]
fn verdicts_and_intervals_come_back_as_they_were_written() {
    for (family, kind, len) in FAMILIES {
        in_namespace(|nft| {
            let mut batch = Batch::new();
            batch.add_table(family, TABLE, None);
            batch.add_chain(family, TABLE, &ChainSpec { name: "lb_3", ..ChainSpec::default() });
            let verdicts =
                SetSpec { name: "v", key_type: kind, key_len: len, data: Some(VERDICT), ..SetSpec::default() };
            batch.add_set(family, TABLE, &verdicts);
            let ranges = SetSpec {
                name: "r",
                key_type: kind << 6 | kind,
                key_len: len * 2,
                flags: 0x4 | 0x80,
                field_lens: vec![len, len],
                userdata: Some(b"mine".to_vec()),
                ..SetSpec::default()
            };
            batch.add_set(family, TABLE, &ranges);
            let all = [Data::Goto("lb_3"), Data::Jump("lb_3"), Data::Drop, Data::Accept];
            for (number, data) in (0..).zip(all) {
                let key = address(len, number);
                batch.add_element(family, TABLE, "v", &Element { key: &key, data: Some(data), ..Element::default() });
            }
            let (from, to) = ([address(len, 5), address(len, 1)].concat(), [address(len, 9), address(len, 1)].concat());
            let range = Element { key: &from, key_end: Some(&to), ..Element::default() };
            batch.add_element(family, TABLE, "r", &range);
            nft.commit(&batch).unwrap();

            let mut found = [None; 4];
            nft.elements(family, TABLE, "v", &mut |element| {
                let Some(DataRef::Verdict { code, chain }) = element.data else { panic!("no verdict") };
                assert_eq!(chain, (code < 0).then_some("lb_3"));
                found[usize::from(*element.key.last().unwrap())] = Some(code);
            })
            .unwrap();
            assert_eq!(found, [Some(-4), Some(-3), Some(0), Some(1)]);
            let mut ranges = 0;
            nft.elements(family, TABLE, "r", &mut |element| {
                assert_eq!((element.key, element.key_end), (&from[..], Some(&to[..])));
                ranges += 1;
            })
            .unwrap();
            assert_eq!(ranges, 1);
            let sets = nft.sets(family, TABLE).unwrap();
            assert_eq!(sets[0].data_len.zip(sets[0].data_type), Some((16, VERDICT.0)));
            assert_eq!((sets[1].name.as_str(), sets[1].userdata.as_slice()), ("r", &b"mine"[..]));
        });
    }
}

#[test]
fn a_missing_table_is_none_or_empty_and_a_missing_set_is_an_error_that_says_so() {
    in_namespace(|nft| {
        assert_eq!(nft.table(Nfproto::Ipv6, TABLE).unwrap(), None);
        assert!(nft.chains(Nfproto::Ipv6, TABLE).unwrap().is_empty());
        assert!(nft.rules(Nfproto::Ipv6, TABLE).unwrap().is_empty());
        assert!(nft.sets(Nfproto::Ipv6, TABLE).unwrap().is_empty());
        let error = nft.elements(Nfproto::Ipv6, TABLE, "pod", &mut |_| {}).unwrap_err();
        assert!(error.is_missing(), "{error}");
        let mut batch = Batch::new();
        batch.destroy_table(Nfproto::Ipv6, TABLE);
        nft.commit(&batch).unwrap();
        batch.del_table(Nfproto::Ipv6, TABLE);
        let error = nft.commit(&batch).unwrap_err();
        assert!(error.is_missing());
        assert!(error.to_string().contains("cannot delete table ip6 fairlead"), "{error}");
    });
}

#[test]
fn a_table_is_found_with_its_userdata_and_deleted_with_all_that_is_in_it() {
    for (family, kind, len) in FAMILIES {
        in_namespace(|nft| {
            nft.commit(&address_map(family, kind, len, None)).unwrap();
            let table = nft.table(family, TABLE).unwrap().unwrap();
            assert_eq!(table.userdata, b"owner");
            let mut batch = Batch::new();
            batch.flush_set(family, TABLE, "pod");
            batch.del_set(family, TABLE, "pod");
            batch.del_table(family, TABLE);
            nft.commit(&batch).unwrap();
            assert_eq!(nft.table(family, TABLE).unwrap(), None);
        });
    }
}

#[test]
fn a_rule_too_long_for_netlink_is_refused_before_anything_is_sent() {
    in_namespace(|nft| {
        let mut batch = Batch::new();
        batch.add_table(Nfproto::Ipv4, TABLE, None);
        batch.add_chain(Nfproto::Ipv4, TABLE, &ChainSpec { name: "c", ..ChainSpec::default() });
        batch.add_rule(Nfproto::Ipv4, TABLE, "c", &vec![0; 66_000], None);
        let error = nft.commit(&batch).unwrap_err();
        assert!(matches!(error, NftError::TooLong { .. }));
        assert!(error.to_string().contains("add rule to chain c of table ip fairlead"), "{error}");
        assert_eq!(nft.table(Nfproto::Ipv4, TABLE).unwrap(), None);
    });
}
