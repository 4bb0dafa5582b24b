//! From what must be written to one netlink transaction.

use fairlead_kernel::nft::{Batch, Data, Element as KernelElement, Nfproto};
use fairlead_plan::Family;

use crate::diff::Writes;
use crate::element::Element;
use crate::encode;
use crate::layout::TABLE;
use crate::rules::{Chain, Datum};

/// The kernel's name of a family.
pub const fn nfproto(family: Family) -> Nfproto {
    match family {
        Family::V4 => Nfproto::Ipv4,
        Family::V6 => Nfproto::Ipv6,
    }
}

/// Adds the writes of one family to a transaction: first what others refer to, last what nobody refers to any more.
pub fn writes(batch: &mut Batch, family: Family, writes: &Writes) {
    let proto = nfproto(family);
    for set in &writes.new_sets {
        batch.add_set(proto, TABLE, &encode::set(family, set));
    }
    for chain in &writes.new_chains {
        batch.add_chain(proto, TABLE, &encode::chain(chain));
    }
    for chain in &writes.changed_chains {
        batch.flush_chain(proto, TABLE, &chain.name);
    }
    for chain in writes.new_chains.iter().chain(&writes.changed_chains) {
        rules(batch, family, chain);
    }
    for element in sorted(&writes.old_elements) {
        batch.del_element(proto, TABLE, &element.set, &kernel_element(element));
    }
    for element in sorted(&writes.new_elements) {
        batch.add_element(proto, TABLE, &element.set, &kernel_element(element));
    }
    for chain in &writes.old_chains {
        batch.flush_chain(proto, TABLE, chain);
    }
    for chain in &writes.old_chains {
        batch.del_chain(proto, TABLE, chain);
    }
    for set in &writes.old_sets {
        batch.del_set(proto, TABLE, set);
    }
}

fn rules(batch: &mut Batch, family: Family, chain: &Chain) {
    for rule in &chain.rules {
        batch.add_rule(nfproto(family), TABLE, &chain.name, &encode::rule(family, rule).0, None);
    }
}

/// By set, because neighbours of one set share a message.
fn sorted(elements: &[Element]) -> Vec<&Element> {
    let mut sorted: Vec<&Element> = elements.iter().collect();
    sorted.sort_by(|a, b| a.set.cmp(&b.set));
    sorted
}

fn kernel_element(element: &Element) -> KernelElement<'_> {
    KernelElement {
        key: element.key.as_slice(),
        key_end: element.key_end.as_ref().map(crate::element::Bytes::as_slice),
        data: match &element.datum {
            Datum::None => None,
            Datum::Bytes(bytes) => Some(Data::Value(bytes.as_slice())),
            Datum::Goto(chain) => Some(Data::Goto(chain)),
            Datum::Drop => Some(Data::Drop),
        },
        interval_end: element.range_end,
    }
}
