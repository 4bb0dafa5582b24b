//! Batches held against bytes that were put together by hand from the kernel's headers.
#![cfg(target_endian = "little")]

use fairlead_kernel::nft::{Batch, ChainSpec, Data, Element, Exprs, HookSpec, Nfproto, Nft, NftError, SetSpec};

const FAMILIES: [(Nfproto, u8); 2] = [(Nfproto::Ipv4, 2), (Nfproto::Ipv6, 10)];

/// Reads hexadecimal, blanks and line ends between.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn check(batch: &Batch, family: u8, wanted: &str) {
    let wanted = hex(&wanted.replace("FF", &format!("{family:02x}")));
    assert_eq!(format!("{:02x?}", batch.as_bytes()), format!("{wanted:02x?}"));
}

#[test]
fn a_table_and_a_base_chain() {
    for (family, number) in FAMILIES {
        let mut batch = Batch::new();
        batch.add_table(family, "t", Some(b"fl"));
        let hook = Some(HookSpec { kind: "nat", hook: 4, priority: -1 });
        batch.add_chain(family, "t", &ChainSpec { name: "c", hook, userdata: None });
        batch.del_table(family, "t");
        let wanted = "
            24000000 000a 0104 01000000 00000000  FF000000   0600 0100 74000000   0600 0600 666c0000
            48000000 030a 0104 02000000 00000000  FF000000   0600 0100 74000000   0600 0300 63000000
                1400 0480  0800 0100 00000004  0800 0200 ffffffff   0800 0500 00000001   0800 0700 6e617400
            1c000000 020a 0100 03000000 00000000  FF000000   0600 0100 74000000";
        check(&batch, number, wanted);
        assert_eq!((batch.objects(), batch.len_bytes()), (3, 0x24 + 0x48 + 0x1c));
    }
}

#[test]
fn a_map_with_size_fields_and_timeout() {
    for (family, number) in FAMILIES {
        let mut batch = Batch::new();
        let set = SetSpec {
            name: "s",
            key_type: 7,
            key_len: 8,
            data: Some((7, 4)),
            flags: 0x94,
            field_lens: vec![4, 2],
            size: Some(64),
            timeout_ms: Some(1000),
            userdata: None,
        };
        assert_eq!(batch.add_set(family, "t", &set), 1);
        let wanted = "
            88000000 090a 0104 01000000 00000000  FF000000   0600 0100 74000000   0600 0200 73000000
                0800 0300 0000009c   0800 0400 00000007   0800 0500 00000008   0800 0600 00000007   0800 0700 00000004
                0800 0a00 00000001
                2800 0980  0800 0100 00000040  1c00 0280  0c00 0180 0800 0100 00000004  0c00 0180 0800 0100 00000002
                0c00 0b00 00000000000003e8";
        check(&batch, number, wanted);
    }
}

#[test]
fn elements_in_a_row_share_a_message_and_another_set_or_command_begins_a_new_one() {
    for (family, number) in FAMILIES {
        let mut batch = Batch::new();
        let value = Element { key: &[1, 2, 3, 4], data: Some(Data::Value(&[5])), ..Element::default() };
        let verdict = Element { key: &[9], data: Some(Data::Goto("x")), ..Element::default() };
        batch.add_element(family, "t", "s", &value);
        batch.add_element(family, "t", "s", &verdict);
        let end = Element { key: &[7], key_end: Some(&[8]), interval_end: true, data: None };
        batch.del_element(family, "t", "s", &end);
        batch.flush_set(family, "t", "s");
        let wanted = "
            6c000000 0c0a 0104 01000000 00000000  FF000000   0600 0100 74000000   0600 0200 73000000
                4800 0380
                    1c00 0180  0c00 0180 0800 0100 01020304   0c00 0280 0500 0100 05000000
                    2800 0180  0c00 0180 0500 0100 09000000   1800 0280 1400 0280 0800 0100 fffffffc 0600 0200 78000000
            4c000000 0e0a 0100 02000000 00000000  FF000000   0600 0100 74000000   0600 0200 73000000
                2800 0380  2400 0180  0800 0300 00000001  0c00 0180 0500 0100 07000000  0c00 0a80 0500 0100 08000000
            24000000 0e0a 0100 03000000 00000000  FF000000   0600 0100 74000000   0600 0200 73000000";
        check(&batch, number, wanted);
        assert_eq!(batch.objects(), 4);
    }
}

#[test]
fn a_rule_carries_its_expressions_without_the_nested_bit() {
    for (family, number) in FAMILIES {
        let mut exprs = Exprs::new();
        exprs.verdict(1, None);
        let mut batch = Batch::new();
        batch.add_rule(family, "t", "c", &exprs.0, Some(&[0xab]));
        let wanted = "
            60000000 060a 010c 01000000 00000000  FF000000   0600 0100 74000000   0600 0200 63000000
                3400 0480  3000 0100  0e00 0100 696d6d656469617465000000
                    1c00 0200  0800 0100 00000000  1000 0200 0c00 0200 0800 0100 00000001
                0500 0700 ab000000";
        check(&batch, number, wanted);
    }
}

#[test]
fn messages_of_elements_stay_far_below_the_sixteen_bit_limit() {
    const COUNT: u32 = 10_000;
    for (family, _) in FAMILIES {
        let mut batch = Batch::new();
        for key in 0..COUNT {
            let key = key.to_be_bytes();
            batch.add_element(family, "t", "s", &Element { key: &key, ..Element::default() });
        }
        let messages: Vec<_> = fairlead_kernel::netlink::messages(batch.as_bytes()).collect();
        assert!(messages.len() > 1);
        assert!(messages.iter().all(|message| message.payload.len() < 40_000));
        let elements: usize = messages
            .iter()
            .flat_map(|message| fairlead_kernel::netlink::attributes(&message.payload[4..]).get(3))
            .map(|list| fairlead_kernel::netlink::attributes(list).count())
            .sum();
        assert_eq!(elements, COUNT as usize);
        assert_eq!(batch.objects(), u64::from(COUNT));
    }
}

#[test]
fn a_key_or_name_over_the_limit_is_refused_with_the_place_where_it_is() {
    let mut nft = Nft::open().expect("nf_tables");
    let long = "x".repeat(70_000);
    for (family, _) in FAMILIES {
        let refused = |nft: &mut Nft, fill: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new();
            fill(&mut batch);
            let error = nft.commit(&batch).expect_err("it does not fit");
            assert!(matches!(error, NftError::TooLong { .. }), "{error}");
            error.to_string()
        };
        let text = refused(&mut nft, &|batch| {
            batch.add_element(family, "t", "s", &Element { key: long.as_bytes(), ..Element::default() });
        });
        assert!(text.contains("to set s of table ip"), "{text}");
        refused(&mut nft, &|batch| batch.add_table(family, &long, None));
        let text = refused(&mut nft, &|batch| {
            let mut exprs = Exprs::new();
            exprs.lookup(&long, None, 1, None, false);
            batch.add_rule(family, "t", "c", &exprs.0, None);
        });
        assert!(text.contains("add rule to chain c of table ip"), "{text}");
    }
}
