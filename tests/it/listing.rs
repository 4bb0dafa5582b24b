//! Our table as `nft` shows it, in a form in which equal content is equal.

use std::collections::BTreeMap;

use fairlead_lab::Place;
use fairlead_plan::Family;
use serde_json::Value;

use crate::program::nft;

/// A table: the rules of each chain in their order, each set with its elements sorted, without handles and without what
/// packets have put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    declared: BTreeMap<String, Value>,
    rules: BTreeMap<String, Vec<Value>>,
}

/// What a node's kernel holds in our table of a family.
pub fn listing(node: &Place, family: Family) -> Listing {
    of_table(node, &format!("{} fairlead", ip(family)))
}

/// How `nft` calls a family.
pub fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// What a node's kernel holds in a table, empty if there is none.
pub fn of_table(node: &Place, table: &str) -> Listing {
    let mut listing = Listing { declared: BTreeMap::new(), rules: BTreeMap::new() };
    if !crate::program::nft_output(node, &format!("list table {table}")).status.success() {
        return listing;
    }
    let text = nft(node, &format!("-s -j list table {table}"));
    let whole: Value = serde_json::from_str(&text).unwrap();
    for entry in whole["nftables"].as_array().unwrap() {
        let (kind, object) = entry.as_object().unwrap().iter().next().unwrap();
        let mut object = object.clone();
        match kind.as_str() {
            "metainfo" => {}
            "rule" => {
                let chain = object["chain"].as_str().unwrap().to_owned();
                listing.rules.entry(chain).or_default().push(object["expr"].take());
            }
            _ => {
                object.as_object_mut().unwrap().remove("handle");
                let name = object["name"].as_str().unwrap().to_owned();
                if name.starts_with("affinity-") {
                    object.as_object_mut().unwrap().remove("elem");
                }
                if let Some(elements) = object.get_mut("elem").and_then(Value::as_array_mut) {
                    elements.sort_by_cached_key(ToString::to_string);
                }
                listing.declared.insert(format!("{kind} {name}"), object);
            }
        }
    }
    listing
}
