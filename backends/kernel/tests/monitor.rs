//! News of changes to the ruleset, each test in a network namespace of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fairlead_kernel::netns::Netns;
use fairlead_kernel::nft::{
    Batch, ChainSpec, Data, Element, Exprs, Monitor, Nfproto, Nft, Notice, NoticeKind, SetSpec,
};

const TABLE: &str = "fairlead";
const FAMILIES: [(Nfproto, u32, u32); 2] = [(Nfproto::Ipv4, 7, 4), (Nfproto::Ipv6, 8, 16)];

fn in_namespace(work: impl FnOnce(&mut Nft, &mut Nft, Arc<AtomicU32>, &mut Monitor) + Send) {
    let namespace = Netns::create().expect("the tests run as root");
    let run = || {
        let (mut ours, mut theirs) = (Nft::open().expect("nf_tables"), Nft::open().expect("nf_tables"));
        let ignore = Arc::new(AtomicU32::new(ours.port_id()));
        let mut monitor = Monitor::open(Arc::clone(&ignore)).expect("a monitor");
        work(&mut ours, &mut theirs, ignore, &mut monitor);
    };
    namespace.run(run).expect("the namespace was just made");
}

fn table_with_elements(family: Nfproto, kind: u32, len: u32, count: u32) -> Batch {
    let mut batch = Batch::new();
    batch.add_table(family, TABLE, None);
    batch.add_chain(family, TABLE, &ChainSpec { name: "c", ..ChainSpec::default() });
    let mut exprs = Exprs::new();
    exprs.verdict(1, None);
    batch.add_rule(family, TABLE, "c", &exprs.0, None);
    let data = Some((kind, len));
    let set = SetSpec { name: "pod", key_type: kind, key_len: len, data, ..SetSpec::default() };
    batch.add_set(family, TABLE, &set);
    for number in 0..count {
        let key = key(len, number);
        let data = Some(Data::Value(&key));
        batch.add_element(family, TABLE, "pod", &Element { key: &key, data, ..Element::default() });
    }
    batch
}

fn key(len: u32, number: u32) -> Vec<u8> {
    let mut bytes = vec![0; len as usize - 4];
    bytes.extend(number.to_be_bytes());
    bytes
}

#[test]
fn a_foreign_deletion_is_heard_with_its_port_and_key_and_our_own_changes_are_not() {
    for (family, kind, len) in FAMILIES {
        in_namespace(|ours, theirs, _, monitor| {
            ours.commit(&table_with_elements(family, kind, len, 100)).expect("a good batch");
            let mut batch = Batch::new();
            for number in [7, 8] {
                let element = Element { key: &key(len, number), ..Element::default() };
                batch.del_element(family, TABLE, "pod", &element);
            }
            batch.flush_chain(family, TABLE, "c");
            theirs.commit(&batch).expect("a good batch");
            let notices = monitor.next().expect("nothing was lost");
            let notice = Notice {
                deleted: true,
                kind: NoticeKind::Element,
                family: family as u8,
                table: TABLE.to_owned(),
                name: "pod".to_owned(),
                key: key(len, 7),
                count: 2,
                port_id: theirs.port_id(),
                has_expiration: false,
                leads_to: None,
            };
            let rule =
                Notice { kind: NoticeKind::Rule, name: "c".to_owned(), key: Vec::new(), count: 1, ..notice.clone() };
            assert_eq!(notices, [notice, rule]);
            assert!(monitor.next().expect("nothing was lost").is_empty());
        });
    }
}

#[test]
fn the_deletion_of_a_whole_table_ends_with_the_table_itself() {
    for (family, kind, len) in FAMILIES {
        in_namespace(|ours, theirs, _, monitor| {
            ours.commit(&table_with_elements(family, kind, len, 10)).expect("a good batch");
            let mut batch = Batch::new();
            batch.del_table(family, TABLE);
            theirs.commit(&batch).expect("a good batch");
            let notices = monitor.next().expect("nothing was lost");
            let last = notices.last().expect("a notice");
            assert_eq!((last.kind, last.deleted, last.name.as_str()), (NoticeKind::Table, true, ""));
        });
    }
}

#[test]
fn a_hundred_thousand_elements_of_our_own_neither_wake_nor_overrun_the_monitor() {
    for (family, kind, len) in FAMILIES {
        in_namespace(|ours, theirs, _, monitor| {
            let batch = table_with_elements(family, kind, len, 100_000);
            let started = std::time::Instant::now();
            ours.commit(&batch).expect("a good batch");
            println!("{family:?}: 100,000 elements with a monitor listening: {:?}", started.elapsed());
            let mut batch = Batch::new();
            batch.add_table(family, "another", None);
            theirs.commit(&batch).expect("a good batch");
            let notices = monitor.next().expect("nothing was lost");
            assert_eq!(notices.len(), 1);
            assert_eq!((notices[0].table.as_str(), notices[0].deleted), ("another", false));
        });
    }
}

#[test]
fn a_flood_of_foreign_changes_is_told_as_an_overrun_and_the_monitor_goes_on() {
    for (family, kind, len) in FAMILIES {
        in_namespace(|_, theirs, ignore, monitor| {
            ignore.store(0, Ordering::Relaxed);
            let mut overrun = false;
            theirs.commit(&table_with_elements(family, kind, len, 150_000)).expect("a good batch");
            loop {
                match monitor.next() {
                    Ok(notices) if notices.is_empty() => break,
                    Ok(_) => {}
                    Err(error) => {
                        assert!(matches!(error, fairlead_kernel::nft::NftError::Overrun), "{error}");
                        overrun = true;
                    }
                }
            }
            assert!(overrun);
            let mut batch = Batch::new();
            batch.add_table(family, "after", None);
            theirs.commit(&batch).expect("a good batch");
            assert_eq!(monitor.next().expect("nothing was lost")[0].table, "after");
        });
    }
}
