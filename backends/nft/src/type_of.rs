//! What `nft` needs to print a set as `typeof`: a description of the fields, kept by the kernel as bytes it does not read.
//!
//! The slot of an endpoint is "a number of no fixed size" for nft, so it can only be declared by example (`numgen random mod
//! 65536`). The format is nft's own (its `udata` attributes); a test compares ours with what nft writes.

use fairlead_plan::Family;

use crate::rules::{Field, Set, Value};

const KEY_BYTE_ORDER: u8 = 0;
const DATA_BYTE_ORDER: u8 = 1;
const KEY_TYPEOF: u8 = 3;
const DATA_TYPEOF: u8 = 4;
const DATA_INTERVAL: u8 = 6;

const EXPR_KIND: u8 = 0;
const EXPR_BODY: u8 = 1;
const PAYLOAD: u32 = 7;
const META: u32 = 9;
const CONCATENATION: u32 = 13;
const NUMGEN: u32 = 23;

const HOST_ORDER: u32 = 1;
const NO_ORDER: u32 = 0;

/// The description of a set that must be printed as `typeof`, `None` where the type numbers say all.
pub fn userdata(family: Family, set: &Set) -> Option<Vec<u8>> {
    let fields = set.typeof_key?;
    let mut all = Vec::new();
    word(&mut all, KEY_BYTE_ORDER, if fields.len() > 1 { NO_ORDER } else { HOST_ORDER });
    if let Value::Data(kinds) = &set.value {
        let value: &[Field] = if kinds.len() > 1 { &[Field::Daddr, Field::Dport] } else { &[Field::Priority] };
        word(&mut all, DATA_BYTE_ORDER, if value.len() > 1 { NO_ORDER } else { HOST_ORDER });
        nested(&mut all, KEY_TYPEOF, |inner| fields_of(inner, family, fields));
        nested(&mut all, DATA_TYPEOF, |inner| fields_of(inner, family, value));
        word(&mut all, DATA_INTERVAL, 0);
    }
    Some(all)
}

fn fields_of(out: &mut Vec<u8>, family: Family, fields: &[Field]) {
    if let [one] = fields {
        return field(out, family, *one);
    }
    word(out, EXPR_KIND, CONCATENATION);
    nested(out, EXPR_BODY, |parts| {
        for (part, number) in fields.iter().zip(0..) {
            nested(parts, number, |inner| field(inner, family, *part));
        }
    });
}

fn field(out: &mut Vec<u8>, family: Family, of: Field) {
    let (ip, saddr, daddr) = match family {
        Family::V4 => (12, 11, 12),
        Family::V6 => (13, 8, 9),
    };
    const TRANSPORT: u32 = 11;
    let (kind, body): (u32, Vec<u32>) = match of {
        Field::L4Proto => (META, vec![16]),
        Field::Priority => (META, vec![2]),
        Field::Saddr => (PAYLOAD, vec![ip, saddr]),
        Field::Daddr => (PAYLOAD, vec![ip, daddr]),
        Field::Sport => (PAYLOAD, vec![TRANSPORT, 1]),
        Field::Dport => (PAYLOAD, vec![TRANSPORT, 2]),
        Field::Random { modulus, offset } => (NUMGEN, vec![1, modulus, offset]),
    };
    word(out, EXPR_KIND, kind);
    nested(out, EXPR_BODY, |inner| {
        for (value, number) in body.into_iter().zip(0..) {
            word(inner, number, value);
        }
    });
}

fn word(out: &mut Vec<u8>, kind: u8, value: u32) {
    out.extend([kind, 4]);
    out.extend(value.to_ne_bytes());
}

/// Lengths are one byte; the longest description of ours has 178.
fn nested(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([kind, 0]);
    fill(out);
    out[start + 1] = u8::try_from(out.len() - start - 2).unwrap_or(u8::MAX);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairlead_kernel::nft::Nft;
    use fairlead_plan::Family;

    use crate::diff::Tables;
    use crate::layout::TABLE;
    use crate::namespace::{alone, load};
    use crate::sample;
    use crate::whole::Whole;
    use crate::write::nfproto;

    #[test]
    fn descriptions_are_byte_for_byte_what_nft_writes() {
        let plan = sample::everything();
        alone(|| {
            load(&crate::text(&plan));
            let mut nft = Nft::open().expect("the kernel has nf_tables");
            for family in Family::BOTH {
                let held = nft.sets(nfproto(family), TABLE).expect("the table is there");
                let held: BTreeMap<&str, &[u8]> =
                    held.iter().map(|set| (set.name.as_str(), set.userdata.as_slice())).collect();
                let whole = Whole::new(family, &plan, &mut Tables::default());
                let described: Vec<_> =
                    whole.sets.iter().filter_map(|set| Some((&*set.name, super::userdata(family, set)?))).collect();
                // Endpoints by address and by node port, and of the sticky service slots and endpoints.
                assert_eq!(described.len(), 4, "{described:?}");
                for (name, ours) in described {
                    assert_eq!(held.get(name), Some(&ours.as_slice()), "{family:?} {name}");
                }
            }
        });
    }
}
