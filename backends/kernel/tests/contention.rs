//! Reading while others write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fairlead_kernel::netns::Netns;
use fairlead_kernel::nft::{Batch, Dumped, Element, Nfproto, Nft, NftError, SetSpec};

const TABLE: &str = "fairlead";
const COUNT: u32 = 5000;
const DUMPS: u32 = 5;
const FAMILIES: [(Nfproto, u32, u32); 2] = [(Nfproto::Ipv4, 7, 4), (Nfproto::Ipv6, 8, 16)];

fn key(len: u32, number: u32) -> Vec<u8> {
    let mut bytes = vec![0; len as usize - 4];
    bytes.extend(number.to_be_bytes());
    bytes
}

/// Moves elements for ever: at every moment the set has `COUNT` of them.
fn keep_moving(family: Nfproto, len: u32, stop: &AtomicBool) {
    let mut nft = Nft::open().expect("nf_tables");
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let (old, new) = (key(len, number), key(len, number + COUNT));
        let mut batch = Batch::new();
        batch.del_element(family, TABLE, "s", &Element { key: &old, ..Element::default() });
        batch.add_element(family, TABLE, "s", &Element { key: &new, ..Element::default() });
        nft.commit(&batch).expect("a good batch");
        number += 1;
        thread::yield_now();
    }
}

#[test]
fn a_dump_shows_one_state_or_says_that_it_was_interrupted() {
    for (family, kind, len) in FAMILIES {
        let namespace = Netns::create().expect("the tests run as root");
        let work = || {
            let mut nft = Nft::open().expect("nf_tables");
            let mut batch = Batch::new();
            batch.add_table(family, TABLE, None);
            let set = SetSpec { name: "s", key_type: kind, key_len: len, ..SetSpec::default() };
            batch.add_set(family, TABLE, &set);
            for number in 0..COUNT {
                batch.add_element(family, TABLE, "s", &Element { key: &key(len, number), ..Element::default() });
            }
            nft.commit(&batch).expect("a good batch");
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                // A new thread starts in the namespace of this one.
                scope.spawn(|| keep_moving(family, len, &stop));
                let mut interrupted = 0;
                for number in 0..DUMPS {
                    let mut seen = 0;
                    let dump = if number % 2 == 0 {
                        nft.elements(family, TABLE, "s", &mut |_| seen += 1)
                    } else {
                        nft.stream_elements(family, TABLE, "s", &mut |step| match step {
                            Dumped::Begin => seen = 0,
                            Dumped::Item(_) => seen += 1,
                        })
                    };
                    match dump {
                        Ok(()) => assert_eq!(seen, COUNT),
                        Err(NftError::Interrupted) => interrupted += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                stop.store(true, Ordering::Relaxed);
                println!("{family:?}: {interrupted} of {DUMPS} dumps gave up");
            });
            let mut seen = 0;
            nft.elements(family, TABLE, "s", &mut |_| seen += 1).expect("nobody writes any more");
            assert_eq!(seen, COUNT);
        };
        namespace.run(work).expect("the namespace was just made");
    }
}
